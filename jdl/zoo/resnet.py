"""Residual networks for images: the generic one, its blocks and shortcuts, and the published sizes by name."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdl import check, nn
from jdl.nn import functional as F
from jdl.nn.inputs import counts
from jdl.zoo.images import check_image

Shortcut = Callable[[int, int, nn.Layer], nn.Layer]
"""Makes, of features, stride and norm, the layer that brings a block's input to the shape of its output."""


def fan_out_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
    """Normal with variance 2 / fan-out, which keeps the size of gradients (He et al. 2015, arXiv:1502.01852)."""
    return nn.init.normal(math.sqrt(2 / (math.prod(shape[:-2]) * shape[-1])))(key, shape, dtype)


def convolution(features: int, size: int, stride: int = 1) -> nn.Conv:
    """A convolution as ResNets have it: no bias, as a norm follows, and PyTorch's padding."""
    return nn.Conv(features, size, stride=stride, padding=size // 2, bias=False, kernel_init=fan_out_normal)


class PaddedIdentity(nn.Layer):
    """Every ``stride``-th cell, with channels of zeros on both sides up to ``features``: option A, no parameters.

    Raises InputError for images of more channels than that.
    """

    features: int
    stride: int = 1

    def __post_init__(self) -> None:
        counts(self, "features", "stride")

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        check_image(x)
        extra = self.features - x.shape[-1]
        if extra < 0:
            fix = "zeros add channels and take none away; use projection_shortcut"
            raise check.InputError(f"input got {check.describe(x)}, wanted at most {self.features} channels; {fix}")
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


def padded_shortcut(features: int, stride: int, norm: nn.Layer) -> nn.Layer:
    """Option A of He et al.: the identity, strided and padded with zeros."""
    return PaddedIdentity(features, stride)


def projection_shortcut(features: int, stride: int, norm: nn.Layer) -> nn.Layer:
    """Option B of He et al.: a 1×1 convolution and a norm."""
    return nn.Chain(conv=convolution(features, 1, stride), norm=norm)


class BasicBlock(nn.Layer):
    """Two 3×3 convolutions beside a shortcut: ``[B, H, W, C]`` to ``[B, ⌈H/stride⌉, ⌈W/stride⌉, features]``.

    The shortcut is the identity where the shape stays, else what ``shortcut(features, stride, norm)`` makes.
    """

    features: int
    stride: int = 1
    _: dataclasses.KW_ONLY
    norm: nn.Layer = nn.BatchNorm()
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    shortcut: Shortcut = projection_shortcut

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        y = net.child("conv_1", convolution(self.features, 3, self.stride))(x)
        y = net.activation(net.child("norm_1", self.norm)(y))
        y = net.child("conv_2", convolution(self.features, 3))(y)
        y = net.child("norm_2", self.norm)(y)
        return net.activation(y + _shortcut(self, net, x, y))


class Bottleneck(BasicBlock):
    """A 3×3 convolution between two of 1×1, beside a shortcut: ``[B, H, W, C]`` to ``[B, ⌈H/s⌉, ⌈W/s⌉, 4·features]``.

    The stride s is on the 3×3 (version 1.5, Goyal et al. 2017; the paper has it on the first 1×1).
    """

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        y = net.child("conv_1", convolution(self.features, 1))(x)
        y = net.activation(net.child("norm_1", self.norm)(y))
        y = net.child("conv_2", convolution(self.features, 3, self.stride))(y)
        y = net.activation(net.child("norm_2", self.norm)(y))
        y = net.child("conv_3", convolution(4 * self.features, 1))(y)
        y = net.child("norm_3", self.norm)(y)
        return net.activation(y + _shortcut(self, net, x, y))


def _shortcut(block: BasicBlock, net: nn.Net, x: jax.Array, y: jax.Array) -> jax.Array:
    if x.shape == y.shape:
        return x
    return net.child("shortcut", block.shortcut(y.shape[-1], block.stride, block.norm))(x)


class ResNet(nn.Layer):
    """Stages of residual blocks: images ``[B, H, W, C]`` to logits ``[B, classes]`` (He et al. 2015, arXiv:1512.03385).

    ``stages`` says how many blocks each has. ``block`` is the first stage's; every later one has twice its features
    and halves the image in its first block. Norm and activation of the stem are the block's, so
    ``block=BasicBlock(64, norm=nn.GroupNorm(32))`` is a network without batch statistics, and a block of your own is a
    layer with those four fields. Before the first stage stand ``stem`` and ``pool`` (None for none).

    Raises InputError for an image smaller than the network's stride.
    """

    stages: Sequence[int]
    classes: int
    _: dataclasses.KW_ONLY
    block: BasicBlock = BasicBlock(64)
    stem: nn.Conv = convolution(64, 7, 2)
    pool: nn.MaxPool | None = nn.MaxPool(3, 2, padding=1)

    def __post_init__(self) -> None:
        counts(self, "classes")
        if not isinstance(self.stages, tuple):
            wanted = "how many blocks each stage has, such as (2, 2, 2, 2)"
            raise check.InputError(f"ResNet.stages got {check.describe(self.stages)}, wanted {wanted}")
        counts(self, "stages")

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        check_image(x, self.stride)
        x = net.child("norm", self.block.norm)(net.stem(x))
        x = net.child("activation", self.block.activation)(x)
        if self.pool is not None:
            x = net.pool(x)
        for index, blocks in enumerate(self.stages):
            x = net.child(f"stage_{index + 1}", self._stage(index, blocks))(x)
        head = nn.Dense(self.classes, kernel_init=nn.init.normal(0.01))  # Goyal et al. 2017, section 5.1
        return net.child("head", head)(F.global_average_pool(x))

    def _stage(self, index: int, blocks: int) -> nn.Chain:
        following = dataclasses.replace(self.block, features=self.block.features * 2**index, stride=1)
        first = dataclasses.replace(following, stride=2 if index else 1)
        return nn.Chain(first, *[following] * (blocks - 1))

    @property
    def stride(self) -> int:
        """By how much the last stage's map is smaller than the image."""
        before = [self.stem.stride, *([] if self.pool is None else [self.pool.stride or self.pool.window])]
        return math.prod(map(_largest, before)) * 2 ** (len(self.stages) - 1)


def _largest(stride: int | Sequence[int]) -> int:
    return stride if isinstance(stride, int) else max(stride)


_BATCH_NORM = nn.BatchNorm()


def ResNet18(classes: int = 1000, norm: nn.Layer = _BATCH_NORM) -> ResNet:
    """ResNet-18 for images of about 224×224: 11,689,512 parameters with 1,000 classes; stride 32."""
    return ResNet((2, 2, 2, 2), classes, block=BasicBlock(64, norm=norm))


def ResNet50(classes: int = 1000, norm: nn.Layer = _BATCH_NORM) -> ResNet:
    """ResNet-50, version 1.5, for images of about 224×224: 25,557,032 parameters with 1,000 classes; stride 32."""
    return ResNet((3, 4, 6, 3), classes, block=Bottleneck(64, norm=norm))


def ResNet20(classes: int = 10, norm: nn.Layer = _BATCH_NORM, shortcut: Shortcut = padded_shortcut) -> ResNet:
    """ResNet-20 for images of about 32×32, as for CIFAR (He et al. 2015, section 4.2): 269,722 parameters; stride 4.

    Its sisters of 6n + 2 layers differ in the stages: ``dataclasses.replace(ResNet20(), stages=(9, 9, 9))`` has 56.
    """
    block = BasicBlock(16, norm=norm, shortcut=shortcut)
    return ResNet((3, 3, 3), classes, block=block, stem=convolution(16, 3), pool=None)
