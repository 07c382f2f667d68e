"""Attention, as a function and as a layer: PyTorch's numbers, what may be seen, and what is refused."""

from __future__ import annotations

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn
from jdl.check import InputError
from jdl.nn import functional as F
from tests.golden import reading
from tests.nn.toys import KEY, assert_close, normal, refused

CASES = reading.cases("attention")
LAYERS = ("self", "causal", "lengths", "cross")


def layer_case(name: str) -> dict[str, Any]:
    """What the file holds of a layer, as nested dicts."""
    tree: dict[str, Any] = {}
    for path, value in reading.load("attention").items():
        if path.startswith(f"layer/{name}/"):
            *parents, leaf = path.split("/")[2:]
            functools.reduce(lambda below, part: below.setdefault(part, {}), parents, tree)[leaf] = value
    return tree


# ── PyTorch's numbers ─────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def function_results() -> dict[str, Any]:
    """Outputs and gradients of all cases, as one program."""

    def everything(inputs: Any) -> Any:
        found = {}
        for name, case in CASES.items():

            def objective(trained: Any, case: Any = case, fixed: Any = inputs[name]) -> Any:
                out = F.attention(**(fixed | trained), **case.options)
                return jnp.sum(out * case.weights), out

            grads, out = jax.grad(objective, has_aux=True)({k: inputs[name][k] for k in case.grads})
            found[name] = out, grads
        return found

    return jax.jit(everything)({name: case.inputs for name, case in CASES.items()})


@pytest.mark.parametrize("name", CASES)
def test_the_function_has_the_values_and_gradients_of_pytorch(name: str):
    out, grads = function_results()[name]
    assert_close(out, CASES[name].out, 1e-5)
    assert_close(grads, CASES[name].grads, 1e-5)


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_has_the_values_and_gradients_of_pytorch(name: str):
    case = layer_case(name)
    layer, inputs, grads = nn.Attention(2, causal=name == "causal"), case["in"], dict(case["grad"])
    trained = {k: inputs.pop(k) for k in ("x", "context") if k in inputs}

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(both: Any) -> Any:
        params, trained = both
        out, _ = layer.apply(params, {}, trained["x"], trained.get("context"), **inputs)
        return jnp.sum(out * case["weights"]), out

    (param_grads, input_grads), out = gradient((case["params"], trained))
    assert_close(out, case["out"], 1e-5)
    assert_close(input_grads, {k: grads.pop(k) for k in trained}, 1e-5)
    # No query's softmax sees a number added to all of its keys: that gradient is 0 but for rounding.
    for tree in (param_grads, grads):
        assert np.max(np.abs(tree["keys"].pop("bias"))) < 1e-5
    assert_close(param_grads, grads, 1e-5)


# ── what may be seen ──────────────────────────────────────────────────────────────────────────────────────────────


def heads(steps: int, seed: int = 0, batch: int = 2) -> jax.Array:
    return normal(batch, steps, 2, 3, seed=seed)


def test_weights_are_a_mean():
    weights = np.asarray(jax.jit(F.attention_weights)(heads(4), heads(5, 1), lengths=jnp.array([5, 2])))
    assert weights.shape == (2, 2, 4, 5)
    assert_close(weights.sum(-1), np.ones((2, 2, 4)))
    assert np.all(weights[1, ..., 2:] == 0) and np.all(weights[1, ..., :2] > 0)


def test_a_query_that_sees_nothing_gets_zero_with_a_gradient_that_is_finite():
    mask = jnp.array([[False] * 5, [True] * 5])

    def out(query: jax.Array) -> tuple[jax.Array, jax.Array]:
        y = F.attention(query, heads(5, 1), heads(5, 2), mask=mask)
        return jnp.sum(y), y

    grad, value = map(np.asarray, jax.jit(jax.grad(out, has_aux=True))(heads(2)))
    assert np.all(value[:, 0] == 0) and np.all(value[:, 1] != 0)
    assert np.all(grad[:, 0] == 0) and np.all(np.isfinite(grad)) and np.any(grad[:, 1] != 0)


def test_masks_of_every_rank_and_lengths_say_the_same():
    query, key, value, lengths = heads(4), heads(4, 1), heads(4, 2), np.array([4, 3])
    real, past = np.arange(4) < lengths[:, None], np.tril(np.ones((4, 4), bool))
    whole = real[:, None, None] & past[None, None]
    same: list[dict[str, Any]] = [
        {"lengths": lengths, "causal": True},
        {"mask": whole},
        {"mask": real[:, None], "causal": True},
        {"mask": past, "lengths": lengths},
        {"mask": whole[:, 0], "lengths": np.array([4, 4])},
    ]
    first, *others = jax.jit(lambda: [F.attention(query, key, value, **options) for options in same])()
    for other in others:
        assert_close(other, first)


def test_causal_queries_stand_at_the_last_places_of_their_keys():
    """So one step at a time, over the keys so far, is the whole pass."""
    query, key, value = heads(5), heads(5, 1), heads(5, 2)
    places = ((0, 1), (2, 4), (4, 5))

    @jax.jit
    def both() -> Any:
        parts = [F.attention(query[:, a:b], key[:, :b], value[:, :b], causal=True) for a, b in places]
        whole = F.attention(query, key, value, causal=True)
        return parts, [whole[:, a:b] for a, b in places]

    assert_close(*both())


