"""A forward pass as a program that says where each layer starts and ends."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Primitive

from jdl import check
from jdl.nn.settings import Settings, Variables
from jdl.nn.traversal import collect, map_specs, refill, run

# An equation without inputs or outputs, in the program for as long as it is looked at: `call` is a place among the
# calls, `starts` whether the layer starts there or ends.
mark = Primitive("layer")
mark.multiple_results = True
mark.def_abstract_eval(lambda **_: [])


class Call(NamedTuple):
    """One use of a layer: its path, settings, abstract inputs and output, and in how many other calls it stands."""

    path: str
    layer: Settings
    inputs: Any
    output: Any
    depth: int


class Traced(NamedTuple):
    """What :func:`trace` found.

    ``program`` takes the leaves of ``inputs``, a dict of abstract arrays by role: ``params``, ``state``, ``arrays``
    (those among the model's inputs and options, in order) and ``key``.
    """

    specs: Variables
    program: ClosedJaxpr
    inputs: dict[str, Any]
    output: Any
    calls: list[Call]


class _Marks:
    """Calls in the order in which they start, each marked in the program being traced."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.open = 0

    def start(self, path: str, layer: Settings, inputs: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        self.calls.append(Call(path, layer, _abstract(inputs), None, self.open))
        self.open += 1
        mark.bind(call=len(self.calls) - 1, starts=True)
        return len(self.calls) - 1, inputs

    def end(self, call: int, output: Any) -> Any:
        self.open -= 1
        self.calls[call] = self.calls[call]._replace(output=_abstract(output))
        mark.bind(call=call, starts=False)
        return output


def _abstract(values: Any) -> Any:
    return jax.tree.map(lambda x: jax.typeof(x) if check.is_array(x) else x, values)


def trace(layer: Settings, inputs: tuple[Any, ...], options: dict[str, Any], train: bool = False) -> Traced:
    """One pass of ``layer`` over inputs (arrays or ``jax.ShapeDtypeStruct``); nothing is allocated."""
    specs = collect(layer, inputs, options)
    params, state = (map_specs(lambda _, spec: jax.ShapeDtypeStruct(spec.shape, spec.dtype), tree) for tree in specs)
    leaves, treedef = jax.tree.flatten((inputs, options))
    dynamic = [index for index, leaf in enumerate(leaves) if check.is_array(leaf)]
    marks = _Marks()

    def forward(arguments: dict[str, Any]) -> Any:
        inputs, options = refill(leaves, treedef, dynamic, arguments["arrays"])
        key = arguments["key"] if train else None
        variables = arguments["params"], arguments["state"]
        return run(layer, *variables, inputs, options, key=key, train=train, recorder=marks)[0]

    arguments = {
        "params": params,
        "state": state,
        "arrays": [leaves[index] for index in dynamic],
        "key": jax.eval_shape(lambda: jax.random.key(0)) if train else None,
    }
    program, output = jax.make_jaxpr(forward, return_shape=True)(arguments)
    return Traced(specs, program, arguments, output, marks.calls)


def programs_within(params: dict[str, Any]) -> list[Jaxpr]:
    """The programs among an equation's parameters."""
    flat = [item for value in params.values() for item in (value if isinstance(value, (tuple, list)) else (value,))]
    return [
        item.jaxpr if isinstance(item, ClosedJaxpr) else item for item in flat if isinstance(item, (ClosedJaxpr, Jaxpr))
    ]
