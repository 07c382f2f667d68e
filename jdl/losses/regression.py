"""Losses of real values. Each averages over feature axes, so that an example counts once whatever its size."""

from __future__ import annotations

import jax.numpy as jnp

from jdl.check import Array
from jdl.losses import inputs
from jdl.losses.reduction import per_example, reduce


def mse(outputs: Array, targets: Array, mask: Array | None = None, reduction: str = "mean") -> Array:
    """Mean squared error, (y - ŷ)²; ``outputs`` and ``targets`` of one shape ``[B, ...]``."""
    outputs, targets = inputs.values(outputs, targets, mask)
    return reduce(per_example(jnp.square(outputs - targets), mask), mask, reduction)


def mae(outputs: Array, targets: Array, mask: Array | None = None, reduction: str = "mean") -> Array:
    """Mean absolute error, abs(y - ŷ); ``outputs`` and ``targets`` of one shape ``[B, ...]``."""
    outputs, targets = inputs.values(outputs, targets, mask)
    return reduce(per_example(jnp.abs(outputs - targets), mask), mask, reduction)


def huber(
    outputs: Array, targets: Array, mask: Array | None = None, reduction: str = "mean", *, delta: float = 1.0
) -> Array:
    """Huber loss: ½e² up to abs(e) = ``delta`` (> 0), δ·abs(e) - ½δ² beyond; shapes as ``mse``. Huber 1964."""
    inputs.check_positive("delta", delta)
    outputs, targets = inputs.values(outputs, targets, mask)
    error = jnp.abs(outputs - targets)
    quadratic = jnp.minimum(error, delta)
    losses = quadratic * (error - 0.5 * quadratic)
    return reduce(per_example(losses, mask), mask, reduction)
