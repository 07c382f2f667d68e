"""The vision transformer: an image as a sequence of patches."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jdl import check, nn
from jdl.nn.inputs import counts
from jdl.zoo.images import check_image

_GLOROT = nn.init.glorot_uniform()


class EncoderBlock(nn.Layer):
    """Attention and a two-layer network, each on normalised input and added to it: ``[B, T, D]`` to ``[B, T, D]``.

    ``hidden`` is the width between the two layers, 4 D unless given. In training both branches are dropped out at the
    rate ``dropout``. The norm comes first (Baevski & Auli 2019, arXiv:1809.10853; Xiong et al. 2020, arXiv:2002.04745).
    """

    heads: int
    _: dataclasses.KW_ONLY
    hidden: int | None = None
    dropout: float = 0.0
    norm: nn.Layer = nn.LayerNorm(1e-6)
    activation: Callable[[jax.Array], jax.Array] = nn.gelu

    def __post_init__(self) -> None:
        counts(self, "heads", *([] if self.hidden is None else ["hidden"]))

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        network = nn.Chain(
            expand=nn.Dense(self.hidden or 4 * width, kernel_init=_GLOROT),
            activation=self.activation,
            contract=nn.Dense(width, kernel_init=_GLOROT),
        )
        drop = net.child("drop", nn.Dropout(self.dropout))
        x = x + drop(net.child("attention", nn.Attention(self.heads))(net.child("norm_1", self.norm)(x)))
        return x + drop(net.child("network", network)(net.child("norm_2", self.norm)(x)))


class VisionTransformer(nn.Layer):
    """A transformer over the patches of an image: ``[B, H, W, C]`` to logits ``[B, classes]``.

    Each ``patch × patch`` square becomes a vector of ``width`` numbers and gets a learned position; ``depth`` copies of
    ``block`` follow, whose parameters stand along one leading axis. The head reads a token of its own that went along
    with the patches, or without ``class_token`` their mean. `ViTBase` has the published sizes (Dosovitskiy et al. 2020,
    arXiv:2010.11929). Positions belong to one size of image.

    Parameters of its own: ``positions [patches (+ 1), width]`` and ``class_token [width]``. Raises InputError for sides
    that are not multiples of ``patch``.
    """

    classes: int
    _: dataclasses.KW_ONLY
    patch: int
    width: int
    depth: int
    block: nn.Layer
    norm: nn.Layer = nn.LayerNorm(1e-6)
    class_token: bool = True

    def __post_init__(self) -> None:
        counts(self, "classes", "patch", "width", "depth")

    def params(self, x: jax.Array) -> dict[str, nn.Param]:
        self._check(x)
        patches = (x.shape[1] // self.patch) * (x.shape[2] // self.patch)
        positions = {"positions": nn.Param((patches + self.class_token, self.width), nn.init.normal(0.02))}
        return positions | ({"class_token": nn.Param((self.width,), nn.init.zeros())} if self.class_token else {})

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        embed = nn.Conv(self.width, self.patch, stride=self.patch, padding="VALID", kernel_init=nn.init.lecun_normal())
        x = net.child("embed", embed)(x)
        x = x.reshape(x.shape[0], x.shape[1] * x.shape[2], self.width)
        if self.class_token:
            token = jnp.broadcast_to(net.class_token.astype(x.dtype), (x.shape[0], 1, self.width))
            x = jnp.concatenate([token, x], 1)
        x = x + net.positions.astype(x.dtype)
        x = net.norm(net.child("blocks", nn.Repeat(self.block, self.depth))(x))
        x = x[:, 0] if self.class_token else x.mean(1)
        return net.child("head", nn.Dense(self.classes, kernel_init=nn.init.normal(0.02)))(x)

    def _check(self, x: jax.Array) -> None:
        check_image(x, self.patch)
        if x.shape[1] % self.patch or x.shape[2] % self.patch:
            raise check.InputError(
                f"input got {check.describe(x)}, wanted sides that are multiples of patch={self.patch}; "
                "resize or crop the images, or choose a patch that divides them"
            )


def ViTBase(classes: int = 1000, patch: int = 16, dropout: float = 0.0) -> VisionTransformer:
    """ViT-B/16 for images of 224×224: 86,567,656 parameters with 1,000 classes."""
    return VisionTransformer(classes, patch=patch, width=768, depth=12, block=EncoderBlock(12, dropout=dropout))
