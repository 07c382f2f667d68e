"""From what other people's sources yield to batches: dicts of NumPy arrays, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jdl.check import InputError, describe, is_array
from jdl.data.dataset import Dataset

Batch = dict[str, Any]
Layout = dict[str, tuple[tuple[int, ...], np.dtype]]
NARROW = {"float64": "float32", "complex128": "complex64", "int64": "int32", "uint64": "uint32"}


def rows_in(batch: Batch) -> int:
    """The number of examples of a batch."""
    return len(jax.tree.leaves(batch)[0])


def layout(batch: Batch) -> Layout:
    """What all batches of a source share: the shape of one example and the dtype, by path (``inputs/0``)."""
    leaves = jax.tree_util.tree_flatten_with_path(batch)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): (x.shape[1:], x.dtype) for path, x in leaves}


def as_example(value: Any) -> Batch:
    """One example as arrays without a batch axis: of a dict, of ``(inputs, targets)``, or of inputs alone.

    Raises:
        InputError: it is none of these, or holds what is no number.
    """
    if isinstance(value, Mapping) and value:
        return {str(key): _as_arrays(str(key), part) for key, part in value.items()}
    if isinstance(value, tuple) and len(value) == 2:
        return {"inputs": _as_arrays("inputs", value[0]), "targets": _as_arrays("targets", value[1])}
    if is_array(value) or _is_image(value):
        return {"inputs": _as_arrays("inputs", value)}
    got = f"{type(value).__name__} {describe(value)}"
    raise InputError(f"got {got}, wanted a dict of arrays or (inputs, targets); load= can make one of it")


def stacked(examples: Sequence[Batch], numbers: Sequence[int]) -> Batch:
    """Examples as one batch, ``[B, …]``; ``numbers`` are theirs in the source, for errors.

    Raises:
        InputError: two examples of different names or shapes, or values as in `checked`.
    """
    first = examples[0]
    for number, example in zip(numbers, examples, strict=True):
        if _shapes(example) != _shapes(first):
            raise InputError(
                f"example {number} is {describe(example)} and example {numbers[0]} is {describe(first)}; wanted the "
                "same names and shapes in all: pad, crop or resize in load="
            )
    try:
        return jax.tree.map(_writable, checked(jax.tree.map(lambda *leaves: np.stack(leaves), *examples)))
    except InputError as error:
        for number, example in zip(numbers, examples, strict=True):  # which of them it was
            try:
                checked(jax.tree.map(lambda leaf: leaf[None], example))
            except InputError as found:
                raise InputError(found.message, f"example {number}") from None
        raise error


def checked(value: Any) -> Batch:
    """A batch as a dict of arrays of equal length; 64 bits become 32, unless JAX is told to keep them.

    Raises:
        InputError: what a `Dataset` refuses, or an integer that 32 bits do not hold.
    """
    arrays = dict(Dataset.of(tuple(value) if isinstance(value, list) and len(value) == 2 else value).arrays)
    return arrays if jax.config.read("jax_enable_x64") else jax.tree_util.tree_map_with_path(_narrow, arrays)


def evaluated(batch: Batch, padding: np.ndarray) -> Batch:
    """The batch with ``padding`` ``float32[B]``, and ``mask`` 0 where either that or a mask of its own is."""
    mask = batch.get("mask")
    if mask is not None:
        padding_like_mask = padding.reshape(-1, *[1] * (mask.ndim - 1)).astype(mask.dtype)
        return batch | {"mask": mask * padding_like_mask, "padding": padding}
    return batch | {"mask": padding, "padding": padding}


def padded(batch: Batch, filler: Batch, size: int) -> Batch:
    """A batch for evaluation, filled up to ``size`` with the first example of ``filler``, which its mask leaves out."""
    missing = size - rows_in(batch)
    padding = np.repeat(np.array([1, 0], np.float32), [size - missing, missing])
    if missing:
        batch = jax.tree.map(lambda x, f: np.concatenate([x, np.repeat(f[:1], missing, axis=0)]), batch, filler)
    return evaluated(batch, padding)


def _as_arrays(path: str, value: Any) -> Any:
    if isinstance(value, Mapping) and value:
        return {str(key): _as_arrays(f"{path}/{key}", part) for key, part in value.items()}
    if isinstance(value, tuple) and value and all(map(is_array, value)):
        return tuple(_as_arrays(f"{path}/{index}", part) for index, part in enumerate(value))
    if _is_image(value):
        return _image(path, value)
    try:
        leaf = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} cannot be made an array: {error}") from None
    if leaf.dtype.kind in "OSUMmV" and not is_array(value):
        raise InputError(f"{path} got {describe(value)}, wanted numbers; encode it in load=, or leave it out there")
    return leaf


def _is_image(value: Any) -> bool:
    """A picture of Pillow's, which need not be installed."""
    return hasattr(value, "getbands") and hasattr(value, "size")


def _image(path: str, image: Any) -> np.ndarray:
    """``uint8[H, W, C]``, with a last axis of 1 for grey."""
    if image.mode == "P":
        raise InputError(f"{path} got an image whose pixels index a palette; use image.convert('RGB') in load=")
    return np.array(image).reshape(image.size[1], image.size[0], len(image.getbands()))


def _shapes(example: Batch) -> Any:
    return jax.tree.map(lambda leaf: leaf.shape, example)


def _writable(leaf: np.ndarray) -> np.ndarray:
    leaf.flags.writeable = True  # a Dataset's arrays are not, as they may be a user's; these are new
    return leaf


def _narrow(path: Any, leaf: np.ndarray) -> np.ndarray:
    narrow = NARROW.get(leaf.dtype.name)
    if narrow is None:
        return leaf
    if leaf.dtype.kind in "iu":
        limits = np.iinfo(narrow)
        if leaf.min() < limits.min or leaf.max() > limits.max:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(f"{name} has {leaf.min()} to {leaf.max()}, which {narrow} does not hold")
    with np.errstate(over="ignore"):
        return leaf.astype(narrow)
