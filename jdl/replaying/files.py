"""One step as one file: the state before it, the batch, and so the key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jdl import check, saving
from jdl.check import InputError
from jdl.checkpoints.files import circumstances
from jdl.objectives import Batch
from jdl.steps import TrainState
from jdl.trees import by_path, is_key, to_host

FORMAT = "jdl step 1"
SUFFIX = ".safetensors"
NATIVE = frozenset(["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]) | {
    "float16",
    "float32",
    "float64",
}


class SavedStep(NamedTuple):
    """What a file holds. ``opt_state`` is flat, by path: its structure is that of the optimizer."""

    params: Any
    state: Any
    opt_state: dict[str, jax.Array]
    step: jax.Array
    key: jax.Array
    batch: Batch
    about: dict[str, Any]


def save_step(path: str | Path, state: TrainState, batch: Batch, **about: Any) -> None:
    """Keep the state before a step and its batch in one ``.safetensors`` file, for :func:`jdl.replay`.

    ``about`` is kept beside them and must be JSON; what is not stands there as text. The file is whole or not there.

    Raises:
        InputError: another suffix, a folder that does not exist, or a batch that is no dict of arrays.
    """
    saving.check_suffix(path, [SUFFIX])
    trees = {"params": state.params, "state": state.state, "batch": batch}
    structure = {name: _structure(tree, name) for name, tree in trees.items()}
    leaves = {"step": state.step, "key": state.key}
    for name, tree in (trees | {"opt_state": state.opt_state}).items():
        leaves |= {f"{name}/{place}": leaf for place, leaf in by_path(tree, name).items()}
    arrays = dict(zip(leaves, to_host(leaves.values()), strict=True))
    header = {
        "format": FORMAT,
        "about": circumstances() | about,
        "structure": structure,
        "leaves": {name: _describe(arrays[name], leaf) for name, leaf in leaves.items()},
    }
    stored = {name: _stored(array) for name, array in arrays.items()}
    metadata = {"jdl": json.dumps(header, default=str)}
    saving.save(path, lambda beside: save_file(stored, beside, metadata), [SUFFIX])


def load_step(path: str | Path) -> SavedStep:
    """What :func:`save_step` wrote.

    Raises:
        InputError: the file is missing, damaged, or another kind of file, or was written with 64-bit jax.
    """
    where = str(path)
    try:
        with safe_open(where, framework="np") as file:
            header = json.loads((file.metadata() or {}).get("jdl", "{}"))
            if header.get("format") != FORMAT:
                raise InputError("is no step that jdl saved; give the file that fit wrote, or jdl.save_step", where)
            leaves = {name: _restored(file.get_tensor(name), **about) for name, about in header["leaves"].items()}
    except FileNotFoundError:
        raise InputError("there is no such file", where) from None
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise InputError(error.message, where) from None
        raise InputError(f"cannot be read ({error}); it is damaged or another kind of file", where) from error
    trees = {name: _rebuilt(shape, leaves) for name, shape in header["structure"].items()}
    opt_state = {
        name.removeprefix("opt_state/"): leaf for name, leaf in leaves.items() if name.startswith("opt_state/")
    }
    return SavedStep(**trees, opt_state=opt_state, step=leaves["step"], key=leaves["key"], about=header["about"])


def _structure(tree: Any, path: str) -> Any:
    """Dicts, lists and tuples as JSON, with the names of their leaves."""
    if tree is None:
        return None
    if isinstance(tree, dict):
        if wrong := [name for name in tree if not isinstance(name, str)]:
            raise InputError(f"got the name {wrong[0]!r}, wanted a string", path)
        return {"dict": {name: _structure(item, f"{path}/{name}") for name, item in tree.items()}}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [_structure(item, f"{path}/{index}") for index, item in enumerate(tree)]}
    if not check.is_array(tree):
        raise InputError(f"got {check.describe(tree)}, wanted arrays in dicts, lists and tuples", path)
    return path


def _rebuilt(structure: Any, leaves: dict[str, Any]) -> Any:
    if structure is None or isinstance(structure, str):
        return structure and leaves[structure]
    ((kind, items),) = structure.items()
    if kind == "dict":
        return {name: _rebuilt(item, leaves) for name, item in items.items()}
    return (tuple if kind == "tuple" else list)(_rebuilt(item, leaves) for item in items)


def _describe(array: np.ndarray, leaf: Any) -> dict[str, Any]:
    implementation = str(jax.random.key_impl(leaf)) if is_key(leaf) else None
    return {"dtype": array.dtype.name, "shape": list(array.shape), "implementation": implementation}


def _stored(array: np.ndarray) -> np.ndarray:
    """The array, or its bytes where NumPy's safetensors do not know the dtype, as of bfloat16."""
    return array if array.dtype.name in NATIVE else np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _restored(stored: np.ndarray, dtype: str, shape: list[int], implementation: str | None) -> jax.Array:
    kind = jnp.dtype(dtype)
    if jax.dtypes.canonicalize_dtype(kind) != kind:
        raise InputError(f'holds {dtype}, as the run had 64 bits; jax.config.update("jax_enable_x64", True) first')
    array = stored if dtype in NATIVE else stored.view(kind)
    array = jnp.array(array.reshape(shape))
    return array if implementation is None else jax.random.wrap_key_data(array, impl=implementation)
