"""Metrics of real values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp

from jdl import losses
from jdl.check import Array
from jdl.losses import inputs
from jdl.losses.reduction import weights
from jdl.metrics.state import Mean, State, namespace, ratio


def mse(outputs: Array, targets: Array, mask: Array | None = None) -> Mean:
    """Mean squared error; ``outputs`` and ``targets`` of one shape ``[B, ...]``."""
    return Mean.of_weighted(losses.mse(outputs, targets, mask, "none"), mask)


def mae(outputs: Array, targets: Array, mask: Array | None = None) -> Mean:
    """Mean absolute error; ``outputs`` and ``targets`` of one shape ``[B, ...]``."""
    return Mean.of_weighted(losses.mae(outputs, targets, mask, "none"), mask)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Determination(State):
    """Weight, mean and centred sum of squares of the targets, residual sum of squares; each by feature.

    Centred sums merge without cancellation (Chan, Golub & LeVeque 1979): a large mean costs no digits.
    """

    count: Array
    mean: Array
    centred: Array
    residual: Array

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Determination):
            return NotImplemented
        count = self.count + other.count
        share = ratio(other.count, count, 0.0)
        shift = other.mean - self.mean
        return type(self)(
            count,
            self.mean + share * shift,
            self.centred + other.centred + shift * shift * self.count * share,
            self.residual + other.residual,
        )

    def all_reduce(self, axis_name: str) -> Self:
        count = jax.lax.psum(self.count, axis_name)
        mean = ratio(jax.lax.psum(self.count * self.mean, axis_name), count, 0.0)
        centred = jax.lax.psum(self.centred + self.count * jnp.square(self.mean - mean), axis_name)
        return type(self)(count, mean, centred, jax.lax.psum(self.residual, axis_name))

    def compute(self) -> Array:
        xp = namespace(self.count)
        constant = xp.where(self.residual == 0, 1.0, 0.0)
        score = xp.where(self.centred == 0, constant, 1 - ratio(self.residual, self.centred))
        return xp.mean(xp.where(self.count > 0, score, float("nan")))


def r2(outputs: Array, targets: Array, mask: Array | None = None) -> Determination:
    """Coefficient of determination, 1 - Σ(y - ŷ)² / Σ(y - ȳ)²; ``outputs`` and ``targets`` of one shape ``[B, ...]``.

    Of each feature (the axes behind the batch, or behind the mask's when it has more), then averaged. Constant targets
    score 1 when met exactly, else 0, as in scikit-learn.
    """
    outputs, targets = inputs.values(outputs, targets, mask)
    weight = weights(mask, targets)
    examples = tuple(range(1 if mask is None else mask.ndim))

    def total(x: Array) -> Array:
        return jnp.sum(jnp.where(weight != 0, weight * x, 0), examples)

    count = total(jnp.ones_like(targets))
    mean = ratio(total(targets), count, 0.0)
    return Determination(count, mean, total(jnp.square(targets - mean)), total(jnp.square(targets - outputs)))
