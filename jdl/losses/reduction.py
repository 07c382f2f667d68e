"""From losses to one number: masks, means and sums."""

from __future__ import annotations

import jax.numpy as jnp

from jdl import check
from jdl.check import Array

REDUCTIONS = ("mean", "sum", "none")


def reduce(losses: Array, mask: Array | None, reduction: str) -> Array:
    """``losses`` of examples or tokens, weighted by ``mask``, as ``reduction`` says."""
    if reduction not in REDUCTIONS:
        raise check.InputError(f"reduction got {reduction!r}, wanted one of {', '.join(map(repr, REDUCTIONS))}")
    if mask is None:
        return {"mean": jnp.mean, "sum": jnp.sum, "none": jnp.asarray}[reduction](losses)
    weight = weights(mask, losses)
    losses = jnp.where(weight != 0, weight * losses, 0)
    if reduction == "none":
        return losses
    if reduction == "sum":
        return jnp.sum(losses)
    total = jnp.sum(weight)
    return jnp.sum(losses) / jnp.where(total == 0, 1, total)


def per_example(losses: Array, mask: Array | None) -> Array:
    """The mean over feature axes: those behind the batch axis, or behind the mask's axes when it has more."""
    if mask is not None:
        check_mask(mask, losses.shape)
    features = tuple(range(1 if mask is None else mask.ndim, losses.ndim))
    return jnp.mean(losses, features) if features else losses


def weights(mask: Array | None, losses: Array) -> Array:
    """``mask`` as numbers of the shape and dtype of ``losses``; ones where there is no mask."""
    if mask is None:
        return jnp.ones_like(losses)
    return spread(mask, losses.shape).astype(losses.dtype)


def spread(mask: Array, shape: tuple[int, ...]) -> Array:
    """``mask`` repeated over the axes of ``shape`` that it lacks."""
    check_mask(mask, shape)
    return jnp.broadcast_to(jnp.asarray(mask).reshape(mask.shape + (1,) * (len(shape) - mask.ndim)), shape)


def check_mask(mask: Array, shape: tuple[int, ...]) -> None:
    """``mask`` covers the leading axes of ``shape``."""
    check.array(mask, "mask")
    if mask.shape != shape[: mask.ndim]:
        fits = " or ".join(str(list(shape[:axes])) for axes in range(1, len(shape) + 1)) or "[]"
        trailing_one = mask.ndim > 1 and mask.shape[-1] == 1 and mask.shape[:-1] == shape[: mask.ndim - 1]
        fix = "; use mask[..., 0]" if trailing_one else ""
        raise check.InputError(f"mask got {check.describe(mask)}, wanted {fits} for losses of shape {list(shape)}{fix}")
