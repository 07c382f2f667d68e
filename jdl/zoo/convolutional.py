"""Two small convolutional networks: LeNet-5, and the handouts' own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jdl import check, nn
from jdl.zoo.images import channels_last_or, check_image


class ConvolutionalNet(nn.Layer):
    """The handouts' network: 64 filters of 3×3, ReLU, max-pooling, one Dense: ``[B, H, W, C]`` to ``[B, classes]``.

    Without padding an image of n×n cells leaves ⌊(n - 2) / 2⌋² of them. The handouts' last layer has 64·14·14 inputs,
    which is what 30×30 images give, and not the 32×32 ones it was written for: those are an InputError.
    ``flattened=None`` takes what comes. 127,242 parameters as in the handouts with 3 channels, 145,802 on 32×32.
    """

    classes: int = 10
    _: dataclasses.KW_ONLY
    flattened: int | None = 64 * 14 * 14

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        check_image(x, 4)
        y = nn.relu(net.child("conv", nn.Conv(64, 3, padding="VALID"))(x))
        y = net.child("pool", nn.MaxPool(2))(y)
        flat = net.child("flatten", nn.Flatten())(y)
        if self.flattened not in (None, flat.shape[1]):
            height, width = y.shape[1:3]
            theirs = self.flattened == 64 * 14 * 14
            raise check.InputError(
                f"input got {check.describe(x)}, of which 64·{height}·{width} = {flat.shape[1]} numbers reach the last "
                f"layer, but it was declared for {'64·14·14 = ' * theirs}{self.flattened}; use "
                f"{'30×30 images, or ' * theirs}ConvolutionalNet(flattened=None), which takes what comes"
            )
        return net.child("head", nn.Dense(self.classes))(flat)


class LeNet5(nn.Layer):
    """LeNet-5: images ``[B, 32, 32, C]`` to logits ``[B, classes]`` (LeCun et al. 1998, doi:10.1109/5.726791).

    The form in use today: average pooling without weights, every map connected to every other, a Dense at the end.
    Images of 28×28 are padded with zeros. 61,706 parameters with 1 channel and 10 classes. Raises InputError for other
    sizes.
    """

    classes: int = 10
    _: dataclasses.KW_ONLY
    activation: Callable[[jax.Array], jax.Array] = nn.tanh
    pool: nn.Layer = nn.AveragePool(2)

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        check_image(x)
        if x.shape[1:3] == (28, 28):
            x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
        if x.shape[1:3] != (32, 32):
            fix = channels_last_or("put nn.Resize(32) before it", x)
            raise check.InputError(f"input got {check.describe(x)}, wanted images of 32×32 or 28×28; {fix}")
        narrow = nn.init.lecun_uniform()
        for number, features in enumerate((6, 16), 1):
            conv = nn.Conv(features, 5, padding="VALID", kernel_init=narrow)
            x = net.pool(net.activation(net.child(f"conv_{number}", conv)(x)))
        x = net.child("flatten", nn.Flatten())(x)
        for number, features in enumerate((120, 84), 1):
            x = net.activation(net.child(f"dense_{number}", nn.Dense(features, kernel_init=narrow))(x))
        return net.child("head", nn.Dense(self.classes, kernel_init=narrow))(x)
