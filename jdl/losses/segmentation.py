"""Overlap losses for segmentation."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdl import check
from jdl.check import Array
from jdl.losses import inputs
from jdl.losses.reduction import check_mask, reduce, weights


def dice(
    outputs: Array,
    targets: Array,
    mask: Array | None = None,
    reduction: str = "mean",
    *,
    smooth: float = 1.0,
    over_batch: bool = False,
) -> Array:
    """Soft dice loss on logits, 1 - (2·Σ p·t + smooth) / (Σ p + Σ t + smooth), sums over an example's pixels.

    One region: logits ``[B, ...]`` (or ``[B, ..., 1]``), targets 0/1 ``[B, ...]``, p by sigmoid. Classes: logits
    ``[B, ..., C]``, integer labels ``[B, ...]`` (not one-hot), p by softmax, the mean over classes. ``mask`` ``[B]``
    weights examples; one with more axes weights pixels, and an example counts where any of its pixels does. ``smooth``
    > 0 is what an empty region is measured against. Milletari et al. 2016, with Σ p for their Σ p².

    With ``over_batch`` the sums run over the whole batch and the loss is one number, steadier where most examples lack
    a class. Then, and with a mask over pixels, gradients accumulated over microbatches are not the whole batch's.
    """
    inputs.check_positive("smooth", smooth)
    probabilities, truth = _regions(outputs, targets, mask)
    batch, pixels = probabilities.shape[0], probabilities.shape[1:-1]
    weight = jnp.ones((batch, *pixels), probabilities.dtype)
    if mask is not None:
        check_mask(mask, weight.shape)
        if over_batch or mask.ndim > 1:
            weight = weights(mask, weight)
        if mask.ndim > 1:
            mask = jnp.any(jnp.asarray(mask).astype(bool), tuple(range(1, mask.ndim)))
    weight = weight[..., None]
    axes = tuple(range(0 if over_batch else 1, probabilities.ndim - 1))
    overlap = jnp.sum(weight * probabilities * truth, axes)
    total = jnp.sum(weight * (probabilities + truth), axes)
    losses = jnp.mean(1 - (2 * overlap + smooth) / (total + smooth), -1)
    return reduce(losses, None if over_batch else mask, reduction)


def _regions(outputs: Array, targets: Array, mask: Array | None) -> tuple[Array, Array]:
    """Probabilities and truth, both ``[B, ..., C]``; one region is C = 1."""
    if inputs.is_labels(outputs, targets) and outputs.shape[-1] != 1:
        logits, labels, _ = inputs.class_targets(outputs, targets, mask)
        probabilities = jax.nn.softmax(logits, -1)
        truth = (jnp.arange(logits.shape[-1], dtype=labels.dtype) == labels[..., None]).astype(logits.dtype)
        truth = jnp.where((labels < logits.shape[-1])[..., None], truth, jnp.nan)
    else:
        logits, truth = inputs.binary(outputs, targets, mask)
        inputs.check_range(targets, mask, 0, 1, "1 inside the region, 0 outside")
        inputs.check_region(targets, mask)
        probabilities, truth = jax.nn.sigmoid(logits)[..., None], truth[..., None]
    if probabilities.ndim < 3:
        raise check.InputError(
            f"outputs got {check.describe(outputs)}, wanted [B, ...] with at least one axis of pixels"
        )
    return probabilities, truth
