"""Normalisation: statistics in float32 at least, biased variances, results in the dtype of the input."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jdl import check
from jdl.nn.functional.precision import wide


def batch_statistics(x: jax.Array, axis_name: str | tuple[str, ...] | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance ``[C]`` of ``x [..., C]`` over every axis but the last, in float32 at least.

    With ``axis_name``, over the devices (or the vmap) of that axis or those axes too. Raises InputError for an ``x``
    that is not floating.
    """
    x = _wide(x)
    mean = _average(x, axis_name)
    return mean, _average(jnp.square(x - mean), axis_name)


def batch_norm(
    x: jax.Array,
    mean: jax.Array,
    var: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    eps: float = 1e-5,
) -> jax.Array:
    """``(x - mean) / sqrt(var + eps) * scale + bias`` for ``x [..., C]`` and vectors ``[C]`` (Ioffe & Szegedy, 2015).

    The statistics are the caller's: `batch_statistics` in training, running ones in evaluation.
    """
    x_wide = _wide(x)
    for name, vector in (("mean", mean), ("var", var)):
        _check_vector(x, vector, name)
    centred = x_wide - mean.astype(x_wide.dtype)
    return _affine(centred, var.astype(x_wide.dtype), scale, bias, eps, x)


def batch_norm_in_training(
    x: jax.Array,
    scale: jax.Array | None = None,
    bias: jax.Array | None = None,
    eps: float = 1e-5,
    axis_name: str | tuple[str, ...] | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`batch_norm` of ``x [..., C]`` by its own `batch_statistics`, and these: ``(y, mean [C], var [C])``.

    The gradient takes two sums over the batch, where that of the two functions one after the other takes five.
    """
    x_wide = _wide(x)
    for name, vector in (("scale", scale), ("bias", bias)):
        if vector is not None:
            _check_vector(x, vector, name)
    channels = x.shape[-1:]
    scale = jnp.ones(channels, x_wide.dtype) if scale is None else scale.astype(x_wide.dtype)
    bias = jnp.zeros(channels, x_wide.dtype) if bias is None else bias.astype(x_wide.dtype)
    y, mean, var = _normalised(x_wide, scale, bias, eps, axis_name)
    return y.astype(x.dtype), mean, var


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _normalised(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float, axis_name: Any) -> Any:
    mean, var = batch_statistics(x, axis_name)
    return batch_norm(x, mean, var, scale, bias, eps), mean, var


@_normalised.defjvp
def _(eps: float, axis_name: Any, primals: Any, tangents: Any) -> Any:
    """With n = (x - mean) / std: std dn = dx - mean(dx) - n mean(n dx).

    What belongs to a channel is added up before it meets the images, so that in reverse each sum is taken once.
    """
    (x, scale, bias), (dx, dscale, dbias) = primals, tangents
    mean, var = batch_statistics(x, axis_name)
    rate = lax.rsqrt(var + eps)
    normed = (x - mean) * rate
    average = functools.partial(_average, axis_name=axis_name)
    slope, shift, stretch = scale * rate, average(dx), average(normed * dx)
    dy = slope * dx + (dbias - slope * shift) + normed * (dscale - slope * stretch)
    return (normed * scale + bias, mean, var), (dy, shift, 2 * stretch / rate)


def _average(x: jax.Array, axis_name: Any) -> jax.Array:
    """Over every axis but the last, and over the devices of ``axis_name``."""
    mean = jnp.mean(x, tuple(range(x.ndim - 1)))
    return mean if axis_name is None else lax.pmean(mean, axis_name)


def layer_norm(
    x: jax.Array, scale: jax.Array | None = None, bias: jax.Array | None = None, eps: float = 1e-5
) -> jax.Array:
    """Zero mean and unit variance along the last axis of ``x [..., C]`` (Ba et al., 2016)."""
    centred, var = _centre(_wide(x), (-1,))
    return _affine(centred, var, scale, bias, eps, x)


def rms_norm(x: jax.Array, scale: jax.Array | None = None, eps: float = 1e-5) -> jax.Array:
    """``x / sqrt(mean(x²) + eps) * scale`` along the last axis of ``x [..., C]`` (Zhang & Sennrich, 2019)."""
    x_wide = _wide(x)
    return _affine(x_wide, jnp.mean(jnp.square(x_wide), -1, keepdims=True), scale, None, eps, x)


def group_norm(
    x: jax.Array, groups: int, scale: jax.Array | None = None, bias: jax.Array | None = None, eps: float = 1e-5
) -> jax.Array:
    """Zero mean and unit variance over space and a group of C / groups channels, for each example.

    ``x [B, *spatial, C]``, ``scale`` and ``bias`` ``[C]`` (Wu & He, 2018). Raises InputError when the groups do not
    divide the channels.
    """
    x_wide = _wide(x)
    if x.ndim < 2:
        raise check.InputError(f"input got {check.describe(x)}, wanted [B, *spatial, C]")
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise check.InputError(
            f"groups got {groups}, wanted a divisor of the {channels} channels of {check.describe(x)}"
        )
    grouped = x_wide.reshape(*x.shape[:-1], groups, channels // groups)
    centred, var = _centre(grouped, (*range(1, x.ndim - 1), x.ndim))
    normed = centred * lax.rsqrt(var + eps)
    return _scale_and_shift(normed.reshape(x.shape), scale, bias, x)


def instance_norm(
    x: jax.Array, scale: jax.Array | None = None, bias: jax.Array | None = None, eps: float = 1e-5
) -> jax.Array:
    """Zero mean and unit variance over space, for each example and channel of ``x [B, *spatial, C]`` (Ulyanov, 2016).

    Raises InputError where space is a single cell, whose variance is nothing.
    """
    x_wide = _wide(x)
    if x.ndim < 3 or all(size == 1 for size in x.shape[1:-1]):
        raise check.InputError(
            f"input got {check.describe(x)}, wanted [B, *spatial, C] with more than one cell; use layer_norm"
        )
    centred, var = _centre(x_wide, tuple(range(1, x.ndim - 1)))
    return _affine(centred, var, scale, bias, eps, x)


def _wide(x: jax.Array) -> jax.Array:
    check.array(x, "input")
    if x.ndim == 0:
        raise check.InputError(f"input got {check.describe(x)}, wanted [..., C]")
    return wide(x)


def _centre(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    """``x`` less its mean, and its biased variance."""
    # Two passes, since E[x²] - E[x]² loses all digits when the mean is large.
    centred = x - jnp.mean(x, axes, keepdims=True)
    return centred, jnp.mean(jnp.square(centred), axes, keepdims=True)


def _affine(centred, var, scale, bias, eps, like) -> jax.Array:
    return _scale_and_shift(centred * lax.rsqrt(var + eps), scale, bias, like)


def _scale_and_shift(normed: jax.Array, scale: jax.Array | None, bias: jax.Array | None, like: jax.Array) -> jax.Array:
    if scale is not None:
        _check_vector(like, scale, "scale")
        normed = normed * scale.astype(normed.dtype)
    if bias is not None:
        _check_vector(like, bias, "bias")
        normed = normed + bias.astype(normed.dtype)
    return normed.astype(like.dtype)


def _check_vector(x: jax.Array, vector: jax.Array, name: str) -> None:
    fix = f"one for each channel of {check.describe(x)}"
    check.rank(vector, 1, "[C]", name, fix)
    check.axis(vector, 0, x.shape[-1], name, fix)
