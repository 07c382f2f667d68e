"""Single examples read by their numbers: in jdl's own order, from any step, by worker processes where wanted."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from jdl.check import InputError
from jdl.data.counts import whole
from jdl.data.order import batch_indices, indices_between
from jdl.data.prefetch import Interruptible, interrupt_of
from jdl.data.stream_arrays import Batch, as_example, padded, stacked
from jdl.data.stream_base import Stream


class Examples(Stream):
    """Data of which any example can be read by its number: files, a Hugging Face or PyTorch dataset, a list of dicts.

    Training takes the examples in the order of the same data in memory (:func:`jdl.data.permutation`), so its batches
    are the same bit for bit, whatever the number of workers, and a run goes on from any step.

    Args:
        source: has a length, and ``source[i]`` is an example: a dict of arrays, ``(inputs, targets)``, or inputs alone.
            Pillow's images become ``uint8[H, W, C]``, numbers and lists arrays, 64 bits 32.
        load: a function that makes such an example of what the source gives, where that is something else: it decodes,
            resizes, picks columns. What it draws at random differs from run to run; see :func:`jdl.augmented` for
            augmentation that does not.
        workers: processes that read ahead, each whole batches; 0 reads in this process. Each gets a copy of the source
            and of ``load`` by pickle, and a script that uses them trains under ``if __name__ == "__main__":``.
        prefetch: batches that each worker keeps ready.
        name: what the data is called.

    Raises:
        InputError: the source has no examples or no length; while reading, an example that cannot be read or has
            another shape than the others. The message names the example.
    """

    examples: int  # pyright: ignore[reportIncompatibleVariableOverride]
    exact = True

    def __init__(
        self,
        source: Any,
        load: Callable[[Any], Any] | None = None,
        workers: int = 0,
        prefetch: int = 2,
        name: str = "",
    ):
        if not hasattr(source, "__len__") or not hasattr(source, "__getitem__"):
            fix = "for what can only be iterated use jdl.data.Batches"
            raise InputError(f"source got {type(source).__name__}, wanted a length and source[i]; {fix}")
        if not 1 <= len(source) < 2**31:
            raise InputError(f"source says it has {len(source)} examples, wanted 1 to 2³¹ - 1, and no repetition")
        if load is not None and not callable(load):
            raise InputError(f"load got {load!r}, wanted a function of an example")
        self.source, self.load, self.name = source, load, name
        self.workers, self.prefetch = whole("workers", workers, 0), whole("prefetch", prefetch, 1)
        self.examples = len(source)

    def __repr__(self) -> str:
        name = repr(self.name or type(self.source).__name__)
        return f"Examples({name}, {self.examples} examples)"  # who reads them changes nothing

    def batches(self, batch_size: int, seed: int, start: int = 0, position: Any = None) -> Iterator[tuple[Batch, None]]:
        indices_between(self.examples, batch_size, seed, start, start)  # complains now, before any worker starts
        rows = functools.partial(_training_rows, self.examples, batch_size, seed, start)
        return _without_position(self._read(rows, None))

    def evaluation_batches(self, batch_size: int) -> Iterator[Batch]:
        size = min(whole("batch_size", batch_size, 1), self.examples)
        rows = functools.partial(_evaluation_rows, self.examples, size)
        with contextlib.closing(self._read(rows, -(-self.examples // size))) as batches:
            first = next(batches)
            for batch in itertools.chain([first], batches):
                yield padded(batch, first, size)

    def first(self, batch_size: int) -> Batch:
        """The training batch of step 0 with seed 0, read in this process."""
        return self._reader(batch_indices(self.examples, batch_size, 0, 0))

    @property
    def _reader(self) -> _Reader:
        return _Reader(self.source, self.load)

    def _read(self, rows: Callable[[int], np.ndarray], count: int | None) -> Generator[Batch] | Interruptible:
        read = _Steps(rows, self._reader)
        if self.workers:
            from jdl.data.stream_workers import in_workers  # multiprocessing loads when it is used

            return in_workers(read, count, self.workers, self.prefetch)
        return (read(step) for step in (itertools.count() if count is None else range(count)))


def _without_position(batches: Generator[Batch] | Interruptible) -> Iterator[tuple[Batch, None]]:
    def pairs() -> Generator[tuple[Batch, None]]:
        with contextlib.closing(batches):
            for batch in batches:
                yield batch, None

    return Interruptible(pairs(), interrupt_of(batches))


def _training_rows(n: int, batch_size: int, seed: int, start: int, step: int) -> np.ndarray:
    return batch_indices(n, batch_size, seed, start + step)


def _evaluation_rows(n: int, batch_size: int, step: int) -> np.ndarray:
    return np.arange(step * batch_size, min((step + 1) * batch_size, n))


@dataclasses.dataclass(frozen=True)
class _Steps:
    """The batch of a step: a value, as it travels to the workers."""

    rows: Callable[[int], np.ndarray]
    reader: _Reader

    def __call__(self, step: int) -> Batch:
        return self.reader(self.rows(step))


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Examples by their numbers, as a batch."""

    source: Any
    load: Callable[[Any], Any] | None

    def __call__(self, rows: np.ndarray) -> Batch:
        numbers = rows.tolist()  # of Python's own type, which is all that some sources take
        return stacked(self._examples(numbers), numbers)

    def _examples(self, numbers: list[int]) -> Sequence[Batch]:
        if hasattr(self.source, "__getitems__"):  # many at once: Hugging Face datasets, and PyTorch's convention
            try:
                together = self.source.__getitems__(numbers)
            except Exception:
                together = []  # one by one it will be known which of them it is
            if len(together) == len(numbers):
                return [self._example(number, value) for number, value in zip(numbers, together, strict=True)]
        return [self._example(number) for number in numbers]

    def _example(self, number: int, *value: Any) -> Batch:
        doing = "reading it"
        try:
            example = value[0] if value else self.source[number]
            if self.load is not None:
                doing = "load"
                example = self.load(example)
            doing = "jdl"
            return as_example(example)
        except Exception as error:
            raise InputError(_words(doing, error), f"example {number}") from error


def _words(doing: str, error: Exception) -> str:
    if isinstance(error, InputError):
        return str(error)
    # An error from a worker arrives without the frames that it came from.
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{doing} raised {type(error).__name__}: {error} ({frame.filename}, line {frame.lineno})"
