"""Margin losses: nothing to gain beyond the margin, as in support vector machines."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdl.check import Array
from jdl.losses import inputs
from jdl.losses.reduction import per_example, reduce


def hinge(
    outputs: Array, targets: Array, mask: Array | None = None, reduction: str = "mean", *, margin: float = 1.0
) -> Array:
    """Hinge loss max(0, margin - y·x), or its sum over the wrong classes.

    Binary: scores ``[B]``, ``[B, 1]`` or ``[B, K]``, targets -1 or 1 of that shape (``[B, 1]`` meets ``[B]``). Classes:
    scores ``[..., C]`` and integer labels ``[...]``, Σ_{j≠y} max(0, margin - x_y + x_j) / C (Weston & Watkins 1999).
    """
    return reduce(_violations(outputs, targets, mask, margin, squared=False), mask, reduction)


def squared_hinge(
    outputs: Array, targets: Array, mask: Array | None = None, reduction: str = "mean", *, margin: float = 1.0
) -> Array:
    """As ``hinge``, each max(0, ·) squared: differentiable everywhere, harder on large violations."""
    return reduce(_violations(outputs, targets, mask, margin, squared=True), mask, reduction)


def _violations(outputs: Array, targets: Array, mask: Array | None, margin: float, squared: bool) -> Array:
    inputs.check_setting("margin", margin, 0.0)
    if not inputs.is_labels(outputs, targets) or outputs.shape[-1] == 1:
        outputs, signs = inputs.binary(outputs, targets, mask)
        inputs.check_signs(targets, mask)
        losses = jax.nn.relu(margin - signs * outputs)
        return per_example(jnp.square(losses) if squared else losses, mask)
    outputs, labels, _ = inputs.class_targets(outputs, targets, mask)
    right = jnp.take_along_axis(outputs, labels[..., None], -1, mode="fill")
    losses = jax.nn.relu(margin - right + outputs)
    losses = jnp.square(losses) if squared else losses
    wrong = jnp.arange(outputs.shape[-1], dtype=labels.dtype) != labels[..., None]
    return jnp.mean(jnp.where(wrong, losses, 0), -1)
