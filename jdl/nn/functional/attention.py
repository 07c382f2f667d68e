"""Attention: every query takes a mean of the values, weighted by how well their keys fit it."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jdl import check
from jdl.nn.functional.recurrence import check_lengths, nan_unless_possible, real_steps, without_padding

Array = jax.Array


def attention(
    query: Array,
    key: Array,
    value: Array,
    *,
    mask: Array | None = None,
    lengths: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Array:
    """softmax(scale · Q Kᵀ) V, head by head (Vaswani et al. 2017, arXiv:1706.03762).

    ``query [B, T, H, D]``, ``key [B, S, H, D]`` and ``value [B, S, H, E]`` to ``[B, T, H, E]``. What a query may see is
    said by `attention_weights`, whose arguments the others are; one that may see nothing gets 0.

    Raises InputError for shapes that do not fit together, several dtypes, a mask that is not boolean, and lengths
    outside of 1 to S; under jit such a length gives NaN.
    """
    weights = attention_weights(query, key, mask=mask, lengths=lengths, causal=causal, scale=scale)
    check.rank(value, 4, "[B, S, H, E]", "value")
    if value.shape[:3] != key.shape[:3] or value.dtype != key.dtype:
        raise check.InputError(
            f"value got {check.describe(value)} and key {check.describe(key)}, wanted one dtype and the same B, S and H"
        )
    value = value if lengths is None else without_padding(value, lengths)
    return jnp.einsum("bhts,bshe->bthe", weights, value)


def attention_weights(
    query: Array,
    key: Array,
    *,
    mask: Array | None = None,
    lengths: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
) -> Array:
    """How much each query looks at each key: ``[B, H, T, S]``, rows that sum to 1, or to 0 where nothing may be seen.

    ``mask`` is true where a query may look: ``[T, S]``, ``[B, T, S]`` or ``[B, H, T, S]``, in which an axis may be 1
    long. ``lengths [B]`` says how many keys of an example are real, the rest being padding. ``causal`` lets a query see
    the keys up to its own place, the T queries standing at the last of the S places. ``scale`` is 1/√D unless given.
    The softmax is taken in float32 at least, the result has the dtype of the query.
    """
    _check_heads(query, key)
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    wide = jnp.float32 if jnp.finfo(query.dtype).bits < 32 else query.dtype
    seen = _seen(query, key, mask, lengths, causal)
    key = key if lengths is None else without_padding(key, lengths)
    logits = jnp.einsum("bthd,bshd->bhts", query, key, preferred_element_type=wide) * scale
    if seen is None:
        return jax.nn.softmax(logits, -1).astype(query.dtype)
    # The lowest finite number in place of -∞, so that a row without anything to see has a softmax to be set to 0.
    weights = jax.nn.softmax(jnp.where(seen, logits, jnp.finfo(logits.dtype).min), -1)
    weights = jnp.where(seen, weights, 0).astype(query.dtype)
    return weights if lengths is None else nan_unless_possible(weights, lengths, key.shape[1])


def _seen(query: Array, key: Array, mask: Array | None, lengths: Array | None, causal: bool) -> Array | None:
    """The whole mask, of a shape that broadcasts to ``[B, H, T, S]``; None where every query sees every key."""
    (batch, queries, heads, _), keys = query.shape, key.shape[1]
    seen = None if mask is None else _rank_4(mask, (batch, heads, queries, keys))
    if causal:
        if queries > keys:
            raise check.InputError(f"causal attention got {queries} queries and {keys} keys, wanted a key for each")
        past = jnp.arange(keys) <= jnp.arange(keys - queries, keys)[:, None]
        seen = past[None, None] if seen is None else seen & past
    if lengths is not None:
        check_lengths(lengths, key)
        real = real_steps(lengths, keys)[:, None, None]
        seen = real if seen is None else seen & real
    return seen


def _rank_4(mask: Array, full: tuple[int, ...]) -> Array:
    check.array(mask, "mask")
    shape = {2: (1, 1, *mask.shape), 3: (*mask.shape[:1], 1, *mask.shape[1:]), 4: mask.shape}.get(mask.ndim, ())
    fits = len(shape) == 4 and all(size in (1, whole) for size, whole in zip(shape, full, strict=True))
    if mask.dtype != bool or not fits:
        batch, heads, queries, keys = full
        raise check.InputError(
            f"mask got {check.describe(mask)}, wanted bool, true where a query may look, as [{queries}, {keys}], "
            f"[{batch}, {queries}, {keys}] or [{batch}, {heads}, {queries}, {keys}] (an axis may be 1 long); "
            "for padding pass lengths"
        )
    return jnp.reshape(mask, shape)


def _check_heads(query: Array, key: Array) -> None:
    check.floating(query, "query")
    check.rank(query, 4, "[B, T, H, D]", "query", "split the heads: x.reshape(B, T, H, D)")
    check.rank(key, 4, "[B, S, H, D]", "key", "split the heads: x.reshape(B, S, H, D)")
    if key.dtype != query.dtype:
        raise check.InputError(f"query got {check.describe(query)} and key {check.describe(key)}, wanted one dtype")
    if (query.shape[0], *query.shape[2:]) != (key.shape[0], *key.shape[2:]):
        raise check.InputError(
            f"query got {check.describe(query)} and key {check.describe(key)}, wanted [B, T, H, D] and [B, S, H, D] "
            "with the same B, H and D"
        )
