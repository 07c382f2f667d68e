"""Tables from csv files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdl.check import InputError, describe
from jdl.data.dataset import Dataset
from jdl.data.files.reading import decode, existing, read_bytes

MISSING = frozenset({"", "?", "-", "na", "n/a", "nan", "null", "none"})
Columns = dict[str, list[str]]


def read_csv(
    path: str | Path,
    targets: str | Sequence[str] | None = None,
    *,
    inputs: Sequence[str] | None = None,
    ignore: Sequence[str] = (),
    categories: Sequence[str] | Mapping[str, Sequence[str]] = (),
    missing: float | str | None = None,
    columns: Sequence[str] | None = None,
    delimiter: str = ",",
) -> Dataset:
    r"""A table of numbers as a data set: inputs ``float32[N, D]`` with the columns' names as ``features``.

    A column named by ``targets="species"`` becomes ``[N]``: ``int32`` where all are whole numbers, labels with their
    names as ``classes`` where they are text, else ``float32``. A list, ``targets=["price"]``, becomes
    ``float32[N, K]``, as regression takes it.

    Args:
        path: comma-separated UTF-8 with a line of names first, gzipped if the name ends in ``.gz``.
        targets: what to predict.
        inputs: the columns to learn from; by default all but ``targets`` and ``ignore``.
        ignore: columns to leave out.
        categories: columns of text that become one column of 0 and 1 for each value, named ``wind=NW``: their names,
            or a dict from names to the values (so that a test file has the same columns as the training file).
        missing: what to do with an empty field, ``?``, ``NA`` or the like: an error, or a number to put there, or
            ``"drop"`` to leave the row out.
        columns: the names of the columns of a file that has no line of names.
        delimiter: what stands between fields: ``"\t"`` for tab-separated ones.

    Raises:
        InputError: a file that is no such table, an unknown column, a missing value, text that is no category; the
            message names the line and column.
    """
    table = _Table(existing(path), columns, delimiter)
    wanted = [targets] if isinstance(targets, str) else list(targets or ())
    _check_names(table, targets=wanted, inputs=inputs or (), ignore=ignore, categories=categories)
    left_out = {*wanted, *ignore}
    names = [name for name in table.columns if name not in left_out] if inputs is None else list(inputs)
    if not names:
        raise InputError(f"{path} has no column left for the inputs, of {_listed(table.columns)}")
    if missing == "drop":
        table.drop_missing([*names, *wanted])
    elif isinstance(missing, str):
        raise InputError(f"missing got {missing!r}, wanted a number, 'drop' or None")
    fill = None if isinstance(missing, str) else missing
    features, parts = [], []
    for name in names:
        if name in categories:
            values = categories[name] if isinstance(categories, Mapping) else None
            found, labels = table.labels(name, values)
            features += [f"{name}={value}" for value in found]
            parts.append(np.eye(len(found), dtype=np.float32)[labels])
        else:
            features.append(name)
            parts.append(table.numbers(name, fill).astype(np.float32)[:, None])
    arrays: dict[str, Any] = {"inputs": np.concatenate(parts, axis=1)}
    classes = None
    if isinstance(targets, str):
        arrays["targets"], classes = _one_target(table, targets)
    elif wanted:
        arrays["targets"] = np.stack([table.numbers(name) for name in wanted], axis=1).astype(np.float32)
    return Dataset(arrays, name=Path(path).name.partition(".")[0], classes=classes, features=tuple(features))


def _one_target(table: _Table, name: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    if not table.is_numeric(name):
        classes, labels = table.labels(name)
        return labels, tuple(classes)
    values = table.numbers(name)
    whole = np.all(values == np.round(values)) and np.all(np.abs(values) < 2**31)
    return values.astype(np.int32 if whole else np.float32), None


class _Table:
    """The fields of a csv file as text by column, and the line on which each row ends."""

    def __init__(self, path: Path, names: Sequence[str] | None, delimiter: str):
        if not isinstance(delimiter, str) or len(delimiter) != 1:
            raise InputError(f"delimiter got {delimiter!r}, wanted one character: ',', ';' or '\\t'")
        self.path = path
        text = decode(read_bytes(path), path).removeprefix("\ufeff")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows: list[list[str]] = []
        lines: list[int] = []
        try:
            for row in reader:
                if row:  # not an empty line
                    rows.append(row)
                    lines.append(reader.line_num)
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: {error}") from None
        if names is None:
            names, rows, lines = self._header(rows), rows[1:], lines[1:]
        if not rows:
            raise InputError(f"{path} has a line of names and no row below it")
        for row, line in zip(rows, lines, strict=True):
            if len(row) != len(names):
                raise InputError(f"{path}, line {line}: got {len(row)} fields, wanted {len(names)}: {_listed(names)}")
        if repeated := {name for name in names if list(names).count(name) > 1}:
            fix = "; give names of your own: columns=[...]"
            raise InputError(f"{path} has several columns named {_listed(sorted(repeated))}{fix}")
        self.lines = lines
        self.columns: Columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))

    def _header(self, rows: list[list[str]]) -> list[str]:
        if not rows:
            raise InputError(f"{self.path} has no row")
        names = [name.strip() for name in rows[0]]
        if all(_number(name) is not None for name in names):
            fix = "give names if the file has none: columns=[...]"
            raise InputError(f"{self.path} begins with {', '.join(names[:4])}, wanted the columns' names; {fix}")
        if len(names) == 1 and (other := [mark for mark in ";\t|" if mark in names[0]]):
            raise InputError(f"{self.path} has the one column {names[0]!r}; is it delimiter={other[0]!r}?")
        return names

    def is_numeric(self, name: str) -> bool:
        """Whether each value is a number or missing."""
        return all(_number(value) is not None or _is_missing(value) for value in self.columns[name])

    def numbers(self, name: str, fill: float | None = None) -> np.ndarray:
        """A column as ``float64[N]``, ``fill`` where it is missing."""
        column = self.columns[name]
        try:
            values = np.fromiter(map(float, column), np.float64, len(column))
            if np.isfinite(values).all() and not any("_" in value for value in column):  # float("1_0") is 10
                return values
        except ValueError:
            pass
        found = [_number(value) for value in column]
        for row, (value, text) in enumerate(zip(found, column, strict=True)):
            if value is None and not (_is_missing(text) and fill is not None):
                raise InputError(self._complaint(row, name, text))
        return np.asarray([fill if value is None else value for value in found], np.float64)

    def _complaint(self, row: int, name: str, text: str) -> str:
        place = f"{self.path}, line {self.lines[row]}, column {name!r}: got"
        if _is_missing(text):
            fix = "leave out such rows (missing='drop') or the column (ignore=[...]), or fill it in inputs (missing=0)"
            return f"{place} {text!r}, a missing value; {fix}"
        return f"{place} the text {text!r}, wanted a number; use categories=[{name!r}], or ignore=[{name!r}]"

    def labels(self, name: str, classes: Sequence[str] | None = None) -> tuple[list[str], np.ndarray]:
        """The sorted values of a column of text, or those given, and their numbers ``int32[N]``."""
        column = [value.strip() for value in self.columns[name]]
        given, classes = classes, list(map(str, sorted(set(column)) if classes is None else classes))
        numbers = {value: number for number, value in enumerate(classes)}
        for row, value in enumerate(column):
            if given is None and _is_missing(value):
                raise InputError(self._complaint(row, name, value))
            if value not in numbers:
                place = f"{self.path}, line {self.lines[row]}, column {name!r}"
                raise InputError(f"{place}: got {value!r}, which is none of the categories {_listed(classes)}")
        return classes, np.asarray([numbers[value] for value in column], np.int32)

    def drop_missing(self, names: Sequence[str]) -> None:
        """Leave out the rows where one of these columns is missing."""
        missing = np.array([[_is_missing(value) for value in self.columns[name]] for name in names]).any(axis=0)
        if missing.all():
            raise InputError(f"{self.path} has a missing value in every row of {_listed(names)}; nothing is left")
        kept = np.flatnonzero(~missing)
        self.columns = {name: [column[row] for row in kept] for name, column in self.columns.items()}
        self.lines = [self.lines[row] for row in kept]


def _check_names(table: _Table, **arguments: Any) -> None:
    """Each argument is a list of columns that the file has."""
    for argument, names in arguments.items():
        if isinstance(names, str) or not all(isinstance(name, str) for name in names):
            raise InputError(f"{argument} got {describe(names)}, wanted a list of columns")
        for name in names:
            if name not in table.columns:
                raise InputError(f"{argument} got {name!r}, wanted columns of {table.path}: {_listed(table.columns)}")


def _number(text: str) -> float | None:
    """The finite number that is written there."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) and "_" not in text else None


def _is_missing(text: str) -> bool:
    return text.strip().lower() in MISSING


def _listed(names: Any, most: int = 12) -> str:
    names = list(map(repr, names))
    return ", ".join(names[:most] + ["…"] * (len(names) > most))
