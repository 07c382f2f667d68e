"""Batches that somebody else makes, as full batches of one size."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jdl.check import InputError, describe
from jdl.data.counts import whole
from jdl.data.stream_arrays import Batch, Layout, checked, layout, padded, rows_in
from jdl.data.stream_base import Stream
from jdl.data.stream_positions import decode, encode


class Batches(Stream):
    """Data as batches that somebody else makes: a PyTorch DataLoader, a Grain IterDataset, a generator function.

    Batches of any sizes are cut and joined to full ones; what is left of a pass over the data joins the next pass. The
    order is that of the iterable, whatever the seed. A pass should be an epoch, and it must end where the data is
    evaluated.

    A run goes on from any step where the iterators have ``get_state()`` and ``set_state(state)``, as Grain's do; a
    state is made of numbers, text, bytes, arrays, lists and dicts. Otherwise a resumed run begins a new pass.

    Worker processes of such a source start anew with each pass; a Grain pipeline for training may repeat its data
    before it is batched, and be given ``examples``.

    Args:
        iterable: gives an iterator over batches each time that it is iterated, or called if it is a function. A batch
            is a dict of arrays, ``(inputs, targets)`` as a tuple or list, or inputs alone; arrays have the batch on
            axis 0 and may be PyTorch's, 64 bits become 32.
        examples: how many there are in a pass; by default what a DataLoader says, or None.
        name: what the data is called.

    Attributes:
        exact: see above. batch_size: that of the iterable, or of its first batch.

    Raises:
        InputError: an iterator, which could be used once only; while reading, no batches or one unlike the first. The
            message gives the number of the batch.
    """

    def __init__(self, iterable: Iterable[Any] | Callable[..., Any], examples: int | None = None, name: str = ""):
        if isinstance(iterable, Iterator):
            raise InputError(
                f"data got {type(iterable).__name__}, an iterator that is used up after one pass; wanted an object to "
                "iterate again and again, or the function that makes the iterator: give make in place of make()"
            )
        if not hasattr(iterable, "__iter__") and not callable(iterable):
            raise InputError(f"iterable got {describe(iterable)}, wanted batches that can be iterated")
        self.iterable, self.name = iterable, name
        self.examples = _examples_in(iterable) if examples is None else whole("examples", examples, 1)
        self._layout: Layout | None = None  # of the first batch that was ever read

    def __repr__(self) -> str:
        count = "" if self.examples is None else f", {self.examples} examples"
        return f"Batches({self.name or type(self.iterable).__name__!r}{count})"

    @property
    def exact(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._glance[1]

    @property
    def batch_size(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        size = getattr(self.iterable, "batch_size", None)
        return size if isinstance(size, int) and not isinstance(size, bool) else rows_in(self._glance[0])

    def batches(self, batch_size: int, seed: int, start: int = 0, position: Any = None) -> Generator[tuple[Batch, Any]]:
        size = whole("batch_size", batch_size, 1)
        with contextlib.closing(_Passes(self, position)) as passes:
            while True:
                yield passes.take(size), passes.position()

    def evaluation_batches(self, batch_size: int) -> Generator[Batch]:
        size = whole("batch_size", batch_size, 1)
        with contextlib.closing(_Passes(self)) as passes:
            batch = first = passes.rest_of_pass(size)
            while batch is not None and first is not None:
                yield padded(batch, first, rows_in(first))
                batch = passes.rest_of_pass(size)

    def first(self, batch_size: int) -> Batch:
        """The first batch of a pass of its own."""
        batch = self._glance[0]
        if rows_in(batch) < batch_size:
            return super().first(batch_size)
        return jax.tree.map(lambda leaf: leaf[:batch_size].copy(), batch)

    @functools.cached_property
    def _glance(self) -> tuple[Batch, bool]:
        """The first batch of the iterable's own, and whether its iterators have a state."""
        with contextlib.closing(_Passes(self)) as passes:
            passes.advance()
            return passes.held, passes.has_state


