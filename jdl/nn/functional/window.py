"""The arithmetic of sliding windows that convolution and pooling share: layouts, paddings, sizes."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral

import jax

from jdl import check

LAYOUTS = {1: "[B, W, C]", 2: "[B, H, W, C]", 3: "[B, D, H, W, C]"}

Sizes = int | Sequence[int]
"""One number for every spatial axis, or one for each."""

Padding = str | int | Sequence[int | tuple[int, int]]
"""``"SAME"``, ``"VALID"``, cells on both sides of every axis, or for each axis one number or a pair (before, after)."""


def per_axis(value: Sizes, axes: int, name: str, minimum: int = 1) -> tuple[int, ...]:
    """``value`` as one int for each of ``axes`` spatial axes, none below ``minimum``."""
    sizes = tuple(value) if isinstance(value, Sequence) else (value,) * axes
    if len(sizes) != axes:
        raise check.InputError(f"{name} got {value}, wanted one int or {axes} of them, one for each spatial axis")
    if any(not isinstance(size, Integral) or size < minimum for size in sizes):
        raise check.InputError(f"{name} got {value}, wanted integers of at least {minimum}")
    return tuple(map(int, sizes))


def spatial(x: jax.Array, axes: int) -> tuple[int, ...]:
    """The spatial sizes of ``x [B, *spatial, C]``, which must be floating and have ``axes`` of them."""
    check.rank(x, axes + 2, LAYOUTS[axes], fix=_rank_fix(x, axes))
    check.floating(x)
    return x.shape[1:-1]


def _rank_fix(x: jax.Array, axes: int) -> str:
    if getattr(x, "ndim", 0) == axes + 1:
        fix = "add a channel axis with x[..., None], or a batch axis with x[None]"
        return f"{fix}; a window over sequences [B, W, C] has one axis, (3,) instead of 3" if axes == 2 else fix
    return f"the window has {axes} spatial {'axis' if axes == 1 else 'axes'}"


def pads(
    padding: Padding, sizes: Sequence[int], window: Sequence[int], stride: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    """``padding`` as (before, after) for each axis; ``window`` with its dilation counted.

    ``"SAME"`` gives ceil(size / stride) outputs, the odd cell going after (so TensorFlow and XLA; PyTorch pads both
    sides alike, which differs when stride > 1).
    """
    if isinstance(padding, str):
        if padding == "VALID":
            return ((0, 0),) * len(sizes)
        if padding == "SAME":
            totals = [max((-(-n // s) - 1) * s + w - n, 0) for n, w, s in zip(sizes, window, stride, strict=True)]
            return tuple((total // 2, total - total // 2) for total in totals)
        raise check.InputError(
            f'padding got "{padding}", wanted "SAME", "VALID", an int or a pair for each spatial axis'
        )
    per_axis = padding if isinstance(padding, Sequence) else (padding,) * len(sizes)
    pairs = tuple(tuple(pad) if isinstance(pad, Sequence) else (pad, pad) for pad in per_axis)
    if len(pairs) != len(sizes) or any(len(pair) != 2 or min(pair) < 0 for pair in pairs):
        wanted = f"a non-negative int, or {len(sizes)} ints or (before, after) pairs, one for each spatial axis"
        raise check.InputError(f"padding got {padding}, wanted {wanted}")
    return pairs  # type: ignore[return-value]


def fits(name: str, window: Sequence[int], sizes: Sequence[int], padding: Sequence[tuple[int, int]]) -> None:
    """Every axis of the padded input holds at least one window."""
    padded = [n + before + after for n, (before, after) in zip(sizes, padding, strict=True)]
    if any(w > n for w, n in zip(window, padded, strict=True)):
        raise check.InputError(
            f"{name} covers {tuple(window)} cells but the padded input has only {tuple(padded)}; "
            'use a smaller one, fewer poolings or strides before it, or padding="SAME"'
        )
