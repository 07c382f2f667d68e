"""A single neuron, and the first that learnt: the perceptron."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from jdl import check
from jdl.nn import functional as F
from jdl.nn import init, inputs
from jdl.nn.core import Layer
from jdl.nn.net import Net
from jdl.nn.settings import Param


class Neuron(Layer):
    """``activation(w · x + b)``: ``[..., D]`` to ``[...]``, one number for every input vector.

    Parameters: ``kernel [D]``, the weights w (by default standard normal), and ``bias []`` (zero).
    """

    activation: Callable[..., jax.Array] = F.sigmoid
    kernel_init: init.Initializer = init.normal(1.0)
    bias_init: init.Initializer = init.zeros()

    def params(self, x: jax.Array) -> dict[str, Param]:
        return {"kernel": Param((inputs.channels(x),), self.kernel_init), "bias": Param((), self.bias_init)}

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        return net.activation(_weighted_sum(x, net.kernel) + net.bias.astype(x.dtype))


class Perceptron(Layer):
    """Fires (1) or not (0) by a weighted sum of its inputs: ``[..., D]`` to ``[...]`` (Rosenblatt, 1958).

    In the ``"bias"`` form it fires where w · x + b > 0, in the ``"threshold"`` form where w · x > threshold; they
    agree when b = -threshold. Parameters: ``kernel [D]``, the weights w, and ``bias []`` or ``threshold []``, by
    default all zero. A step has derivative 0, so gradients teach it nothing; its own rule, for targets t and outputs
    y, moves w by rate · (t - y) x, b by rate · (t - y) and a threshold by -rate · (t - y). The variables of the bias
    form fit a `Neuron`: with ``activation=functional.linear`` it gives Z = w · x + b.
    """

    form: Literal["bias", "threshold"] = "bias"
    kernel_init: init.Initializer = init.zeros()
    bias_init: init.Initializer = init.zeros()

    def __post_init__(self) -> None:
        if self.form not in ("bias", "threshold"):
            raise check.InputError(f'Perceptron.form got {self.form!r}, wanted "bias" or "threshold"')

    def params(self, x: jax.Array) -> dict[str, Param]:
        return {"kernel": Param((inputs.channels(x),), self.kernel_init), self.form: Param((), self.bias_init)}

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        total = _weighted_sum(x, net.kernel)
        if self.form == "bias":
            return F.step(total + net.bias.astype(x.dtype))
        return F.step(total - net.threshold.astype(x.dtype))


def _weighted_sum(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(x, kernel.astype(x.dtype))
