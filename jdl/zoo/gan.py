"""Generative adversarial networks: a generator, the network that judges its images, and both as one layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdl import check
from jdl.nn import functional as F
from jdl.nn import init
from jdl.nn.containers import Chain
from jdl.nn.conv import Conv, ConvTranspose
from jdl.nn.core import Layer
from jdl.nn.dense import Dense
from jdl.nn.inputs import counts
from jdl.nn.net import Net
from jdl.nn.norm import BatchNorm
from jdl.nn.shape import Flatten, Reshape, Upsample
from jdl.zoo.images import channels_last_or

SMALL = init.normal(std=0.02)


def transposed_convolution(features: int, bias: bool) -> Layer:
    """Images twice as large by a transposed convolution, as in DCGAN."""
    return ConvTranspose(features, 4, stride=2, bias=bias, kernel_init=SMALL)


def resize_convolution(features: int, bias: bool) -> Layer:
    """Images twice as large by repeating pixels before a convolution.

    It has no checkerboard of windows that overlap unevenly (Odena et al. 2016, doi:10.23915/distill.00003), and on a
    CPU its gradient takes half the time.
    """
    return Chain(Upsample(2), Conv(features, 3, bias=bias, kernel_init=SMALL))


class DCGANGenerator(Layer):
    """Images ``[B, 4 size, 4 size, channels]`` in -1 to 1 from noise ``[B, D]``, enlarged twice by ``up``.

    ``size`` is the side of the first feature maps: 7 for images of 28 × 28. ``up`` makes a layer of features, with or
    without a bias: :func:`transposed_convolution` or :func:`resize_convolution`. With 64 noise values and the standard
    width of 64, 533,889 parameters. Radford, Metz & Chintala 2016, arXiv:1511.06434, for small images.
    """

    width: int = 64
    size: int = 7
    channels: int = 1
    norm: Layer = BatchNorm()
    up: Callable[[int, bool], Layer] = transposed_convolution

    def __post_init__(self) -> None:
        counts(self, "width", "size", "channels")

    def forward(self, net: Net, noise: jax.Array) -> jax.Array:
        check.rank(noise, 2, "[B, D]", "noise")
        width, size = 2 * self.width, self.size
        start = Chain(Dense(size * size * width, bias=False, kernel_init=SMALL), Reshape((size, size, width)))
        h = F.relu(net.child("norm_0", self.norm)(net.child("start", start)(noise)))
        h = F.relu(net.child("norm_1", self.norm)(net.child("features", self.up(self.width, False))(h)))
        return F.tanh(net.child("image", self.up(self.channels, True))(h))


class DCGANDiscriminator(Layer):
    """A score ``[B]`` of images ``[B, H, W, C]``, a logit or a critic's value, by ``depth`` strided convolutions.

    Each halves the image and has twice the features of the one before. ``norm=None`` makes a critic for
    :class:`WassersteinGAN`, whose penalty is of single images, which batch statistics would mix. For 28 × 28 × 1 and
    the standard width of 64, 661,313 parameters. Radford, Metz & Chintala 2016, arXiv:1511.06434, for small images.

    Raises:
        InputError: images with a side below 2^depth, the stride of all of them.
    """

    width: int = 64
    norm: Layer | None = BatchNorm()
    depth: int = 3
    slope: float = 0.2

    def __post_init__(self) -> None:
        counts(self, "width", "depth")

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        check.rank(x, 4, "[B, H, W, C]", "images")
        if min(x.shape[1:3]) < 2**self.depth:
            side = 2**self.depth
            fix = channels_last_or("use less depth", x)
            raise check.InputError(f"images got {check.describe(x)}, wanted at least {side} × {side}; {fix}")
        for index in range(self.depth):
            norm = self.norm if index else None  # none at the images, as in DCGAN
            conv = Conv(self.width * 2**index, 4, stride=2, bias=norm is None, kernel_init=SMALL)
            x = net.child(f"down_{index}", conv)(x)
            x = F.leaky_relu(x if norm is None else net.child(f"norm_{index}", norm)(x), self.slope)
        return net.child("score", Chain(Flatten(), Dense(1, kernel_init=SMALL)))(x)[:, 0]


class Judged(NamedTuple):
    """What a :class:`GAN` returns: scores ``[B]`` of real images and of made ones, and the made images."""

    real: jax.Array
    fake: jax.Array
    images: jax.Array


class GAN(Layer):
    """A generator and a discriminator by these names, from real images ``[B, …]`` to :class:`Judged`.

    As many images are made as are given, from standard normal ``noise [B, latent]``, drawn where none is given: in
    training from the key, in evaluation always the same. Scores are logits of being real: each network trains by a loss
    of its own (Goodfellow et al. 2014, arXiv:1406.2661), which is a ``jdl.game``. The discriminator sees real and made
    images one after the other, so that its batch statistics are of one kind.
    """

    generator: Layer = DCGANGenerator()
    discriminator: Layer = DCGANDiscriminator()
    latent: int = 64

    def __post_init__(self) -> None:
        counts(self, "latent")

    def forward(self, net: Net, real: jax.Array, noise: jax.Array | None = None) -> Judged:
        images = self.make(net, real, noise)
        return Judged(net.discriminator(real), net.discriminator(images), images)

    def make(self, net: Net, real: jax.Array, noise: jax.Array | None) -> jax.Array:
        """The generator's images, as many and as large as the real ones."""
        check.floating(real, "images", "scale them as the generator's: x / 127.5 - 1")
        if noise is None:
            key = net.key() if net.train else jax.random.key(0)
            noise = jax.random.normal(key, (real.shape[0], self.latent), real.dtype)
        images = net.generator(noise)
        fix = channels_last_or("set the generator's size and channels", real)
        check.same_shape(real, images, ("real images", "made ones"), fix)
        return images


