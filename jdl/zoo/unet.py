"""The U-Net: an image in, an image out, every scale between them joined across."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jdl import check, nn
from jdl.nn.inputs import counts
from jdl.zoo.images import check_image


class DoubleConvolution(nn.Layer):
    """Twice a 3×3 convolution, a norm where there is one, and an activation: ``[B, H, W, C]`` to ``[B, H, W, F]``."""

    features: int
    _: dataclasses.KW_ONLY
    norm: nn.Layer | None = None
    activation: Callable[[jax.Array], jax.Array] = nn.relu

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        for number in (1, 2):
            x = net.child(f"conv_{number}", nn.Conv(self.features, 3, bias=self.norm is None))(x)
            if self.norm is not None:
                x = net.child(f"norm_{number}", self.norm)(x)
            x = net.activation(x)
        return x


class UNet(nn.Layer):
    """Images ``[B, H, W, C]`` to maps of their size ``[B, H, W, outputs]`` (Ronneberger et al. 2015, arXiv:1505.04597).

    Down through ``depth`` halvings, each of which doubles the features of ``block``, and up again by transposed
    convolutions, at every scale joined with what went down. Padding keeps the size, where the paper crops. With the
    defaults, 1 channel and 2 outputs it has 31,030,658 parameters. ``block=DoubleConvolution(32, norm=nn.BatchNorm())``
    is half as wide and normalised; a block of your own is a layer with a field ``features``.

    Raises InputError for sides that are not multiples of ``2**depth``.
    """

    outputs: int
    _: dataclasses.KW_ONLY
    depth: int = 4
    block: DoubleConvolution = DoubleConvolution(64)

    def __post_init__(self) -> None:
        counts(self, "outputs")
        counts(self, "depth", minimum=0)

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        self._check(x)
        features = [self.block.features * 2**level for level in range(self.depth + 1)]
        crossing = []
        for level in range(self.depth):
            x = net.child(f"down_{level + 1}", self._block(features[level]))(x)
            crossing.append(x)
            x = net.child("pool", nn.MaxPool(2))(x)
        x = net.child("bottom", self._block(features[-1]))(x)
        for level in reversed(range(self.depth)):
            x = net.child(f"enlarge_{level + 1}", nn.ConvTranspose(features[level], 2, stride=2))(x)
            x = net.child(f"up_{level + 1}", self._block(features[level]))(jnp.concatenate([crossing[level], x], -1))
        return net.child("head", nn.Conv(self.outputs, 1))(x)

    def _block(self, features: int) -> DoubleConvolution:
        return dataclasses.replace(self.block, features=features)

    def _check(self, x: jax.Array) -> None:
        stride = 2**self.depth
        check_image(x, stride)
        height, width = x.shape[1:3]
        if height % stride or width % stride:
            down, up = (tuple((n + more) // stride * stride for n in (height, width)) for more in (0, stride - 1))
            raise check.InputError(
                f"input got {check.describe(x)}, wanted sides that are multiples of {stride}, as depth={self.depth} "
                f"halves them {self.depth} times; crop to {down[0]}×{down[1]} or pad to {up[0]}×{up[1]}"
            )
