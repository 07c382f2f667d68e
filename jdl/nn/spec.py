"""What a model holds and costs, by abstract evaluation."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from typing import Any

import jax

from jdl import check
from jdl.nn.flops import flops_by_scope
from jdl.nn.settings import Param, Settings, Tree, Variables
from jdl.nn.traversal import collect, map_specs, refill, run


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer that ran: its path, settings, abstract inputs and output, and what stands at its own path.

    ``parameters`` and ``bytes`` count its own arrays, ``flops`` its own operations for these inputs; layers below
    count theirs.
    """

    path: str
    layer: Settings
    inputs: Any
    output: Any
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
        return _count(self.params)[0]

    @property
    def bytes(self) -> int:
        """Bytes of parameters and state."""
        return _count(self.params)[1] + _count(self.state)[1]

    @property
    def flops(self) -> int:
        """Operations of one forward pass in evaluation mode, a multiply-add counting two."""
        return sum(row.flops for row in self.rows)


def measure(layer: Settings, inputs: tuple[Any, ...], options: dict[str, Any]) -> Spec:
    """The :class:`Spec` of ``layer`` for inputs (arrays or ``jax.ShapeDtypeStruct``)."""
    specs = collect(layer, inputs, options).specs
    abstract = Variables(
        *(map_specs(lambda _, spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), tree) for tree in specs)
    )
    leaves, treedef = jax.tree.flatten((inputs, options))
    dynamic = [index for index, leaf in enumerate(leaves) if check.is_array(leaf)]
    rows: list[Any] = []

    def forward(variables: Variables, arrays: list[Any]) -> Any:
        inputs, options = refill(leaves, treedef, dynamic, arrays)
        return run(layer, *variables, inputs, options, key=None, train=False, rows=rows)[0]

    program, output = jax.make_jaxpr(forward, return_shape=True)(abstract, [leaves[index] for index in dynamic])
    return Spec(specs.params, specs.state, output, _rows(rows, specs, flops_by_scope(program.jaxpr)))


def _rows(calls: list[Any], specs: Variables, flops: dict[str, int]) -> tuple[Row, ...]:
    """One row a call. What a path holds and costs stands on its last row: the innermost layer, the last use."""
    paths = {path for path, *_ in calls}
    own: Counter[str] = Counter()
    for scope, count in flops.items():
        path = re.sub(r"\w+\(|\)", "", scope)  # jax writes vmap(name) for a scope inside a transform
        while path and path not in paths:
            path = path.rpartition("/")[0]
        own[path] += count
    rows, seen = [], set()
    for path, layer, inputs, output in reversed(calls):
        first = path not in seen
        seen.add(path)
        parameters, size = _count(_own(specs.params, path)) if first else (0, 0)
        state, state_size = _count(_own(specs.state, path)) if first else (0, 0)
        rows.append(Row(path, layer, inputs, output, parameters, state, size + state_size, own[path] if first else 0))
    return tuple(reversed(rows))


def _own(tree: Tree, path: str) -> Tree:
    """The arrays that stand directly at ``path``."""
    for part in path.split("/") if path else ():
        tree = tree.get(part, {})
    return {name: spec for name, spec in tree.items() if isinstance(spec, Param)}


def _count(tree: Tree) -> tuple[int, int]:
    """Numbers and bytes in a tree of specifications."""
    specs = jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, Param))
    sizes = [math.prod(spec.shape) for spec in specs]
    return sum(sizes), sum(size * spec.dtype.itemsize for size, spec in zip(sizes, specs, strict=True))
