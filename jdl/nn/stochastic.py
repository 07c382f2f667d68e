"""Layers that draw random numbers while training."""

from __future__ import annotations

import jax

from jdl import check
from jdl.check import InputError
from jdl.nn import functional as F
from jdl.nn.core import Layer
from jdl.nn.net import Net

Array = jax.Array


class Dropout(Layer):
    """In training, drop each entry with probability ``rate`` in [0, 1) and scale the others by 1 / (1 - rate).

    Srivastava et al. 2014. Evaluation passes the input through.
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise InputError(
                f"got {self.rate!r}, wanted at least 0 and less than 1; it is the share that is dropped", "Dropout.rate"
            )

    def forward(self, net: Net, x: Array) -> Array:
        check.floating(x)
        return F.dropout(x, self.rate, net.key()) if net.train and self.rate else x
