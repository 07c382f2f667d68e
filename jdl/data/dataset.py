"""Data in memory: a frozen value of equally long arrays, checked once when it is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.check import InputError, describe, is_array
from jdl.data.counts import whole
from jdl.data.order import SPLIT_EPOCH, permutation


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Named arrays of one length, ``{"inputs": [N, …], "targets": [N, …]}``: a training, validation or test set.

    A value may be a tuple or a dict of arrays, for models of several inputs. The arrays are read-only views of what
    was given: nothing is copied and nothing can be changed through them.

    Attributes:
        arrays: NumPy arrays by name. jdl's own objectives read ``inputs``, ``targets`` and ``mask``.
        name: what the data is called.
        classes: the name of each class, in the order of the labels.
        features: the name of each column of ``inputs``.

    Raises:
        InputError: no examples, different lengths, NaN or infinite values, ragged lists, or a dtype that is not
            numeric; the message names the array.
    """

    arrays: Mapping[str, Any]
    name: str = ""
    classes: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None

    def __post_init__(self):
        if not isinstance(self.arrays, Mapping) or not self.arrays:
            raise InputError(f"arrays got {describe(self.arrays)}, wanted a dict of at least one array")
        arrays = {key: _as_arrays(key, value) for key, value in self.arrays.items()}
        lengths = {path: len(leaf) for path, leaf in _leaves(arrays)}
        if len(set(lengths.values())) != 1:
            listed = ", ".join(f"{length} in {path}" for path, length in lengths.items())
            raise InputError(f"the data set got different numbers of examples ({listed}), wanted one number for all")
        for path, leaf in _leaves(arrays):
            _check_finite(path, leaf)
        for field in ("classes", "features"):
            names = getattr(self, field)
            object.__setattr__(self, field, None if names is None else tuple(map(str, names)))
        columns = _width(arrays.get("inputs"))
        if self.features is not None and len(self.features) != columns:
            raise InputError(f"features got {len(self.features)} names, wanted one for each of {columns} columns")
        object.__setattr__(self, "arrays", arrays)

    @classmethod
    def of(cls, data: Any) -> Dataset:
        """Make a data set of ``(inputs, targets)``, of a dict of arrays, of inputs alone, or pass one through.

        Arrays may be anything that ``np.asarray`` takes.

        Raises:
            InputError: the data cannot be trained on; see `Dataset`.
        """
        if isinstance(data, Dataset):
            return data
        if isinstance(data, Mapping):
            return cls(data)
        if isinstance(data, tuple) and len(data) == 2:
            return cls({"inputs": data[0], "targets": data[1]})
        if is_array(data):
            return cls({"inputs": data})
        fix = ""
        if hasattr(data, "train"):
            fix = "; use one of its splits, .train, .validation or .test"
        elif isinstance(data, str):
            fix = f"; use jdl.data.load({data!r}).train"
        elif isinstance(data, list):
            fix = "; use a tuple of two arrays"
        got = f"{type(data).__name__} {describe(data)}"
        raise InputError(f"data got {got}, wanted (inputs, targets), a dict of arrays, or a Dataset{fix}")

    @property
    def inputs(self) -> Any:
        """What the model takes: ``[N, …]``, or a tuple or dict of such arrays."""
        return self["inputs"]

    @property
    def targets(self) -> Any:
        """What the model should give: ``[N, …]``."""
        return self["targets"]

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.arrays)[0])

    def __getitem__(self, key: str | slice) -> Any:
        """``data["inputs"]`` is that array, ``data[10:20]`` the data set of these examples, without a copy."""
        if isinstance(key, slice):
            return self._with(jax.tree.map(lambda leaf: leaf[key], self.arrays))
        if not isinstance(key, str):
            fix = "for examples use data[3:4], data.take([3]) or jdl.data.batches(data, batch_size)"
            raise InputError(f"data[…] got {describe(key)}, wanted the name of an array or a slice; {fix}")
        if key not in self.arrays:
            raise InputError(f"data has no array {key!r}, only {', '.join(map(repr, self.arrays))}")
        return self.arrays[key]

    def __repr__(self) -> str:
        parts = [f"{path}={describe(leaf)}" for path, leaf in _leaves(self.arrays)]
        if self.classes is not None:
            parts.append(f"classes={len(self.classes)}")
        return f"Dataset({', '.join([repr(self.name)] * bool(self.name) + [f'{len(self)} examples', *parts])})"

    def take(self, indices: Any) -> Dataset:
        """Copy out the data set of the examples ``indices``: whole numbers ``[K]`` in 0..N-1, or a mask ``bool[N]``.

        Raises:
            InputError: no index, an index outside the data, or a mask of another length.
        """
        return self._with(self.gather(_as_indices(indices, len(self))))

    def gather(self, indices: np.ndarray) -> dict[str, Any]:
        """Copy out the examples ``int[K]`` as a batch, a dict of arrays ``[K, …]``: `take` without its checks."""
        return jax.tree.map(lambda leaf: np.take(leaf, indices, axis=0), dict(self.arrays))

    def map(self, **functions: Callable[[Any], Any]) -> Dataset:
        """Replace arrays by a function of them: ``data.map(inputs=normaliser.apply)``.

        Raises:
            InputError: there is no such array, or the result cannot be trained on; see `Dataset`.
        """
        return self._with({**self.arrays, **{key: function(self[key]) for key, function in functions.items()}})

    def split(self, fractions: Sequence[float], seed: int = 0, stratify: str | None = None) -> tuple[Dataset, ...]:
        """Divide the examples at random into one data set per fraction: ``data.split((0.8, 0.2), stratify="targets")``.

        The sizes are the fractions of N by largest remainder. With ``stratify``, the name of an array of integers
        ``[N]``, each class is divided so as well: its count in each part is within one example of its share. Each part
        keeps the order of the data. The split is a pure function of the data's length (and labels), ``fractions`` and
        ``seed``.

        Raises:
            InputError: fractions that do not add up to 1, an empty part, or labels that are not integers ``[N]``.
        """
        shares = np.asarray(fractions, np.float64)
        if shares.ndim != 1 or not np.all(shares > 0) or not math.isclose(shares.sum(), 1):
            raise InputError(f"fractions got {fractions!r}, wanted positive numbers that add up to 1")
        labels = np.zeros(len(self), np.int32) if stratify is None else _as_labels(stratify, self[stratify])
        parts = _divide(labels, shares, seed)
        if not all(map(len, parts)):
            sizes = [len(part) for part in parts]
            raise InputError(
                f"fractions {fractions!r} of {len(self)} examples give parts of {sizes}, wanted none empty"
            )
        return tuple(self.take(part) for part in parts)

    def folds(self, k: int, seed: int = 0, stratify: str | None = None) -> list[tuple[Dataset, Dataset]]:
        """Cross-validation: ``k`` pairs (training, held out), where each example is held out once. See `split`.

        Raises:
            InputError: ``k`` is below 2 or above the number of examples, or the labels are not integers ``[N]``.
        """
        if (k := whole("k", k, 2)) > len(self):
            raise InputError(f"k got {k}, wanted 2 to the {len(self)} examples of the data")
        labels = np.zeros(len(self), np.int32) if stratify is None else _as_labels(stratify, self[stratify])
        held_out = _divide(labels, np.full(k, 1 / k), seed)
        everything = np.arange(len(self))
        return [(self.take(np.setdiff1d(everything, part)), self.take(part)) for part in held_out]

    def _with(self, arrays: Mapping[str, Any]) -> Dataset:
        """The same data set with other arrays; names of columns go when the columns do."""
        kept = self.features is not None and _width(arrays.get("inputs")) == len(self.features)
        return dataclasses.replace(self, arrays=arrays, features=self.features if kept else None)


