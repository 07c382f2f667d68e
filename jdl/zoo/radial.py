"""The radial basis network."""

from __future__ import annotations

import jax

from jdl import nn
from jdl.nn.inputs import counts
from jdl.nn.net import Net


class RadialBasisNetwork(nn.Layer):
    """Weighted sums of bumps: ``[B, …]`` to ``[B, outputs]``, each example flattened to D numbers.

    ``units`` Gaussians of the distance to as many centres, then a Dense without activation (Broomhead and Lowe 1988;
    Moody and Darken 1989). A unit answers to one region of the inputs, where a feed-forward one divides them all by a
    plane, so far from every centre only the output's bias is left. `jdl.nn.with_centres` puts centres and widths where
    the data is: from anywhere else training goes slowly. D units + units + units · outputs + outputs parameters:
    64-200-10 has 15,010.
    """

    units: int
    outputs: int

    def __post_init__(self) -> None:
        counts(self, "units", "outputs")

    def forward(self, net: Net, x: jax.Array) -> jax.Array:
        x = net.child("flatten", nn.Flatten())(x)
        return net.child("output", nn.Dense(self.outputs))(net.child("basis", nn.RadialBasis(self.units))(x))
