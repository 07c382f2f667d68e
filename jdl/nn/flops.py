"""Floating-point operations of a traced program, by layer."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr

_FREE = frozenset(
    [
        "broadcast_in_dim",
        "reshape",
        "transpose",
        "squeeze",
        "slice",
        "dynamic_slice",
        "dynamic_update_slice",
        "gather",
        "concatenate",
        "convert_element_type",
        "copy",
        "iota",
        "pad",
        "rev",
        "stop_gradient",
        "device_put",
        "split",
        "random_bits",
        "random_wrap",
        "random_unwrap",
        "random_fold_in",
        "threefry2x32",
        "shift_right_logical",
        "shift_left",
        "bitcast_convert_type",
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


def flops_by_scope(jaxpr: Jaxpr, prefix: str = "") -> Counter[str]:
    """Operations by name scope, a multiply-add counting two.

    Matrix products and convolutions count exactly, reductions one an input element, other arithmetic one an output
    element, and moving data nothing. A scan counts every turn, a while loop one, a conditional its costliest branch.
    """
    total: Counter[str] = Counter()
    for eqn in jaxpr.eqns:
        scope = "/".join(part for part in (prefix, str(eqn.source_info.name_stack)) if part)
        below = [flops_by_scope(sub, scope) for sub in _subjaxprs(eqn.params)]
        if not below:
            total[scope] += _flops(eqn)
            continue
        name = eqn.primitive.name
        if name == "cond":
            below = [max(below, key=lambda counts: counts.total())]
        turns = eqn.params["length"] if name == "scan" else 1
        for counts in below:
            for inner, count in counts.items():
                total[inner] += count * turns
    return total


def _subjaxprs(params: dict[str, Any]) -> list[Jaxpr]:
    """Programs inside an equation; a custom derivative's rules do not run."""
    values = [value for name, value in params.items() if name not in ("jvp_jaxpr_fun", "fwd_jaxpr_thunk", "bwd")]
    flat = [item for value in values for item in (value if isinstance(value, (tuple, list)) else (value,))]
    return [
        item.jaxpr if isinstance(item, ClosedJaxpr) else item for item in flat if isinstance(item, (ClosedJaxpr, Jaxpr))
    ]


def _flops(eqn: Any) -> int:
    name = eqn.primitive.name
    out = math.prod(eqn.outvars[0].aval.shape) if eqn.outvars else 0
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return 2 * out * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        features = kernel[eqn.params["dimension_numbers"].rhs_spec[0]]
        return 2 * out * (math.prod(kernel) // features)
    if name in _FREE:
        return 0
    if name.startswith(("reduce_", "arg", "cum")):
        window = eqn.params.get("window_dimensions")
        return out * math.prod(window) if window else math.prod(eqn.invars[0].aval.shape)
    return out
