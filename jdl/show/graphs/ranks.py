"""Cells in ranks: an order within each rank with few crossings, and x coordinates near those of the neighbours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

_SWEEPS = 12
_BETWEEN, _BESIDE = 22.0, 16.0  # free space between boxes, and beside a wire that passes

Data = tuple[int, int]  # a node and which of its outputs


@dataclasses.dataclass(eq=False)
class Cell:
    """Something with a place in a rank: a box, a port, or the way of a wire that passes.

    ``left`` and ``right`` are how far it reaches from its ``x``; ``enters`` and ``leaves`` where, from there, data
    comes in at the top and goes out at the bottom.
    """

    left: float = 0.0
    right: float = 0.0
    height: float = 0.0
    passes: bool = True
    rank: int = 0
    x: float = 0.0
    enters: dict[Data, float] = dataclasses.field(default_factory=dict)
    leaves: dict[Data, float] = dataclasses.field(default_factory=dict)


class Segment(NamedTuple):
    """Data on its way from a cell to one in the next rank."""

    upper: Cell
    lower: Cell
    data: Data

    @property
    def ends(self) -> tuple[float, float]:
        """The offsets of its two ends from their cells."""
        return self.upper.leaves.get(self.data, 0.0), self.lower.enters.get(self.data, 0.0)


def arrange(ranks: list[list[Cell]], segments: Sequence[Segment]) -> None:
    """Order the cells of each rank in place, and set ``enters`` of boxes and ``x`` of all."""
    links = _Links(segments)
    _order(ranks, links)
    _spread(ranks, links)
    _place(ranks, links)


class _Links:
    """The segments at each cell."""

    def __init__(self, segments: Sequence[Segment]):
        self.above: dict[Cell, list[Segment]] = {}
        self.below: dict[Cell, list[Segment]] = {}
        for segment in segments:
            self.above.setdefault(segment.lower, []).append(segment)
            self.below.setdefault(segment.upper, []).append(segment)


def _order(ranks: list[list[Cell]], links: _Links) -> None:
    """Barycentres, down and up in turn; the best of the orders seen."""
    best, fewest = [list(rank) for rank in ranks], _crossings(ranks, links)
    for sweep in range(_SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        for rank in ranks if down else reversed(ranks):
            places = _places(ranks)
            rank.sort(key=lambda cell: _barycentre(cell, links, places, down))
        crossings = _crossings(ranks, links)
        if crossings < fewest:
            best, fewest = [list(rank) for rank in ranks], crossings
    ranks[:] = best


def _places(ranks: list[list[Cell]]) -> dict[Cell, int]:
    return {cell: place for rank in ranks for place, cell in enumerate(rank)}


def _barycentre(cell: Cell, links: _Links, places: dict[Cell, int], down: bool) -> float:
    others = [_ends_at(segment, places)[not down] for segment in (links.above if down else links.below).get(cell, ())]
    return sum(others) / len(others) if others else float(places[cell])


def _ends_at(segment: Segment, places: dict[Cell, int]) -> tuple[float, float]:
    """Where a segment starts and ends, in places, a port in a box being a part of one."""
    upper, lower = segment.ends
    return (
        places[segment.upper] + upper / (segment.upper.left + segment.upper.right + 1),
        places[segment.lower] + lower / (segment.lower.left + segment.lower.right + 1),
    )


def _crossings(ranks: list[list[Cell]], links: _Links) -> int:
    places = _places(ranks)
    total = 0
    for rank in ranks:
        ends = sorted(_ends_at(segment, places) for cell in rank for segment in links.below.get(cell, ()))
        total += sum(a[0] < b[0] and a[1] > b[1] for i, a in enumerate(ends) for b in ends[i + 1 :])
    return total


def _spread(ranks: list[list[Cell]], links: _Links) -> None:
    """Let what comes into a box enter side by side, in the order in which it comes."""
    places = _places(ranks)
    for cell, above in links.above.items():
        if cell.enters or cell.passes:
            continue
        data = [segment.data for segment in sorted(above, key=lambda segment: _ends_at(segment, places)[0])]
        width = min(cell.left * 1.2, 26.0 * (len(data) - 1))
        for place, one in enumerate(data):
            cell.enters[one] = (place / (len(data) - 1) - 0.5) * width if len(data) > 1 else 0.0


def _place(ranks: list[list[Cell]], links: _Links) -> None:
    """Each cell near the mean of its neighbours above, then below, in turn, and at last of both."""
    for rank in ranks:
        _put(rank, dict.fromkeys(rank, (0.0, 1.0)))
    for sweep in range(2 * _SWEEPS):
        down = sweep % 2 == 0
        last = sweep >= _SWEEPS
        for rank in ranks if down else reversed(ranks):
            _put(rank, {cell: _wanted(cell, links, above=down or last, below=last or not down) for cell in rank})


def _wanted(cell: Cell, links: _Links, above: bool, below: bool) -> tuple[float, float]:
    """The x that a cell would like, and how much; wires that pass like to be straight."""
    total, weights = 0.0, 0.0
    for segment in [*(links.above.get(cell, ()) if above else ()), *(links.below.get(cell, ()) if below else ())]:
        upper, lower = segment.ends
        x = segment.lower.x + lower - upper if segment.upper is cell else segment.upper.x + upper - lower
        weight = (1.0, 2.0, 16.0)[segment.upper.passes + segment.lower.passes]
        total, weights = total + weight * x, weights + weight
    return (total / weights, weights) if weights else (cell.x, 0.01)


def _put(rank: list[Cell], wanted: dict[Cell, tuple[float, float]]) -> None:
    """The x nearest to those wanted, in least squares, that keep the order and the space between: pooled neighbours."""
    offsets, blocks = [0.0], []
    for left, right in pairwise(rank):
        offsets.append(offsets[-1] + left.right + right.left + (_BESIDE if left.passes or right.passes else _BETWEEN))
    for cell, offset in zip(rank, offsets, strict=True):
        x, weight = wanted[cell]
        block = (x - offset, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            mean, before, size = blocks.pop()
            weight = before + block[1]
            block = ((mean * before + block[0] * block[1]) / weight, weight, size + block[2])
        blocks.append(block)
    starts = [mean for mean, _, size in blocks for _ in range(size)]
    for cell, start, offset in zip(rank, starts, offsets, strict=True):
        cell.x = start + offset
