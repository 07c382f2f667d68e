"""Augmentations that move pixels: crop, resized crop, flip, rotate. What is said of each pixel moves with it."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from jdl.check import InputError
from jdl.data.augment.base import (
    Array,
    Batch,
    Colours,
    ImageAugmentation,
    Range,
    as_colours,
    check_between,
    check_range,
    example_keys,
    fill_of,
    is_number,
    restored,
    uniform,
)
from jdl.data.counts import whole

PAD_MODES = ("constant", "edge", "reflect")


class GeometricAugmentation(ImageAugmentation):
    """Base of those that move pixels: ``image`` is linear in them but for ``fill``, and draws alike for any channels.

    Other entries of the batch with a value for each pixel, ``[B, H, W]`` or ``[B, H, W, C]`` (a map of labels, a mask),
    move with the images: floating ones of the images' own shape as images do, all others by nearest pixel, with 0 for
    what comes from outside.
    """

    def __call__(self, key: Array, batch: Batch) -> Batch:
        moved = super().__call__(key, batch)
        images = moved["inputs"]
        keys = example_keys(key, len(images))
        for name, x in batch.items():
            if name == "inputs" or getattr(x, "shape", ())[:3] != images.shape[:3]:
                continue
            as_image = x.shape == images.shape and jnp.issubdtype(x.dtype, jnp.floating)
            moved |= {name: jax.vmap(self.image if as_image else self._nearest)(keys, jnp.asarray(x))}
        return moved

    def _nearest(self, key: Array, values: Array) -> Array:
        """``values [H, W, ...]`` at the pixels nearest to where those of the image come from."""
        rows, columns = values.shape[:2]
        places = jnp.stack([*jnp.mgrid[:rows, :columns], jnp.ones((rows, columns), int)], -1).astype(jnp.float32)
        plain = dataclasses.replace(self, fill=0.0) if hasattr(self, "fill") else self  # pyright: ignore
        row, column, inside = jnp.moveaxis(plain.image(key, places), -1, 0)
        row, column = (jnp.round(x / jnp.maximum(inside, 0.5)).astype(jnp.int32) for x in (row, column))
        found = values.at[row, column].get(mode="clip")
        there = (inside >= 0.5).reshape(rows, columns, *[1] * (values.ndim - 2))
        return jnp.where(there, found, 0).astype(values.dtype)


@dataclasses.dataclass(frozen=True)
class Crop(GeometricAugmentation):
    """Each image, padded by ``padding`` pixels on every side, cropped to its size at a random place.

    All ``(2 · padding + 1)²`` places are equally likely. ``mode`` is what stands around the image: ``"constant"``
    (``fill``, a number or one for each channel), ``"edge"`` or ``"reflect"``, as in ``np.pad``. Floating dtypes and
    uint8. Krizhevsky et al. 2012; with padding as in He et al. 2016.
    """

    padding: int = 4
    mode: str = "constant"
    fill: Colours = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", whole("Crop.padding", self.padding, 0))
        if self.mode not in PAD_MODES:
            raise InputError(f"Crop.mode got {self.mode!r}, wanted one of {', '.join(map(repr, PAD_MODES))}")
        object.__setattr__(self, "fill", as_colours("Crop.fill", self.fill))

    def image(self, key: Array, image: Array) -> Array:
        if self.mode == "reflect" and self.padding >= min(image.shape[:2]):
            raise InputError(f"Crop.padding got {self.padding} for images of {image.shape[:2]}, wanted less to reflect")
        border = ((self.padding, self.padding), (self.padding, self.padding), (0, 0))
        if self.mode == "constant":
            fill = fill_of(image, self.fill, "Crop.fill")
            padded = jnp.pad(image, border, constant_values=0)
            if fill.any():
                inside = jnp.pad(jnp.ones((*image.shape[:2], 1), bool), border)
                padded = jnp.where(inside, padded, fill)
        else:
            padded = jnp.pad(image, border, mode=self.mode)
        top, left = jax.random.randint(key, (2,), 0, 2 * self.padding + 1)
        return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


@dataclasses.dataclass(frozen=True)
class ResizedCrop(GeometricAugmentation):
    """A random part of each image, resized bilinearly to the whole: the field's RandomResizedCrop.

    The part has a share of the image's area uniform in ``scale`` and a ratio of width to height log-uniform in
    ``ratio``, as far as it fits into the image, and lies anywhere with equal probability. Szegedy et al. 2015.
    """

    scale: Range = (0.08, 1.0)
    ratio: Range = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", check_range("ResizedCrop.scale", self.scale, 1e-6, 1))
        object.__setattr__(self, "ratio", check_range("ResizedCrop.ratio", self.ratio, 1e-6))

    def image(self, key: Array, image: Array) -> Array:
        rows, columns = image.shape[:2]
        draws = uniform(key, (4,))
        height, width = sides(draws[0], draws[1], self.scale, self.ratio, rows, columns)
        return resized(image, draws[2] * (rows - height), draws[3] * (columns - width), height, width)


@dataclasses.dataclass(frozen=True)
class Flip(GeometricAugmentation):
    """Each image mirrored with probability ``rate``: ``"horizontal"`` swaps left and right, ``"vertical"`` top and
    bottom.

    Floating dtypes and uint8.
    """

    axis: str = "horizontal"
    rate: float = 0.5

    def __post_init__(self) -> None:
        if self.axis not in ("horizontal", "vertical"):
            raise InputError(f"Flip.axis got {self.axis!r}, wanted 'horizontal' or 'vertical'")
        check_between("Flip.rate", self.rate, 0, 1)

    def image(self, key: Array, image: Array) -> Array:
        mirrored = jnp.flip(image, 1 if self.axis == "horizontal" else 0)
        return jnp.where(jax.random.bernoulli(key, self.rate), mirrored, image)


@dataclasses.dataclass(frozen=True)
class Rotate(GeometricAugmentation):
    """Each image turned about its centre by an angle uniform in ±``degrees``, or in a pair ``(smallest, largest)``.

    Positive is counter-clockwise. Bilinear; what comes from outside the image is ``fill``, a number or one for each
    channel. Floating dtypes; uint8 is rounded.
    """

    degrees: float | Range = 15.0
    fill: Colours = 0.0

    def __post_init__(self) -> None:
        if is_number(self.degrees):
            check_between("Rotate.degrees", self.degrees, 0, 180)
        else:
            object.__setattr__(self, "degrees", check_range("Rotate.degrees", self.degrees, -360, 360))
        object.__setattr__(self, "fill", as_colours("Rotate.fill", self.fill))

    def image(self, key: Array, image: Array) -> Array:
        low, high = self.degrees if isinstance(self.degrees, tuple) else (-self.degrees, self.degrees)
        return rotated(image, uniform(key, (), low, high), self.fill)


def sides(area: Array, shape: Array, scale: Range, ratio: Range, rows: int, columns: int) -> tuple[Array, Array]:
    """Height and width of a random rectangle inside an image, not rounded, from two draws uniform in [0, 1).

    Its share of the area is uniform in ``scale``, whatever its shape: width by height is log-uniform in that part of
    ``ratio`` which fits into the image.
    """
    pixels = (scale[0] + area * (scale[1] - scale[0])) * (rows * columns)
    narrowest, widest = jnp.log(pixels / rows**2), jnp.log(columns**2 / pixels)
    low = jnp.clip(math.log(ratio[0]), narrowest, widest)
    high = jnp.clip(math.log(ratio[1]), narrowest, widest)
    width = jnp.minimum(jnp.sqrt(pixels * jnp.exp(low + shape * (high - low))), columns)
    return jnp.minimum(pixels / width, rows), width


def resized(image: Array, top: Array, left: Array, height: Array, width: Array) -> Array:
    """The rectangle of ``image [H, W, C]`` at these places (in pixels, fractions allowed), bilinearly as large as it.

    Two matrix products; neighbours outside the image repeat its edge.
    """
    rows = _linear_weights(image.shape[0], top, height)
    columns = _linear_weights(image.shape[1], left, width)
    pixels = jnp.einsum("yh,hwc,xw->yxc", rows, image.astype(jnp.float32), columns, precision="highest")
    return restored(pixels, image.dtype)


def _linear_weights(size: int, start: Array, length: Array) -> Array:
    """Weights ``[size, size]`` by which ``size`` points, spread over a stretch, see the cells they lie between."""
    cells = jnp.arange(size, dtype=jnp.float32)
    points = jnp.clip(start + (cells + 0.5) * length / size - 0.5, 0, size - 1)
    return jnp.maximum(1 - jnp.abs(points[:, None] - cells), 0)


def rotated(image: Array, degrees: Array, fill: Colours = 0.0) -> Array:
    """``image [H, W, C]`` turned counter-clockwise about its centre, bilinear, with ``fill`` around it."""
    rows, columns, channels = image.shape
    angle = jnp.asarray(degrees, jnp.float32) * (math.pi / 180)
    y, x = (jnp.arange(size, dtype=jnp.float32) - (size - 1) / 2 for size in (rows, columns))
    y, x = y[:, None], x[None, :]
    down = jnp.cos(angle) * y + jnp.sin(angle) * x + (rows - 1) / 2
    right = -jnp.sin(angle) * y + jnp.cos(angle) * x + (columns - 1) / 2
    top, left = jnp.floor(down), jnp.floor(right)
    outside = fill_of(image, fill, "Rotate.fill").astype(jnp.float32)
    flat = jnp.asarray(image, jnp.float32).reshape(rows * columns, channels) - outside
    total = jnp.zeros((rows, columns, channels), jnp.float32)
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        weight = (1 - jnp.abs(down - row)) * (1 - jnp.abs(right - column))
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        place = jnp.where(inside, row * columns + column, 0).astype(jnp.int32)
        total += jnp.where(inside, weight, 0)[..., None] * flat.at[place].get(mode="promise_in_bounds")
    return restored(total + outside, image.dtype)
