"""Trees of arrays as flat dicts by path, and back: what files of arrays are written from and read into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.check import InputError
from jdl.nn.paths import paths


def by_path(tree: Any, name: str) -> dict[str, Any]:
    """The leaves of a tree by their paths, arrays or abstract ones; ``name`` is what errors call the tree.

    Raises:
        InputError: a leaf is no array, or two leaves have one path.
    """
    names, leaves = paths(tree), jax.tree.leaves(tree)
    for path, leaf in zip(names, leaves, strict=True):
        if not check.is_array(leaf):
            raise InputError(f"{path or name} got {check.describe(leaf)}, wanted an array; use jnp.asarray", name)
    if twice := sorted({path for path in names if names.count(path) > 1} if len(set(names)) < len(names) else ()):
        raise InputError(f"two leaves have the path {twice[0]!r}; leave '/' out of names", name)
    return dict(zip(names, leaves, strict=True))


def is_key(leaf: Any) -> bool:
    """Whether a leaf is a typed PRNG key, or several."""
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def to_host(leaves: Iterable[Any]) -> list[np.ndarray]:
    """NumPy copies of arrays, of keys their data; all transfers run at once.

    What comes back aliases no buffer of a device, so the arrays may be donated at once. ``jax.device_get`` gives a view
    where the device is the CPU.
    """
    leaves = list(leaves)
    for leaf in leaves:
        if not getattr(leaf, "is_fully_addressable", True):
            raise InputError(
                f"got {check.describe(leaf)} spread over several hosts; jdl writes files from one host only"
            )
    fetched = jax.device_get([jax.random.key_data(leaf) if is_key(leaf) else leaf for leaf in leaves])
    return [_own(host, leaf) for host, leaf in zip(fetched, leaves, strict=True)]


def _own(host: Any, leaf: Any) -> np.ndarray:
    ours = isinstance(leaf, jax.Array) and host.flags.owndata and host.flags.c_contiguous
    return host if ours else np.array(host, order="C")


def differences(found: Mapping[str, str], wanted: Mapping[str, str], holder: str) -> list[str]:
    """A line for every path that a file (the ``holder``) and a model do not describe alike, in the model's order."""
    lines = []
    for path, text in wanted.items():
        if path not in found:
            lines.append(f"{path}: {text} in the model, missing in the {holder}")
        elif found[path] != text:
            lines.append(f"{path}: {found[path]} in the {holder}, {text} in the model")
    others = [path for path in found if path not in wanted]
    return lines + [f"{path}: {found[path]} in the {holder}, not in the model" for path in others]


def place(value: np.ndarray, like: Any, implementation: str | None = None) -> Any:
    """A copy of ``value`` where the array ``like`` lies, an abstract one anywhere; ``implementation`` is that of a key.

    It is committed to its devices only where ``like`` is: another answer there would compile every program again.
    """
    if isinstance(like, (np.ndarray, np.generic)):
        return np.array(value)
    sharding = like.sharding if getattr(like, "committed", True) else None  # an abstract one may name a sharding
    if implementation is not None:
        return jax.device_put(jax.random.wrap_key_data(jnp.array(value), impl=implementation), sharding)
    return jax.device_put(value, sharding, may_alias=False)  # whoever donates it must not write into `value`
