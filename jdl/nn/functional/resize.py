"""Larger and smaller images by nearest cell or by linear interpolation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.nn.functional import window as w

METHODS = ("nearest", "linear")


def resize(x: jax.Array, size: w.Sizes, method: str = "linear") -> jax.Array:
    """``x [B, *spatial, C]`` with its 1 to 3 spatial axes at ``size``: an int for all of them, or one for each.

    ``"nearest"`` takes cell floor(i · old / new); ``"linear"`` (on images: bilinear) interpolates between cell
    centres, without smoothing when it shrinks. Both are PyTorch's ``interpolate`` with ``align_corners=False``.
    Raises InputError for a wrong rank, size or method.
    """
    axes = getattr(x, "ndim", 0) - 2
    check.rank(x, {3, 4, 5}, "[B, *spatial, C] with 1 to 3 spatial axes")
    sizes, old = w.per_axis(size, axes, "size"), w.spatial(x, axes)
    if method not in METHODS:
        raise check.InputError(f'method got "{method}", wanted "nearest" or "linear" (which on images is bilinear)')
    if method == "linear":
        return jax.image.resize(x, (x.shape[0], *sizes, x.shape[-1]), "linear", antialias=False)
    for axis, (before, after) in enumerate(zip(old, sizes, strict=True), start=1):
        if after % before == 0:  # a broadcast, whose gradient is a sum and not a scatter
            x = jnp.repeat(x, after // before, axis)
        else:
            x = jnp.take(x, np.arange(after) * before // after, axis, mode="clip")
    return x


def upsample(x: jax.Array, factor: w.Sizes, method: str = "nearest") -> jax.Array:
    """``x [B, *spatial, C]`` with every spatial axis ``factor`` times as long, as `resize` does it."""
    axes = getattr(x, "ndim", 0) - 2
    check.rank(x, {3, 4, 5}, "[B, *spatial, C] with 1 to 3 spatial axes")
    factors = w.per_axis(factor, axes, "factor")
    return resize(x, [n * k for n, k in zip(x.shape[1:-1], factors, strict=True)], method)
