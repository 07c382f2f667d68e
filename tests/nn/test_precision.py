"""nn.Precision: computed in half precision, kept in single, and transparent to everything else."""

from __future__ import annotations

import pickle
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import jdl
from jdl import nn
from tests.nn.toys import KEY, Inside, Linear, Masked, apply_jitted, assert_close, assert_equal, normal, refused, shapes

HALVES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}


def net() -> nn.Chain:
    return nn.Chain(nn.Dense(7), nn.BatchNorm(), jnp.tanh, nn.Dropout(0.5), nn.Dense(3))


class Probe(nn.Layer):
    """The dtypes it sees: of its input, parameter and state, as an output of that many bits."""

    def params(self, x):
        return {"kernel": nn.Param((x.shape[-1],), nn.init.ones())}

    def state(self, x):
        return {"mean": nn.Param((x.shape[-1],), nn.init.zeros())}

    def forward(self, net, x):
        return x, *(jnp.int32(jnp.finfo(array.dtype).bits) for array in (x, net.kernel, net.mean))


class Tied(nn.Layer):
    """A language model of one layer, its output tied to its table."""

    def forward(self, net, ids):
        embed = net.child("embed", nn.Embedding(11, 6))
        return embed.attend(net.child("out", nn.Dense(6))(embed(ids)))


# ── what is kept ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("compute", HALVES)
def test_variables_are_those_of_the_layer_itself_in_float32(compute):
    x = normal(8, 6)
    plain, wrapped = net().init(KEY, x), nn.Precision(net(), compute).init(KEY, x)
    assert_equal(wrapped.params, plain.params)
    scale = {"loss_scale": np.float32(65536), "loss_scale_good_steps": np.int32(0)} if compute == "float16" else {}
    assert_equal(wrapped.state, plain.state | scale)
    spec = nn.Precision(net(), compute).spec(x)
    assert shapes(nn.Variables(spec.params, spec.state)) == shapes(wrapped)
    assert spec.flops == net().spec(x).flops


@pytest.mark.parametrize("compute", HALVES)
def test_inputs_and_parameters_are_cast_and_outputs_cast_back(compute):
    """A user's layer, which casts nothing itself, equals NumPy in half precision."""
    model, x = nn.Precision(Linear(3), compute), normal(8, 6)
    params, state = model.init(KEY, x)
    half = {name: np.asarray(value).astype(HALVES[compute]) for name, value in params.items()}
    product = np.asarray(x).astype(HALVES[compute]).astype(np.float64) @ half["kernel"].astype(np.float64)
    want = product.astype(HALVES[compute]) + half["bias"]
    for dtype in (jnp.float32, jnp.bfloat16 if compute == "bfloat16" else jnp.float16):
        y = model.apply(params, state, x.astype(dtype))[0]
        assert y.dtype == jnp.float32
        assert_equal(y, want.astype(np.float32))
    narrow = nn.Precision(Linear(3), compute, output=compute)(nn.Variables(params, state), x)
    assert narrow.dtype == jnp.dtype(compute)
    assert_equal(narrow.astype(jnp.float32), want.astype(np.float32))


def test_float32_is_the_layer_itself():
    x = normal(8, 6)
    variables = net().init(KEY, x)
    ours = apply_jitted(nn.Precision(net(), "float32"), variables, x, train=True, key=KEY)
    assert_equal(ours, apply_jitted(net(), variables, x, train=True, key=KEY))


def test_what_a_layer_sees():
    x = normal(2, 6)
    for compute, bits in (("bfloat16", 16), ("float16", 16), ("float32", 32)):
        model = nn.Precision(Probe(), compute)
        variables = model.init(KEY, x)
        frozen = jdl.freeze(variables, "kernel")
        for given in (variables, frozen):
            y, of_input, of_parameter, of_state = model(given, x)
            assert (y.dtype, int(of_input), int(of_parameter), int(of_state)) == (jnp.float32, bits, bits, 32)


def test_a_layer_of_which_a_part_is_frozen():
    x = normal(8, 6)
    model = nn.Precision(nn.Chain(nn.Chain(Linear(3))))
    variables = model.init(KEY, x)
    frozen = jdl.freeze(variables, "0/0/kernel")
    assert set(frozen.params["0"]["0"]) == {"bias"} and set(frozen.state["0"]["0"]) == {"kernel"}
    assert_equal(model(frozen, x), model(variables, x))


def test_integers_masks_and_settings_pass_as_they_are():
    model, x = nn.Precision(Masked()), normal(4, 6)
    variables = model.init(KEY, x)
    mask = jnp.array([1, 0, 1, 0], jnp.float32)
    y = model(variables, x, mask=mask, scale=2.0)
    assert y.dtype == jnp.float32
    assert_equal(y[1], jnp.zeros(6))
    assert_close(y[0], 2 * jnp.tanh(x[0] @ variables.params["kernel"]), 2e-2)
    counted = nn.Precision(Inside(jnp.argmax, lambda f, x: (x, f(x))))
    assert counted.apply({}, {}, x)[0][1].dtype == jnp.int32


