"""The computation graph of a traced model, one node an operation."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jdl import check
from jdl.nn.settings import Settings
from jdl.nn.tracing import Traced, mark
from jdl.show import text
from jdl.show.graphs.graph import Edge, Graph, Group, Node

TITLE = 28  # characters of a layer's settings

# Operations that only hold a program: it stands in their place.
_CALLS = frozenset(
    [
        "jit",
        "pjit",
        "closed_call",
        "core_call",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "remat2",
        "remat",
        "checkpoint",
    ]
)
_ROLES = {"params": "parameter", "state": "state", "key": "input", "arrays": "input"}


class Value(NamedTuple):
    """Output ``index`` of node ``node``."""

    node: int
    index: int = 0


class Plain(NamedTuple):
    """A number that stands in the program."""

    value: Any


Operand = Value | Plain


def unroll(layer: Settings, inputs: tuple[Any, ...], options: dict[str, Any], traced: Traced) -> Graph:
    """Every operation between the inputs and what the model returns, in the groups of the layers it belongs to."""
    unrolled = _Unrolled(traced)
    arguments: list[Operand] = []
    for role, tree in sorted(traced.inputs.items()):  # the order in which jax flattens a dict
        names = [jax.tree_util.keystr(path, simple=True, separator="/") or role for path, _ in _leaves(tree)]
        if role == "arrays":
            names = _input_names(layer, inputs, options)
        for name, (_, x) in zip(names, _leaves(tree), strict=True):
            arguments.append(unrolled.array(_ROLES[role], name, x))
    program = traced.program
    outputs = unrolled.walk(program.jaxpr, [unrolled.constant(value) for value in program.consts], arguments)
    for (path, x), operand in zip(_leaves(traced.output), outputs, strict=True):
        if isinstance(operand, Plain):
            operand = unrolled.array("constant", _plain(operand.value), x)
        unrolled.nodes.append(Node("output", _join("output", path)))
        unrolled.connect(operand, len(unrolled.nodes) - 1, x)
    return unrolled.graph()


class _Unrolled:
    """A graph while a program is walked through."""

    def __init__(self, traced: Traced):
        self.traced = traced
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.groups: list[Group] = []
        self.group: int | None = None  # the innermost one at this place
        self.effects: set[int] = set()  # nodes that do more than give values

    def array(self, kind: str, name: str, x: Any) -> Value:
        self.nodes.append(Node(kind, name, path=name, outputs=(text.shape(x),)))
        return Value(len(self.nodes) - 1)

    def constant(self, value: Any) -> Operand:
        return Plain(value) if np.ndim(value) == 0 else self.array("constant", "constant", value)

    def connect(self, operand: Value, target: int, x: Any) -> None:
        self.edges.append(Edge(operand.node, operand.index, target, text.shape(x)))

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        self.enter(Group(name, "", self.group))
        yield
        self.leave()

    def enter(self, group: Group) -> None:
        self.groups.append(group)
        self.group = len(self.groups) - 1

    def leave(self) -> None:
        assert self.group is not None
        self.group = self.groups[self.group].parent

    def walk(self, program: Jaxpr, consts: Sequence[Operand], arguments: Sequence[Operand]) -> list[Operand]:
        """Add what the program computes; its outputs."""
        known: dict[Any, Operand] = dict(zip(program.constvars, consts, strict=True))
        known.update(zip(program.invars, arguments, strict=True))

        def read(atom: Any) -> Operand:
            return self.constant(atom.val) if isinstance(atom, Literal) else known[atom]

        for eqn in program.eqns:
            if eqn.primitive is mark:
                self.step_over(**eqn.params)
            else:
                known.update(zip(eqn.outvars, self.equation(eqn, [read(atom) for atom in eqn.invars]), strict=True))
        return [read(atom) for atom in program.outvars]

    def step_over(self, call: int, starts: bool) -> None:
        """The border of a layer."""
        if starts:
            calls = self.traced.calls
            found = calls[call]
            composite = call + 1 < len(calls) and calls[call + 1].depth > found.depth
            name = text.title(found.layer, TITLE, whole=not composite)
            self.enter(Group(name, found.path, self.group, call))
        else:
            self.leave()

    def equation(self, eqn: Any, operands: list[Operand]) -> list[Operand]:
        name, params = eqn.primitive.name, eqn.params
        if name in _CALLS:
            return self.below(next(filter(_is_program, params.values())), operands)
        if name == "scan":
            with self.inside(f"scan × {params['length']}"):
                return self.below(params["jaxpr"], operands)
        if name == "while":
            first, second = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
            carry = operands[second:]
            with self.inside("while"):
                proceed = self.below(params["cond_jaxpr"], operands[:first] + carry)
                operands = proceed + self.below(params["body_jaxpr"], operands[first:second] + carry)
                return self.operation(eqn, operands, [*_outputs(params["cond_jaxpr"]), *_outputs(params["body_jaxpr"])])
        if name == "cond":
            results, avals = operands[:1], [eqn.invars[0].aval]
            for index, branch in enumerate(params["branches"]):
                with self.inside(f"branch {index}"):
                    results += self.below(branch, operands[1:])
                    avals += _outputs(branch)
            return self.operation(eqn, results, avals)
        return self.operation(eqn, operands, [atom.aval for atom in eqn.invars])

    def below(self, program: Any, operands: list[Operand]) -> list[Operand]:
        if isinstance(program, ClosedJaxpr):
            return self.walk(program.jaxpr, [self.constant(value) for value in program.consts], operands)
        return self.walk(program, (), operands)

    def operation(self, eqn: Any, operands: list[Operand], avals: list[Any]) -> list[Operand]:
        index = len(self.nodes)
        written = ["·" if isinstance(operand, Value) else _plain(operand.value) for operand in operands]
        note = f"({', '.join(written)})" if any(isinstance(operand, Plain) for operand in operands) else ""
        outputs = tuple(text.shape(var.aval) for var in eqn.outvars)
        self.nodes.append(Node("operation", eqn.primitive.name, note, outputs=outputs, group=self.group))
        for operand, aval in zip(operands, avals, strict=True):
            if isinstance(operand, Value):
                self.connect(operand, index, aval)
        if eqn.effects:
            self.effects.add(index)
        return [Value(index, place) for place in range(len(outputs))]

    def graph(self) -> Graph:
        """What is read by an output or has an effect; arrays stand in the innermost group around their readers."""
        lived = _sources(self.edges, {i for i, node in enumerate(self.nodes) if node.kind == "output"} | self.effects)
        lived |= {i for i, node in enumerate(self.nodes) if node.kind == "input" and node.name != "key"}
        edges = [edge for edge in self.edges if edge.target in lived]
        nodes = []
        for i, node in enumerate(self.nodes):
            if node.kind in ("parameter", "state", "constant"):
                group = common([self.nodes[e.target].group for e in edges if e.source == i], self.groups)
                layer, _, last = node.path.rpartition("/")
                alone = group is not None and self.groups[group].path == layer
                node = dataclasses.replace(node, group=group, name=last if alone else node.name)
            nodes.append(node)
        inhabited = {above for i in lived for above in ancestors(nodes[i].group, self.groups)}
        idle = [
            f"{group.path}: {group.name}" if group.path else group.name
            for i, group in enumerate(self.groups)
            if i not in inhabited and group.call is not None and not self.holds_calls(i)
        ]
        return compact(nodes, edges, self.groups, lived, tuple(dict.fromkeys(idle)))

    def holds_calls(self, index: int) -> bool:
        return any(index in ancestors(group.parent, self.groups) for group in self.groups if group.call is not None)


def compact(
    nodes: Sequence[Node], edges: Sequence[Edge], groups: Sequence[Group], kept: set[int], idle: tuple[str, ...]
) -> Graph:
    """The graph of the ``kept`` nodes and the groups around them, numbered anew."""
    held = sorted({above for i in kept for above in ancestors(nodes[i].group, groups)})
    new_group: dict[int | None, int | None] = {None: None, **{old: new for new, old in enumerate(held)}}
    new_node = {old: new for new, old in enumerate(sorted(kept))}
    return Graph(
        tuple(dataclasses.replace(nodes[i], group=new_group[nodes[i].group]) for i in sorted(kept)),
        tuple(
            dataclasses.replace(edge, source=new_node[edge.source], target=new_node[edge.target])
            for edge in edges
            if edge.source in kept and edge.target in kept
        ),
        tuple(dataclasses.replace(groups[i], parent=new_group[groups[i].parent]) for i in held),
        idle,
    )


def ancestors(group: int | None, groups: Sequence[Group]) -> list[int]:
    """A group and those around it, the innermost first."""
    found = []
    while group is not None:
        found.append(group)
        group = groups[group].parent
    return found


def common(inside: Sequence[int | None], groups: Sequence[Group]) -> int | None:
    """The innermost group around all of these."""
    if not inside:
        return None
    shared = set.intersection(*(set(ancestors(group, groups)) for group in inside))
    return next((group for group in ancestors(inside[0], groups) if group in shared), None)


def _sources(edges: Sequence[Edge], reached: set[int]) -> set[int]:
    """Everything from which these nodes can be reached: an edge leads from an earlier node to a later one."""
    reached = set(reached)
    for edge in sorted(edges, key=lambda edge: -edge.target):
        if edge.target in reached:
            reached.add(edge.source)
    return reached


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_leaves_with_path(tree)


def _is_program(value: Any) -> bool:
    return isinstance(value, (ClosedJaxpr, Jaxpr))


def _outputs(program: Any) -> list[Any]:
    return [atom.aval for atom in (program.jaxpr if isinstance(program, ClosedJaxpr) else program).outvars]


def _plain(value: Any) -> str:
    number = np.asarray(value).item()
    return f"{number:.4g}" if isinstance(number, float) else str(number)


def _input_names(layer: Settings, inputs: tuple[Any, ...], options: dict[str, Any]) -> list[str]:
    """Names of the arrays among inputs and options: those that forward gives them."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = list(inspect.signature(layer.forward).parameters.values())[1:]  # the first is net
    first = [parameter.name for parameter in parameters if parameter.kind in positional][: len(inputs)]
    first += ["input"] if len(inputs) == 1 else [f"input {place}" for place in range(len(first), len(inputs))]
    leaves = [(path, leaf) for path, leaf in _leaves((inputs, options)) if check.is_array(leaf)]
    return [
        _join(first[place.idx] if argument.idx == 0 else place.key, tuple(path))
        for (argument, place, *path), _ in leaves
    ]


def _join(name: str, path: Any) -> str:
    below = jax.tree_util.keystr(path, simple=True, separator="/")
    return f"{name}/{below}" if below else name
