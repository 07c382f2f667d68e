"""Pooling over windows and over everything, channels last."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdl import check
from jdl.nn.functional import window as w
from jdl.nn.functional.precision import wide


def max_pool(x: jax.Array, window: w.Sizes, stride: w.Sizes | None = None, padding: w.Padding = "VALID") -> jax.Array:
    """The largest value of every window, for each channel: ``[B, *spatial, C]`` to ``[B, *spatial, C]``.

    ``stride`` is the window unless given; padding cells never win. Where several cells tie, windows that touch without
    overlap share the gradient evenly among them, overlapping ones give it to the first (PyTorch: always the first).

    Raises InputError for a wrong rank and for a window larger than the input.
    """
    return _pool(x, window, stride, padding, jnp.max, _reduce_max)


def average_pool(
    x: jax.Array, window: w.Sizes, stride: w.Sizes | None = None, padding: w.Padding = "VALID"
) -> jax.Array:
    """The mean of every window, for each channel: ``[B, *spatial, C]`` to ``[B, *spatial, C]``.

    ``stride`` is the window unless given. Only cells of the input count, never padding (PyTorch's
    ``count_include_pad=False``). Summed in float32 at least.

    Raises InputError for a wrong rank and for a window larger than the input.
    """
    return _pool(x, window, stride, padding, jnp.mean, _reduce_mean)


def global_max_pool(x: jax.Array) -> jax.Array:
    """The largest value of every channel, ``[B, *spatial, C]`` to ``[B, C]``; ties share the gradient."""
    return jnp.max(x, _all_spatial(x))


def global_average_pool(x: jax.Array) -> jax.Array:
    """The mean of every channel, ``[B, *spatial, C]`` to ``[B, C]``, summed in float32 at least."""
    return jnp.mean(x, _all_spatial(x))


def _all_spatial(x: jax.Array) -> tuple[int, ...]:
    check.rank(x, {3, 4, 5}, "[B, *spatial, C] with 1 to 3 spatial axes")
    check.floating(x)
    return tuple(range(1, x.ndim - 1))


def _pool(x, window, stride, padding, reduce_blocks, reduce_windows) -> jax.Array:
    axes = len(window) if isinstance(window, Sequence) else getattr(x, "ndim", 0) - 2
    if axes not in w.LAYOUTS:
        check.rank(x, {3, 4, 5}, "[B, *spatial, C] with 1 to 3 spatial axes")
        raise check.InputError(f"window got {window}, wanted one int for each of 1 to 3 spatial axes")
    sizes = w.spatial(x, axes)
    window = w.per_axis(window, axes, "window")
    stride = window if stride is None else w.per_axis(stride, axes, "stride")
    pads = w.pads(padding, sizes, window, stride)
    if any(max(pair) >= size for pair, size in zip(pads, window, strict=True)):
        raise check.InputError(f"padding got {pads}, wanted less than the window {window}: one would hold only padding")
    w.fits("the window", window, sizes, pads)
    if window == stride and not any(map(max, pads)):
        return reduce_blocks(*_blocks(x, window))
    return reduce_windows(x, window, stride, pads)


def _blocks(x: jax.Array, window: tuple[int, ...]) -> tuple[jax.Array, tuple[int, ...]]:
    """``x`` with every window an axis of its own, and those axes.

    The gradient of a reduction over axes is a broadcast; that of ``reduce_window`` is a scatter, several times dearer.
    """
    counts = [n // k for n, k in zip(x.shape[1:-1], window, strict=True)]
    cropped = x[(slice(None), *(slice(count * size) for count, size in zip(counts, window, strict=True)))]
    split = [size for pair in zip(counts, window, strict=True) for size in pair]
    return cropped.reshape(x.shape[0], *split, x.shape[-1]), tuple(range(2, 2 * len(window) + 1, 2))


def _reduce_max(x: jax.Array, window, stride, pads) -> jax.Array:
    return lax.reduce_window(x, np.array(-np.inf, x.dtype), lax.max, *_dimensions(window, stride, pads))


def _reduce_mean(x: jax.Array, window, stride, pads) -> jax.Array:
    x_wide = wide(x)
    sums = lax.reduce_window(x_wide, np.array(0, x_wide.dtype), lax.add, *_dimensions(window, stride, pads))
    counts = np.ones((), int)
    for n, k, s, (before, after) in zip(x.shape[1:-1], window, stride, pads, strict=True):
        starts = np.arange(0, n + before + after - k + 1, s) - before
        counts = np.multiply.outer(counts, np.minimum(starts + k, n) - np.maximum(starts, 0))
    return (sums / counts[..., None].astype(sums.dtype)).astype(x.dtype)


def _dimensions(window, stride, pads):
    return (1, *window, 1), (1, *stride, 1), ((0, 0), *pads, (0, 0))
