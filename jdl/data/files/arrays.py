"""Arrays from NumPy's files: an npz into memory, npy files row by row."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdl.check import InputError, describe
from jdl.data.dataset import Dataset
from jdl.data.files.reading import DAMAGED, example_number, existing

UNREADABLE = (ValueError, OSError, KeyError, zipfile.BadZipFile, *DAMAGED)


def read_npz(path: str | Path, inputs: str = "inputs", targets: str | None = "targets") -> Dataset:
    """The data set of two arrays in a ``.npz`` file, or of ``inputs`` alone where ``targets`` is None.

    The arrays are taken as they are: ``read_npz("faces.npz", "images", "labels")``. Python objects in the file are
    refused, as reading them would run code.

    Raises:
        InputError: no such file or array (the message lists what the file holds), a damaged file, or arrays that
            cannot be trained on.
    """
    path = existing(path)
    wanted = {"inputs": inputs} | ({} if targets is None else {"targets": targets})
    try:
        with open(path, "rb") as stream:
            opened = np.load(stream, allow_pickle=False)
            if isinstance(opened, np.ndarray):
                fix = "use jdl.data.ArrayFiles"
                raise InputError(f"{path} holds one array, {describe(opened)}, wanted a .npz file; {fix}")
            for role, name in wanted.items():
                if name not in opened.files:
                    held = ", ".join(map(repr, opened.files)) or "nothing"
                    fix = f"name the one of the {role}: read_npz(path, {role}=…)"
                    raise InputError(f"{path} has no array {name!r}, it holds {held}; {fix}")
            arrays = {role: opened[name] for role, name in wanted.items()}
    except InputError:
        raise
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    return _dataset(arrays, path)


class ArrayFiles:
    """Examples in ``.npy`` files, one row of each at a time: ``ArrayFiles(inputs="x.npy", targets="y.npy")``.

    ``source[i]`` is a dict of row i of each, copied out of files that stay on disk (memory-mapped); ``load()`` reads
    them into a `Dataset`.

    Raises:
        InputError: no such file, no ``.npy`` file of numbers, or different numbers of rows.
    """

    def __init__(self, **paths: str | Path):
        if not paths:
            raise InputError('ArrayFiles got no file, wanted at least one: ArrayFiles(inputs="x.npy")')
        self.paths = {name: existing(path, name) for name, path in paths.items()}
        self._open()
        lengths = {name: len(array) for name, array in self._arrays.items()}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{length} in {self.paths[name]}" for name, length in lengths.items())
            raise InputError(f"ArrayFiles got different numbers of examples ({listed}), wanted one number for all")

    def __repr__(self) -> str:
        parts = [f"{name}={describe(array)}" for name, array in self._arrays.items()]
        return f"ArrayFiles({', '.join([f'{len(self)} examples', *parts])})"

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    def __getitem__(self, index: Any) -> dict[str, np.ndarray]:
        row = example_number(index, len(self), "ArrayFiles")
        return {name: np.array(array[row]) for name, array in self._arrays.items()}

    def load(self) -> Dataset:
        """All examples in memory."""
        return Dataset({name: np.array(array) for name, array in self._arrays.items()})

    def _open(self) -> None:
        self._arrays: Mapping[str, np.ndarray] = {name: _map(path) for name, path in self.paths.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths}  # a mapped array would be sent whole

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()


def _map(path: Path) -> np.ndarray:
    with open(path, "rb") as stream:
        if stream.read(2) == b"PK":  # a zip file
            raise InputError(f"{path} holds several arrays, wanted a .npy file; use jdl.data.read_npz")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except UNREADABLE as error:
        raise _unreadable(path, error) from error
    if array.ndim == 0 or array.size == 0 or array.dtype.kind not in "biufc":
        raise InputError(f"{path} holds {describe(array)}, wanted numbers with a leading axis over the examples")
    return array


def _unreadable(path: Path, error: Exception) -> InputError:
    objects = isinstance(error, ValueError) and ("pickle" in str(error) or "Object arrays" in str(error))
    text = "it holds Python objects, or is no file of NumPy's" if objects else f"{type(error).__name__}: {error}"
    return InputError(f"{path} cannot be read as arrays of numbers: {text}")


def _dataset(arrays: dict[str, Any], path: Path) -> Dataset:
    try:
        return Dataset(arrays, name=path.name.partition(".")[0])
    except InputError as error:
        raise InputError(error.message, str(path)) from None
