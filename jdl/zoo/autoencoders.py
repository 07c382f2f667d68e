"""Autoencoders: plain, sparse and variational; dense or convolutional by the encoder and decoder that they are given.

A denoising one is any of them trained to make clean targets of noisy inputs; in jdl noise is an augmentation of the
inputs (``jdl.data.Noise``), and no part of the network.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdl import check, nn
from jdl.zoo.images import check_image

Activation = Callable[[jax.Array], jax.Array]
LINEAR = nn.init.lecun_normal()  # for codes and reconstructions, which no relu halves


class Coded(NamedTuple):
    """What a :class:`SparseAutoencoder` returns."""

    reconstruction: jax.Array
    """Of the input's shape."""
    code: jax.Array
    """``[B, ...]``, what the encoder made."""


class Variational(NamedTuple):
    """What a :class:`VariationalAutoencoder` returns: a reconstruction, and the posterior q(z | x) of each example."""

    reconstruction: jax.Array
    """Of the input's shape; logits where the loss is of binary values."""
    mean: jax.Array
    """``[B, L]``."""
    log_variance: jax.Array
    """``[B, L]``, log σ²."""


class Autoencoder(nn.Layer):
    """``decoder(encoder(x))``: ``[B, ...]`` through a narrow code to a reconstruction of the same shape.

    ``Autoencoder(DenseEncoder(32), DenseDecoder((28, 28, 1)))`` has 837,424 parameters; with `ConvolutionalEncoder` and
    `ConvolutionalDecoder` in their places, 241,441. Any two layers will do. Trained on mean squared error against its
    own inputs (Hinton & Salakhutdinov 2006, doi:10.1126/science.1127647); with linear layers it finds the principal
    subspace.

    Raises InputError where the decoder makes another shape than the input's.
    """

    encoder: nn.Layer
    decoder: nn.Layer

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        return _checked(net.decoder(net.encoder(x)), x)


class SparseAutoencoder(Autoencoder):
    """An autoencoder that also returns its code, for a loss to keep most of it silent: ``[B, ...]`` to :class:`Coded`.

    For :func:`jdl.losses.kl_sparsity` the code lies in 0 to 1: ``encoder=nn.Chain(DenseEncoder(256), nn.sigmoid)``; for
    :func:`jdl.losses.l1_sparsity` relu in its place gives exact zeros. Ng 2011, "Sparse autoencoder", CS294A.
    """

    def forward(self, net: nn.Net, x: jax.Array) -> Coded:  # pyright: ignore[reportIncompatibleMethodOverride]
        code = net.encoder(x)
        return Coded(_checked(net.decoder(code), x), code)


class VariationalAutoencoder(Autoencoder):
    """The variational autoencoder: ``[B, ...]`` to :class:`Variational` (Kingma & Welling 2013, arXiv:1312.6114).

    The encoder makes ``[B, 2L]``, the means of L latents and then their log variances; the decoder gets
    z = mean + exp(log_variance / 2)·noise ``[B, L]``. ``noise`` is drawn in training, 0 in evaluation unless given: an
    evidence lower bound needs ``noise [B, L]`` from a standard normal. ``VariationalAutoencoder(DenseEncoder(40),
    DenseDecoder((28, 28, 1)))`` has 20 latents and 835,384 parameters. New examples are what the decoder makes of
    standard normal latents: ``model.decoder(nn.part(model, variables, "decoder"), z)``.

    Raises InputError for an encoder of an odd width, noise of another shape, and a decoder as `Autoencoder` does.
    """

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, net: nn.Net, x: jax.Array, noise: jax.Array | None = None
    ) -> Variational:
        encoded = net.encoder(x)
        if encoded.shape[-1] % 2:
            fix = "for L latents it makes 2·L: their means and their log variances"
            raise check.InputError(f"the encoder made {check.describe(encoded)}, wanted an even last axis; {fix}")
        mean, log_variance = jnp.split(encoded, 2, -1)
        if noise is None:
            noise = jax.random.normal(net.key(), mean.shape, mean.dtype) if net.train else jnp.zeros_like(mean)
        check.array(noise, "noise")
        check.same_shape(noise, mean, ("noise", "the means"), "draw one standard normal number for each latent")
        z = mean + jnp.exp(log_variance / 2) * noise.astype(mean.dtype)
        return Variational(_checked(net.decoder(z), x), mean, log_variance)


def DenseEncoder(code: int, hidden: Sequence[int] = (512,), activation: Activation = nn.relu) -> nn.Chain:
    """``[B, ...]`` to ``[B, code]`` through dense layers; the code itself has no activation."""
    widths = itertools.chain.from_iterable((nn.Dense(width), activation) for width in hidden)
    return nn.Chain(nn.Flatten(), *widths, nn.Dense(code, kernel_init=LINEAR))


def DenseDecoder(shape: Sequence[int], hidden: Sequence[int] = (512,), activation: Activation = nn.relu) -> nn.Chain:
    """``[B, code]`` to ``[B, *shape]`` through dense layers; the output has no activation."""
    widths = itertools.chain.from_iterable((nn.Dense(width), activation) for width in hidden)
    return nn.Chain(*widths, nn.Dense(math.prod(shape), kernel_init=LINEAR), nn.Reshape(tuple(shape)))


class _Images(nn.Layer):
    """Asks for images ``[B, H, W, C]`` of sides that ``2**halvings`` divides, and passes them on."""

    halvings: int = 0

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        check_image(x, 2**self.halvings)
        return x


def ConvolutionalEncoder(code: int, features: Sequence[int] = (32, 64), activation: Activation = nn.relu) -> nn.Chain:
    """Images ``[B, H, W, C]`` to ``[B, code]``: a 3×3 convolution of stride 2 for each of ``features``, then dense.

    Raises InputError for an image smaller than ``2**len(features)``.
    """
    halvings = itertools.chain.from_iterable((nn.Conv(width, 3, stride=2), activation) for width in features)
    return nn.Chain(_Images(len(features)), *halvings, nn.Flatten(), nn.Dense(code, kernel_init=LINEAR))


def ConvolutionalDecoder(
    shape: Sequence[int], features: Sequence[int] = (64, 32), activation: Activation = nn.relu
) -> nn.Chain:
    """``[B, code]`` to images ``[B, *shape]``: dense to a small map, then a transposed convolution for each doubling.

    ``features`` are those of the map before each doubling. Raises InputError where ``2**len(features)`` does not divide
    the sides.
    """
    stride = 2 ** len(features)
    if len(shape) != 3 or shape[0] % stride or shape[1] % stride or not features:
        wanted = f"(H, W, C) with H and W multiples of {stride}, as {len(features)} features double the sides as often"
        raise check.InputError(f"ConvolutionalDecoder.shape got {tuple(shape)}, wanted {wanted}")
    height, width, channels = shape[0] // stride, shape[1] // stride, shape[2]
    doublings = itertools.chain.from_iterable((activation, nn.ConvTranspose(f, 3, stride=2)) for f in features[1:])
    return nn.Chain(
        nn.Dense(height * width * features[0]),
        nn.Reshape((height, width, features[0])),
        *doublings,
        activation,
        nn.ConvTranspose(channels, 3, stride=2, kernel_init=LINEAR),
    )


def _checked(reconstruction: jax.Array, x: jax.Array) -> jax.Array:
    fix = f"the decoder is to make {list(x.shape[1:])} of each code"
    check.same_shape(reconstruction, x, ("the reconstruction", "the input"), fix)
    return reconstruction
