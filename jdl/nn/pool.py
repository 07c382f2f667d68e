"""Layers that summarise windows, or all of space, by their largest value or their mean."""

from __future__ import annotations

import jax

from jdl.nn import functional as F
from jdl.nn import inputs
from jdl.nn.core import Layer
from jdl.nn.functional.window import Padding, Sizes
from jdl.nn.net import Net


class _Pool(Layer):
    window: Sizes
    stride: Sizes | None = None
    padding: Padding = "VALID"

    def __post_init__(self) -> None:
        inputs.counts(self, "window", *(["stride"] if self.stride is not None else []))


class MaxPool(_Pool):
    """The largest value of every window: ``[B, *spatial, C]`` to ``[B, *spatial, C]``.

    ``window`` is an int for every spatial axis of the input, or one for each; ``stride`` is the window unless given.
    Cells that fill no whole window are left out. More, also on ties, in `functional.max_pool`.
    """

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return F.max_pool(x, self.window, self.stride, self.padding)


class AveragePool(_Pool):
    """The mean of every window, padding not counted: ``[B, *spatial, C]`` to ``[B, *spatial, C]``.

    Settings as for `MaxPool`.
    """

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return F.average_pool(x, self.window, self.stride, self.padding)


class GlobalMaxPool(Layer):
    """The largest value of every channel: ``[B, *spatial, C]`` to ``[B, C]``."""

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return F.global_max_pool(x)


class GlobalAveragePool(Layer):
    """The mean of every channel: ``[B, *spatial, C]`` to ``[B, C]``."""

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return F.global_average_pool(x)
