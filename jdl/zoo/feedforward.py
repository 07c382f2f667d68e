"""Feed-forward networks: one hidden layer, several, and three by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax

from jdl import check, nn
from jdl.nn.net import Net

Activation = Callable[..., jax.Array]


class FeedForward(nn.Layer):
    """One hidden layer: ``[B, …]`` to ``[B, outputs]``, each example flattened to D numbers.

    ``units`` hidden ones with an ``activation``, any function or layer; the outputs are logits or values, without one.
    With enough units it comes as near as one likes to any continuous function on a bounded region (Cybenko 1989,
    Hornik 1991). D units + units + units · outputs + outputs parameters: 64-32-10 has 2,410.
    """

    units: int
    outputs: int
    _: dataclasses.KW_ONLY
    activation: Activation | nn.Layer = nn.relu

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        x = net.child("flatten", nn.Flatten())(x)
        hidden = net.activation(net.child("hidden", nn.Dense(self.units))(x))
        return net.child("output", nn.Dense(self.outputs))(hidden)


class DeepFeedForward(nn.Layer):
    """Several hidden layers, the multilayer perceptron: ``[B, …]`` to ``[B, outputs]``, each example flattened.

    ``units`` has one number a hidden layer, (256, 128, 64). After each come the ``activation`` and, in training,
    dropout of that ``dropout`` rate; ``norm``, where there is one (``nn.LayerNorm()``), stands between the weighted
    sums and the activation. 64-256-128-64-10 has 58,442 parameters.
    """

    units: tuple[int, ...]
    outputs: int
    _: dataclasses.KW_ONLY
    activation: Activation | nn.Layer = nn.relu
    norm: nn.Layer | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.units, tuple) or not self.units:
            raise check.InputError(
                f"DeepFeedForward.units got {self.units!r}, wanted one number a hidden layer, such as (256, 128)"
            )

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        x = net.child("flatten", nn.Flatten())(x)
        for index, units in enumerate(self.units):
            x = net.child(f"hidden_{index}", nn.Dense(units))(x)
            if self.norm is not None:
                x = net.child(f"norm_{index}", self.norm)(x)
            x = net.child(f"activation_{index}", self.activation)(x)
            x = net.child(f"dropout_{index}", nn.Dropout(self.dropout))(x)
        return net.child("output", nn.Dense(self.outputs))(x)


def XORNet() -> nn.Chain:
    """The smallest network that can learn XOR, 2-2-1 with sigmoids: ``[B, 2]`` to ``[B, 1]``, 0 to 1; 9 parameters."""
    return nn.Chain(hidden=nn.Dense(2), hidden_sigmoid=nn.sigmoid, output=nn.Dense(1), output_sigmoid=nn.sigmoid)


def BinaryClassifier() -> nn.Chain:
    """A 10-64-1 network for two classes of a table of ten columns: ``[B, 10]`` to one logit ``[B, 1]``; 769 parameters.

    The sigmoid is in the loss, `jdl.losses.binary_cross_entropy`.
    """
    return nn.Chain(nn.Dense(64), nn.relu, nn.Dense(1))


def SimpleNet() -> nn.Chain:
    """784-128-10, the first network for MNIST: ``[B, 28, 28, 1]`` or ``[B, 784]`` to ten logits; 101,770 parameters."""
    return nn.Chain(nn.Flatten(), nn.Dense(128), nn.relu, nn.Dense(10))
