"""The computation graph of a model: nodes are operations, edges are data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jdl import check
from jdl.check import InputError
from jdl.nn.core import Layer
from jdl.nn.tracing import trace
from jdl.show.graphs.graph import Edge, Graph, Group, Node
from jdl.show.graphs.layers import contract
from jdl.show.graphs.operations import unroll

__all__ = ["Edge", "Graph", "Group", "Node", "graph"]


def graph(
    model: Layer,
    *inputs: Any,
    path: str | Path | None = None,
    detail: str = "layers",
    train: bool = False,
    **options: Any,
) -> Graph:
    """The computation graph of ``model`` for inputs like these, as jax traces it.

    What is computed and read by nothing is left out, as the compiler leaves it out.

    Args:
        model: a layer.
        inputs: arrays or ``jax.ShapeDtypeStruct``, as the model takes them; nothing is computed.
        path: a ``.svg`` or ``.dot`` file to write.
        detail: ``"layers"`` for a node a layer, ``"operations"`` for a node a primitive operation of jax.
        train: show a training pass, with what only it computes, such as dropout.
        options: further keywords of the model's forward.

    Raises:
        InputError: the model does not take these inputs, or ``path`` has another suffix.
    """
    if not isinstance(model, Layer):
        raise InputError(f"model got {check.describe(model)}, wanted a layer such as nn.Chain(nn.Dense(10))")
    if detail not in ("layers", "operations"):
        raise InputError(f"detail got {detail!r}, wanted 'layers' or 'operations'")
    traced = trace(model, inputs, options, train)
    found = unroll(model, inputs, options, traced)
    if detail == "layers":
        found = contract(found, traced)
    if path is not None:
        found.save(path)
    return found
