"""The networks for text: PyTorch's values and gradients, padding that changes nothing, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import nn, zoo
from tests.golden import reading
from tests.nn.toys import KEY, assert_close, normal, refused

GOLDEN = reading.load("text")
TOKENS, LENGTHS = jnp.asarray(GOLDEN["tokens"]), jnp.asarray(GOLDEN["lengths"])
LSTM, GRUS = nn.Recurrent(nn.LSTMCell(4)), nn.Bidirectional(nn.GRUCell(4))
MODELS = {
    "literal": zoo.TextNet(9, 3, recurrent=LSTM),
    "lengths": zoo.TextNet(9, 3, recurrent=LSTM),
    "both_ends": zoo.TextNet(9, 3, recurrent=GRUS, summary=zoo.both_ends),
    "max": zoo.TextNet(9, 3, recurrent=GRUS, summary=zoo.max_over_time),
}


def tree(prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in GOLDEN.items():
        if name.startswith(prefix):
            *path, last = name.removeprefix(prefix).split("/")
            place = found
            for part in path:
                place = place.setdefault(part, {})
            place[last] = value
    return found


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_pytorch(name: str):
    model, lengths = MODELS[name], None if name == "literal" else LENGTHS
    weights = jnp.cos(jnp.arange(len(LENGTHS), dtype=jnp.float32))[:, None]

    @jax.jit
    def program(params):
        def loss(params):
            out = model.apply(params, {}, TOKENS, lengths)[0]
            return jnp.sum(weights * out), out

        return jax.grad(loss, has_aux=True)(params)

    gradient, out = program(tree(f"{name}/params/"))
    assert_close(out, GOLDEN[f"{name}/out"], 1e-5)
    assert_close(gradient, tree(f"{name}/grad/"), 1e-5)


def test_the_standard_size():
    sentence = jax.ShapeDtypeStruct((2, 20), jnp.int32)
    assert zoo.TextNet(10_000, 100).spec(sentence).parameters == 1_117_377
    assert "1,117,377" in (zoo.TextNet.__doc__ or "")


def all_four(y, lengths):
    summaries = (nn.last_step, zoo.both_ends, zoo.mean_over_time, zoo.max_over_time)
    return jnp.concatenate([summary(y, lengths) for summary in summaries], axis=-1)


@pytest.mark.slow
def test_padding_changes_nothing_for_those_who_are_told_of_it():
    model = zoo.TextNet(9, 3, recurrent=GRUS, summary=all_four, head=nn.Dense(8))
    variables = model.init(KEY, TOKENS, LENGTHS)
    longer = jnp.pad(TOKENS, ((0, 0), (0, 3)), constant_values=5)
    alone = [TOKENS[1:2, :2], TOKENS[3:4, :1]]

    @jax.jit
    def program(variables):
        together = model(variables, TOKENS, LENGTHS)
        unaware = model(variables, TOKENS)
        return together, model(variables, longer, LENGTHS), [model(variables, tokens) for tokens in alone], unaware

    together, padded, (second, fourth), unaware = program(variables)
    assert_close(padded, together)
    assert_close(second, together[1:2])
    assert_close(fourth, together[3:4])
    assert np.abs(unaware - together)[[0, 1, 3, 4]].max(1).min() > 1e-3


def test_summaries_against_numpy():
    y, lengths = normal(3, 4, 6), jnp.array([4, 1, 3])
    rows = [np.asarray(y[i, :n]) for i, n in enumerate(lengths.tolist())]
    assert_close(zoo.mean_over_time(y, lengths), np.stack([row.mean(0) for row in rows]))
    assert_close(zoo.max_over_time(y, lengths), np.stack([row.max(0) for row in rows]))
    assert_close(zoo.both_ends(y, lengths), np.stack([np.concatenate([row[-1, :3], row[0, 3:]]) for row in rows]))
    assert_close(zoo.mean_over_time(y), np.mean(y, 1))
    assert_close(zoo.max_over_time(y), np.max(y, 1))


def test_impossible_lengths_and_other_shapes_are_refused_and_under_jit_give_nan():
    y = normal(2, 4, 3)
    for summary in (zoo.mean_over_time, zoo.max_over_time):
        for wrong, fix in ((0, "leave empty sequences out"), (5, "pad or cut")):
            with refused(f"lengths got {wrong} for example 1, wanted 1 to the 4 steps", fix):
                summary(y, jnp.array([4, wrong]))
        found = np.asarray(jax.jit(summary)(y, jnp.array([4, 5])))
        assert np.all(np.isfinite(found[0])) and np.all(np.isnan(found[1]))
        with refused("input got float32[4, 3], wanted [B, T, H]"):
            summary(y[0])
    with refused("input got float32[2, 4, 3], wanted [B, T, 2H]", "two cells of one width"):
        zoo.both_ends(y)


def test_a_chain_reads_without_lengths_and_refuses_them():
    model = zoo.TextNet(9, 3, recurrent=nn.Chain(nn.LayerNorm(), nn.Recurrent(nn.RNNCell(2))))
    assert model.spec(TOKENS).output.shape == (5, 1)
    with refused("in recurrent: Chain", "got lengths, which Chain does not take", "nn.StackedRecurrent"):
        model.spec(TOKENS, LENGTHS)


def test_only_the_last_step_is_streamed():
    last = zoo.TextNet(9, 3, recurrent=nn.Recurrent(nn.RNNCell(2)))
    largest = dataclasses.replace(last, summary=zoo.max_over_time)
    variables = jax.eval_shape(last.init, KEY, TOKENS)
    streamed = jax.eval_shape(lambda variables: nn.with_carry(last, variables, TOKENS), variables)
    assert "carry" in streamed.state["recurrent"]
    with refused("in TextNet", "summary got max_over_time", "one call alone", "nn.last_step"):
        jax.eval_shape(lambda variables: nn.with_carry(largest, variables, TOKENS), variables)


def test_parts_that_can_be_swapped_and_dropout_in_training_only():
    stack = nn.StackedRecurrent(nn.RNNCell(3), nn.RNNCell(3))
    model = zoo.TextNet(9, 3, recurrent=stack, head=nn.Dense(2), dropout=0.5)
    variables = model.init(KEY, TOKENS, LENGTHS)
    assert set(variables.params) == {"embedding", "recurrent", "head"}

    @jax.jit
    def program(variables):
        noisy = model.apply(*variables, TOKENS, LENGTHS, key=KEY, train=True)[0]
        plain = zoo.TextNet(9, 3, recurrent=stack, head=nn.Dense(2))
        return model(variables, TOKENS, LENGTHS), plain(variables, TOKENS, LENGTHS), noisy

    quiet, plain, noisy = program(variables)
    assert quiet.shape == (5, 2)
    assert_close(quiet, plain)
    assert np.abs(noisy - quiet).max() > 1e-3


@pytest.mark.parametrize(
    ("tokens", "lengths", "parts"),
    [
        (TOKENS[0], None, ("in TextNet", "tokens got int32[7]", "[B, T]", "tokens[None]")),
        (TOKENS.astype(jnp.float32), None, ("integer",)),
        (TOKENS, LENGTHS.at[1].set(0), ("lengths got 0 for example 1", "leave empty sequences out")),
        (TOKENS, LENGTHS.at[2].set(8), ("lengths got 8 for example 2", "1 to the 7 steps")),
        (TOKENS, LENGTHS[:3], ("int32[3]", "batch size")),
        (TOKENS, LENGTHS.astype(jnp.float32), ("lengths got float32[5]", "integer")),
    ],
)
def test_refused(tokens, lengths, parts):
    model = zoo.TextNet(9, 2, recurrent=nn.Recurrent(nn.RNNCell(2)))
    variables = jax.eval_shape(model.init, KEY, TOKENS, LENGTHS)
    with refused(*parts):
        jax.eval_shape(lambda variables: model(variables, tokens, lengths), variables)
