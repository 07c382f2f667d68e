"""The layer that omits at random while training."""

from __future__ import annotations

import jax

from jdl import check
from jdl.nn import functional as F
from jdl.nn.core import Layer
from jdl.nn.net import Net


class Dropout(Layer):
    """In training, each entry becomes 0 with probability ``rate`` and is divided by 1 - rate otherwise.

    Any shape; in evaluation, and with rate 0, the input as it is (Srivastava et al., 2014). Draws a key. The rate is
    what is dropped, in [0, 1).
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise check.InputError(
                f"Dropout.rate got {self.rate}, wanted at least 0 and less than 1; it is the share that is dropped"
            )

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        check.floating(x)
        return F.dropout(x, self.rate, net.key()) if net.train and self.rate else x
