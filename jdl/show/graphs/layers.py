"""A computation graph with each innermost layer as one node."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jdl.nn.flops import FREE
from jdl.nn.spec import count, own
from jdl.nn.tracing import Traced
from jdl.show import text
from jdl.show.graphs.graph import Edge, Graph, Group, Node
from jdl.show.graphs.operations import ancestors, compact

_NAMES = 3  # operations that are named where several stand in one node

Unit = tuple[str, int]  # ("group", of a layer) or ("node", the first of those that are one)


def contract(graph: Graph, traced: Traced) -> Graph:
    """``graph`` with what each layer without layers in it computes as one node.

    The operations that a layer with others in it does itself between two of its calls are a node for each connected
    part: the sum of a residual layer, say. As such a node holds operations that follow each other, no edge leads back.
    """
    units = _units(graph)
    members: dict[Unit, list[Node]] = {}
    arrays: dict[Unit, list[Node]] = {}
    for unit, node in zip(units, graph.nodes, strict=True):
        if unit[0] == "node" or node.kind == "operation":
            kind = members if node.kind in ("operation", "output") else arrays
            kind.setdefault(unit, []).append(node)
    members = arrays | members  # what is computed stands after what it reads
    place = {unit: new for new, unit in enumerate(members)}

    results: dict[Unit, list[tuple[int, int]]] = {unit: [] for unit in members}
    edges: dict[Edge, None] = {}
    for edge in graph.edges:
        source, target = units[edge.source], units[edge.target]
        if source == target or (target[0] == "group" and _stands_in(graph.nodes[edge.source], graph.groups[target[1]])):
            continue
        if (result := (edge.source, edge.value)) not in results[source]:
            results[source].append(result)
        edges[Edge(place[source], results[source].index(result), place[target], edge.shape)] = None

    calls = Counter(graph.groups[index].path for kind, index in members if kind == "group")
    nodes = []
    for unit, inside in members.items():
        outputs = tuple(graph.nodes[node].outputs[value] for node, value in results[unit])
        if unit[0] == "group":
            group = graph.groups[unit[1]]
            nodes.append(_layer(group, inside, outputs, traced, shared=calls[group.path] > 1))
        else:
            nodes.append(inside[0] if len(inside) == 1 else _several(inside, outputs))
    read = {edge.source for edge in edges}
    kept = {i for i, node in enumerate(nodes) if i in read or node.kind not in ("parameter", "state", "constant")}
    return compact(nodes, list(edges), graph.groups, kept, graph.idle)


def _units(graph: Graph) -> list[Unit]:
    """For each node what it becomes a part of."""
    calls = [i for i, group in enumerate(graph.groups) if group.call is not None]
    around = {above for i in calls for above in ancestors(graph.groups[i].parent, graph.groups)}
    units: list[Unit] = []
    runs: list[int] = []  # which operations follow each other in one place
    run, last = 0, None
    for i, node in enumerate(graph.nodes):
        inside = ancestors(node.group, graph.groups)
        layer = next((group for group in inside if group in calls and group not in around), None)
        units.append(("node", i) if layer is None else ("group", layer))
        if node.kind == "operation":
            here = (layer, None if layer is not None else node.group)
            run, last = run + (here != last), here
        runs.append(run if node.kind == "operation" else -1 - i)
    for edge in sorted(graph.edges, key=lambda edge: edge.target):
        first, second = units[edge.source], units[edge.target]
        if runs[edge.source] == runs[edge.target] and first != second:
            units = [min(first, second) if unit in (first, second) else unit for unit in units]
    return units


def _stands_in(node: Node, group: Group) -> bool:
    """Whether an array is the layer's own, though it is drawn outside because the layer is called twice."""
    return node.kind in ("parameter", "state") and node.path.rpartition("/")[0] == group.path


def _layer(group: Group, inside: Sequence[Node], outputs: tuple[str, ...], traced: Traced, shared: bool) -> Node:
    parameters = count(own(traced.specs.params, group.path))[0]
    notes = [f"{text.number(parameters)} parameters"] * bool(parameters) + ["shared"] * (shared and parameters > 0)
    return Node("layer", group.name, " · ".join(notes), group.path, outputs, group.parent)


def _several(inside: Sequence[Node], outputs: tuple[str, ...]) -> Node:
    names = list(dict.fromkeys(node.name for node in inside))
    names = [name for name in names if name not in FREE] or names
    name = ", ".join(names[:_NAMES]) + ", …" * (len(names) > _NAMES)
    return Node("operation", name, f"{len(inside)} operations", "", outputs, inside[0].group)
