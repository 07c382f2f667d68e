"""Layers that change the shape and hold no arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax

from jdl import check
from jdl.nn import functional as F
from jdl.nn import inputs
from jdl.nn.core import Layer
from jdl.nn.functional.window import Sizes
from jdl.nn.net import Net


class Flatten(Layer):
    """All axes but the first as one: ``[B, ...]`` to ``[B, D]``, the last axis running fastest."""

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        _check_batched(x)
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


class Reshape(Layer):
    """Every example in another shape: ``[B, ...]`` to ``[B, *shape]``. One size may be -1, what is left.

    Raises InputError when the numbers of entries differ.
    """

    shape: Sequence[int]

    def __post_init__(self) -> None:
        if not isinstance(self.shape, tuple) or self.shape.count(-1) > 1 or any(size < -1 for size in self.shape):
            raise check.InputError(f"Reshape.shape got {self.shape}, wanted a tuple of sizes, at most one of them -1")

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        _check_batched(x)
        shape, entries = tuple(self.shape), math.prod(x.shape[1:])
        known = math.prod(size for size in shape if size != -1)
        if entries != known and (-1 not in shape or not known or entries % known):
            raise check.InputError(
                f"input got {check.describe(x)}, {entries} entries an example, which do not fill {shape}; "
                "the batch axis is not part of the shape"
            )
        return x.reshape(x.shape[0], *(entries // known if size == -1 else size for size in shape))


class Upsample(Layer):
    """Every spatial axis of ``[B, *spatial, C]`` ``factor`` times as long, or one factor for each axis.

    ``method`` is ``"nearest"`` or ``"linear"`` (bilinear on images), as in `functional.resize`.
    """

    factor: Sizes
    method: str = "nearest"

    def __post_init__(self) -> None:
        inputs.counts(self, "factor")

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return F.upsample(x, self.factor, self.method)


class Resize(Layer):
    """``[B, *spatial, C]`` with its spatial axes at ``size``: an int for all, or one for each.

    ``method`` is ``"linear"`` (bilinear on images) or ``"nearest"``, as in `functional.resize`.
    """

    size: Sizes
    method: str = "linear"

    def __post_init__(self) -> None:
        inputs.counts(self, "size")

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return F.resize(x, self.size, self.method)


def _check_batched(x: jax.Array) -> None:
    check.array(x, "input")
    if x.ndim == 0:
        raise check.InputError(f"input got {check.describe(x)}, wanted [B, ...]")
