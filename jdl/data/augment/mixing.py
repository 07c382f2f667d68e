"""Augmentations that mix examples and their targets: mixup and cutmix."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jdl import check
from jdl.check import InputError
from jdl.data.augment.base import (
    Array,
    Augmentation,
    Batch,
    batch_images,
    check_between,
    entry,
    example_keys,
    numbers,
    restored,
    uniform,
)
from jdl.data.augment.values import inside_box
from jdl.data.counts import whole


class _Mixing(Augmentation):
    """What both share: a partner for each example, and the mixture of targets and mask."""

    alpha: float
    classes: int | None

    def __post_init__(self) -> None:
        owner = type(self).__name__
        check_between(f"{owner}.alpha", self.alpha, 1e-6)
        if self.classes is not None:
            object.__setattr__(self, "classes", whole(f"{owner}.classes", self.classes, 2))

    def __call__(self, key: Array, batch: Batch) -> Batch:
        inputs, targets, weights = self.inputs(batch), self.targets(batch), self.weights(batch)
        size = len(inputs)
        if size < 2:
            raise InputError(
                "got a batch of one example, wanted others to mix it with; use a larger batch", type(self).__name__
            )
        partner = jax.random.permutation(jax.random.fold_in(key, 0), size)
        keys = example_keys(jax.random.fold_in(key, 1), size)
        together = (weights > 0) & (weights[partner] > 0)
        mixed, own = jax.vmap(self.mix)(keys, inputs, inputs[partner], together)
        # Σ mask · loss over examples then holds each of the two by its own weight times its share.
        mine, other = own * weights, (1 - own) * weights[partner]
        share = jnp.where(together, mine / jnp.where(together, mine + other, 1), 1)
        batch = batch | {"inputs": mixed, "targets": _blend(share, targets, targets[partner])}
        return batch | {"mask": mine + other} if "mask" in batch else batch

    def inputs(self, batch: Batch) -> Array:
        """What is mixed."""
        raise NotImplementedError

    def weights(self, batch: Batch) -> Array:
        """The mask as ``float32[B]``, ones where there is none."""
        size, mask = len(batch["inputs"]), batch.get("mask")
        if mask is not None and mask.shape != (size,):
            fix = "mixing needs one weight for each example"
            raise InputError(f"mask got {check.describe(mask)}, wanted [{size}]; {fix}", type(self).__name__)
        return jnp.ones(size, jnp.float32) if mask is None else jnp.asarray(mask, jnp.float32)

    def mix(self, key: Array, mine: Array, other: Array, together: Array) -> tuple[Array, Array]:
        """One example with its partner, and the share of its own target; untouched unless ``together``."""
        raise NotImplementedError

    def share(self, key: Array) -> Array:
        """λ ~ Beta(alpha, alpha)."""
        if self.alpha == 1:
            return uniform(key)  # the same, and compiled at once
        return jax.random.beta(key, self.alpha, self.alpha, dtype=jnp.float32)

    def targets(self, batch: Batch) -> Array:
        """Floating targets: those of the batch, or labels ``[B]`` made one-hot."""
        owner = type(self).__name__
        targets = entry(batch, "targets", owner)
        check.array(targets, "targets")
        if jnp.issubdtype(targets.dtype, jnp.floating):
            return jnp.asarray(targets)
        if self.classes is None or targets.ndim != 1 or not jnp.issubdtype(targets.dtype, jnp.integer):
            fix = f"for labels [B] say how many classes there are: {owner}(classes=10)"
            raise InputError(f"targets got {check.describe(targets)}, wanted floats; {fix}", owner)
        return jax.nn.one_hot(targets, self.classes, dtype=jnp.float32)


@dataclasses.dataclass(frozen=True)
class Mixup(_Mixing):
    """Each example λ·x + (1 - λ)·x', with a partner from the batch, and so its targets (Zhang et al. 2018).

    λ ~ Beta(``alpha``, ``alpha``) for each example by itself; partners are a random permutation. Any inputs ``[B, …]``.
    Labels ``int[B]`` become one-hot floats ``[B, classes]``, which :func:`jdl.losses.cross_entropy` takes and of which
    metrics see the larger one; floating targets are mixed as they are. A ``mask [B]`` is mixed too, so that each
    example keeps its weight in the loss; one with mask 0 is neither mixed nor mixed in.
    """

    alpha: float = 0.2
    classes: int | None = None

    def inputs(self, batch: Batch) -> Array:
        inputs = entry(batch, "inputs", "Mixup")
        numbers(inputs, "Mixup")
        return jnp.asarray(inputs)

    def mix(self, key: Array, mine: Array, other: Array, together: Array) -> tuple[Array, Array]:
        own = jnp.where(together, self.share(key), 1)
        mixed = own * mine.astype(jnp.float32) + (1 - own) * other.astype(jnp.float32)
        return jnp.where(together, restored(mixed, mine.dtype), mine), own


@dataclasses.dataclass(frozen=True)
class CutMix(_Mixing):
    """A rectangle of each image from a partner in the batch, and its share of the targets (Yun et al. 2019).

    The rectangle has the image's shape and the area 1 - λ, λ ~ Beta(``alpha``, ``alpha``), about a centre anywhere in
    the image; what lies outside is cut off. The targets' share is exactly that of the pixels. Images ``[B, H, W, C]``;
    targets and mask as for :class:`Mixup`.
    """

    alpha: float = 1.0
    classes: int | None = None

    def inputs(self, batch: Batch) -> Array:
        return batch_images(batch, "CutMix")

    def mix(self, key: Array, mine: Array, other: Array, together: Array) -> tuple[Array, Array]:
        rows, columns, _ = mine.shape
        for_share, for_place = jax.random.split(key)
        side = jnp.where(together, jnp.sqrt(1 - self.share(for_share)), 0)
        y, x = jnp.floor(uniform(for_place, (2,)) * jnp.asarray((rows, columns), jnp.float32))
        height, width = jnp.floor(side * rows), jnp.floor(side * columns)
        top, left = y - jnp.floor(height / 2), x - jnp.floor(width / 2)
        box = inside_box((rows, columns), top, left, height, width)
        own = 1 - jnp.sum(box, dtype=jnp.float32) / (rows * columns)
        return jnp.where(box, other, mine), own


def _blend(share: Array, mine: Array, other: Array) -> Any:
    """share · mine + (1 - share) · other, with ``share [B]`` along the first axis."""
    share = share.reshape(-1, *[1] * (mine.ndim - 1)).astype(mine.dtype)
    return share * mine + (1 - share) * other