@pytest.mark.slow
def test_ids_tables_and_tied_outputs():
    ids = jnp.arange(8).reshape(2, 4)
    model = nn.Precision(Tied())
    params, state = model.init(KEY, ids)
    logits = model.apply(params, state, ids)[0]
    want = Tied().apply(params, state, ids)[0]
    assert logits.dtype == jnp.float32 and not np.array_equal(logits, want)
    assert_close(logits, want, 2e-2)
    ours, plain = (
        jax.jit(jax.grad(lambda params, m=m: jnp.sum(m.apply(params, state, ids)[0] ** 2)))(params)
        for m in (model, Tied())
    )
    assert_close(ours, plain, 3e-2)
    assert shapes(ours) == shapes(plain)
    table = jdl.freeze(nn.Variables(params, state), "embed/table")
    assert_equal(model(table, ids), logits)
    assert "f32" not in "".join(products(lambda ids: model(table, ids), ids)), "a frozen table is cast too"


# ── what is computed in which precision ───────────────────────────────────────────────────────────────────────────


def products(function, *arguments) -> list[str]:
    """The signatures of all matrix products and convolutions of a program."""
    text = jax.jit(function).lower(*arguments).as_text()
    found = re.findall(r"stablehlo\.(?:dot_general|convolution)\b[^\n]*: (\([^\n]*)", text)
    assert found
    return found


@pytest.mark.slow
@pytest.mark.parametrize("compute, name", [("bfloat16", "bf16"), ("float16", "f16")])
def test_every_product_forwards_and_backwards_is_lowered_in_half_precision(compute, name):
    model = nn.Precision(nn.Chain(nn.Conv(4, 3), nn.GroupNorm(2), nn.relu, nn.Flatten(), nn.Dense(3)), compute)
    x = normal(2, 5, 5, 3)
    params, state = model.init(KEY, x)
    signatures = products(jax.grad(lambda params, x: jnp.sum(model.apply(params, state, x)[0] ** 2), (0, 1)), params, x)
    assert len(signatures) == 6  # each forwards, and backwards to its kernel and its input
    for signature in signatures:
        assert set(re.findall(r"[x<](b?f\d+)>", signature)) == {name}, signature


@pytest.mark.slow
@pytest.mark.parametrize("compute", HALVES)
def test_gradients_are_float32_and_near_those_of_float32(compute):
    x = normal(16, 6)
    variables = net().init(KEY, x)

    def gradient(model):
        def loss(params):
            y, state = model.apply(params, variables.state, x, key=KEY, train=True)
            assert y.dtype == jnp.float32
            return jnp.mean(y**2), state

        return jax.jit(jax.grad(loss, has_aux=True))(variables.params)

    (ours, new), (plain, plain_new) = gradient(nn.Precision(net(), compute)), gradient(net())
    assert shapes(ours) == shapes(plain)
    for name in ("1", "4"):  # the bias before a batch norm has no gradient but rounding
        assert_close(ours[name], plain[name], 3e-2 if compute == "bfloat16" else 4e-3)
    assert shapes(new["1"]) == shapes(plain_new["1"])


def test_running_statistics_are_float32_statistics_of_what_came_in():
    """In half precision a mean over 4096 entries would stop at 256, where 256 + 1 is 256."""
    model = nn.Precision(nn.BatchNorm(momentum=0.0))
    x = 1 + normal(4096, 2) / 8
    state = apply_jitted(model, model.init(KEY, x), x, train=True)[1]
    seen = np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float64)
    assert_close(state, {"mean": seen.mean(0), "var": seen.var(0)}, 1e-5)
    assert shapes(state) == {name: ((2,), jnp.dtype("float32")) for name in ("mean", "var")}


@pytest.mark.parametrize("layer, want", [
    (nn.LayerNorm(), lambda x: (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)),
    (nn.RMSNorm(), lambda x: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)),
    (nn.Chain(nn.softmax), lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)),
    (nn.Chain(nn.log_softmax), lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True))),
], ids=["LayerNorm", "RMSNorm", "softmax", "log_softmax"])  # fmt: skip
def test_norms_and_softmax_round_only_their_result(layer, want):
    x = 2 + normal(4, 512)
    model = nn.Precision(layer)
    seen = np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float64)
    np.testing.assert_allclose(model(model.init(KEY, x), x), want(seen), rtol=2.0**-8)


