"""Layers that slide a window over one, two or three spatial axes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax

from jdl import check
from jdl.nn import functional as F
from jdl.nn import init, inputs
from jdl.nn.core import Layer
from jdl.nn.functional.window import LAYOUTS, Padding, Sizes, spatial
from jdl.nn.net import Net
from jdl.nn.settings import Param


class Conv(Layer):
    """Convolution over ``[B, *spatial, C]``, channels last, to ``[B, *spatial, features]``.

    ``kernel_size`` says over how many axes: an int is that size on both axes of an image ``[B, H, W, C]``, a tuple has
    one for each axis, ``(3,)`` for sequences ``[B, W, C]`` and ``(3, 3, 3)`` for volumes ``[B, D, H, W, C]``.
    ``padding`` is ``"SAME"`` (the default: the size is kept, or divided by the stride), ``"VALID"`` (none, PyTorch's
    default), cells on both sides, or for each axis a number or (before, after); more in `functional.conv`.

    Parameters: ``kernel [*kernel_size, C / groups, features]`` (by default He normal) and ``bias [features]`` (zero;
    absent with ``bias=False``). Raises InputError for a wrong rank, groups that do not divide, and a window larger
    than the padded input.
    """

    features: int
    kernel_size: Sizes
    _: dataclasses.KW_ONLY
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    groups: int = 1
    bias: bool = True
    kernel_init: init.Initializer = init.he_normal()
    bias_init: init.Initializer = init.zeros()

    def __post_init__(self) -> None:
        inputs.counts(self, "features", "kernel_size", "stride", "dilation", "groups")
        if len(self._window) not in LAYOUTS:
            name = f"{type(self).__name__}.kernel_size"
            raise check.InputError(f"{name} got {self.kernel_size}, wanted an int or 1 to 3 of them")

    @property
    def _window(self) -> tuple[int, ...]:
        size = self.kernel_size
        return tuple(size) if isinstance(size, Sequence) else (size, size)

    def params(self, x: jax.Array) -> dict[str, Param]:
        spatial(x, len(self._window))
        kernel_shape = (*self._window, x.shape[-1] // self.groups, self.features)
        kernel = {"kernel": Param(kernel_shape, self.kernel_init)}
        return kernel | ({"bias": Param((self.features,), self.bias_init)} if self.bias else {})

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        bias = net.bias if self.bias else None
        return F.conv(
            x,
            net.kernel,
            bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


class ConvTranspose(Conv):
    """The transpose of a convolution, which enlarges: ``[B, *spatial, C]`` to ``[B, *spatial, features]``.

    Settings and parameters as for `Conv`, and ``output_padding``; ``padding`` is that of the convolution transposed.
    With ``"SAME"`` an axis of n cells becomes n · stride; otherwise (n - 1) stride + dilation (k - 1) + 1 - before -
    after + output_padding, as PyTorch's. More in `functional.conv_transpose`.
    """

    _: dataclasses.KW_ONLY
    output_padding: Sizes = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        inputs.counts(self, "output_padding", minimum=0)

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        bias = net.bias if self.bias else None
        return F.conv_transpose(
            x,
            net.kernel,
            bias,
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )
