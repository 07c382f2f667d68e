"""The layer that connects every input with every output."""

from __future__ import annotations

import dataclasses

import jax

from jdl.nn import functional as F
from jdl.nn import init, inputs
from jdl.nn.core import Layer
from jdl.nn.net import Net
from jdl.nn.settings import Param


class Dense(Layer):
    """``x @ kernel + bias``: ``[..., D]`` to ``[..., features]``, for any leading axes.

    Parameters: ``kernel [D, features]`` (by default He normal) and ``bias [features]`` (zero; absent with
    ``bias=False``). D is read off the first input. Raises InputError for an input that is not floating.
    """

    features: int
    _: dataclasses.KW_ONLY
    bias: bool = True
    kernel_init: init.Initializer = init.he_normal()
    bias_init: init.Initializer = init.zeros()

    def __post_init__(self) -> None:
        inputs.counts(self, "features")

    def params(self, x: jax.Array) -> dict[str, Param]:
        kernel = {"kernel": Param((inputs.channels(x), self.features), self.kernel_init)}
        return kernel | ({"bias": Param((self.features,), self.bias_init)} if self.bias else {})

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return F.dense(x, net.kernel, net.bias if self.bias else None)
