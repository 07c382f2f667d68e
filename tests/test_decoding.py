"""Searches find what enumerating every sequence finds, and what the same search written out in Python does."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jdl
from jdl.check import InputError
from tests.nn.toys import assert_equal

BATCH, VOCABULARY, LENGTH, END = 3, 3, 3, 2
START = jnp.zeros(BATCH, jnp.int32)


def table(seed: int = 0, vocabulary: int = VOCABULARY, length: int = LENGTH) -> np.ndarray:
    """Logits ``[B, histories, V]``: every history has its own, so that a search cannot mix up what it has read."""
    histories = (vocabulary + 1) ** length
    return 2 * np.random.default_rng(seed).normal(size=(BATCH, histories, vocabulary)).astype(np.float32)


def follow(history: Any, token: Any, vocabulary: int) -> Any:
    """The number of the history that ``token`` makes of this one; 0 is the empty one."""
    return history * (vocabulary + 1) + token + 1


@functools.partial(jax.jit, static_argnames=("length", "beams", "length_penalty"))
def searched(logits: jax.Array, length: int = LENGTH, beams: int = 0, **options: Any) -> jdl.Decoded:
    """A search, greedy without beams, whose carry is the history as a number."""

    def step(carry: dict[str, jax.Array], tokens: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
        history = jnp.where(carry["new"], 0, follow(carry["history"], tokens, logits.shape[-1]))
        rows = jnp.take_along_axis(logits, history[:, None, None], axis=1)[:, 0]
        return {"history": history, "new": jnp.zeros(BATCH, bool)}, rows

    carry = {"history": START, "new": jnp.ones(BATCH, bool)}
    if not beams:
        return jdl.greedy_search(step, carry, START, end=END, length=length)
    return jdl.beam_search(step, carry, START, end=END, length=length, beams=beams, **options)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.sum(np.exp(logits.astype(np.float64)), -1, keepdims=True))


def score(logits: np.ndarray, sequence: tuple[int, ...]) -> float:
    history, total = 0, 0.0
    for token in sequence:
        total += log_softmax(logits[history])[token]
        history = follow(history, token, logits.shape[-1])
    return total


def penalised(total: float, sequence: tuple[int, ...], penalty: float) -> float:
    return total / ((5 + len(sequence)) / 6) ** penalty


def enumerated(logits: np.ndarray, length: int, penalty: float) -> list[tuple[float, tuple[int, ...]]]:
    """Every sequence that ends, or that is as long as can be, the best first."""
    vocabulary = logits.shape[-1]
    going = [token for token in range(vocabulary) if token != END]
    every = [
        (*begin, END) for n in range(length) for begin in itertools.product(going, repeat=n)
    ] + list(itertools.product(going, repeat=length))  # fmt: skip
    pairs = [(score(logits, sequence), sequence) for sequence in every]
    return sorted(pairs, key=lambda pair: -penalised(*pair, penalty))


def by_hand(logits: np.ndarray, length: int, beams: int, penalty: float) -> list[tuple[float, tuple[int, ...]]]:
    """The same search over Python's tuples."""
    kept: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for _ in range(length):
        longer = []
        for _, sequence in kept:
            going = [sequence] if END in sequence else [(*sequence, token) for token in range(logits.shape[-1])]
            longer += [(score(logits, one), one) for one in going]
        kept = sorted(longer, key=lambda pair: -penalised(*pair, penalty))[:beams]
    return kept