def _as_arrays(path: str, value: Any) -> Any:
    """``value`` as read-only NumPy arrays with a leading axis, in tuples and dicts where it holds several."""
    if isinstance(value, Mapping) and value:
        return {key: _as_arrays(f"{path}/{key}", part) for key, part in value.items()}
    # A tuple of arrays is several inputs; a tuple of numbers or of rows is one array written out.
    if isinstance(value, tuple) and value and all(is_array(part) and np.ndim(part) for part in value):
        return tuple(_as_arrays(f"{path}/{index}", part) for index, part in enumerate(value))
    try:
        leaf = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be made an array: {error}; ragged lists need padding and a mask") from None
    if not (jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == np.bool_):
        raise InputError(
            f"{path} got {describe(leaf)}, wanted numbers; encode text and missing values as numbers first"
        )
    if leaf.ndim == 0:
        raise InputError(f"{path} got {describe(leaf)}, wanted an array with a leading axis over the examples")
    if leaf.size == 0:
        raise InputError(f"{path} got {describe(leaf)}, which is empty; wanted at least one example")
    leaf = leaf.view()
    leaf.flags.writeable = False
    return leaf


def _check_finite(path: str, leaf: np.ndarray) -> None:
    if not jnp.issubdtype(leaf.dtype, jnp.inexact):
        return
    with np.errstate(invalid="ignore"):
        # The extremes are not finite if any value is not; unlike isfinite(leaf) they need no memory.
        if not np.iscomplexobj(leaf) and np.isfinite(leaf.min()) and np.isfinite(leaf.max()):
            return
    bad = np.argwhere(~np.isfinite(leaf))
    if len(bad):
        first = ", ".join(map(str, bad[0]))
        count = "1 value that is" if len(bad) == 1 else f"{len(bad)} values that are"
        fix = "fill or drop them first"
        if path == "targets":
            fix = "fill those that are missing, np.nan_to_num(targets), and give mask=np.isfinite(targets) beside them"
        raise InputError(f"{path} got {describe(leaf)} with {count} NaN or infinite, the first at [{first}]; {fix}")


