"""What the networks for sequences ask of the layer that they read with."""

from __future__ import annotations

from jdl import check, nn


def check_recurrent(network: nn.Layer) -> None:
    """The ``recurrent`` layer of a network goes along a sequence; a cell takes a single step."""
    cell = getattr(network, "recurrent", None)
    if isinstance(cell, nn.Cell):
        raise check.InputError(f"{type(network).__name__}.recurrent got {cell}, a cell; wanted nn.Recurrent({cell})")
