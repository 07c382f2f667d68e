"""Examples that are equal to each other: between training and validation, and within a batch."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jdl.diagnosis.findings import OVERLAP, Finding

LOOKED_UP = 1000  # validation rows that are looked for
SEARCHED = 200_000  # training rows that are looked through
COLUMNS = 8  # entries of a row that are compared first
FEW = 100  # rows that say which entries differ most
SHARE = 0.01  # of validation rows; below it lie the accidents of large collections

_WHY = (
    "What was trained on is not held out: the validation loss then measures memory, early stopping and the choice of "
    "settings go wrong, and the test result is worse than promised."
)
_TRY = "split before augmenting and copying, by group where examples belong together; drop duplicates with np.unique"


def check_overlap(train: Any, validation: Any) -> list[Finding]:
    """A finding where inputs of the validation data ``[M, …]`` stand in the training data ``[N, …]`` too, to the bit.

    At most 1,000 validation rows are looked for among at most 200,000 training rows, evenly spread. Data whose rows
    repeat anyhow, as with a few categories, overlap by nature: only what goes beyond that counts.
    """
    a, b = jax.tree.leaves(train), jax.tree.leaves(validation)
    if [(x.dtype, x.shape[1:]) for x in a] != [(x.dtype, x.shape[1:]) for x in b]:
        return []
    rows, looked = (_spread(len(x[0]), size) for x, size in ((a, SEARCHED), (b, LOOKED_UP)))
    a = [x[rows] for x in a] if len(rows) < len(a[0]) else a
    pairs = _equal_rows(a, [x[looked] for x in b])
    share = len(pairs) / len(looked)
    if share < SHARE or share <= 2 * _repeated(a):
        return []
    examples = [(int(looked[there]), int(rows[here])) for there, here in pairs.items()]
    listed = ", ".join(f"{v} = {t}" for v, t in examples[:5]) + ", …" * (len(examples) > 5)
    of = f"{len(looked):,} validation examples" + " looked at" * (len(looked) < len(b[0]))
    words = f"{len(pairs):,} of {of} ({share:.1%}) stand in the training data too (validation = training: {listed})"
    return [Finding(OVERLAP, words, _WHY, _TRY, "validation", {"share": share, "pairs": examples})]


def groups(tree: Any) -> np.ndarray:
    """The number of the first row that each row equals, ``int[N]``."""
    first: dict[bytes, int] = {}
    rows = zip(*map(np.asarray, jax.tree.leaves(tree)), strict=True)
    return np.array([first.setdefault(b"".join(part.tobytes() for part in row), i) for i, row in enumerate(rows)])


def _spread(n: int, most: int) -> np.ndarray:
    return np.arange(n) if n <= most else np.linspace(0, n - 1, most).astype(np.int64)


def _repeated(leaves: list[np.ndarray]) -> float:
    """The share of rows, evenly spread, of which another copy stands among them all."""
    looked = _spread(len(leaves[0]), LOOKED_UP)
    return len(_equal_rows(leaves, [leaf[looked] for leaf in leaves], looked)) / len(looked)


def _equal_rows(a: list[np.ndarray], b: list[np.ndarray], own: np.ndarray | None = None) -> dict[int, int]:
    """For each row of ``b`` that stands in ``a``, the first place where it does; ``own`` places do not count."""
    keys, wanted = _keys(a, b)
    found: dict[int, int] = {}
    by_key: dict[int, list[int]] = {}
    for there, key in enumerate(wanted.tolist()):
        by_key.setdefault(key, []).append(there)
    for here in np.flatnonzero(np.isin(keys, wanted)).tolist():
        for there in by_key[int(keys[here])]:
            if there in found or (own is not None and own[there] == here):
                continue
            if all(np.array_equal(x[here], y[there]) for x, y in zip(a, b, strict=True)):
                found[there] = here
    return found


def _keys(a: list[np.ndarray], b: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """A number for each row, from the columns that differ most among the rows of ``b``: equal rows have equal ones."""
    keys = [np.zeros(len(a[0]), np.uint64), np.zeros(len(b[0]), np.uint64)]
    random = np.random.default_rng(0)
    for x, y in zip(a, b, strict=True):
        x, y = x.reshape(len(x), -1), y.reshape(len(y), -1)
        few = np.sort(y[:FEW], axis=0)
        distinct = (few[1:] != few[:-1]).sum(axis=0)
        columns = np.sort(np.argsort(-distinct, kind="stable")[:COLUMNS])
        factors = random.integers(1, 2**63, len(columns), np.uint64) * np.uint64(2) + np.uint64(1)
        for index, part in enumerate((x, y)):
            keys[index] += (_bits(part[:, columns]) * factors).sum(axis=1, dtype=np.uint64)
    return keys[0], keys[1]


def _bits(values: np.ndarray) -> np.ndarray:
    """Numbers as whole ones that are equal where the numbers are."""
    if values.dtype.kind in "iub":
        return values.astype(np.uint64)
    return (values.astype(np.float64) + 0.0).view(np.uint64) >> np.uint64(20)  # -0 is 0; the last bits say little
