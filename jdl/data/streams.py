"""Whatever a user has as training data, as a data set or a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdl.check import is_array
from jdl.data.dataset import Dataset
from jdl.data.stream_base import Stream
from jdl.data.stream_batches import Batches
from jdl.data.stream_examples import Examples


def as_stream(data: Any) -> Dataset | Stream:
    """What `fit` trains on: arrays in memory as a `Dataset`, anything else as a `Stream`.

    - A `Dataset`, ``(inputs, targets)``, a dict of arrays, or an array: as `Dataset.of` says.
    - What has a length and ``data[i]``, such as an `ImageFolder`, a list of dicts, a Hugging Face, PyTorch or Grain
      map-style dataset: `Examples`.
    - What can be iterated again and again, such as a PyTorch DataLoader, a Grain IterDataset, or a function that
      returns a generator: `Batches`.

    Raises:
        InputError: none of these; the message says what to do.
    """
    if isinstance(data, Stream):
        return data
    if _in_memory(data):
        return Dataset.of(data)
    if _by_number(data):
        return Examples(data)
    if hasattr(data, "__iter__") or callable(data):
        return Batches(data)
    return Dataset.of(data)  # says what is wrong with it


def _in_memory(data: Any) -> bool:
    if isinstance(data, list):
        return not (data and isinstance(data[0], (Mapping, tuple)))
    # pandas' frames have a length and columns; a type and a layer are callable and no data
    return isinstance(data, (Dataset, Mapping, tuple, str, type)) or is_array(data) or hasattr(data, "iloc")


def _by_number(data: Any) -> bool:
    # PyTorch's IterableDataset inherits an indexing that only raises
    iterable = any(base.__name__ == "IterableDataset" for base in type(data).__mro__)
    return hasattr(data, "__len__") and hasattr(data, "__getitem__") and not iterable
