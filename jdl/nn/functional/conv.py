"""Convolution and its transpose over one, two or three spatial axes, channels last."""

from __future__ import annotations

import jax
from jax import lax

from jdl import check
from jdl.nn.functional import window as w

_DIMENSIONS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


def conv(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: w.Sizes = 1,
    padding: w.Padding = "SAME",
    dilation: w.Sizes = 1,
    groups: int = 1,
) -> jax.Array:
    """Cross-correlation of ``x [B, *spatial, C]`` with ``kernel [*window, C / groups, F]``: ``[B, *spatial, F]``.

    What deep learning calls convolution; the rank of the kernel says over how many axes (1 to 3). An axis of n cells
    becomes floor((n + pads - dilation (k - 1) - 1) / stride) + 1 long. ``groups`` splits the channels into that many
    independent convolutions (C of them: depthwise). Computed in the dtype of ``x``. ``padding`` is ``"SAME"`` (the
    size is kept, or divided by the stride), ``"VALID"``, a number, or a number or (before, after) for each axis.

    Raises InputError for a wrong rank, channels the kernel was not made for, groups that do not divide, and a window
    larger than the padded input.
    """
    axes = _spatial_axes(kernel)
    sizes = w.spatial(x, axes)
    _check_channels(x, kernel, bias, groups)
    stride, dilation = w.per_axis(stride, axes, "stride"), w.per_axis(dilation, axes, "dilation")
    extent = _extent(kernel, dilation)
    pads = w.pads(padding, sizes, extent, stride)
    w.fits("the kernel", extent, sizes, pads)
    y = lax.conv_general_dilated(
        x,
        kernel.astype(x.dtype),
        window_strides=stride,
        padding=pads,
        rhs_dilation=dilation,
        dimension_numbers=_DIMENSIONS[axes],
        feature_group_count=groups,
    )
    return y if bias is None else y + bias.astype(x.dtype)


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    bias: jax.Array | None = None,
    *,
    stride: w.Sizes = 1,
    padding: w.Padding = "SAME",
    output_padding: w.Sizes = 0,
    dilation: w.Sizes = 1,
    groups: int = 1,
) -> jax.Array:
    """The gradient of `conv` with respect to its input, used forwards: upsampling by ``stride`` that is learnt.

    ``x [B, *spatial, C]``, ``kernel [*window, C / groups, F]``, result ``[B, *spatial, F]``. Cell i of the input adds
    x[i] · kernel[t] to cell i · stride + t · dilation - before of the output: the taps are not flipped, as in PyTorch,
    whose weight ``[C, F / groups, *window]`` is this kernel, axes moved. ``padding`` names the padding of the
    convolution being transposed, so it crops: an axis of n cells becomes (n - 1) stride + dilation (k - 1) + 1 -
    before - after + output_padding long, and with ``"SAME"`` exactly n · stride + output_padding. ``output_padding``
    (less than the stride or the dilation) makes the far end longer, for the sizes that `conv` rounds down.

    Raises InputError as `conv` does, and when nothing is left after cropping.
    """
    axes = _spatial_axes(kernel)
    sizes = w.spatial(x, axes)
    _check_channels(x, kernel, bias, groups)
    stride, dilation = w.per_axis(stride, axes, "stride"), w.per_axis(dilation, axes, "dilation")
    extra = w.per_axis(output_padding, axes, "output_padding", minimum=0)
    if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise check.InputError(f"output_padding got {extra}, wanted less than stride {stride} or dilation {dilation}")
    extent = _extent(kernel, dilation)
    if padding == "SAME":  # of a convolution that takes n * stride cells to n; negative where the window is shorter
        totals = [k - s for k, s in zip(extent, stride, strict=True)]
        crops = [(max(total, 0) // 2, total - max(total, 0) // 2) for total in totals]
    else:
        crops = w.pads(padding, sizes, extent, stride)
    pads = [(k - 1 - lo, k - 1 - hi + e) for k, (lo, hi), e in zip(extent, crops, extra, strict=True)]
    spread = [(n - 1) * s + 1 for n, s in zip(sizes, stride, strict=True)]
    if any(n + lo + hi < k for n, (lo, hi), k in zip(spread, pads, extent, strict=True)):
        raise check.InputError(f"padding got {padding}, which crops away all that {check.describe(x)} gives; use less")
    y = lax.conv_general_dilated(
        x,
        lax.rev(kernel.astype(x.dtype), range(axes)),
        window_strides=(1,) * axes,
        padding=pads,
        lhs_dilation=stride,
        rhs_dilation=dilation,
        dimension_numbers=_DIMENSIONS[axes],
        feature_group_count=groups,
    )
    return y if bias is None else y + bias.astype(x.dtype)


def _spatial_axes(kernel: jax.Array) -> int:
    check.rank(kernel, {3, 4, 5}, "[*window, C / groups, F] with 1 to 3 window axes", "kernel")
    return kernel.ndim - 2


def _extent(kernel: jax.Array, dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Cells that the window covers, the gaps of its dilation counted."""
    return tuple(d * (k - 1) + 1 for k, d in zip(kernel.shape[:-2], dilation, strict=True))


def _check_channels(x: jax.Array, kernel: jax.Array, bias: jax.Array | None, groups: int) -> None:
    channels, (per_group, features) = x.shape[-1], kernel.shape[-2:]
    if groups < 1 or channels % groups or features % groups:
        raise check.InputError(
            f"groups got {groups}, wanted a divisor of the {channels} channels that come and the {features} that go"
        )
    if per_group * groups != channels:
        raise check.InputError(
            f"input got {check.describe(x)}, wanted {per_group * groups} channels on the last axis (the kernel is "
            f"{check.describe(kernel)}, groups {groups}); channels come last, [B, H, W, C]"
        )
    if bias is not None:
        check.rank(bias, 1, "[F]", "bias")
        check.axis(bias, 0, features, "bias", f"the kernel is {check.describe(kernel)}")