class Criticised(NamedTuple):
    """What a :class:`WassersteinGAN` returns: :class:`Judged` and, between real and made images, slopes ``[B]``."""

    real: jax.Array
    fake: jax.Array
    images: jax.Array
    slope: jax.Array


class WassersteinGAN(GAN):
    """A GAN whose critic's values are no logits, but are to rise by at most 1 for a distance of 1 between images.

    ``slope`` is the norm of the critic's gradient by the image at a random point on the line from each real image to
    the made one beside it, in evaluation halfway; for the penalty (slope - 1)² of Gulrajani et al. 2017,
    arXiv:1704.00028.
    """

    discriminator: Layer = DCGANDiscriminator(norm=None)

    def forward(self, net: Net, real: jax.Array, noise: jax.Array | None = None) -> Criticised:
        images = self.make(net, real, noise)
        scores = net.discriminator(real), net.discriminator(images)
        share = jnp.full((real.shape[0],) + (1,) * (real.ndim - 1), 0.5, real.dtype)
        if net.train:
            share = jax.random.uniform(net.key(), share.shape, share.dtype)
        between = share * real + (1 - share) * images
        return Criticised(*scores, images, _norms(self._gradient(net, between)))

    def _gradient(self, net: Net, x: jax.Array) -> jax.Array:
        """Of the critic's values by its images, each by its own."""
        key = net.key() if net.train else None  # drawn here, as nothing may be drawn inside of a gradient
        try:
            return jax.grad(lambda x: jnp.sum(net.discriminator(x, key=key)))(x)
        except check.InputError as error:
            if error.message.startswith("updates its state"):
                error.message = (
                    "updates its state, in the critic of a WassersteinGAN, whose penalty is of single images: batch "
                    "statistics would mix them; take zoo.DCGANDiscriminator(norm=None), or a norm of single images "
                    "such as nn.LayerNorm()"
                )
            raise


def _norms(x: jax.Array) -> jax.Array:
    """The L2 norm of each example, in float32 until the root is taken; its gradient at 0 is 0."""
    squares = jnp.sum(jnp.square(x.astype(jnp.float32)), axis=tuple(range(1, x.ndim)))
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0).astype(x.dtype)
