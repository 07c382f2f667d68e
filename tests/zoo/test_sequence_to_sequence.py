"""Sequence to sequence: PyTorch's values and gradients, a token at a time as all at once, lengths, what is refused."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl import nn, zoo
from tests.golden import reading
from tests.nn.toys import KEY, assert_close, assert_equal, normal, refused

load = functools.cache(reading.load)


def network(cell: Any = nn.GRUCell, **options: Any) -> zoo.SequenceToSequence:
    """Of the golden file's size."""
    encoder = zoo.RecurrentEncoder(7, 4, recurrent=nn.Bidirectional(cell(5)))
    return zoo.SequenceToSequence(encoder, zoo.RecurrentDecoder(9, 4, recurrent=nn.Recurrent(cell(5)), **options))


def golden_inputs() -> tuple[jax.Array, jax.Array, jax.Array]:
    return tuple(jnp.asarray(load("sequence_to_sequence")[name]) for name in ("source", "target", "lengths"))  # pyright: ignore[reportReturnType]


def golden_params(name: str, model: zoo.SequenceToSequence) -> Any:
    """Those of PyTorch's network, in the tree of ours."""
    arrays = load("sequence_to_sequence")
    spec = model.spec(*golden_inputs()).params
    paths = [f"{name}/params/{path}" for path in jdl.paths(spec)]
    assert set(paths) == {key for key in arrays if key.startswith(f"{name}/params/")}
    return jax.tree.unflatten(jax.tree.structure(spec), [jnp.asarray(arrays[path]) for path in paths])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("attention", {}), ("plain", {"attention": None})])
def test_values_and_gradients_are_those_of_pytorch(name: str, options: dict[str, Any]):
    golden = {
        key.removeprefix(f"{name}/"): jnp.asarray(value)
        for key, value in load("sequence_to_sequence").items()
        if key.startswith(f"{name}/")
    }
    model, inputs = network(**options), golden_inputs()
    params = golden_params(name, model)

    @jax.jit
    def program(params: Any) -> Any:
        def loss(params: Any) -> Any:
            logits, _, seen = nn.probe(model, nn.Variables(params, {}), *inputs)
            return jnp.sum(golden["weights"] * logits), (logits, seen)

        return jax.grad(loss, has_aux=True)(params)

    gradient, (logits, seen) = program(params)
    ours = {f"grad/{path}": leaf for path, leaf in zip(jdl.paths(params), jax.tree.leaves(gradient), strict=True)}
    ours |= {"logits": logits}
    ours |= {use.path: use.output for use in seen if use.path == "decoder/attention/weights"}
    assert_close(
        ours, {key: value for key, value in golden.items() if not key.startswith(("params/", "weights"))}, 1e-5
    )


@functools.cache
def answers() -> dict[str, Any]:
    """What the tests below ask, as one program."""
    model, (source, target, lengths) = network(), golden_inputs()
    variables = nn.Variables(golden_params("attention", model), {})

    @jax.jit
    def program(frozen: nn.Variables) -> dict[str, Any]:
        step, carry = model.decoding(frozen, source, lengths)
        found = jdl.beam_search(step, carry, target[:, 0], end=8, length=target.shape[1], beams=2)
        written = jnp.concatenate([target[:, :1], found.tokens[:, 0, :-1]], 1)
        twice = (jnp.concatenate(pair) for pair in ((source, source), (target, written), (lengths, lengths)))
        together, likely = jnp.split(model(variables, *twice), 2)
        return {
            "together": together,
            "token by token": jnp.moveaxis(jax.lax.scan(step, carry, target.T)[1], 0, 1),
            "alone": model(variables, source[1:2, :2], target[1:2]),  # 2 is the length of this one
            "found": found,
            "log-probabilities": jax.nn.log_softmax(likely),
        }

    return program(jdl.freeze(variables, "**/recurrent/**"))


@pytest.mark.slow
def test_a_token_at_a_time_gives_the_logits_of_all_at_once_with_frozen_parameters_too():
    assert_close(answers()["token by token"], answers()["together"])


def test_a_source_of_a_batch_of_mixed_lengths_is_as_alone():
    assert_close(answers()["alone"], answers()["together"][1:2])


def test_a_search_writes_what_the_network_finds_likeliest():
    found = answers()["found"]
    real = np.arange(found.tokens.shape[2]) < found.lengths[:, :1]
    picked = np.take_along_axis(np.asarray(answers()["log-probabilities"]), np.asarray(found.tokens[:, 0, :, None]), -1)
    assert_close(np.sum(np.where(real, picked[..., 0], 0), 1), found.scores[:, 0])


