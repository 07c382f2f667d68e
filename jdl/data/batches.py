"""Batches for a training loop written by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jdl.data.dataset import Dataset
from jdl.data.order import indices_between, steps_in_epochs


def batches(
    data: Any, batch_size: int, seed: int = 0, epochs: float = 1, *, start: int = 0, shuffle: bool = True
) -> Iterator[dict[str, Any]]:
    """The batches of ``epochs`` epochs, each a dict of NumPy arrays ``[B, …]``: those that `fit` trains on.

    ``data`` is anything that `Dataset.of` takes. ``start`` is the step to begin at, to go on with a run.

    Raises:
        InputError: data that cannot be trained on, or a ``batch_size`` larger than the data; at once, not at the
            first batch.
    """
    data = Dataset.of(data)
    n, stop = len(data), steps_in_epochs(len(data), batch_size, epochs)
    indices_between(n, batch_size, seed, start, start)  # complains now about a bad start or seed
    return (
        data.gather(indices_between(n, batch_size, seed, step, step + 1, shuffle)[0]) for step in range(start, stop)
    )