def check_found(found: jdl.Decoded, wanted: list[list[tuple[float, tuple[int, ...]]]]) -> None:
    for example, pairs in enumerate(wanted):
        for rank, (total, sequence) in enumerate(pairs):
            tokens, length = np.asarray(found.tokens[example, rank]), int(found.lengths[example, rank])
            assert tuple(tokens[:length]) == sequence and set(tokens[length:]) <= {END}
            assert math.isclose(found.scores[example, rank], total, rel_tol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_a_search_that_is_broad_enough_finds_what_enumeration_finds(penalty: float):
    logits = table()
    wanted = [enumerated(one, LENGTH, penalty) for one in logits]
    assert [len(pairs) for pairs in wanted] == [15] * BATCH
    assert (wanted == [enumerated(one, LENGTH, 0.0) for one in logits]) == (penalty == 0), "the penalty changes nothing"
    found = searched(logits, beams=17, length_penalty=penalty)
    check_found(found, wanted)
    assert np.all(found.scores[:, 15:] == -np.inf), "there are only fifteen"


@pytest.mark.parametrize(("beams", "penalty"), [(2, 0.0), (3, 1.0)])
def test_a_narrow_search_is_the_one_written_out(beams: int, penalty: float):
    logits = table(1, 5, 4)
    wanted = [by_hand(one, 4, beams, penalty) for one in logits]
    check_found(searched(logits, 4, beams, length_penalty=penalty), wanted)


@pytest.mark.parametrize("seed", range(3))
def test_one_beam_is_the_greedy_search(seed: int):
    logits = table(seed, 5, 4)
    greedy, beam = searched(logits, 4), searched(logits, 4, 1, length_penalty=0.6)
    assert greedy.tokens.shape == (BATCH, 4) and greedy.tokens.dtype == jnp.int32
    assert_equal(greedy, jax.tree.map(lambda x: x[:, 0], beam))
    check_found(beam, [by_hand(one, 4, 1, 0.0) for one in logits])


def test_it_stops_when_every_sequence_has_ended():
    turns = []

    def step(carry: jax.Array, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        jax.debug.callback(lambda _: turns.append(1), carry)
        return carry + 1, jnp.where(carry[:, None] == 1, jnp.asarray([-9.0, -9.0, 9.0]), jnp.asarray([9.0, 8.0, -9.0]))

    found = (
        jdl.greedy_search(step, START, START, end=END, length=50),
        jdl.beam_search(step, START, START, end=END, length=50, beams=2),
    )
    jax.effects_barrier()
    assert all(np.all(one.lengths == 2) for one in found)
    assert len(turns) == 2 + 2 * 2, "two turns, in the second search once for each beam"


@pytest.mark.slow
def test_over_devices_each_searches_for_its_own_sequences():
    """Even where only what the step closes over differs between them, and it makes some of its carry anew."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("devices",))
    logits = np.concatenate([table(0), table(1)])
    split = jax.sharding.PartitionSpec("devices")

    def both(logits: jax.Array) -> tuple[jdl.Decoded, jdl.Decoded]:
        return searched(logits), searched(logits, beams=2)

    greedy, beam = jax.jit(jax.shard_map(both, mesh=mesh, in_specs=split, out_specs=split))(logits)
    check_found(jax.tree.map(lambda x: x[:, None], greedy), [by_hand(one, LENGTH, 1, 0.0) for one in logits])
    check_found(beam, [by_hand(one, LENGTH, 2, 0.0) for one in logits])


def test_nothing_is_found_for_no_sequences_and_settings_may_be_of_any_integer_type():
    @jax.jit
    def search(logits: jax.Array) -> tuple[jdl.Decoded, jdl.Decoded]:
        common = step_to(logits), {}, jnp.zeros(len(logits), jnp.int32)
        settings: dict[str, Any] = {"end": np.int32(2), "length": np.int64(3)}
        beams: dict[str, Any] = {"beams": np.int64(2), "length_penalty": np.float64(1)}
        return jdl.greedy_search(*common, **settings), jdl.beam_search(*common, **settings, **beams)

    greedy, beam = search(jnp.zeros((0, 4)))
    assert (greedy.tokens.shape, beam.tokens.shape, beam.lengths.shape) == ((0, 3), (0, 2, 3), (0, 2))


def step_to(logits: Any) -> Any:
    return lambda carry, tokens: (carry, logits)


@pytest.mark.parametrize(
    ("step", "start", "options", "message"),
    [
        (step_to(jnp.zeros((3, 1, 4))), START, {}, r"gives logits float32\[3, 1, 4\], wanted \[3, V\]; take the only"),
        (step_to(jnp.zeros((3, 4))), START, {"end": 4}, "end got 4, wanted a whole number, 0 to 3"),
        (step_to(jnp.zeros((3, 4))), START[:2], {}, r"carry got float32\[3, 5\], wanted \[2, ...\]"),
        (step_to(jnp.zeros((3, 4))), START[None], {}, r"start got int32\[1, 3\], wanted int\[B\]"),
        (step_to(jnp.zeros((3, 4))), jnp.zeros(3), {}, "start got .*, wanted an integer dtype"),
        (step_to(jnp.zeros((3, 4))), START, {"length": 0}, "length got 0, wanted a whole number, the most tokens"),
        (lambda c, t: (c[:, :2], jnp.zeros((3, 4))), START, {}, r"gives float32\[3, 2\], wanted the same"),
        (step_to(jnp.zeros((3, 4))), START, {"beams": 0}, "beams got 0"),
        (step_to(jnp.zeros((3, 4))), START, {"length_penalty": -1.0}, "length_penalty got -1.0"),
        (step_to(jnp.zeros((3, 4))), START, {"length_penalty": "1"}, "length_penalty got '1', wanted a number"),
        (step_to(jnp.zeros((3, 4))), START, {"length_penalty": float("nan")}, "length_penalty got nan"),
        (step_to(jnp.zeros((3, 4))), START, {"beams": True}, "beams got True, wanted a whole number"),
        (step_to(jnp.zeros((3, 4))), START, {"beams": 2.0}, "beams got 2.0, wanted a whole number"),
        (step_to(jnp.zeros((3, 4))), START, {"length": "3"}, "length got '3', wanted a whole number"),
        (step_to(jnp.zeros((3, 4))), START, {"end": 1.5}, "end got 1.5, wanted a whole number, 0 to 3"),
        (step_to(jnp.zeros((3, 4))), START, {"end": None}, "end got None, wanted a whole number, 0 to 3"),
        (step_to(jnp.zeros((3, 4))), 2, {}, "start got int 2, wanted an array; give one start token for each sequence"),
        (step_to(jnp.zeros((3, 4))), np.int32(2), {}, r"wanted int\[B\], .*; give one start token for each sequence"),
        (step_to(jnp.zeros((3, 4), jnp.int32)), START, {}, r"gives logits int32\[3, 4\], wanted a floating dtype"),
        (step_to(jnp.zeros((2, 4))), START, {}, r"gives logits float32\[2, 4\], wanted \[3, V\]$"),
        (lambda c, t: jnp.zeros((3, 4)), START, {}, r"the step gives float32\[3, 4\], wanted a pair \(carry, logits"),
    ],
)
def test_what_cannot_be_searched(step: Any, start: Any, options: dict[str, Any], message: str):
    beam = "beams" in options or "length_penalty" in options
    for search in (jdl.beam_search,) if beam else (jdl.beam_search, jdl.greedy_search):
        with pytest.raises(InputError, match=message):
            search(step, jnp.zeros((3, 5)), start, **({"end": 2, "length": 3} | options))


def test_a_batch_of_unknown_size_can_be_exported():
    tokens = jax.ShapeDtypeStruct(export.symbolic_shape("b"), jnp.int32)

    def step(carry: Any, tokens: jax.Array) -> tuple[Any, jax.Array]:
        return carry, jax.nn.one_hot(tokens, VOCABULARY)

    for search in (jdl.greedy_search, jdl.beam_search):
        found = jax.eval_shape(functools.partial(search, step, (), end=END, length=LENGTH), tokens)
        assert found.tokens.shape[0] == tokens.shape[0]


def test_an_end_token_that_is_traced_is_refused():
    with pytest.raises(InputError, match=r"end got a traced int32\[\], wanted a whole number, .*static_argnames"):
        jax.jit(lambda end: jdl.greedy_search(step_to(jnp.zeros((3, 4))), {}, START, end=end, length=3))(2)
