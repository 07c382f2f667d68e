"""Computation graphs as pictures."""

from __future__ import annotations

import dataclasses
import textwrap
from html import escape

from jdl.show.graphs.graph import Graph, Group, Node
from jdl.show.graphs.layout import Box, Layout, Size, Wire, lay_out

_MARGIN, _LARGE, _SMALL = 20.0, 13.0, 11.0  # around the picture; font sizes
_LINE = 16.0  # from one line of small text to the next
_INK, _QUIET = "#1f2933", "#5f6b7a"
_BLUE, _WARM = ("#e6f0fb", "#3a76b8"), ("#fdf1de", "#c47f17")  # fill and line
_VIOLET, _WHITE = ("#efecf8", "#7d6bb0"), ("#ffffff", "#5f6b7a")
_COLOURS = {"input": _BLUE, "output": _BLUE, "parameter": _WARM, "state": _VIOLET}  # others are white

_SYMBOLS = {"add": "+", "add_any": "+", "sub": "−", "mul": "×", "div": "÷"}
_WORDS = {
    "logistic": "sigmoid",
    "dot_general": "dot",
    "conv_general_dilated": "conv",
    "broadcast_in_dim": "broadcast",
    "convert_element_type": "convert",
}
_NARROW, _WIDE = frozenset("iljtf.,:;|!'()[] ·"), frozenset("mwMW@%…—")


def to_svg(graph: Graph) -> str:
    """``graph`` as an SVG picture, data flowing from top to bottom."""
    graph = _merged(graph)
    read = {(edge.source, edge.value) for edge in graph.edges}
    sizes = [_size(i, graph, read) for i in range(len(graph.nodes))]
    layout = lay_out(graph, sizes, [_title_width(group) for group in graph.groups])
    width = max(layout.width + 2 * _MARGIN, 240.0)
    notes = _footnotes(graph, width)
    height = layout.height + 2 * _MARGIN + _LINE * len(notes)
    body = Layout()
    body.take(layout, (width - layout.width) / 2, _MARGIN)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif">',
        "<title>computation graph</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0.8 L8 4 L0 7.2 z" fill="{_QUIET}"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#ffffff"/>',
    ]
    lines += [_frame(graph.groups[group], box) for group, box in body.groups.items()]
    lines += [_wire(wire) for wire in body.wires]
    lines += [_heading(graph.groups[group], *place) for group, place in body.titles.items()]
    for i, box in sorted(body.nodes.items()):
        node = graph.nodes[i]
        lines.append(_node(node, box))
        lines += [_label(node, place, box) for place in range(len(node.outputs)) if (i, place) in read]
    for place, note in enumerate(notes):
        lines.append(_text(_MARGIN, height - 10 - _LINE * (len(notes) - 1 - place), note, _SMALL, _QUIET, "start"))
    return "\n".join([*lines, "</svg>", ""])


def _merged(graph: Graph) -> Graph:
    """A group that holds one group and nothing else becomes one with it."""
    groups = list(graph.groups)
    renamed: dict[int | None, int | None] = {None: None}
    for i, group in enumerate(groups):
        renamed.setdefault(i, i)
        inside = [j for j, other in enumerate(graph.groups) if other.parent == i]
        if len(inside) == 1 and not any(node.group == i for node in graph.nodes):
            only = groups[inside[0]]
            into = renamed[i]
            assert into is not None
            renamed[inside[0]] = into
            path = only.path or group.path
            groups[into] = dataclasses.replace(groups[into], name=f"{groups[into].name} › {only.name}", path=path)
    return dataclasses.replace(
        graph,
        nodes=tuple(dataclasses.replace(node, group=renamed[node.group]) for node in graph.nodes),
        groups=tuple(dataclasses.replace(group, parent=renamed[group.parent]) for group in groups),
    )


def _width(text: str, size: float) -> float:
    """About how wide a text is, on the safe side for fonts like Helvetica."""
    return size * sum(0.33 if c in _NARROW else 0.92 if c in _WIDE else 0.72 if c.isupper() else 0.6 for c in text)