class _Passes:
    """A place in the passes over an iterable, one after another."""

    def __init__(self, data: Batches, position: Any = None):
        self.data, self.number, self.held = data, 0, {}
        self.used = self.length = 0  # rows of the iterable's batch in hand, those used and all
        self.before: Any = None  # the iterator's state before it gave that batch
        self._open()
        if position is not None:
            self._go_to(position)

    def take(self, size: int) -> Batch:
        """The next ``size`` rows, from as many passes as it takes."""
        parts, missing = [], size
        while missing:
            if self.used == self.length and not self.advance():
                self._check_pass(size)
                self.close()
                self._open()
                continue
            parts.append(self._cut(missing))
            missing -= rows_in(parts[-1])
        return _joined(parts)

    def rest_of_pass(self, size: int) -> Batch | None:
        """The next ``size`` rows of this pass, or fewer where it ends; None where it has ended."""
        parts, missing = [], size
        while missing and (self.used < self.length or self.advance()):
            parts.append(self._cut(missing))
            missing -= rows_in(parts[-1])
        if missing:
            self._check_pass(0)
        return _joined(parts) if parts else None

    def position(self) -> Any:
        """Where the next rows stand, or None where the iterator has no state."""
        if not self.has_state:
            return None
        inside = self.used < self.length
        return {
            "pass": self.number,
            "batches": self.batches - inside,
            "rows": self.rows - inside * self.length,
            "iterator": self.before if inside else encode(self.iterator.get_state()),
            "used": inside * self.used,
        }

    def close(self) -> None:
        """Stop what the iterator runs."""
        getattr(self.iterator, "close", lambda: None)()
        self.iterator = None  # PyTorch's stops its workers when it is forgotten

    def advance(self) -> bool:
        """Read the next batch of this pass; False where there is none."""
        before = encode(self.iterator.get_state()) if self.has_state else None
        try:
            value = next(self.iterator)
        except StopIteration:
            if not self.batches:
                raise InputError(_empty(self.number)) from None
            return False
        self.batches += 1
        self.held, self.before, self.used = self._checked(value), before, 0
        self.length = rows_in(self.held)
        self.rows += self.length
        return True

    def _cut(self, most: int) -> Batch:
        rows = slice(self.used, self.used + most)
        self.used = min(self.used + most, self.length)
        return jax.tree.map(lambda leaf: leaf[rows], self.held)

    def _open(self) -> None:
        source: Any = self.data.iterable
        made = source if hasattr(source, "__iter__") else source()
        if not hasattr(made, "__iter__"):
            raise InputError(f"the function of Batches gave {describe(made)}, wanted something to iterate")
        self.iterator: Any = iter(made)
        self.has_state = hasattr(self.iterator, "get_state") and hasattr(self.iterator, "set_state")
        self.number += 1
        self.batches = self.rows = 0  # of this pass, the batch in hand among them

    def _go_to(self, position: Any) -> None:
        if not self.has_state:
            raise InputError("position got the state of an iterator, but this one has no set_state(); is it the same?")
        self.iterator.set_state(decode(position["iterator"]))
        self.number, self.batches, self.rows = position["pass"], position["batches"], position["rows"]
        if position["used"]:
            if not self.advance() or self.length < position["used"]:
                raise InputError("position lies beyond the iterable's batch; the data changed since it was stored")
            self.used = position["used"]

    def _checked(self, value: Any) -> Batch:
        try:
            # A copy: the iterable may fill the same memory again.
            batch = jax.tree.map(np.array, checked(value))
        except InputError as error:
            hint = _hint(value) if self.batches == self.number == 1 else ""
            raise InputError(error.message + hint, f"batch {self.batches} of pass {self.number}") from None
        found = layout(batch)
        wanted = self.data._layout = self.data._layout or found
        if found != wanted:
            raise InputError(
                f"batch {self.batches} of pass {self.number} has {_show(found)}, wanted as in the first batch "
                f"{_show(wanted)}; pad to one shape, with a mask, and keep names and dtypes"
            )
        return batch

    def _check_pass(self, size: int) -> None:
        """At the end of a pass."""
        if self.data.examples not in (None, self.rows):
            raise InputError(
                f"pass {self.number} gave {self.rows} examples, wanted the {self.data.examples} that were announced; "
                f"give Batches the right number: examples={self.rows}"
            )
        if self.rows < size:
            raise InputError(
                f"batch_size got {size}, wanted at most the {self.rows} examples of a pass; lower it to {self.rows}"
            )


def _joined(parts: list[Batch]) -> Batch:
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def _empty(number: int) -> str:
    if number == 1:
        return "the iterable gave no batches, wanted at least one"
    return (
        f"pass {number} gave no batches, so the iterable is used up after one pass; give Batches a function that makes "
        "a new iterator each time"
    )


def _hint(value: Any) -> str:
    leaves = jax.tree.leaves(value)
    lengths = {len(leaf) if np.ndim(leaf) else None for leaf in leaves if hasattr(leaf, "shape")}
    numbers = any(isinstance(leaf, (int, float)) for leaf in leaves) and not isinstance(value, dict)
    if None in lengths or len(lengths) > 1 or numbers:
        return "; are these single examples? Make batches of them: .batch(32), or a DataLoader with a batch_size"
    return ""


def _show(found: Layout) -> str:
    return ", ".join(f"{path} {dtype}[B{''.join(f', {n}' for n in shape)}]" for path, (shape, dtype) in found.items())


def _examples_in(iterable: Any) -> int | None:
    """What a PyTorch DataLoader gives in a pass: the sampler knows, where it does not only stand for another."""
    size = getattr(iterable, "batch_size", None)
    try:
        count = len(iterable.sampler)
    except (AttributeError, TypeError, NotImplementedError):
        return None
    if not isinstance(size, int):
        return None
    return (count - count % size if getattr(iterable, "drop_last", False) else count) or None
