"""Augmentations that change what pixels hold: erase, colour, noise."""

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
    Colours,
    ImageAugmentation,
    Range,
    as_colours,
    check_between,
    check_range,
    entry,
    example_keys,
    fill_of,
    is_number,
    numbers,
    per_channel,
    restored,
    uniform,
)
from jdl.data.augment.geometry import sides

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601: what PIL's and torchvision's grey images are


@dataclasses.dataclass(frozen=True)
class Erase(ImageAugmentation):
    """With probability ``rate``, ``fill`` in place of a random rectangle of each image (Zhong et al. 2017).

    The rectangle's share of the area is uniform in ``area`` and its ratio of width to height log-uniform in ``ratio``,
    as far as it fits into the image; both to the next whole pixels. ``fill`` is a number or one for each channel.
    Floating dtypes and uint8.
    """

    rate: float = 0.5
    area: Range = (0.02, 0.33)
    ratio: Range = (0.3, 1 / 0.3)
    fill: Colours = 0.0

    def __post_init__(self) -> None:
        check_between("Erase.rate", self.rate, 0, 1)
        object.__setattr__(self, "area", check_range("Erase.area", self.area, 1e-6, 1))
        object.__setattr__(self, "ratio", check_range("Erase.ratio", self.ratio, 1e-6))
        object.__setattr__(self, "fill", as_colours("Erase.fill", self.fill))

    def image(self, key: Array, image: Array) -> Array:
        rows, columns, _ = image.shape
        draws = uniform(key, (5,))
        height, width = sides(draws[0], draws[1], self.area, self.ratio, rows, columns)
        width = jnp.clip(jnp.round(width), 1, columns)
        height = jnp.clip(jnp.round(height), 1, rows)
        box = inside_box(
            (rows, columns),
            jnp.floor(draws[2] * (rows - height + 1)),
            jnp.floor(draws[3] * (columns - width + 1)),
            height,
            width,
        )
        fill = fill_of(image, self.fill, "Erase.fill")
        return jnp.where(box & (draws[4] < self.rate), fill, image)


def inside_box(size: tuple[int, int], top: Array, left: Array, height: Array, width: Array) -> Array:
    """``bool[H, W, 1]``: which pixels lie in a rectangle."""
    y, x = (jnp.arange(n, dtype=top.dtype) for n in size)
    rows, columns = (y >= top) & (y < top + height), (x >= left) & (x < left + width)
    return (rows[:, None] & columns[None, :])[..., None]


@dataclasses.dataclass(frozen=True)
class Colour(ImageAugmentation):
    """Brightness, contrast, saturation and hue of each image changed at random, in this order.

    With u = 0 for black and 1 for white, clipped to that range after each: brightness f·u; contrast
    f·u + (1 - f)·(the mean grey of the image); saturation f·u + (1 - f)·(the grey of the pixel); hue, a turn of the
    colour circle by a share of it. A factor f is uniform in 1 ± the number given (never below 0), or in a pair
    ``(smallest, largest)``; the turn in ±``hue`` (at most 0.5). These are torchvision's ColorJitter's.

    ``black`` and ``white`` are the values of a black and a white pixel, numbers or one for each channel: 0 and 255 by
    themselves for uint8 (which is rounded), to be given for floats: ``black=0, white=1``, or what a normaliser makes
    of them, ``black=normaliser.apply(np.zeros(3)), white=normaliser.apply(np.full(3, 255))``. Images have 1 or 3
    channels; with 1, saturation and hue do nothing.
    """

    brightness: float | Range = 0.0
    contrast: float | Range = 0.0
    saturation: float | Range = 0.0
    hue: float | Range = 0.0
    black: Colours | None = None
    white: Colours | None = None

    def __post_init__(self) -> None:
        for name in ("brightness", "contrast", "saturation"):
            object.__setattr__(self, name, _factors(f"Colour.{name}", getattr(self, name)))
        turn = (0 - self.hue, self.hue) if is_number(self.hue) else self.hue  # pyright: ignore[reportOperatorIssue]
        object.__setattr__(self, "hue", check_range("Colour.hue", turn, -0.5, 0.5))
        if (self.black is None) != (self.white is None):
            raise InputError(f"Colour got black={self.black} and white={self.white}, wanted both or neither")
        for name in ("black", "white"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, as_colours(f"Colour.{name}", value))

    def image(self, key: Array, image: Array) -> Array:
        if image.shape[-1] not in (1, 3):
            raise InputError(f"Colour got {check.describe(image)}, wanted images [B, H, W, C] of 1 or 3 channels")
        black, white = self._ends(image)
        u = (image.astype(jnp.float32) - black) / (white - black)
        ranges: Any = (self.brightness, self.contrast, self.saturation, self.hue)
        changes = (_brightness, _contrast, _saturation, _hue)
        for own, (low, high), change in zip(jax.random.split(key, 4), ranges, changes, strict=True):
            if (low, high) != ((0, 0) if change is _hue else (1, 1)):
                u = change(u, uniform(own, (), low, high))
        return restored(u * (white - black) + black, image.dtype)

    def _ends(self, image: Array) -> tuple[Any, Any]:
        if self.black is not None and self.white is not None:
            return per_channel(self.black, image, "Colour.black"), per_channel(self.white, image, "Colour.white")
        if image.dtype != jnp.uint8:
            fix = "say what a black and a white pixel are: Colour(..., black=0, white=1)"
            raise InputError(f"Colour got {check.describe(image)}, of which it does not know the range; {fix}")
        return 0.0, 255.0


