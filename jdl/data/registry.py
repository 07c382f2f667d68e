"""Data sets by name: what one is made of, and the table of those known."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from jdl.check import InputError, describe
from jdl.data.dataset import Dataset
from jdl.data.normalise import Normaliser

PARTS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Splits:
    """A data set for training: three parts that share no example, and what was done to them.

    Attributes:
        train: to train on.
        validation: to choose by: early stopping, hyper-parameters.
        test: to report on, once.
        normaliser: what was applied to the inputs of all three, measured on ``train`` alone; apply it to new data.
        whole: every example as the source has it, in its order, for cross-validation (normalise within each fold);
            None where the source itself says which examples are the test set.
        description: what the examples are and what the targets mean.
        source: where it comes from.
        licence: the terms of the data, as its source states them.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    normaliser: Normaliser | None = None
    whole: Dataset | None = None
    description: str = ""
    source: str = ""
    licence: str = ""

    @classmethod
    def divide(
        cls,
        whole: Dataset,
        fractions: Sequence[float] = (0.7, 0.1, 0.2),
        stratify: str | None = None,
        seed: int = 0,
        **about: Any,
    ) -> Splits:
        """Divide one table into train, validation and test; ``seed`` belongs to the data, not to a run.

        Raises:
            InputError: see `Dataset.split`.
        """
        parts = whole.split(fractions, seed, stratify)
        if len(parts) != 3:
            raise InputError(f"fractions got {fractions!r}, wanted three: train, validation and test")
        train, validation, test = (
            dataclasses.replace(part, name=f"{whole.name}/{name}") for part, name in zip(parts, PARTS, strict=True)
        )
        return cls(train, validation, test, whole=whole, **about)

    def normalised(self, axis: int | tuple[int, ...] | None = 0) -> Splits:
        """Normalise the inputs of all three by the mean and standard deviation of ``train``; see `Normaliser.fit`."""
        normaliser = Normaliser.fit(self.train.inputs, axis)
        parts = {name: getattr(self, name).map(inputs=normaliser.apply) for name in PARTS}
        return dataclasses.replace(self, normaliser=normaliser, **parts)

    def __repr__(self) -> str:
        """A table of the three parts."""
        rows = [("split", "examples", *self.train.arrays)]
        for name in PARTS:
            part = getattr(self, name)
            rows.append((name, str(len(part)), *map(describe, part.arrays.values())))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines[:0] = [self.description] * bool(self.description)
        for label, names in (("classes", self.train.classes), ("features", self.train.features)):
            if names is not None:
                listed = ", ".join(names[:10]) + ", …" * (len(names) > 10)
                lines.append(f"{label} ({len(names)}): {listed}")
        if self.normaliser is not None:
            lines.append("inputs normalised by the mean and standard deviation of train")
        if self.source:
            lines.append(f"source: {self.source}" + (f" ({self.licence})" if self.licence else ""))
        return "\n".join(lines)


Loader = Callable[..., Splits]
L = TypeVar("L", bound=Loader)
_LOADERS: dict[str, Loader] = {}


def register(name: str) -> Callable[[L], L]:
    """Make a function of keyword options that returns `Splits` known to `load` by ``name``.

    ```python
    @jdl.data.register("spirals")
    def spirals(turns: float = 2.0) -> Splits: ...
    ```

    Raises:
        InputError: another function has this name. The same function may be defined again, as notebooks do.
    """

    def decorate(loader: L) -> L:
        known = _LOADERS.get(name)
        if known is not None and _place(known) != _place(loader):
            raise InputError(f"the data set {name!r} is {_place(known)} already; {_place(loader)} needs another name")
        _LOADERS[name] = loader
        return loader

    return decorate


def names() -> list[str]:
    """The names that `load` knows."""
    return sorted(_LOADERS)


def load(name: str, **options: Any) -> Splits:
    """The data set ``name`` with its train, validation and test split: ``jdl.data.load("digits").train``.

    ``options`` are those of the data set's own function, such as ``normalise=False`` for the values as they are.

    Raises:
        InputError: there is no such data set or no such option.
        ModuleNotFoundError: it comes with a package that is not installed; the message says which extra has it.
        DataUnavailable: its files are neither on this machine nor to be had.
    """
    loader = _LOADERS.get(name)
    if loader is None:
        near = difflib.get_close_matches(str(name).lower().replace("-", "_"), names(), n=1)
        fix = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"load got {name!r}, wanted one of {', '.join(map(repr, names()))}{fix}")
    try:
        inspect.signature(loader).bind(**options)
    except TypeError as error:
        known = ", ".join(inspect.signature(loader).parameters) or "none"
        raise InputError(f"load({name!r}) got options that it has not: {error}; it has {known}") from None
    return loader(**options)


def _place(loader: Loader) -> str:
    return f"{loader.__module__}.{loader.__qualname__}"