def _leaves(arrays: Any, path: str = "") -> list[tuple[str, np.ndarray]]:
    """The arrays with their paths, ``inputs/source``."""
    if isinstance(arrays, np.ndarray):
        return [(path, arrays)]
    items = arrays.items() if isinstance(arrays, Mapping) else enumerate(arrays)
    return [leaf for key, part in items for leaf in _leaves(part, f"{path}/{key}" if path else str(key))]


def _width(inputs: Any) -> int | None:
    """The number of columns of ``[N, …, columns]``."""
    return inputs.shape[-1] if is_array(inputs) and inputs.ndim > 1 else None


def _as_indices(indices: Any, n: int) -> np.ndarray:
    indices = np.asarray(indices)
    if indices.dtype == np.bool_:
        if indices.shape != (n,):
            raise InputError(f"indices got {describe(indices)}, wanted a mask of the {n} examples, bool[{n}]")
        indices = np.flatnonzero(indices)
    if indices.ndim != 1 or indices.size == 0 or not np.issubdtype(indices.dtype, np.integer):
        raise InputError(f"indices got {describe(indices)}, wanted at least one whole number, int[K]")
    if indices.min() < 0 or indices.max() >= n:
        raise InputError(f"indices got {indices.min()} to {indices.max()}, wanted 0 to {n - 1}")
    return indices


def _as_labels(name: str, labels: Any) -> np.ndarray:
    if not is_array(labels) or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"stratify got {name} of {describe(labels)}, wanted class labels int[N]")
    return labels


def _divide(labels: np.ndarray, shares: np.ndarray, seed: int) -> list[np.ndarray]:
    """Indices for each share, in the order of the data, every class divided by these shares."""
    shuffled = permutation(len(labels), seed, SPLIT_EPOCH)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.unique(labels, return_counts=True)[1]
    # By class and, within a class, by part: these runs of `by_class` lie one after another.
    runs = np.split(by_class, np.cumsum(_apportion(counts, shares))[:-1])
    return [np.sort(np.concatenate(runs[part :: len(shares)])) for part in range(len(shares))]


def _apportion(counts: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """How many of each class go into each part, ``int[C, K]``: rows sum to ``counts``, columns to their shares of N.

    Rounding down leaves some of each class over. A class gives each of its left-over examples to another part, those
    first that are furthest below their size: the construction by which Gale and Ryser show that such tables exist.
    """
    exact = counts[:, None] * shares[None]
    table = np.floor(exact + 1e-9).astype(np.int64)
    missing = _largest_remainder(int(counts.sum()), shares) - table.sum(axis=0)
    for row, left_over in enumerate(counts - table.sum(axis=1)):
        neediest = np.lexsort((table[row] - exact[row], -missing))[:left_over]
        table[row, neediest] += 1
        missing[neediest] -= 1
    return table


def _largest_remainder(n: int, shares: np.ndarray) -> np.ndarray:
    exact = n * shares
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    sizes[np.argsort(sizes - exact, kind="stable")[: n - sizes.sum()]] += 1
    return sizes
