"""Sequence to sequence: a network that reads a sequence, and one that writes another while looking back at it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jdl import check, nn
from jdl.check import InputError
from jdl.nn import functional as F
from jdl.zoo.sequences import check_recurrent

Array = jax.Array
Carry = Any


class LuongAttention(nn.Layer):
    """What each step looks at in the memory: ``queries [B, T, H]`` and ``memory [B, S, M]`` to ``[B, T, M]``.

    Step t sees Σ_s a_ts m_s, where a_t is the softmax over s of q_t · W m_s, over the first ``lengths [B]`` of S
    ("general" scores of Luong et al. 2015, arXiv:1508.04025). Parameter: ``project/kernel [M, H]``. The weights a
    ``[B, T, S]`` are the output of the sub-layer ``weights``, which :func:`jdl.nn.probe` shows. Raises InputError for
    lengths outside of 1 to S, which under jit give NaN; what stands in the padding has no part in anything.
    """

    def forward(self, net: nn.Net, queries: Array, memory: Array, lengths: Array | None = None) -> Array:
        if lengths is not None:
            F.check_lengths(lengths, memory)
            memory = F.without_padding(memory, lengths)
        keys = net.child("project", nn.Dense(queries.shape[-1], bias=False))(memory)
        scores = jnp.einsum("bth,bsh->bts", queries, keys)
        if lengths is not None:
            real = F.real_steps(lengths, memory.shape[1])[:, None]
            # the lowest finite number, so that a row of nothing real has a softmax and a gradient
            scores = jnp.where(real, scores, jnp.finfo(scores.dtype).min)
        seen = jnp.einsum("bts,bsm->btm", net.child("weights", nn.softmax)(scores), memory)
        return seen if lengths is None else F.nan_unless_possible(seen, lengths, memory.shape[1])


class Bridge(nn.Layer):
    """A carry to write from, of one to which a sequence was read: both ways become one, by tanh of a dense layer.

    Every :class:`jdl.nn.BidirectionalCarry` in it becomes one carry, its leaves ``[B, H]`` and ``[B, H']`` one of
    ``[B, H]``, each by a dense layer of its own, named "0", "1", …. What was read in one direction stays as it is.
    Raises InputError for two directions whose carries differ in more than their widths.
    """

    def forward(self, net: nn.Net, carry: Carry) -> Carry:
        names = map(str, itertools.count())

        def merge(part: Any) -> Any:
            if not isinstance(part, nn.BidirectionalCarry):
                return part
            (first, structure), (second, other) = map(jax.tree.flatten, part)
            if structure != other:
                fix = "read both ways with cells of one kind, or give the encoder a bridge=... of your own for these"
                raise InputError(f"carry got {check.describe(part)}, wanted a pair of one structure; {fix}")
            both = [jnp.concatenate(pair, -1) for pair in zip(first, second, strict=True)]
            dense = [net.child(next(names), nn.Dense(leaf.shape[-1])) for leaf in first]
            return jax.tree.unflatten(structure, [jnp.tanh(d(x)) for d, x in zip(dense, both, strict=True)])

        return jax.tree.map(merge, carry, is_leaf=lambda part: isinstance(part, nn.BidirectionalCarry))


class RecurrentEncoder(nn.Layer):
    """Reads: ids ``[B, S]`` of ``lengths [B]`` to a memory of every step ``[B, S, M]``, and a carry to write from.

    The carry is what ``bridge``, a layer ``carry -> carry``, makes of the last one of ``recurrent``. In training,
    ``dropout`` of that rate on the vectors of the ids.
    """

    vocabulary_size: int
    features: int
    _: dataclasses.KW_ONLY
    recurrent: nn.Layer = nn.Bidirectional(nn.GRUCell(128))
    bridge: nn.Layer = Bridge()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_recurrent(self)

    def forward(self, net: nn.Net, tokens: Array, lengths: Array | None = None) -> tuple[Array, Carry]:
        _check_ids(tokens, "source")
        x = net.child("embedding", nn.Embedding(self.vocabulary_size, self.features))(tokens)
        x = net.child("drop", nn.Dropout(self.dropout))(x)
        memory, carry = net.recurrent(x, lengths=lengths, return_carry=True)
        return memory, net.bridge(carry)


class RecurrentDecoder(nn.Layer):
    """Writes: ids ``[B, T]`` to the logits of each one's successor ``[B, T, V]``, and the carry after the last.

    It goes on from ``carry``. Then every step looks at the memory ``[B, S, M]`` of ``lengths [B]`` by ``attention``, a
    layer ``(queries, memory, lengths) -> [B, T, M]``, and what it wrote and saw becomes tanh(W [h; c]). With
    ``attention=None`` the carry is all it knows of the source. In training, ``dropout`` of that rate on the vectors of
    the ids, and before the ``head``.
    """

    vocabulary_size: int
    features: int
    _: dataclasses.KW_ONLY
    recurrent: nn.Layer = nn.Recurrent(nn.GRUCell(128))
    attention: nn.Layer | None = LuongAttention()
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_recurrent(self)

    def forward(
        self, net: nn.Net, tokens: Array, carry: Carry, memory: Array, lengths: Array | None = None
    ) -> tuple[Array, Carry]:
        _check_ids(tokens, "target")
        check.same_batch(tokens, memory, ("target", "memory"), "one target for each source")
        drop = net.child("drop", nn.Dropout(self.dropout))
        x = drop(net.child("embedding", nn.Embedding(self.vocabulary_size, self.features))(tokens))
        with _who_made_the_carry():
            y, carry = net.recurrent(x.astype(memory.dtype), carry=carry, return_carry=True)
        if self.attention is not None:
            both = jnp.concatenate([y, net.attention(y, memory, lengths)], -1)
            y = jnp.tanh(net.child("combine", nn.Dense(y.shape[-1], bias=False))(both))
        return net.child("head", nn.Dense(self.vocabulary_size))(drop(y)), carry


class SequenceToSequence(nn.Layer):
    """Writes a sequence from another: source ids ``[B, S]`` and target ids ``[B, T]`` to logits ``[B, T, V]``.

    Trained by teacher forcing: ``target`` is what should have been written so far, the target sequence behind a start
    token, and logits t are those of the token that follows ``target[:, t]``. All T steps look at the source at once, as
    attention comes after the recurrence and does not feed into it. ``source_lengths [B]`` are the real ids of each
    source; the padding of a target stands behind it, where only the loss must leave it out.

    ``encoder`` and ``decoder`` are layers of their own, called as :class:`RecurrentEncoder` and
    :class:`RecurrentDecoder` are. With vocabularies of V and V' ids, and E features, the standard ones have
    E V + (E + 129) V' + 1,152 E + 263,808 parameters: 796,264 for 1,000 ids and 128 features. Sutskever et al. 2014
    (arXiv:1409.3215) without attention, Luong et al. 2015 (arXiv:1508.04025) with it.

    Raises InputError for ids of another rank or dtype, another number of sources than of targets, and lengths outside
    of 1 to S.
    """

    encoder: nn.Layer
    decoder: nn.Layer

    def forward(self, net: nn.Net, source: Array, target: Array, source_lengths: Array | None = None) -> Array:
        memory, carry = net.encoder(source, source_lengths)
        return net.decoder(target, carry, memory, source_lengths)[0]

    def decoding(
        self, variables: nn.Variables, source: Array, source_lengths: Array | None = None
    ) -> tuple[Callable[[Carry, Array], tuple[Carry, Array]], Carry]:
        """Reads the sources ``[B, S]``, and returns what a search such as ``jdl.beam_search`` asks for.

        That is a step ``(carry, tokens [B]) -> (carry, logits [B, V])``, and the carry before the first. In half
        precision stand the parts, ``SequenceToSequence(nn.Precision(encoder), nn.Precision(decoder))``, as
        ``nn.Precision`` of the whole has no method of its layer.
        """
        encoder, decoder = (nn.part(self, variables, name) for name in ("encoder", "decoder"))
        memory, carry = self.encoder(encoder, source, source_lengths)

        def step(carry: Carry, tokens: Array) -> tuple[Carry, Array]:
            logits, carry = self.decoder(decoder, tokens[:, None], carry, memory, source_lengths)
            return carry, logits[:, 0]

        return step, carry


@contextlib.contextmanager
def _who_made_the_carry() -> Iterator[None]:
    """A recurrent layer that cannot start from a carry does not know where it came from."""
    try:
        yield
    except InputError as error:
        if error.message.startswith("carry got"):
            error.message += (
                "; the encoder made it: give encoder and decoder cells of one kind and as many features, or the "
                "encoder a bridge=... between them"
            )
        raise


def _check_ids(tokens: Any, name: str) -> None:
    check.rank(tokens, 2, "[B, T], the ids of one sequence a row", name, "one sequence is tokens[None]")
    check.integer(tokens, name, "ids count tokens: tokens.astype(jnp.int32)")