def _lines(node: Node) -> tuple[str, str]:
    """What stands in a node, in large and in small."""
    if node.kind == "operation":
        symbol, name = _SYMBOLS.get(node.name), _WORDS.get(node.name, node.name)
        if node.note and not node.note.startswith("("):
            return name, node.note
        if symbol is None:
            return f"{name}{node.note}", ""
        return f" {symbol} ".join(node.note[1:-1].split(", ")) if node.note else symbol, ""
    return node.name, " · ".join(filter(None, [node.path, node.note])) if node.kind == "layer" else ""


def _size(i: int, graph: Graph, read: set[tuple[int, int]]) -> Size:
    node = graph.nodes[i]
    large, small = _lines(node)
    width = max(_width(large, _LARGE), _width(small, _SMALL)) + 24
    height = 44.0 if small else 30.0
    labels = [_width(shape, _SMALL) + 8 for value, shape in enumerate(node.outputs) if (i, value) in read]
    if len(node.outputs) > 1:
        width = max(width, 1.2 * sum(labels))
    return Size(max(width, height), height, max(labels, default=0.0))


def _title_width(group: Group) -> float:
    bold = 1.08 * _width(group.name, _SMALL)
    return bold + (_width(group.path, _SMALL) + 10 if group.path else 0)


def _frame(group: Group, box: Box) -> str:
    style = ' stroke-dasharray="5 4"' if group.call is None else ""
    return f'<rect class="group" {_place(box)} rx="10" fill="#3b4a5c" fill-opacity="0.045" stroke="#b9c2cd"{style}/>'


def _heading(group: Group, x: float, y: float) -> str:
    path = f'<tspan dx="8" fill="{_QUIET}" font-weight="normal">{escape(group.path)}</tspan>' if group.path else ""
    return (
        f'<text x="{x:.1f}" y="{y + 4:.1f}" font-size="{_SMALL:g}" font-weight="bold" fill="{_INK}" '
        f">{escape(group.name)}{path}</text>"
    )


def _node(node: Node, box: Box) -> str:
    large, small = _lines(node)
    fill, line = _WARM if node.kind == "layer" and node.note else _COLOURS.get(node.kind, _WHITE)
    round_ = 7.0 if node.kind == "layer" or small else box.height / 2
    middle, centre = box.x + box.width / 2, box.y + box.height / 2
    weight = ' font-weight="bold"' if node.kind == "layer" else ""
    hint = escape(" ".join(filter(None, [node.kind, node.name, node.path, node.note, *node.outputs])))
    parts = [
        f'<rect class="node" {_place(box)} rx="{round_:g}" fill="{fill}" stroke="{line}" stroke-width="1.3"/>',
        _text(middle, centre + (-3 if small else 4.5), large, _LARGE, _INK, "middle", weight),
    ]
    if small:
        parts.append(_text(middle, centre + 13, small, _SMALL, _QUIET, "middle"))
    return f"<g><title>{hint}</title>{''.join(parts)}</g>"


def _label(node: Node, place: int, box: Box) -> str:
    x = box.x + box.width * (place + 0.5) / len(node.outputs) + 6
    return _text(x, box.y + box.height + 13, node.outputs[place], _SMALL, _QUIET, "start")


def _wire(wire: Wire) -> str:
    (x, y), *rest = wire.points
    way = [f"M{x:.1f} {y:.1f}"]
    for to_x, to_y in rest:
        half = (y + to_y) / 2
        way.append(f"V{to_y:.1f}" if to_x == x else f"C{x:.1f} {half:.1f} {to_x:.1f} {half:.1f} {to_x:.1f} {to_y:.1f}")
        x, y = to_x, to_y
    arrow = "" if wire.target is None else ' marker-end="url(#arrow)"'
    return f'<path class="wire" d="{" ".join(way)}" fill="none" stroke="{_QUIET}" stroke-width="1.4"{arrow}/>'


def _footnotes(graph: Graph, width: float) -> list[str]:
    if not graph.idle:
        return []
    note = "Computes nothing here: " + ", ".join(graph.idle)
    return textwrap.wrap(note, int((width - 2 * _MARGIN) / (0.55 * _SMALL)))


def _text(x: float, y: float, text: str, size: float, colour: str, anchor: str, more: str = "") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{colour}" text-anchor="{anchor}"'
    return f"<text {place}{more}>{escape(text)}</text>"


def _place(box: Box) -> str:
    return f'x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" height="{box.height:.1f}"'
