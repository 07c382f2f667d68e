"""What a source of data is that need not fit in memory: a stream of batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Batch = dict[str, Any]


class Stream:
    """Base of data that is read while training goes on; subclass it for a source that `Examples` and `Batches` do not
    fit.

    Attributes:
        name: what the data is called.
        examples: how many there are in an epoch; None where nobody knows before it is over.
        batch_size: how many the source's own batches hold; None where it holds single examples.
        exact: whether training can go on from any step. Otherwise a resumed run starts the epoch anew.
    """

    name: str = ""
    examples: int | None = None
    batch_size: int | None = None
    exact: bool = False

    def batches(self, batch_size: int, seed: int, start: int = 0, position: Any = None) -> Iterator[tuple[Batch, Any]]:
        """Full training batches without end, from step ``start`` on, each with the position after it.

        A position is a JSON value or None; given back as ``position``, the batches go on from there. Closing the
        iterator stops the threads and processes behind it. If the iterator has a method ``interrupt()``, another thread
        may call it to end a read that hangs.
        """
        raise NotImplementedError(f"{type(self).__name__} has no batches(self, batch_size, seed, start, position)")

    def evaluation_batches(self, batch_size: int) -> Iterator[Batch]:
        """Every example once, in batches of one size: the last is padded, as ``padding`` and ``mask`` ``[B]`` say."""
        raise NotImplementedError(f"{type(self).__name__} has no evaluation_batches(self, batch_size)")

    def first(self, batch_size: int) -> Batch:
        """A training batch like those to come, for shapes and initial values; it changes nothing of what comes."""
        batches = self.batches(batch_size, seed=0)
        try:
            return next(batches)[0]
        finally:
            getattr(batches, "close", lambda: None)()
