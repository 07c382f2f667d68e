"""Losses that pull embeddings of the same thing together and push others apart."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jdl import check
from jdl.check import Array
from jdl.losses import inputs
from jdl.losses.reduction import check_mask, reduce


def contrastive(
    outputs: tuple[Array, Array],
    targets: Array,
    mask: Array | None = None,
    reduction: str = "mean",
    *,
    margin: float = 1.0,
) -> Array:
    """Contrastive loss of pairs: ½d² for the same, ½max(0, margin - d)² for different ones, d the Euclidean distance.

    ``outputs`` are two embeddings ``[B, D]``; ``targets`` ``[B]`` are 1 for the same, 0 for different. The gradient at
    d = 0 of a different pair, which has no direction, is 0. Hadsell, Chopra & LeCun 2006, who write Y = 0 for the same.
    """
    inputs.check_setting("margin", margin, 0.0)
    first, second = _embeddings(outputs, ("first", "second"))
    check.array(targets, "targets")
    check.rank(targets, 1, "[B]", "targets")
    check.same_batch(first, targets, ("outputs", "targets"), "one target for each pair")
    inputs.check_range(targets, mask, 0, 1, "1 for a pair of the same, 0 for a different one")
    same = jnp.asarray(targets).astype(first.dtype)
    distance = _distance(first, second)
    losses = same * jnp.square(distance) + (1 - same) * jnp.square(jax.nn.relu(margin - distance))
    return reduce(0.5 * losses, mask, reduction)


def triplet(
    outputs: tuple[Array, Array, Array],
    targets: Any = None,
    mask: Array | None = None,
    reduction: str = "mean",
    *,
    margin: float = 1.0,
) -> Array:
    """Triplet loss max(0, d(anchor, positive) - d(anchor, negative) + margin), d the Euclidean distance.

    ``outputs`` are (anchor, positive, negative), each ``[B, D]``; ``targets`` is not used. Schroff et al. 2015, with
    distances not squared as in Hermans et al. 2017.
    """
    inputs.check_setting("margin", margin, 0.0)
    anchor, positive, negative = _embeddings(outputs, ("anchor", "positive", "negative"))
    losses = jax.nn.relu(_distance(anchor, positive) - _distance(anchor, negative) + margin)
    return reduce(losses, mask, reduction)


def info_nce(
    outputs: tuple[Array, Array],
    targets: Any = None,
    mask: Array | None = None,
    reduction: str = "mean",
    *,
    temperature: float = 0.1,
) -> Array:
    """InfoNCE over a batch of pairs: each first is to find its second among all, and each second its first.

    ``outputs`` are two embeddings ``[B, D]``, compared by cosine / ``temperature``; ``targets`` is not used; an example
    whose ``mask`` is 0 is no candidate either. The examples of a batch interact, so gradients accumulated over
    microbatches are not those of the whole batch. van den Oord et al. 2018; both directions as in Radford et al. 2021.
    """
    first, second = map(_unit, _embeddings(outputs, ("first", "second")))
    similarity = jnp.matmul(first, second.T, precision="highest") / temperature
    own = jnp.diagonal(similarity)
    if mask is not None:
        check_mask(mask, own.shape)
        # A masked row keeps itself as its one candidate: its loss stays finite, and is then weighted with 0.
        allowed = jnp.asarray(mask).astype(bool)[None, :] | jnp.eye(own.shape[0], dtype=bool)
        rows, columns = jnp.where(allowed, similarity, -jnp.inf), jnp.where(allowed, similarity.T, -jnp.inf)
    else:
        rows, columns = similarity, similarity.T
    losses = 0.5 * (jax.nn.logsumexp(rows, -1) + jax.nn.logsumexp(columns, -1)) - own
    return reduce(losses, mask, reduction)


def _embeddings(outputs: Any, names: tuple[str, ...]) -> list[Array]:
    if not isinstance(outputs, (tuple, list)) or len(outputs) != len(names):
        raise check.InputError(f"outputs got {check.describe(outputs)}, wanted ({', '.join(names)}), each [B, D]")
    arrays = [inputs.predictions(x, name) for x, name in zip(outputs, names, strict=True)]
    for x, name in zip(arrays, names, strict=True):
        check.rank(x, 2, "[B, D]", name)
        check.same_shape(arrays[0], x, (names[0], name))
    return arrays


def _safe_norm(squares: Array) -> Array:
    """Square root whose gradient at 0 is 0 instead of infinite."""
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)


def _distance(a: Array, b: Array) -> Array:
    return _safe_norm(jnp.sum(jnp.square(a - b), -1))


def _unit(x: Array) -> Array:
    length = _safe_norm(jnp.sum(jnp.square(x), -1, keepdims=True))
    return x / jnp.where(length > 0, length, 1)
