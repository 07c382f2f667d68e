"""What a model holds and costs, by abstract evaluation."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from typing import Any

import jax

from jdl.nn.flops import flops_by_call
from jdl.nn.settings import Param, Settings, Tree
from jdl.nn.tracing import Traced, trace


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer that ran: its path, settings, abstract inputs and output, in how many other layers, and what it costs.

    ``parameters``, ``state`` and ``bytes`` count its own arrays, at the first of its calls; ``flops`` its own
    operations for these inputs. Layers below count theirs.
    """

    path: str
    layer: Settings
    inputs: Any
    output: Any
    depth: int
    parameters: int
    state: int
    bytes: int
    flops: int


@dataclasses.dataclass(frozen=True)
class Spec:
    """Shapes, counts and costs of a model for given inputs: nothing in it is allocated.

    ``params`` and ``state`` are nested dicts of :class:`jdl.nn.Param`; ``output`` is abstract; ``rows`` stand in the
    order in which layers start.
    """

    params: Tree
    state: Tree
    output: Any
    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Trained numbers."""
        return count(self.params)[0]

    @property
    def untrained(self) -> int:
        """Numbers kept as state."""
        return count(self.state)[0]

    @property
    def bytes(self) -> int:
        """Bytes of parameters and state."""
        return count(self.params)[1] + count(self.state)[1]

    @property
    def flops(self) -> int:
        """Operations of one forward pass in evaluation mode, a multiply-add counting two."""
        return sum(row.flops for row in self.rows)


def measure(layer: Settings, inputs: tuple[Any, ...], options: dict[str, Any]) -> Spec:
    """The :class:`Spec` of ``layer`` for inputs (arrays or ``jax.ShapeDtypeStruct``)."""
    traced = trace(layer, inputs, options)
    return Spec(*traced.specs, traced.output, _rows(traced, flops_by_call(traced.program.jaxpr)))


def _rows(traced: Traced, flops: Counter[int]) -> tuple[Row, ...]:
    """One row a call. What a path holds stands at the first use of its innermost layer."""
    innermost = {call.path: call.layer for call in traced.calls}
    counted: set[str] = set()
    rows = []
    for index, call in enumerate(traced.calls):
        if index not in flops:  # traced and thrown away: scan tries again where the carry's type changes
            continue
        holds = call.path not in counted and call.layer == innermost[call.path]
        (parameters, size), (state, state_size) = (
            count(own(tree, call.path)) if holds else (0, 0) for tree in traced.specs
        )
        if holds:
            counted.add(call.path)
        rows.append(Row(*call, parameters, state, size + state_size, flops[index]))
    return tuple(rows)


def own(tree: Tree, path: str) -> Tree:
    """The arrays that stand directly at ``path``."""
    for part in path.split("/") if path else ():
        tree = tree.get(part, {})
    return {name: spec for name, spec in tree.items() if isinstance(spec, Param)}


def count(tree: Tree) -> tuple[int, int]:
    """Numbers and bytes in a tree of specifications."""
    specs = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, Param))
    sizes = [math.prod(spec.shape) for spec in specs]
    return sum(sizes), sum(size * spec.dtype.itemsize for size, spec in zip(sizes, specs, strict=True))
