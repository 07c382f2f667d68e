"""Whatever a user has as training data, as a data set or a stream."""

from __future__ import annotations

from typing import Any

from jdl.data.dataset import Dataset
from jdl.data.stream_base import Stream


def as_stream(data: Any) -> Dataset | Stream:
    """A stream as it is, anything else as a `Dataset`."""
    return data if isinstance(data, Stream) else Dataset.of(data)


def prefetch(iterator: Any, size: int = 2) -> Any:
    """The iterator."""
    return iterator
