"""Floating-point operations of a traced program, by the call of a layer that they belong to."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from jax.extend.core import Jaxpr

from jdl.nn.tracing import mark, programs_within

FREE = frozenset(
    [
        "broadcast_in_dim",
        "reshape",
        "transpose",
        "squeeze",
        "slice",
        "dynamic_slice",
        "dynamic_update_slice",
        "gather",
        "scatter",
        "concatenate",
        "convert_element_type",
        "copy",
        "iota",
        "pad",
        "rev",
        "stop_gradient",
        "optimization_barrier",
        "sharding_constraint",
        "device_put",
        "split",
        "random_bits",
        "random_seed",
        "random_split",
        "random_wrap",
        "random_unwrap",
        "random_fold_in",
        "threefry2x32",
        "shift_right_logical",
        "shift_left",
        "bitcast_convert_type",
        "select_n",
        "and",
        "or",
        "not",
        "xor",
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
    ]
)


def flops_by_call(program: Jaxpr, call: int = -1) -> Counter[int]:
    """Operations by the innermost call of a layer around them (-1 outside all), a multiply-add counting two.

    Matrix products count exactly, convolutions as if padding were data, reductions one an input element, other
    arithmetic one an output element, and moving data nothing. A scan counts every turn, a while loop one, a
    conditional its costliest branch. Every call in the program has an entry.
    """
    total: Counter[int] = Counter()
    around = [call]
    for eqn in program.eqns:
        if eqn.primitive is mark:
            if eqn.params["starts"]:
                around.append(eqn.params["call"])
                total[around[-1]] += 0
            else:
                around.pop()
            continue
        below = [] if eqn.primitive.name.startswith("scatter") else programs_within(eqn.params)
        if not below:
            total[around[-1]] += _flops(eqn)
            continue
        counts = [flops_by_call(sub, around[-1]) for sub in below]
        if eqn.primitive.name == "cond":
            counts = [max(counts, key=lambda count: count.total())]
        turns = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for count in counts:
            for inner, operations in count.items():
                total[inner] += operations * turns
    return total


def _flops(eqn: Any) -> int:
    name = eqn.primitive.name
    out = math.prod(eqn.outvars[0].aval.shape) if eqn.outvars else 0
    if name in FREE:
        return 0
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return 2 * out * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        between = math.prod(eqn.params["lhs_dilation"])  # zeros put between the inputs meet no arithmetic
        return 2 * out * (math.prod(kernel) // features) // between
    if name.startswith("scatter"):  # scatter-add and its kin: one operation an update
        return math.prod(eqn.invars[2].aval.shape)
    if name.startswith(("reduce_", "arg", "cum")) and name != "reduce_precision":
        window = eqn.params.get("window_dimensions")
        return out * math.prod(window) if window else math.prod(eqn.invars[0].aval.shape)
    return out
