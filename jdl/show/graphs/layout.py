"""Where the boxes and wires of a nested graph stand: in ranks from top to bottom, each group laid out on its own.

The layered method of Sugiyama, Tagawa & Toda (1981): ranks by longest path, places on the way for wires that pass
ranks, an order with few crossings, and x coordinates near those of the neighbours. A group is a box in the layout
around it, which wires enter and leave by ports in its border.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from jdl.show.graphs.graph import Graph
from jdl.show.graphs.operations import ancestors
from jdl.show.graphs.ranks import Cell, Data, Segment, arrange

_SIDE, _TITLE, _FOOT = 16.0, 34.0, 16.0  # inside a group's border: at the sides, above, below
_CLEAR = 8.0  # between a title and a wire
_LABEL = 17.0  # below boxes, for the text at their outputs
_GAP, _STEEP, _STEEPEST = 24.0, 0.12, 36.0  # between ranks, where wires bend: at least, more for those that go far

Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle by its left upper corner."""

    x: float
    y: float
    width: float
    height: float

    def moved(self, dx: float, dy: float) -> Box:
        return Box(self.x + dx, self.y + dy, self.width, self.height)


class Wire(NamedTuple):
    """A piece of the way of ``data``, straight where x stays; ``target`` is the node it ends in, if in one."""

    data: Data
    points: tuple[Point, ...]
    target: int | None

    def moved(self, dx: float, dy: float) -> Wire:
        return Wire(self.data, tuple((x + dx, y + dy) for x, y in self.points), self.target)


class Size(NamedTuple):
    """What a node needs: a box, and room right of its outputs for their labels."""

    width: float
    height: float
    label: float = 0.0


@dataclasses.dataclass
class Layout:
    """Boxes, wires and the places of titles within ``width`` and ``height``.

    ``enters`` and ``leaves`` are where data passes the border.
    """

    width: float = 0.0
    height: float = 0.0
    nodes: dict[int, Box] = dataclasses.field(default_factory=dict)
    groups: dict[int, Box] = dataclasses.field(default_factory=dict)
    titles: dict[int, Point] = dataclasses.field(default_factory=dict)
    wires: list[Wire] = dataclasses.field(default_factory=list)
    enters: dict[Data, float] = dataclasses.field(default_factory=dict)
    leaves: dict[Data, float] = dataclasses.field(default_factory=dict)

    def take(self, inner: Layout, dx: float, dy: float) -> None:
        """Put what is in another layout into this one."""
        self.nodes |= {node: box.moved(dx, dy) for node, box in inner.nodes.items()}
        self.groups |= {group: box.moved(dx, dy) for group, box in inner.groups.items()}
        self.titles |= {group: (x + dx, y + dy) for group, (x, y) in inner.titles.items()}
        self.wires += [wire.moved(dx, dy) for wire in inner.wires]


def lay_out(graph: Graph, sizes: Sequence[Size], titles: Sequence[float]) -> Layout:
    """A layout of nodes of these sizes in groups with titles of these widths."""
    flows: dict[Data, list[int]] = {}
    for edge in graph.edges:
        targets = flows.setdefault((edge.source, edge.value), [])
        if edge.target not in targets:
            targets.append(edge.target)
    return _Level(graph, sizes, titles, flows, None).layout()