def test_norms_read_their_parameters_in_float32():
    """1.001 is 1 in bfloat16."""
    x = normal(4, 512)
    for layer in (nn.LayerNorm(), nn.RMSNorm()):
        model = nn.Precision(layer)
        ones = model.init(KEY, x)
        scaled = nn.Variables({"scale": jnp.full(512, 1.001)} | {"bias": jnp.zeros(512)}, {})
        assert np.mean(model(scaled, x) != model(ones, x)) > 0.05


def test_a_part_in_float32_has_its_masters():
    x = normal(8, 6)
    model = nn.Precision(nn.Precision(Linear(3), "float32"))
    variables = model.init(KEY, x)
    seen = x.astype(jnp.bfloat16).astype(jnp.float32)
    assert_close(model(variables, x), Linear(3)(variables, seen), 1e-6)


# ── composition ───────────────────────────────────────────────────────────────────────────────────────────────────


def block() -> nn.Layer:
    return nn.Residual(nn.Chain(nn.Dense(6), nn.BatchNorm(), nn.Dropout(0.5)))


COMPOSED = {
    "in Chain": (lambda p: nn.Chain(p(block()), nn.Dense(2))),
    "of Repeat": (lambda p: p(nn.Repeat(block(), 3))),
    "in Repeat": (lambda p: nn.Repeat(p(block()), 3)),
    "of Remat": (lambda p: p(nn.Remat(block()))),
    "in Remat": (lambda p: nn.Remat(p(block()))),
    "of Ensemble": (lambda p: p(nn.Ensemble(block(), 2))),
    "in Ensemble": (lambda p: nn.Ensemble(p(block()), 2)),
    "in itself": (lambda p: p(p(block()))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPOSED)
def test_composes(name):
    """The same variables, the same dropout masks, and nearly the same outputs, gradients and statistics."""
    x = normal(16, 6)
    plain, model = COMPOSED[name](lambda layer: layer), COMPOSED[name](nn.Precision)
    variables = plain.init(KEY, x)
    assert_equal(model.init(KEY, x), variables)

    def results(model, variables, x):
        def loss(x):
            y, state = model.apply(*variables, x, key=KEY, train=True)
            return jnp.mean(y), (y, state, model(variables, x))

        return jax.grad(loss, has_aux=True)(x)

    (to_input, ours), (plain_to_input, wanted) = jax.jit(lambda *given: [results(m, *given) for m in (model, plain)])(
        variables, x
    )
    assert_close(ours, wanted, 3e-2)
    assert_close(to_input, plain_to_input, 5e-2)


@pytest.mark.parametrize("copies", [nn.Repeat, nn.Ensemble])
def test_the_loss_scale_is_not_taken_for_a_part_of_the_copies(copies):
    x, layer = normal(2, 6), copies(nn.Dropout(0.5), 2)
    model = nn.Precision(layer, "float16")
    variables = model.init(KEY, x)
    y, state = jax.eval_shape(model.apply, *variables, x)
    assert y == jax.eval_shape(layer.apply, {}, {}, x)[0]
    assert shapes(state) == shapes(variables.state)


def test_dropout_drops_the_same_entries():
    x = jnp.ones((64, 6))
    want = nn.Dropout(0.5).apply({}, {}, x, key=KEY, train=True)[0]
    assert_equal(nn.Precision(nn.Dropout(0.5)).apply({}, {}, x, key=KEY, train=True)[0], want)


@pytest.mark.parametrize("name", ["vmap", "jit", "checkpoint"])
def test_inside_transforms_of_users(name):
    x = normal(4, 6)
    transform = {"vmap": jax.vmap, "jit": jax.jit, "checkpoint": jax.checkpoint}[name]
    model = Inside(nn.Precision(Linear(3)), lambda f, x: transform(f)(x))
    variables = model.init(KEY, x)
    want = nn.Precision(Linear(3))(nn.Variables(variables.params["inner"], {}), x)
    assert_close(apply_jitted(model, variables, x)[0], want, 2.0**-8)


# ── the value itself ──────────────────────────────────────────────────────────────────────────────────────────────


def test_dtypes_are_kept_by_name():
    model = nn.Precision(nn.Dense(3), jnp.float16)
    assert model == nn.Precision(nn.Dense(3), "float16") != nn.Precision(nn.Dense(3))
    assert hash(model) == hash(nn.Precision(nn.Dense(3), "float16"))
    assert repr(model) == "Precision(Dense(3), compute='float16')"
    assert pickle.loads(pickle.dumps(model)) == model


@pytest.mark.parametrize("wrong", ["int8", None, 16, "float8_e4m3fn", "float64"])
def test_other_dtypes_are_refused(wrong):
    for name in ("compute", "output"):
        with refused(f"in Precision.{name}", f"{wrong!r}", "'bfloat16', 'float16', 'float32'"):
            nn.Precision(nn.Dense(3), **{name: wrong})
    with refused("Precision.layer", "wanted a layer"):
        nn.Precision(3)
