"""A computation graph as a value: nodes are operations, edges are data, groups are the layers around them."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

from jdl import saving


@dataclasses.dataclass(frozen=True)
class Node:
    """An operation, a layer in its place, or an array.

    ``kind`` is ``"input"``, ``"output"``, ``"parameter"``, ``"state"``, ``"constant"``, ``"operation"`` or ``"layer"``.
    ``name`` is that of the array, of the operation in jax, or the layer's settings; ``path`` where an array or a layer
    stands in the model; ``note`` says more: operands where some are plain numbers, how many parameters. ``outputs``
    are the shapes of what it gives.
    """

    kind: str
    name: str
    note: str = ""
    path: str = ""
    outputs: tuple[str, ...] = ()
    group: int | None = None


@dataclasses.dataclass(frozen=True)
class Edge:
    """Data that flows from output ``value`` of node ``source`` into node ``target``, in the shape it has there."""

    source: int
    value: int
    target: int
    shape: str


@dataclasses.dataclass(frozen=True)
class Group:
    """A layer or a loop around nodes and other groups; ``call`` is which call of a layer, ``None`` for a loop."""

    name: str
    path: str
    parent: int | None
    call: int | None = None


@dataclasses.dataclass(frozen=True, repr=False)
class Graph:
    """A model's computation graph, as DOT and as a picture.

    ``nodes`` stand in the order of computation; edges and groups refer to them and to each other by position.
    ``idle`` names the layers that compute nothing here, such as dropout in evaluation: they have no node.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    groups: tuple[Group, ...]
    idle: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Graph({len(self.nodes)} nodes, {len(self.edges)} edges, {len(self.groups)} groups)"

    @functools.cached_property
    def dot(self) -> str:
        """The graph in Graphviz's language, a cluster for each group."""
        from jdl.show.graphs.dot import to_dot

        return to_dot(self)

    @functools.cached_property
    def svg(self) -> str:
        """The graph as a picture."""
        from jdl.show.graphs.svg import to_svg

        return to_svg(self)

    def save(self, path: str | Path) -> None:
        """Write the graph to a ``.svg`` or ``.dot`` file, whole or not at all.

        Raises:
            InputError: another suffix, or no such folder.
        """
        saving.check_suffix(path, (".svg", ".dot"))
        content = self.dot if Path(path).suffix.lower() == ".dot" else self.svg
        saving.save(path, lambda beside: beside.write_text(content, encoding="utf-8"), (".svg", ".dot"))

    def _repr_svg_(self) -> str:
        return self.svg
