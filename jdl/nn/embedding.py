"""The layer that turns numbers of things into vectors."""

from __future__ import annotations

import math

import jax

from jdl.nn import functional as F
from jdl.nn import init, inputs
from jdl.nn.core import Layer
from jdl.nn.net import Net
from jdl.nn.settings import Param


class Embedding(Layer):
    """A row of the table for every id: integers ``[...]``, 0 to vocabulary_size - 1, to ``[..., features]``.

    Parameter: ``table [vocabulary_size, features]``, by default normal with standard deviation 1/√features, so that
    rows are about 1 long. An id outside of the table gives NaN. Raises InputError for ids that are not integers.
    """

    vocabulary_size: int
    features: int
    table_init: init.Initializer | None = None

    def __post_init__(self) -> None:
        inputs.counts(self, "vocabulary_size", "features")

    def params(self, ids: jax.Array) -> dict[str, Param]:
        table_init = self.table_init or init.normal(1 / math.sqrt(self.features))
        return {"table": Param((self.vocabulary_size, self.features), table_init)}

    def forward(self, net: Net, ids: jax.Array) -> jax.Array:
        return F.embedding(ids, net.table)

    def attend(self, net: Net, x: jax.Array) -> jax.Array:
        """Logits of every id, ``x [..., features] @ tableᵀ``: an output layer tied to the table, once it has run."""
        return F.dense(x, net.table.T)
