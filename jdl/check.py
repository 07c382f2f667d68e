"""Checks at public boundaries: raised while tracing, before any arithmetic.

Every message says what came, what was wanted and the likely fix. A layer that runs adds where it happened:
``in encoder/2: Dense(10): got float32[32, 28, 28], …``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


class InputError(ValueError):
    """Something jdl cannot use. ``where`` is the layer's path or the argument's name, filled in by whoever knows it."""

    def __init__(self, message: str, where: str = ""):
        super().__init__(message)
        self.message, self.where = message, where

    def __str__(self) -> str:
        return f"in {self.where}: {self.message}" if self.where else self.message


def describe(x: Any) -> str:
    """``float32[32, 784]`` for an array, a short ``repr`` for anything else."""
    if hasattr(x, "shape") and hasattr(x, "dtype"):
        return f"{x.dtype}[{', '.join(map(str, x.shape))}]"
    if isinstance(x, (tuple, list)):
        return "(" + ", ".join([*map(describe, x[:4]), *["..."] * (len(x) > 4)]) + ")"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k}: {describe(v)}" for k, v in x.items()) + "}"
    text = repr(x)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _require(assertion: Callable[..., None], *arguments: Any, message: str) -> None:
    """Run a chex assertion; say ``message`` in place of chex's own words."""
    try:
        assertion(*arguments)
    except AssertionError:
        raise InputError(message) from None


def _say(name: str, x: Any, wanted: str, fix: str) -> str:
    return f"{name} got {describe(x)}, wanted {wanted}" + (f"; {fix}" if fix else "")


def is_array(x: Any) -> bool:
    """Whether ``x`` is an array, concrete, traced or abstract."""
    return isinstance(x, (jax.Array, np.ndarray, np.generic)) or (hasattr(x, "shape") and hasattr(x, "dtype"))


def integral(x: Any) -> int | None:
    """``x`` as an int where it is a whole number: NumPy's integers are, booleans, 2.0 and traced numbers are not."""
    try:
        return None if isinstance(x, bool) else operator.index(x)
    except TypeError:
        return None


def array(x: Any, name: str, fix: str = "") -> None:
    """``x`` is an array."""
    if not is_array(x):
        raise InputError(f"{name} got {type(x).__name__} {describe(x)}, wanted an array; {fix or 'use jnp.asarray'}")


def floating(x: Any, name: str = "input", fix: str = "convert it with x.astype(jnp.float32)") -> None:
    """``x`` is an array of a floating (or complex) dtype."""
    array(x, name)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        pixels = f"{fix}, and pixels also to about 0 to 1: x.astype(jnp.float32) / 255"
        raise InputError(_say(name, x, "a floating dtype", pixels if x.dtype == jnp.uint8 else fix))


def integer(x: Any, name: str = "input", fix: str = "") -> None:
    """``x`` is an array of an integer dtype."""
    array(x, name)
    _require(chex.assert_type, x, int, message=_say(name, x, "an integer dtype", fix))


def manual_axes(x: Any) -> frozenset[str]:
    """Mesh axes of ``shard_map`` along which ``x`` differs from device to device."""
    return jax.typeof(x).manual_axis_type.varying


def rank(x: Any, ranks: int | Collection[int], layout: str, name: str = "input", fix: str = "") -> None:
    """``x`` has one of ``ranks`` axes; ``layout`` is how a person writes them, ``[B, H, W, C]``."""
    array(x, name)
    allowed = {ranks} if isinstance(ranks, int) else set(ranks)
    _require(chex.assert_rank, x, allowed, message=_say(name, x, layout, fix))


def axis(x: Any, index: int, size: int, name: str = "input", fix: str = "") -> None:
    """Axis ``index`` of ``x`` has ``size`` entries."""
    wanted = f"{size} entries on axis {index}"
    _require(chex.assert_axis_dimension, x, index, size, message=_say(name, x, wanted, fix))


def same_shape(a: Any, b: Any, names: tuple[str, str], fix: str = "") -> None:
    """``a`` and ``b`` have one shape."""
    message = f"{names[0]} got {describe(a)} and {names[1]} got {describe(b)}, wanted equal shapes"
    _require(chex.assert_equal_shape, [a, b], message=message + (f"; {fix}" if fix else ""))


def same_batch(a: Any, b: Any, names: tuple[str, str], fix: str = "") -> None:
    """``a`` and ``b`` agree on their leading axis."""
    message = f"{names[0]} got {describe(a)} and {names[1]} got {describe(b)}, wanted the same batch size"
    _require(chex.assert_equal_shape_prefix, [a, b], 1, message=message + (f"; {fix}" if fix else ""))
