"""Which inputs meet a model's weights as they are: followed through the traced program, without computing anything."""

from __future__ import annotations

from typing import Any

import jax
from jax.extend.core import Jaxpr, Literal

from jdl.nn.core import Layer
from jdl.nn.tracing import programs_within, trace

# What passes values on: in another shape, order or dtype, and with zeros or edges beside them.
_PASSES = frozenset(
    [
        "broadcast_in_dim",
        "concatenate",
        "convert_element_type",
        "copy",
        "dynamic_slice",
        "expand_dims",
        "optimization_barrier",
        "pad",
        "rev",
        "reshape",
        "sharding_constraint",
        "slice",
        "split",
        "squeeze",
        "stop_gradient",
        "transpose",
    ]
)
_MEETS = frozenset(["dot_general", "conv_general_dilated"])
_INDICES = {"dynamic_slice": 1, "pad": 1, "gather": 1}  # of these only the first operand is data


def meets_weights(model: Layer, positional: tuple[Any, ...], named: dict[str, Any]) -> list[bool]:
    """For each array among a model's inputs whether it, and no function of it, is multiplied by something.

    True for images that a convolution takes as they come; false for token ids, and for what the model divides by 255 or
    normalises first.
    """
    traced = trace(model, positional, named)
    program = traced.program.jaxpr
    count = len(traced.inputs["arrays"])  # the first in the order of jax, which is that of the roles' names
    return [_reaches(program, {program.invars[index]})[0] for index in range(count)]


def _reaches(program: Jaxpr, raw: set[Any]) -> tuple[bool, list[bool]]:
    """Whether raw values meet a product in this program, and which of its outputs still are raw."""
    for eqn in program.eqns:
        given = [not isinstance(x, Literal) and x in raw for x in eqn.invars]
        if not any(given):
            continue
        name, below = eqn.primitive.name, programs_within(eqn.params)
        if name in _MEETS:
            return True, []
        if below:
            found, passed = _within(name, below, given, len(eqn.outvars))
            if found:
                return True, []
            raw = raw | {var for var, still in zip(eqn.outvars, passed, strict=False) if still}
        elif name in _PASSES and any(given[: _INDICES.get(name)]):
            raw = raw | set(eqn.outvars)
    return False, [not isinstance(x, Literal) and x in raw for x in program.outvars]


def _within(name: str, below: list[Jaxpr], given: list[bool], outputs: int) -> tuple[bool, list[bool]]:
    """The same through what an equation holds: a call, the turns of a scan, the branches of a conditional."""
    if name == "cond":
        given = given[1:]
    if name == "while":
        return False, [False] * outputs
    passed = [False] * outputs
    for program in below:
        if len(program.invars) != len(given):
            continue  # an argument that is no operand: nothing is known
        found, still = _reaches(program, {var for var, is_raw in zip(program.invars, given, strict=True) if is_raw})
        if found:
            return True, []
        passed = [a or b for a, b in zip(passed, still, strict=False)]
    return False, passed


def abstract(tree: Any, rows: int) -> Any:
    """Inputs like these with so many rows, without values."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), tree)