def test_a_batch_of_mixed_lengths_is_one_by_one():
    layer, x, lengths = nn.Attention(2), normal(3, 6, 4), np.array([6, 2, 4])
    variables = layer.init(KEY, x)

    @jax.jit
    def both(spoilt: jax.Array) -> Any:
        together = layer(variables, spoilt, lengths=lengths)
        alone = [layer(variables, x[i : i + 1, :n])[0] for i, n in enumerate(lengths)]
        return [y[:n] for y, n in zip(together, lengths, strict=True)], alone

    assert_close(*both(x))
    assert_close(*both(x.at[1, 2:].set(1e6)))


def test_the_softmax_is_taken_in_float32():
    """Of logits 200 and 201.5625, between which bfloat16 has only 201."""
    query = jnp.full((1, 1, 1, 1), 200, jnp.bfloat16)
    key = jnp.asarray([[[[1.0]], [[1.0078125]]]], jnp.bfloat16)
    weights = jax.jit(F.attention_weights)(query, key)
    assert weights.dtype == jnp.bfloat16
    assert_close(weights[0, 0, 0].astype(np.float32), 1 / (1 + np.exp([1.5625, -1.5625])), 2**-8)


def test_lengths_that_cannot_be_give_nan_under_jit():
    attend = jax.jit(lambda lengths: F.attention(heads(4), heads(4, 1), heads(4, 2), lengths=lengths))
    for lengths in ([4, 5], [4, 0]):
        out = attend(jnp.array(lengths))
        assert np.all(np.isfinite(out[0])) and np.all(np.isnan(out[1]))


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────


def array(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


Q, K = array(2, 4, 3, 8), array(2, 5, 3, 8)
REFUSED: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "rank": ((array(2, 4, 8), K, K), {}, "query got float32[2, 4, 8], wanted [B, T, H, D]; split the heads"),
    "integer": ((array(2, 4, 3, 8, dtype=jnp.int32), K, K), {}, "query got int32[2, 4, 3, 8], wanted a floating"),
    "heads": ((Q, array(2, 5, 2, 8), K), {}, "with the same B, H and D"),
    "dtype": ((Q, array(2, 5, 3, 8, dtype=jnp.bfloat16), K), {}, "key bfloat16[2, 5, 3, 8], wanted one dtype"),
    "value": ((Q, K, array(2, 4, 3, 8)), {}, "value got float32[2, 4, 3, 8] and key float32[2, 5, 3, 8]"),
    "value dtype": ((Q, K, array(2, 5, 3, 8, dtype=jnp.bfloat16)), {}, "wanted one dtype and the same B, S and H"),
    "mask dtype": ((Q, K, K), {"mask": array(4, 5)}, "mask got float32[4, 5], wanted bool, true where"),
    "mask of padding": ((Q, K, K), {"mask": array(2, 5, dtype=bool)}, "[4, 5], [2, 4, 5] or [2, 3, 4, 5]"),
    "mask rank": ((Q, K, K), {"mask": array(5, dtype=bool)}, "for padding pass lengths"),
    "causal": ((K, Q, Q), {"causal": True}, "causal attention got 5 queries and 4 keys"),
    "lengths": ((Q, K, K), {"lengths": array(3, dtype=jnp.int32)}, "lengths got int32[3] and input"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_function_refuses(name: str):
    inputs, options, message = REFUSED[name]
    arrays = {k: v for k, v in options.items() if k != "causal"}
    others = {k: v for k, v in options.items() if k == "causal"}
    with pytest.raises(InputError, match=re.escape(message)):
        jax.eval_shape(lambda inputs, arrays: F.attention(*inputs, **arrays, **others), inputs, arrays)


def test_lengths_are_checked_where_they_are_known():
    with refused("lengths got 6 for example 1, wanted 1 to the 5 steps"):
        F.attention(heads(4), heads(5), heads(5), lengths=np.array([5, 6]))


def test_the_layer_refuses():
    with refused("float32[2, 4], wanted [B, T, D]; a sequence without a batch is x[None]"):
        nn.Attention(2).spec(array(2, 4))
    with refused("float32[2, 6, 6, 4], wanted [B, T, D]; flatten space"):
        nn.Attention(2).spec(array(2, 6, 6, 4))
    with refused("float32[2, 6, 4], wanted a last axis that 3 heads divide"):
        nn.Attention(3).spec(array(2, 6, 4))
    with refused("wanted the same batch size"):
        nn.Attention(2).spec(array(2, 6, 4), array(3, 6, 4))
    with refused("context got float32[6, 4], wanted [B, S, C]"):
        nn.Attention(2).spec(array(2, 6, 4), array(6, 4))
    with refused("query got float32[2, 6, 2, 2] and key bfloat16[2, 6, 2, 2], wanted one dtype"):
        nn.Attention(2).spec(array(2, 6, 4), array(2, 6, 4, dtype=jnp.bfloat16))
    with refused("Attention.heads got 0"):
        nn.Attention(0)
    with refused("lengths got 7 for example 0, wanted 1 to the 6 steps"):
        layer = nn.Attention(2)
        layer(layer.init(KEY, normal(1, 6, 4)), normal(1, 6, 4), lengths=np.array([7]))