def test_attention_reads_no_padding_and_says_under_jit_which_length_is_impossible():
    layer, lengths = zoo.LuongAttention(), jnp.array([2, 4, 9])
    kernel, queries, memory = normal(6, 4), normal(3, 2, 4), normal(3, 5, 6)

    @jax.jit
    @functools.partial(jax.grad, argnums=(0, 1, 2), has_aux=True)
    def program(kernel: Any, queries: Any, memory: Any, lengths: Any) -> Any:
        seen = layer.apply({"project": {"kernel": kernel}}, {}, queries, memory, lengths)[0]
        return jnp.sum(jnp.where(jnp.isnan(seen), 0, seen) ** 2), seen

    torn = memory.at[0, 2:].set(jnp.nan).at[1, 4:].set(jnp.inf)
    gradient, seen = program(kernel, queries, memory, lengths)
    assert np.all(np.isfinite(seen[:2])) and np.all(np.isnan(seen[2]))
    assert all(np.all(np.isfinite(leaf)) for leaf in gradient)
    assert_equal(program(kernel, queries, torn, lengths), (gradient, seen))


def test_cells_can_be_swapped():
    ids = jax.ShapeDtypeStruct((2, 3), jnp.int32)
    params = network(nn.LSTMCell).spec(ids, ids).params
    assert set(params["encoder"]["bridge"]) == {"0", "1"}, "one for h, one for c"
    ahead = zoo.RecurrentEncoder(7, 4, recurrent=nn.Recurrent(nn.RNNCell(5)))
    decoder = zoo.RecurrentDecoder(9, 4, recurrent=nn.Recurrent(nn.RNNCell(5)))
    assert set(zoo.SequenceToSequence(ahead, decoder).spec(ids, ids).params["encoder"]) == {"embedding", "recurrent"}


def test_a_layer_around_the_recurrent_one_changes_nothing_for_the_bridge():
    ids = jax.ShapeDtypeStruct((2, 3), jnp.int32)
    plain = zoo.RecurrentEncoder(7, 4, recurrent=nn.Bidirectional(nn.GRUCell(5)))
    around = zoo.RecurrentEncoder(7, 4, recurrent=nn.Remat(nn.Bidirectional(nn.GRUCell(5))))
    assert around.spec(ids).params == plain.spec(ids).params
    assert around.spec(ids).output == plain.spec(ids).output


def test_the_standard_size():
    model = zoo.SequenceToSequence(zoo.RecurrentEncoder(1000, 128), zoo.RecurrentDecoder(1000, 128))
    ids = jax.ShapeDtypeStruct((2, 3), jnp.int32)
    assert f"{model.spec(ids, ids).parameters:,} for 1,000 ids" in str(zoo.SequenceToSequence.__doc__)


def test_what_is_refused():
    model, (source, target, lengths) = network(), golden_inputs()
    variables = jax.eval_shape(model.init, KEY, source, target, lengths)

    def run(*inputs: Any) -> None:
        jax.eval_shape(lambda variables: model(variables, *inputs), variables)

    with refused("in encoder", "source got int32[6], wanted [B, T]", "tokens[None]"):
        run(source[0], target, lengths)
    with refused("in decoder", "target got float32[3, 5], wanted an integer dtype"):
        run(source, target.astype(jnp.float32), lengths)
    with refused("target got int32[2, 5] and memory got float32[3, 6, 10]", "one target for each source"):
        run(source, target[:2], lengths)
    with refused("lengths got 7 for example 1, wanted 1 to the 6 steps"):
        run(source, target, lengths.at[1].set(7))
    with refused("lengths got 0 for example 1"):
        run(source, target, lengths.at[1].set(0))
    chain = zoo.RecurrentEncoder(7, 4, recurrent=nn.Chain(nn.Recurrent(nn.GRUCell(5))))
    with refused("in recurrent: Chain", "got lengths, return_carry, which Chain does not take", "nn.StackedRecurrent"):
        chain.spec(source, lengths)
    wide = zoo.SequenceToSequence(
        zoo.RecurrentEncoder(7, 4), zoo.RecurrentDecoder(9, 4, recurrent=nn.Recurrent(nn.GRUCell(5)))
    )
    with refused(
        "in decoder/recurrent",
        "carry got float32[3, 128], wanted float32[3, 5]",
        "encoder and decoder",
        "as many features",
    ):
        jax.eval_shape(wide.init, KEY, source, target, lengths)


def test_of_stacked_layers_each_hands_its_two_directions_on_as_one():
    cell, ids = nn.LSTMCell(5), jax.ShapeDtypeStruct((2, 3), jnp.int32)
    both = nn.StackedRecurrent(nn.Bidirectional(cell), nn.Bidirectional(cell))
    encoder = zoo.RecurrentEncoder(7, 4, recurrent=both)
    decoder = zoo.RecurrentDecoder(9, 4, recurrent=nn.StackedRecurrent(cell, cell))
    spec = zoo.SequenceToSequence(encoder, decoder).spec(ids, ids)
    assert set(spec.params["encoder"]["bridge"]) == {"0", "1", "2", "3"}
    assert spec.output.shape == (2, 3, 9)


def test_directions_of_other_cells_have_no_common_carry():
    encoder = zoo.RecurrentEncoder(7, 4, recurrent=nn.Bidirectional(nn.LSTMCell(5), nn.GRUCell(5)))
    with refused("in bridge", "((float32[2, 5], float32[2, 5]), float32[2, 5])", "cells of one kind"):
        encoder.spec(jax.ShapeDtypeStruct((2, 3), jnp.int32))
