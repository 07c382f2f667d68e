"""One checkpoint as a folder of files: written whole, verified to the byte, read back.

All that is written goes into a folder beside its place, reaches the disk, and is then renamed.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import glob
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.check import InputError

FORMAT = 1
ARRAYS, EXTRA, MANIFEST, CHECKSUM = "arrays", "extra.json", "manifest.json", "manifest.sha256"
PACKAGES = ("jdl", "jax", "jaxlib", "optax", "numpy", "orbax-checkpoint")


class Damaged(Exception):
    """A checkpoint whose files are not those that were written; the arguments say what is wrong, file by file."""


def local(folder: str | Path) -> Path:
    """The absolute path of a folder, ``~`` expanded: orbax wants it, and a script may change its directory."""
    return Path(os.path.expanduser(folder)).absolute()


def write(place: Path, arrays: Mapping[str, np.ndarray], extra: str, about: Mapping[str, Any]) -> None:
    """Write a checkpoint to a new folder and force it to the disk; ``about`` is the manifest without its files."""
    place.mkdir()
    if filled := {name: array for name, array in arrays.items() if array.size}:  # orbax refuses empty arrays
        with _orbax() as checkpointer, _plain(place) as plain:
            checkpointer.save(plain / ARRAYS, filled)
    (place / EXTRA).write_text(extra, encoding="utf-8")
    files = {name: _describe(path) for name, path in _files(place)}
    manifest = json.dumps({"format": FORMAT, **about, "files": files}, indent=1).encode()
    (place / MANIFEST).write_bytes(manifest)
    (place / CHECKSUM).write_bytes(_checksum(manifest))
    for _, path in _files(place):
        sync(path)
    for folder, _, _ in os.walk(place):
        sync(Path(folder))


def read_manifest(place: Path) -> dict[str, Any]:
    """The manifest, held against its checksum.

    Raises:
        Damaged: either file is missing or changed.
        InputError: a newer jdl wrote it.
    """
    content, checksum = _read(place, MANIFEST), _read(place, CHECKSUM)
    if _checksum(content) != checksum:
        raise Damaged(f"{MANIFEST} does not fit {CHECKSUM}")
    manifest = json.loads(content)
    if manifest["format"] > FORMAT:
        raise InputError(f"{place} has format {manifest['format']}, wanted {FORMAT}: a newer jdl wrote it; update jdl")
    return manifest


def _read(place: Path, name: str) -> bytes:
    with _telling(name):
        return (place / name).read_bytes()


@contextlib.contextmanager
def _telling(name: str) -> Iterator[None]:
    """Turn what goes wrong with a file into damage; a file that one may not read can be well."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise Damaged(f"{name} is missing") from None
    except PermissionError:
        raise
    except OSError as error:  # a bad sector
        raise Damaged(f"{name} cannot be read: {error}") from error


def verify(place: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, every file of which has the size and the SHA-256 that it tells.

    Raises:
        Damaged: naming every file that is missing or changed.
    """
    manifest = read_manifest(place)
    problems = []
    for name, wanted in manifest["files"].items():
        try:
            _check(place, name, wanted)
        except Damaged as damage:
            problems += damage.args
    if problems:
        raise Damaged(*problems)
    return manifest


def _check(place: Path, name: str, wanted: Mapping[str, Any]) -> None:
    with _telling(name):
        found = _describe(place / name)
    if found["bytes"] != wanted["bytes"]:
        raise Damaged(f"{name} has {found['bytes']} bytes where {wanted['bytes']} were written")
    if found["sha256"] != wanted["sha256"]:
        raise Damaged(f"{name} is not what was written: its SHA-256 differs")


def read_arrays(place: Path, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All arrays of a verified checkpoint by name; of keys their data."""
    found = {}
    if (place / ARRAYS).is_dir():
        with _orbax() as checkpointer, _plain(place) as plain:
            found = checkpointer.restore(plain / ARRAYS)
    entries = manifest["arrays"].items()
    return {name: found[name] if name in found else _empty(entry) for name, entry in entries}


def _empty(entry: Mapping[str, Any]) -> np.ndarray:
    return np.zeros(entry["shape"], jnp.dtype(entry["dtype"]))


def read_extra(place: Path) -> str:
    """The text that was written beside the arrays."""
    return (place / EXTRA).read_text(encoding="utf-8")


def circumstances() -> dict[str, Any]:
    """When, by which versions, and on what a checkpoint is written."""
    device = jax.devices()[0]
    return {
        "saved": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "device": f"{device.platform}: {device.device_kind}",
    }


@functools.lru_cache
def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def remove(folder: Path) -> None:
    """Delete a folder that nobody needs any more; what cannot be deleted stays for the next time."""
    shutil.rmtree(folder, ignore_errors=True)


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk: a rename may not overtake what it names in a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> list[tuple[str, Path]]:
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path) for path in found]


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": os.fstat(file.fileno()).st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _checksum(manifest: bytes) -> bytes:
    """As ``sha256sum`` writes it, so that ``sha256sum -c manifest.sha256`` checks it."""
    return f"{hashlib.sha256(manifest).hexdigest()}  {MANIFEST}\n".encode()


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """An orbax checkpointer that logs nothing: how far it got interests nobody, and its errors are raised as well."""
    import orbax.checkpoint as ocp  # heavy

    logger = logging.getLogger("absl")
    logger.addFilter(_not_orbax)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_compression=False)) as checkpointer:
            yield checkpointer
    finally:
        logger.removeFilter(_not_orbax)


@contextlib.contextmanager
def _plain(place: Path) -> Iterator[Path]:
    """The folder by a name that is no pattern: orbax finds its files by a ``glob`` over the whole path."""
    if glob.escape(str(place)) == str(place):
        yield place
        return
    with tempfile.TemporaryDirectory() as beside:
        link = Path(beside) / "checkpoint"
        link.symlink_to(place, target_is_directory=True)
        yield link


def _not_orbax(record: logging.LogRecord) -> bool:
    return "orbax" not in record.pathname