def _factors(name: str, value: Any) -> Range:
    if is_number(value):
        check_between(name, value, 0)
        return max(0.0, 1.0 - value), 1.0 + value
    return check_range(name, value, 0)


def _brightness(u: Array, factor: Array) -> Array:
    return jnp.clip(factor * u, 0, 1)


def _contrast(u: Array, factor: Array) -> Array:
    return jnp.clip(factor * u + (1 - factor) * jnp.mean(_grey(u)), 0, 1)


def _saturation(u: Array, factor: Array) -> Array:
    return jnp.clip(factor * u + (1 - factor) * _grey(u), 0, 1)


def _grey(u: Array) -> Array:
    if u.shape[-1] == 1:
        return u
    return jnp.sum(u * jnp.asarray(GREY, u.dtype), axis=-1, keepdims=True)


def _hue(u: Array, turn: Array) -> Array:
    """The hue of HSV moved on by ``turn`` of the circle, value and saturation kept (Smith 1978)."""
    if u.shape[-1] == 1:
        return u
    value, least = jnp.max(u, -1), jnp.min(u, -1)
    chroma = value - least
    red, green, blue = u[..., 0], u[..., 1], u[..., 2]
    some = jnp.where(chroma > 0, chroma, 1)
    sixths = jnp.where(
        value == red,
        (green - blue) / some,
        jnp.where(value == green, 2 + (blue - red) / some, 4 + (red - green) / some),
    )
    place = (jnp.asarray((5.0, 3.0, 1.0), u.dtype) + (sixths + 6 * turn)[..., None]) % 6
    rise = jnp.clip(jnp.minimum(place, 4 - place), 0, 1)
    return jnp.clip(value[..., None] - chroma[..., None] * rise, 0, 1)


@dataclasses.dataclass(frozen=True)
class Noise(Augmentation):
    """Normal noise of standard deviation ``std``, in the units of ``inputs [B, …]``, added to each value by itself.

    Floating dtypes; uint8 is rounded and clipped to 0..255.
    """

    std: float

    def __post_init__(self) -> None:
        check_between("Noise.std", self.std, 0)

    def __call__(self, key: Array, batch: Batch) -> Batch:
        inputs = entry(batch, "inputs", "Noise")
        numbers(inputs, "Noise")

        def one(key: Array, x: Array) -> Array:
            noisy = x.astype(jnp.float32) + self.std * jax.random.normal(key, x.shape, jnp.float32)
            return restored(noisy, x.dtype)

        return batch | {"inputs": jax.vmap(one)(example_keys(key, len(inputs)), jnp.asarray(inputs))}
