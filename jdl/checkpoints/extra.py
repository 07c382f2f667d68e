"""What is saved beside the arrays of a state: nested dicts and lists of values, with arrays anywhere among them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import check, trees
from jdl.check import InputError

Path = tuple[str | int, ...]


def encode(extra: Any) -> tuple[str, np.ndarray]:
    """JSON with ``null`` where an array stood and a list of where they belong; and the bytes of all arrays, one by one.

    One buffer, as a history may hold a small array for each report, and each array of a checkpoint has its price.

    Raises:
        InputError: naming by its path a value that is neither a number, a string, a bool, ``None`` nor an array.
    """
    arrays: list[tuple[Path, Any]] = []
    values = _without_arrays(extra, (), arrays)
    hosts = trees.to_host(leaf for _, leaf in arrays)
    entries = [_entry(path, leaf, host) for (path, leaf), host in zip(arrays, hosts, strict=True)]
    packed = b"".join(host.tobytes() for host in hosts)
    return json.dumps({"values": values, "arrays": entries}), np.frombuffer(packed, np.uint8)


def decode(text: str, packed: np.ndarray) -> Any:
    """What :func:`encode` was given: tuples as lists, arrays as NumPy arrays, keys as keys."""
    content = json.loads(text)
    values, start = content["values"], 0
    for entry in content["arrays"]:
        dtype, shape = jnp.dtype(entry["dtype"]), entry["shape"]
        stop = start + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        array: Any = np.array(packed[start:stop]).view(dtype).reshape(shape)
        if entry["key"] is not None:
            array = jax.random.wrap_key_data(jnp.asarray(array), impl=entry["key"])
        values, start = _put(values, entry["path"], array), stop
    return values


def _without_arrays(value: Any, path: Path, arrays: list[tuple[Path, Any]]) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise InputError(f"{_show(path)} got the key {name!r}, wanted a string; use str(...)", "extra")
        return {name: _without_arrays(below, (*path, name), arrays) for name, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(below, (*path, index), arrays) for index, below in enumerate(value)]
    if not isinstance(value, (jax.Array, np.ndarray, np.generic)) or getattr(value.dtype, "kind", "V") in "OSUMm":
        raise InputError(
            f"{_show(path)} got {type(value).__name__} {check.describe(value)}, wanted a number, a string, a bool, "
            "None, an array of numbers, or dicts and lists of them",
            "extra",
        )
    arrays.append((path, value))
    return None


def _entry(path: Path, leaf: Any, host: np.ndarray) -> dict[str, Any]:
    key = str(jax.random.key_impl(leaf)) if trees.is_key(leaf) else None
    return {"path": list(path), "dtype": host.dtype.name, "shape": list(host.shape), "key": key}


def _put(values: Any, path: Sequence[str | int], array: Any) -> Any:
    if not path:
        return array
    inner = values
    for part in path[:-1]:
        inner = inner[part]
    inner[path[-1]] = array
    return values


def _show(path: Path) -> str:
    return "/".join(map(str, path)) or "extra"
