"""Finding and reading checkpoints: the newest one whose bytes are those written, held against what it should hold."""

from __future__ import annotations

import dataclasses
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdl import check, trees
from jdl.check import InputError
from jdl.checkpoints import extra as extras
from jdl.checkpoints import files
from jdl.checkpoints.files import Damaged

_STEP = re.compile(r"step_(\d{8,})")
_PACKED = ".extra"  # the array that holds those of `extra`; no path of a state is so named


class CheckpointWarning(UserWarning):
    """A checkpoint is damaged, or could not be written; the message says which one a run goes on from."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """What was saved after ``step`` steps, with the report's numbers and the versions that wrote it."""

    step: int
    state: Any
    extra: Any
    metrics: Mapping[str, float]
    versions: Mapping[str, str]


def place_of(folder: Path, step: int, prefix: str = "") -> Path:
    """Where the checkpoint of a step stands; with a prefix, where it stands while it comes or goes."""
    return folder / f"{prefix}step_{step:08d}"


def steps_in(folder: Path) -> list[int]:
    """The steps of the checkpoints in a folder, in order."""
    if not folder.is_dir():
        return []
    found = (_STEP.fullmatch(path.name) for path in folder.iterdir() if path.is_dir())
    return sorted(int(match[1]) for match in found if match)


def newest_good(folder: Path) -> tuple[int, dict[str, Any], dict[int, str]] | None:
    """The newest step whose files are those written, its manifest, and what is wrong with newer ones; ``None`` if there
    are no checkpoints.

    Raises:
        InputError: there are some, and each is damaged.
    """
    damaged: dict[int, str] = {}
    for step in reversed(steps_in(folder)):
        try:
            return step, files.verify(place_of(folder, step)), damaged
        except Damaged as damage:
            damaged[step] = "; ".join(damage.args)
    if damaged:
        each = "".join(f"\n  step {step}: {what}" for step, what in damaged.items())
        raise InputError(f"every checkpoint in {str(folder)!r} is damaged; name another folder to start anew{each}")
    return None


def warn_of_damage(folder: Path, damaged: Mapping[int, str], good: int, done: str) -> None:
    """A warning for each damaged checkpoint: its name, its files, what was done, and the step that is used instead."""
    for step, what in damaged.items():
        text = f"checkpoint {place_of(folder, step)} is damaged: {what}; {done}the newest good one is of step {good}"
        warnings.warn(CheckpointWarning(text), stacklevel=3)


def describe_all(leaves: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the manifest tells of every array: the leaf it is of, and what is stored for it."""
    return {name: _entry(leaf, arrays[name]) for name, leaf in leaves.items()}


def _entry(leaf: Any, array: np.ndarray) -> dict[str, Any]:
    entry = {"leaf": check.describe(leaf), "dtype": array.dtype.name, "shape": list(array.shape)}
    return entry | {"key": str(jax.random.key_impl(leaf))} if trees.is_key(leaf) else entry


def pack(state: Any, extra: Any) -> tuple[dict[str, np.ndarray], str, dict[str, Any]]:
    """Copies of all arrays by name, the text beside them, and what the manifest tells of them."""
    leaves = trees.by_path(state, "state")
    text, packed = extras.encode(extra)
    leaves[_PACKED] = packed
    arrays = dict(zip(leaves, trees.to_host(leaves.values()), strict=True))
    return arrays, text, describe_all(leaves, arrays)


def load(folder: Path, step: int, manifest: Mapping[str, Any], like: Any, at: str = "") -> Saved:
    """A verified checkpoint, with the structure of ``like``: all of the state, or the part at a path.

    Raises:
        InputError: names, shapes or dtypes differ; one line for each.
    """
    full = {_below(name, at): name for name in manifest["arrays"] if name != _PACKED and _is_below(name, at)}
    entries = {name: manifest["arrays"][full[name]] for name in full}
    if at and not full:
        parts = ", ".join(dict.fromkeys(name.partition("/")[0] for name in manifest["arrays"] if name != _PACKED))
        raise InputError(f"at got {at!r}, wanted the path of a part: {parts}", "checkpoint")
    wanted = trees.by_path(like, "like")
    found = {name: entry["leaf"] for name, entry in entries.items()}
    texts = {name: check.describe(leaf) for name, leaf in wanted.items()}
    if lines := trees.differences(found, texts, "checkpoint"):
        raise InputError(
            f"{place_of(folder, step)} does not fit: {len(lines)} of {len(found.keys() | texts.keys())} arrays differ. "
            "If model, optimizer or metrics changed since, change them back, or start anew in another folder\n  "
            + "\n  ".join(lines),
            "checkpoint",
        )
    arrays = files.read_arrays(place_of(folder, step), manifest)
    leaves = [trees.place(arrays[full[name]], leaf, entries[name].get("key")) for name, leaf in wanted.items()]
    state = jax.tree.unflatten(jax.tree.structure(like), leaves)
    extra = extras.decode(files.read_extra(place_of(folder, step)), arrays[_PACKED])
    return Saved(step, state, extra, manifest["metrics"], manifest["versions"])


def _is_below(name: str, at: str) -> bool:
    return not at or name == at or name.startswith(f"{at}/")


def _below(name: str, at: str) -> str:
    return name[len(at) :].removeprefix("/") if at else name
