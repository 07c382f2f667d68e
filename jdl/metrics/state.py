"""What a metric accumulates: a value that adds up."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.check import Array
from jdl.losses.reduction import weights


class State:
    """A metric's sums over some examples. Subclasses are frozen dataclasses of arrays, registered as pytrees.

    Adding is field by field unless a subclass says otherwise; zeros of the same shapes are the neutral element.
    """

    def __add__(self, other: Any) -> Any:
        if type(other) is not type(self):
            return NotImplemented
        return jax.tree.map(operator.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # the start of sum(states)

    def compute(self) -> Any:
        """The metric's value over all that was added."""
        raise NotImplementedError

    def all_reduce(self, axis_name: str) -> Self:
        """The sum over the devices of a named axis, the same on each."""
        return jax.lax.psum(self, axis_name)

    def __float__(self) -> float:
        return float(self.compute())

    def __format__(self, spec: str) -> str:
        value = np.asarray(self.compute())
        if value.ndim == 0:
            return format(float(value), spec)
        return np.array2string(value, formatter={"float_kind": lambda x: format(x, spec)})


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Mean(State):
    """A weighted mean, ``total / count``; NaN where nothing was counted."""

    total: Array
    count: Array

    @classmethod
    def of(cls, values: Array, mask: Array | None = None) -> Self:
        """Of ``values`` ``[B, ...]``, weighted by ``mask`` over their leading axes."""
        values = values if values.dtype in (jnp.float32, jnp.float64) else values.astype(jnp.float32)
        if mask is None:
            return cls(jnp.sum(values), jnp.asarray(values.size, values.dtype))
        weight = weights(mask, values)
        return cls(jnp.sum(jnp.where(weight != 0, weight * values, 0)), jnp.sum(weight))

    @classmethod
    def of_weighted(cls, values: Array, mask: Array | None) -> Self:
        """As ``of``, for values that are multiplied by ``mask`` already, as losses with ``reduction="none"`` are."""
        return cls(jnp.sum(values), jnp.sum(weights(mask, values)))

    def compute(self) -> Array:
        return ratio(self.total, self.count)


def all_reduce(states: Any, axis_name: str) -> Any:
    """Every state in a pytree, added up over the devices of ``axis_name``, inside ``shard_map`` or ``vmap``."""
    return jax.tree.map(lambda state: state.all_reduce(axis_name), states, is_leaf=lambda x: isinstance(x, State))


def metric_name(metric: Any) -> str:
    """What a metric is logged as: its ``name``, or the function's. Raises ``InputError`` for one without (a lambda)."""
    name = getattr(metric, "name", None) or getattr(metric, "__name__", None)
    if not isinstance(name, str) or name == "<lambda>":
        fix = "use def, or jdl.metrics.configured(metric, name=..., **settings) in place of a lambda or partial"
        raise check.InputError(f"metrics got {check.describe(metric)}, wanted a metric with a name; {fix}")
    return name


def namespace(*arrays: Any) -> Any:
    """jax.numpy if one of them is JAX's, else NumPy, which spares a dispatch for each operation on the host."""
    return jnp if any(isinstance(x, jax.Array) for x in arrays) else np


def ratio(numerator: Any, denominator: Any, empty: float = float("nan")) -> Any:
    """The quotient, ``empty`` where the denominator is 0, without a warning."""
    xp = namespace(numerator, denominator)
    numerator, denominator = xp.asarray(numerator), xp.asarray(denominator)
    nothing = denominator == 0
    return xp.where(nothing, empty, numerator / xp.where(nothing, 1, denominator))
