"""Computation graphs in Graphviz's DOT language."""

from __future__ import annotations

from jdl.show.graphs.graph import Graph, Node

_SHAPES = {
    "operation": "box, style=rounded",
    "layer": "box, style=filled, fillcolor=whitesmoke",
    "input": "ellipse",
    "output": "ellipse",
    "parameter": "note",
    "state": "note",
    "constant": "plaintext",
}


def to_dot(graph: Graph) -> str:
    """``graph`` as a digraph with one cluster a group and edges labelled by shape."""
    lines = ["digraph model {", "  node [fontname=Helvetica];", "  edge [fontname=Helvetica];"]
    lines += _inside(graph, None, 1)
    for edge in graph.edges:
        lines.append(f"  n{edge.source} -> n{edge.target} [label={_quoted(edge.shape)}];")
    return "\n".join([*lines, "}", ""])


def _inside(graph: Graph, parent: int | None, depth: int) -> list[str]:
    """The nodes and clusters that stand directly in a group."""
    indent = "  " * depth
    lines = [f"{indent}n{i} [{_attributes(node)}];" for i, node in enumerate(graph.nodes) if node.group == parent]
    for index, group in enumerate(graph.groups):
        if group.parent == parent:
            title = f"{group.path}: {group.name}" if group.path else group.name
            lines += [f"{indent}subgraph cluster_{index} {{", f"{indent}  label={_quoted(title)};"]
            lines += [*_inside(graph, index, depth + 1), f"{indent}}}"]
    return lines


def _attributes(node: Node) -> str:
    return f"label={_quoted(node.name, node.note)}, shape={_SHAPES[node.kind]}"


def _quoted(*lines: str) -> str:
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines if line)
    return '"' + "\\n".join(escaped) + '"'
