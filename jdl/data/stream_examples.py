"""Single examples read by their numbers: in jdl's order, from any step, by worker processes if wanted."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jdl.check import InputError, describe
from jdl.data.order import batch_indices, indices_between
from jdl.data.order import evaluation_batches as evaluation_rows
from jdl.data.stream_arrays import Batch, as_example, padded, stacked
from jdl.data.stream_base import Stream


class Examples(Stream):
    def __init__(self, source, load=None, workers=0, prefetch=2, name=""):
        self.source, self.load, self.workers, self.prefetch, self.name = source, load, workers, prefetch, name
        self.examples, self.exact = len(source), True

    def batches(self, batch_size, seed, start=0, position=None):
        indices_between(self.examples, batch_size, seed, start, start)
        return (
            (self._read(batch_indices(self.examples, batch_size, seed, step)), None) for step in itertools.count(start)
        )

    def evaluation_batches(self, batch_size):
        size = min(batch_size, self.examples)
        first = None
        for begin in range(0, self.examples, size):
            batch = self._read(np.arange(begin, min(begin + size, self.examples)))
            first = first or batch
            yield padded(batch, first, size)

    def _read(self, rows):
        load = self.load or (lambda x: x)
        return stacked([as_example(load(self.source[int(row)])) for row in rows], rows, jax.config.jax_enable_x64)
