"""Searching for the likeliest sequence, token by token: greedily or by beams, each one compiled loop over a step.

A step is called as a recurrent cell is: ``step(carry, tokens [B]) -> (carry, logits [B, V])`` takes the last token of
every sequence and gives the logits of the next. Whatever it needs beside, such as parameters or the encoded source, it
closes over. The leaves of its carry are ``[B, ...]``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from jdl import check
from jdl.check import InputError
from jdl.nn.functional.recurrence import varying_with

Array = jax.Array
Carry = Any
Step = Callable[[Carry, Array], tuple[Carry, Array]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Decoded:
    """Sequences that a search has found: ``[B]`` of them, or ``[B, K]`` in the order of their rank.

    Attributes:
        tokens: ``int32[B, T]`` or ``[B, K, T]``, without the start token; behind the end token all are end tokens.
        lengths: how many tokens are real, the end token among them: ``int32[B]`` or ``[B, K]``.
        scores: sums of the log-probabilities of these tokens, ``float32[B]`` or ``[B, K]``.
    """

    tokens: Array
    lengths: Array
    scores: Array


def greedy_search(step: Step, carry: Carry, start: Array, *, end: int, length: int) -> Decoded:
    """The likeliest token at each step, up to the end token or ``length`` tokens.

    Args:
        step: ``(carry, tokens [B]) -> (carry, logits [B, V])``.
        carry: before the first step, leaves ``[B, ...]``.
        start: the token that each sequence starts from, ``int32[B]``.
        end: the token that ends a sequence.
        length: the most tokens that are searched for, the end token among them.

    Returns:
        One sequence for each of ``start``.

    Raises:
        InputError: a step that gives something else, an end token that is not in its vocabulary, and arguments that
            are not what they are called here.
    """
    length = _whole(length, "length", "the most tokens to search for, at least 1", 1)
    vocabulary, like = _check(step, carry, start)
    end = _end(end, vocabulary)

    def advance(search: _Search) -> _Search:
        carry, logits = step(search.carry, search.last)
        log_probabilities = _log_softmax(logits)
        token = jnp.where(search.done, end, jnp.argmax(log_probabilities, -1).astype(jnp.int32))
        gained = jnp.take_along_axis(log_probabilities, token[:, None], -1)[:, 0]
        return search.extended(carry, token, search.scores + jnp.where(search.done, 0.0, gained), end)

    return _run(advance, _Search.begin(carry, start, jnp.zeros(start.shape, jnp.float32), end, length), like)


def beam_search(
    step: Step, carry: Carry, start: Array, *, end: int, length: int, beams: int = 4, length_penalty: float = 0.0
) -> Decoded:
    """The ``beams`` best sequences that a search of this breadth finds, the best first.

    After each step the best K of all continuations stay, with sequences that have ended among them. They are ranked by
    score / ((5 + n) / 6)^α, where n counts tokens and α is ``length_penalty`` (Wu et al. 2016, arXiv:1609.08144,
    equation 14): 0 compares sums of log-probabilities, which favours short sequences, 1 about their means. With one
    beam it is the greedy search. A sequence there is not (K larger than all of them) has score -inf.

    Args:
        step: ``(carry, tokens [B]) -> (carry, logits [B, V])``; it runs under ``jax.vmap`` over the beams, so what it
            closes over is not copied for them.
        carry: before the first step, leaves ``[B, ...]``.
        start: the token that each sequence starts from, ``int32[B]``.
        end: the token that ends a sequence.
        length: the most tokens that are searched for, the end token among them.
        beams: K, how many sequences are kept.
        length_penalty: α, at least 0.

    Returns:
        K sequences for each of ``start``; their scores are without the penalty.

    Raises:
        InputError: as :func:`greedy_search` does.
    """
    length = _whole(length, "length", "the most tokens to search for, at least 1", 1)
    beams = _whole(beams, "beams", "how many sequences to keep, at least 1", 1)
    if isinstance(length_penalty, bool) or not isinstance(length_penalty, Real) or not 0 <= length_penalty < math.inf:
        raise InputError(f"length_penalty got {length_penalty!r}, wanted a number of at least 0, which is no penalty")
    length_penalty = float(length_penalty)
    vocabulary, like = _check(step, carry, start)
    end = _end(end, vocabulary)
    step_of_beams = jax.vmap(step, in_axes=1, out_axes=1)
    only_end = jnp.where(jnp.arange(vocabulary) == end, 0.0, -jnp.inf)  # how a sequence that has ended goes on

    def advance(search: _Search) -> _Search:
        carry, logits = step_of_beams(search.carry, search.last)
        gained = jnp.where(search.done[..., None], only_end, _log_softmax(logits))
        scores = search.scores[..., None] + gained  # [B, K, V]
        penalty = ((5.0 + search.next_lengths.astype(jnp.float32)) / 6.0) ** length_penalty
        flat = start.shape[0], beams * vocabulary
        _, best = jax.lax.top_k((scores / penalty[..., None]).reshape(flat), beams)
        parent, token = best // vocabulary, best % vocabulary
        scores = jnp.take_along_axis(scores.reshape(flat), best, 1)
        search = dataclasses.replace(search, carry=carry).chosen(parent)
        return search.extended(search.carry, token, scores, end)

    one = jnp.where(jnp.arange(beams) == 0, 0.0, -jnp.inf)  # all beams are alike at first: only one counts
    scores = jnp.broadcast_to(one, (start.shape[0], beams)).astype(jnp.float32)
    carry, start = jax.tree.map(lambda x: jnp.repeat(x[:, None], beams, 1), (carry, start))
    return _run(advance, _Search.begin(carry, start, scores, end, length), like)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class _Search:
    """Where a search stands; every leaf but ``time`` is ``[B, ...]``, or ``[B, K, ...]`` with beams."""

    time: Array
    carry: Carry
    last: Array
    found: Decoded
    done: Array

    @classmethod
    def begin(cls, carry: Carry, start: Array, scores: Array, end: int, length: int) -> _Search:
        tokens = jnp.full((*start.shape, length), end, jnp.int32)
        found = Decoded(tokens, jnp.zeros(start.shape, jnp.int32), scores)
        return cls(jnp.int32(0), carry, start.astype(jnp.int32), found, jnp.zeros(start.shape, bool))

    @property
    def scores(self) -> Array:
        return self.found.scores

    @property
    def next_lengths(self) -> Array:
        return jnp.where(self.done, self.found.lengths, self.found.lengths + 1)

    def goes_on(self) -> Array:
        """Whether there is room, and a possible sequence that has not ended."""
        open_ended = ~self.done & (self.scores > -jnp.inf)
        return (self.time < self.found.tokens.shape[-1]) & jnp.any(open_ended)

    def extended(self, carry: Carry, token: Array, scores: Array, end: int) -> _Search:
        """One token further; what is done has the end token once more, which adds nothing to its length."""
        tokens = jax.lax.dynamic_update_index_in_dim(self.found.tokens, token, self.time, axis=-1)
        found = Decoded(tokens, self.next_lengths, scores)
        return _Search(self.time + 1, carry, token, found, self.done | (token == end))

    def chosen(self, parent: Array) -> _Search:
        """The beams ``parent [B, K]`` in place of these."""

        def choose(x: Array) -> Array:
            return jnp.take_along_axis(x, parent.reshape(*parent.shape, *[1] * (x.ndim - 2)), axis=1)

        beams = jax.tree.map(choose, (self.carry, self.last, self.found, self.done))
        return _Search(self.time, *beams)


def _log_softmax(logits: Array) -> Array:
    return jax.nn.log_softmax(logits.astype(jnp.float32))


def _run(advance: Callable[[_Search], _Search], begin: _Search, like: Any) -> Decoded:
    """The loop. Under shard_map all that it carries differs between devices as soon as some of ``like`` does."""

    def varying(search: _Search) -> _Search:
        return varying_with(search, like)

    return jax.lax.while_loop(_Search.goes_on, lambda search: varying(advance(search)), varying(begin)).found


def _check(step: Step, carry: Carry, start: Array) -> tuple[int, Any]:
    """The size of the vocabulary once everything fits, and all that a step takes and gives."""
    fix = "give one start token for each sequence: jnp.full(batch_size, start_token)"
    check.array(start, "start", fix)
    check.integer(start, "start", "tokens are numbers: start.astype(jnp.int32)")
    check.rank(start, 1, "int[B], the first token of each sequence", "start", fix)
    batch = start.shape[0]
    for leaf in jax.tree.leaves(carry):
        check.array(leaf, "carry")
        if leaf.shape[:1] != start.shape:
            raise InputError(f"carry got {check.describe(leaf)}, wanted [{batch}, ...] as there are start tokens")
    made = jax.eval_shape(step, carry, start.astype(jnp.int32))
    if not isinstance(made, tuple) or len(made) != 2:
        raise InputError(f"the step gives {check.describe(made)}, wanted a pair (carry, logits [{batch}, V])")
    after, logits = made
    if not check.is_array(logits) or logits.ndim != 2 or logits.shape[0] != batch:
        fix = "; take the only step of [B, 1, V] by logits[:, 0]" if getattr(logits, "ndim", 0) == 3 else ""
        raise InputError(f"the step gives logits {check.describe(logits)}, wanted [{batch}, V]{fix}")
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        fix = "logits are scores of every token, not the token that is chosen"
        raise InputError(f"the step gives logits {check.describe(logits)}, wanted a floating dtype; {fix}")
    if jax.tree.map(check.describe, after) != jax.tree.map(check.describe, carry):
        raise InputError(
            f"the step takes the carry {check.describe(carry)} and gives {check.describe(after)}, wanted the same"
        )
    return logits.shape[1], (carry, start, made)


def _end(end: Any, vocabulary: int) -> int:
    return _whole(end, "end", f"0 to {vocabulary - 1}, a token that the step has a logit for", 0, vocabulary)


def _whole(value: Any, name: str, wanted: str, low: int, stop: float = math.inf) -> int:
    """``value`` as an int from ``low`` to below ``stop``."""
    number = check.integral(value)
    if number is None or not low <= number < stop:
        fix = "; it shapes the program: under jit close over it, or name it in static_argnames"
        got = f"a traced {check.describe(value)}" if isinstance(value, Tracer) else repr(value)
        raise InputError(f"{name} got {got}, wanted a whole number, {wanted}{fix * isinstance(value, Tracer)}")
    return number
