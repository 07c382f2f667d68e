"""Inputs of mean 0 and standard deviation 1, with the statistics of the training split alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.data.counts import whole


@dataclasses.dataclass(frozen=True, eq=False)
class Normaliser:
    """``apply(x) = (x - mean) / std`` and its inverse; works on NumPy and JAX arrays, under jit too.

    Attributes:
        mean: float32, broadcasts against one example.
        std: float32, the biased standard deviation; 1 where a value never changes.
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def fit(cls, inputs: Any, axis: int | tuple[int, ...] | None = 0) -> Normaliser:
        """Measure the training split ``[N, …]``.

        ``axis`` says what is pooled, as in ``np.mean``: 0 (each feature by itself, for tables), ``(0, 1, 2)`` (each
        channel of images ``[N, H, W, C]``), or None (one mean and one standard deviation for everything).

        Raises:
            InputError: no examples, not real numbers, or an ``axis`` without the examples' axis 0.
        """
        inputs = np.asarray(inputs)
        if inputs.ndim == 0 or inputs.size == 0 or inputs.dtype.kind in "OUSMmc":
            raise check.InputError(f"inputs got {check.describe(inputs)}, wanted real numbers [N, …] with N ≥ 1")
        pooled = _axes(axis, inputs)
        count = np.prod([inputs.shape[a] for a in pooled])
        mean = sum(part.sum(pooled, np.float64, keepdims=True) for part in _parts(inputs)) / count
        variance = sum(((part - mean) ** 2).sum(pooled, keepdims=True) for part in _parts(inputs)) / count
        std = np.sqrt(variance)
        std = np.where(std <= 1e-10 * np.abs(mean), 1, std)  # the mean of equal values is rounded, too
        shape = () if axis is None else std.shape[1:]
        return cls(np.asarray(mean, np.float32).reshape(shape), np.asarray(std, np.float32).reshape(shape))

    def apply(self, inputs: Any) -> Any:
        """``(inputs - mean) / std`` for ``[…, *example]``; integers become float32, floating dtypes stay."""
        inputs = _floating(inputs)
        return (inputs - self.mean.astype(inputs.dtype)) / self.std.astype(inputs.dtype)

    def invert(self, inputs: Any) -> Any:
        """``inputs · std + mean``: what `apply` was given."""
        inputs = _floating(inputs)
        return inputs * self.std.astype(inputs.dtype) + self.mean.astype(inputs.dtype)


def _axes(axis: int | tuple[int, ...] | None, inputs: np.ndarray) -> tuple[int, ...]:
    several = range(inputs.ndim) if axis is None else axis if np.iterable(axis) else (axis,)
    axes = tuple(sorted({whole("axis", a, -inputs.ndim, inputs.ndim) % inputs.ndim for a in several}))
    if 0 not in axes:
        fix = "axis 0 runs over the examples and must be pooled"
        raise check.InputError(f"axis got {axis}, wanted axes of {check.describe(inputs)} with 0 among them; {fix}")
    return axes


def _parts(inputs: np.ndarray, size: int = 2**22) -> Iterator[np.ndarray]:
    """``inputs`` a few examples at a time, so that the float64 copies are small."""
    rows = max(1, size // max(1, inputs[0].size))
    return (inputs[start : start + rows].astype(np.float64) for start in range(0, len(inputs), rows))


def _floating(inputs: Any) -> Any:
    inputs = inputs if check.is_array(inputs) else np.asarray(inputs)
    return inputs if jnp.issubdtype(inputs.dtype, jnp.inexact) else inputs.astype(np.float32)