class _Level:
    """What stands directly in one group."""

    def __init__(
        self,
        graph: Graph,
        sizes: Sequence[Size],
        titles: Sequence[float],
        flows: Mapping[Data, list[int]],
        group: int | None,
    ):
        self.group, self.title = group, 0.0 if group is None else titles[group]
        self.inner: dict[Cell, Layout | int] = {}  # a group's layout, or a node
        self.entries: dict[Data, Cell] = {}
        self.exits: dict[Data, Cell] = {}
        self.segments: list[Segment] = []
        self.holder: dict[int, Cell] = {}  # of a node anywhere inside
        below: dict[int, list[int]] = {}
        alone = []
        for node, place in enumerate(graph.nodes):
            way = [*ancestors(place.group, graph.groups)[::-1]]
            if group is not None and group not in way:
                continue
            deeper = way[way.index(group) + 1 :] if group is not None else way
            if deeper:
                below.setdefault(deeper[0], []).append(node)
            else:
                alone.append(node)
        for child, nodes in below.items():
            level = _Level(graph, sizes, titles, flows, child).layout()
            cell = Cell(level.width / 2, level.width / 2, level.height, passes=False)
            cell.enters = {data: x - level.width / 2 for data, x in level.enters.items()}
            cell.leaves = {data: x - level.width / 2 for data, x in level.leaves.items()}
            self.inner[cell] = level
            self.holder.update(dict.fromkeys(nodes, cell))
        for node in alone:
            self.holder[node] = self.box(node, sizes[node], len(graph.nodes[node].outputs))
        self.connect(flows)

    def box(self, node: int, size: Size, outputs: int) -> Cell:
        half = size.width / 2
        leaves = {(node, i): ((i + 0.5) / outputs - 0.5) * size.width for i in range(outputs)}
        last = max(leaves.values(), default=0.0)
        cell = Cell(half, max(half, last + size.label), size.height, passes=False, leaves=leaves)
        self.inner[cell] = node
        return cell

    def connect(self, flows: Mapping[Data, list[int]]) -> None:
        """Ports in the border, ranks, and segments from rank to rank."""
        ways: list[tuple[Data, Cell, list[Cell]]] = []
        for data, targets in flows.items():
            source = self.holder.get(data[0])
            inside = list(dict.fromkeys(self.holder[node] for node in targets if node in self.holder))
            if source is None and inside:
                ways.append((data, self.entries.setdefault(data, Cell()), inside))
            elif source is not None:
                reached = [cell for cell in inside if cell is not source]
                if any(node not in self.holder for node in targets):
                    reached.append(self.exits.setdefault(data, Cell()))
                if reached:
                    ways.append((data, source, reached))
        self.rank(ways)
        for data, source, targets in ways:
            last = source
            for rank in range(source.rank + 1, max(cell.rank for cell in targets) + 1):
                ends = [cell for cell in targets if cell.rank == rank]
                self.segments += [Segment(last, cell, data) for cell in ends]
                if any(cell.rank > rank for cell in targets):
                    way = Cell(rank=rank)
                    self.ranks[rank].append(way)
                    self.segments.append(Segment(last, way, data))
                    last = way

    def rank(self, ways: Sequence[tuple[Data, Cell, list[Cell]]]) -> None:
        """The longest path from the top; what nothing leads to stands right above what reads it."""
        first = 1 if self.entries else 0
        for cell in self.inner:
            cell.rank = first
        changed = True
        while changed:
            changed = False
            for _, source, targets in ways:
                for target in targets:
                    if target.rank <= source.rank:
                        target.rank, changed = source.rank + 1, True
        reached = {target for _, _, targets in ways for target in targets}
        for cell in self.inner:
            if cell not in reached:
                below = [target.rank for _, source, targets in ways if source is cell for target in targets]
                cell.rank = max(first, min(below, default=first + 1) - 1)
        last = max((cell.rank for cell in self.inner), default=0) + 1
        for cell in self.exits.values():
            cell.rank = last
        self.ranks: list[list[Cell]] = [[] for _ in range(last + bool(self.exits))]
        for cell in [*self.entries.values(), *self.inner, *self.exits.values()]:
            self.ranks[cell.rank].append(cell)

    def layout(self) -> Layout:
        arrange(self.ranks, self.segments)
        cells = [cell for rank in self.ranks for cell in rank]
        left, right = min(cell.x - cell.left for cell in cells), max(cell.x + cell.right for cell in cells)
        side = 0.0 if self.group is None else _SIDE
        width = max(right - left, self.title) + 2 * side
        for cell in cells:
            cell.x += width / 2 - (left + right) / 2
        width, title = self.free_title(width, cells)
        spans = self.spans()
        found = Layout(width, spans[-1][2] + (_FOOT if self.group is not None and not self.exits else 0.0))
        for cell, inner in self.inner.items():
            y = self.top(cell, spans)
            if isinstance(inner, Layout):
                found.take(inner, cell.x - inner.width / 2, y)
            else:
                found.nodes[inner] = Box(cell.x - cell.left, y, 2 * cell.left, cell.height)
        found.wires += [self.wire(segment, spans) for segment in self.segments]
        found.enters = {data: cell.x for data, cell in self.entries.items()}
        found.leaves = {data: cell.x for data, cell in self.exits.items()}
        if self.group is not None:
            found.groups = {self.group: Box(0, 0, width, found.height)} | found.groups
            found.titles[self.group] = (title, _TITLE / 2)
        return found

    def free_title(self, width: float, cells: Sequence[Cell]) -> tuple[float, float]:
        """The width, and where the title starts: left or right of the wires that enter, or else in more room left."""
        enters = [cell.x for cell in self.entries.values()]
        for start in (_SIDE, width - _SIDE - self.title):
            if not any(start - _CLEAR < x < start + self.title + _CLEAR for x in enters):
                return width, start
        more = _SIDE + self.title + _CLEAR - min(enters)
        for cell in cells:
            cell.x += more
        return width + more, _SIDE

    def spans(self) -> list[tuple[float, float, float]]:
        """For each rank the upper and lower end of its boxes, and the lower end of the text below them."""
        spans = []
        y = 0.0 if self.group is None or self.entries else _TITLE
        for rank, cells in enumerate(self.ranks):
            bottom = y + max((cell.height for cell in cells), default=0.0)
            labelled = any(cell.leaves and isinstance(self.inner.get(cell), int) for cell in cells)
            ports = rank == 0 and bool(self.entries)  # from which wires run straight down beside the title
            below = _TITLE if ports else bottom + _LABEL * labelled
            spans.append((y, bottom, below))
            away = [abs(s.upper.x + s.ends[0] - s.lower.x - s.ends[1]) for s in self.segments if s.upper.rank == rank]
            furthest = max(away, default=0.0)
            y = below + (0.0 if ports and furthest < 1 else _GAP + min(_STEEP * furthest, _STEEPEST))
        return spans

    def top(self, cell: Cell, spans: Sequence[tuple[float, float, float]]) -> float:
        """The upper end of a cell: boxes stand in the middle of their rank, wires pass all of it."""
        top, bottom, _ = spans[cell.rank]
        return top if cell.passes else (top + bottom - cell.height) / 2

    def wire(self, segment: Segment, spans: Sequence[tuple[float, float, float]]) -> Wire:
        """From the lower end of one cell, or the upper one of a wire that passes, to the upper end of the other."""
        upper, lower = segment.upper, segment.lower
        start, end = upper.x + segment.ends[0], lower.x + segment.ends[1]
        ways = [
            (start, self.top(upper, spans) + upper.height),
            (start, spans[upper.rank][2]),
            (end, spans[lower.rank][0]),
            (end, self.top(lower, spans)),
        ]
        points = [ways[0], *(after for before, after in pairwise(ways) if math.dist(before, after) > 0.5)]
        inner = self.inner.get(lower)
        return Wire(segment.data, tuple(points), inner if isinstance(inner, int) else None)
