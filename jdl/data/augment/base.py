"""What augmentations share: one draw for each example, checks of images, and arithmetic in float32."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.check import InputError

Array = jax.Array
Batch = dict[str, Any]
Range = tuple[float, float]
Colours = float | tuple[float, ...]


class Augmentation:
    """Base of every augmentation: a pure function ``augmentation(key, batch) -> batch``, to be used in training only.

    Subclass it as a frozen dataclass of numbers, so that an equal one meets the same compiled program. The batch is a
    dict of arrays; entries that an augmentation does not change pass through.
    """

    def __call__(self, key: Array, batch: Batch) -> Batch:
        """The batch, changed at random."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, key, batch)")


class ImageAugmentation(Augmentation):
    """Base of those that change each image of ``inputs [B, H, W, C]`` by itself: define ``image(key, image)``.

    The key of an example is folded from its place in the batch.
    """

    def image(self, key: Array, image: Array) -> Array:
        """One image ``[H, W, C]``, changed at random, in its shape and dtype."""
        raise NotImplementedError(f"{type(self).__name__} has no image(self, key, image)")

    def __call__(self, key: Array, batch: Batch) -> Batch:
        images = batch_images(batch, type(self).__name__)
        return batch | {"inputs": jax.vmap(self.image)(example_keys(key, len(images)), images)}


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Compose(Augmentation):
    """Augmentations one after another: ``Compose(Crop(4), Flip())``. Any function ``(key, batch) -> batch`` is one."""

    augmentations: tuple[Callable[[Array, Batch], Batch], ...]

    def __init__(self, *augmentations: Callable[[Array, Batch], Batch]):
        for augmentation in augmentations:
            if not callable(augmentation) or isinstance(augmentation, type):
                fix = "; give its settings, if only ()" if isinstance(augmentation, type) else ""
                raise InputError(f"got {check.describe(augmentation)}, wanted an augmentation such as Crop(4){fix}")
        object.__setattr__(self, "augmentations", augmentations)

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.augmentations))})"

    def __call__(self, key: Array, batch: Batch) -> Batch:
        for index, augmentation in enumerate(self.augmentations):
            batch = augmentation(jax.random.fold_in(key, index), batch)
        return batch


def example_keys(key: Array, size: int) -> Array:
    """A key for each example, which the size of the batch does not change."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(size, dtype=jnp.uint32))


def entry(batch: Batch, name: str, owner: str) -> Any:
    """An entry of the batch."""
    if not isinstance(batch, dict) or name not in batch:
        held = sorted(batch) if isinstance(batch, dict) else check.describe(batch)
        raise InputError(f"got a batch of {held}, wanted a dict with {name!r}", owner)
    return batch[name]


def batch_images(batch: Batch, owner: str) -> Array:
    """``inputs [B, H, W, C]`` of the batch, floating or uint8."""
    images = entry(batch, "inputs", owner)
    fix = "add the channels with x[..., None]" if getattr(images, "ndim", 0) == 3 else ""
    try:
        check.rank(images, 4, "images [B, H, W, C]", "inputs", fix)
    except InputError as error:
        raise InputError(error.message, owner) from None
    numbers(images, owner)
    return jnp.asarray(images)


def numbers(x: Any, owner: str, name: str = "inputs") -> None:
    """``x`` is floating or uint8: what an augmentation can compute with."""
    check.array(x, name)
    if x.dtype != jnp.uint8 and not jnp.issubdtype(x.dtype, jnp.floating):
        wanted = "a floating dtype or uint8; convert it with x.astype(jnp.float32)"
        raise InputError(f"{name} got {check.describe(x)}, wanted {wanted}", owner)


def restored(x: Array, dtype: Any) -> Array:
    """float32 values in the dtype they came in; those of uint8 rounded and clipped to 0..255."""
    return jnp.clip(jnp.round(x), 0, 255).astype(dtype) if dtype == jnp.uint8 else x.astype(dtype)


def uniform(key: Array, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0) -> Array:
    """float32 in [low, high), in any configuration of JAX."""
    return jax.random.uniform(key, shape, jnp.float32, low, high)


def per_channel(value: Colours, image: Array, name: str) -> np.ndarray:
    """A number, or one for each channel of ``image [H, W, C]``, as float32 that broadcasts against it."""
    values = np.asarray(value, np.float32)
    if values.ndim and len(values) != image.shape[-1]:
        raise InputError(f"{name} got {len(values)} values for {check.describe(image)}, wanted one for each channel")
    return values


def fill_of(image: Array, fill: Colours, name: str) -> np.ndarray:
    """``fill`` as `per_channel`, in the dtype of ``image``."""
    values = per_channel(fill, image, name)
    if image.dtype == jnp.uint8 and not np.all((values >= 0) & (values <= 255)):
        raise InputError(f"{name} got {fill}, wanted 0 to 255 for {check.describe(image)}")
    return (np.round(values) if image.dtype == jnp.uint8 else values).astype(image.dtype)


# Settings, checked when an augmentation is made.


def check_between(name: str, value: Any, low: float, high: float = float("inf")) -> None:
    """``value`` is a number in ``[low, high]``."""
    if not is_number(value) or not low <= value <= high:
        wanted = f"a number of at least {low}" if high == float("inf") else f"a number from {low} to {high}"
        raise InputError(f"{name} got {check.describe(value)}, wanted {wanted}")


def check_range(name: str, value: Any, low: float, high: float = float("inf")) -> Range:
    """``value`` is a pair of numbers, the smaller first, in ``[low, high]``."""
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(map(is_number, value)):
        raise InputError(f"{name} got {check.describe(value)}, wanted a pair of numbers (smallest, largest)")
    if not low <= value[0] <= value[1] <= high:
        wanted = f"at least {low}" if high == float("inf") else f"within {low} to {high}"
        raise InputError(f"{name} got {check.describe(value)}, wanted a pair (smallest, largest) {wanted}")
    return float(value[0]), float(value[1])


def as_colours(name: str, value: Any) -> Colours:
    """A number, or a tuple of one for each channel; arrays become tuples, which are hashable."""
    values = np.asarray(value)
    several = values.ndim > 0 and values.size != values.shape[-1]  # [1, 1, C] is one for each channel
    if values.dtype.kind not in "iuf" or several or not np.all(np.isfinite(values)):
        raise InputError(f"{name} got {check.describe(value)}, wanted a number, or one for each channel")
    return tuple(map(float, values.ravel())) if values.ndim else float(values)


def is_number(value: Any) -> bool:
    """A Python or NumPy number that is finite."""
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(np.isfinite(value))
