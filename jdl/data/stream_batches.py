"""Batches that somebody else makes, as full batches of one size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jdl.data.stream_arrays import Batch, checked, padded, rows_in
from jdl.data.stream_base import Stream


class Batches(Stream):
    def __init__(self, iterable, examples=None, name=""):
        self.iterable, self.examples, self.name = iterable, examples, name

    def batches(self, batch_size, seed, start=0, position=None):
        held = []
        while True:
            for value in self._open():
                held.append(checked(value, jax.config.jax_enable_x64))
                while sum(map(rows_in, held)) >= batch_size:
                    joined = jax.tree.map(lambda *xs: np.concatenate(xs), *held)
                    held = [jax.tree.map(lambda x: x[batch_size:], joined)]
                    yield jax.tree.map(lambda x: x[:batch_size], joined), None

    def evaluation_batches(self, batch_size):
        pieces = [checked(value, jax.config.jax_enable_x64) for value in self._open()]
        joined = jax.tree.map(lambda *xs: np.concatenate(xs), *pieces)
        size = min(batch_size, rows_in(joined))
        for begin in range(0, rows_in(joined), size):
            yield padded(jax.tree.map(lambda x: x[begin : begin + size], joined), joined, size)

    def _open(self):
        return iter(self.iterable() if callable(self.iterable) else self.iterable)
