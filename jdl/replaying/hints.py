"""The likely fix for the common ways in which values stop being finite."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp

from jdl.replaying.passes import Place
from jdl.replaying.watching import Numbers, listed

HUGE = 1e10  # nothing that trains well is so large

DIVERGED = (
    "values this large come from steps that were too long: lower the learning rate, warm it up, or clip the gradient: "
    "optax.chain(optax.clip_by_global_norm(1.0), optimizer)"
)
SLOPE = (
    "a derivative is infinite or undefined there (of sqrt, log, a power, a norm or a division at 0): add a small "
    "constant inside, as in jnp.sqrt(x + 1e-6). Before jnp.where guard the input too, as the branch not taken is "
    "differentiated as well"
)
AT_START = {
    "batch": "mend or leave out these examples, or mask them and let the loss see the mask",
    "parameters": "an earlier step made them so: replay the first bad one, or skip such steps by jdl.skip_nonfinite",
    "state": "an earlier batch made it so, as a running statistic keeps what it saw: replay the first bad step",
    "optimizer state": "an earlier step made it so: replay the first bad one",
    "new state": "the layer updates its state with a value that overflows; look at its inputs",
}


def hint(place: Place, params: Any, shown: Any) -> str:
    """The likely fix, or nothing; ``params`` and ``shown`` are numbers of the parameters and of what the stage saw."""
    if place.stage in AT_START:
        return AT_START[place.stage]
    if place.use is not None:
        forward = place.stage == "forward"
        seen, made = (place.use.inputs, place.use.output) if forward else (place.use.back_output, place.use.back_inputs)
        return _of_layer(repr(place.use.layer).lower(), seen, made, params, forward)
    if _reach(params) > HUGE or _reach(shown) > HUGE:
        return DIVERGED
    if place.stage == "loss":
        return (
            "the outputs are finite: give a loss that takes logarithms the logits and not probabilities, "
            "and see that it divides by nothing that can be 0"
        )
    if place.stage == "backward":
        return SLOPE
    if place.stage == "update":
        return "the gradient is finite: the optimizer divides by 0 or overflows; look at its eps and its learning rate"
    return ""


def _of_layer(name: str, seen: Any, made: Any, params: Any, forward: bool) -> str:
    low, high = _low(seen), _high(seen)
    overflow = any(one.dtype == "float16" and (one.counts["inf"] or one.counts["-inf"]) for one in listed(made))
    if overflow or "'float16'" in name:
        precise = 'nn.Precision(model, "bfloat16")'
        return f"float16 ends at 65,504: compute in {precise}" + (
            "" if forward else ", or let jdl.loss_scaled find a scale"
        )
    if not forward:
        return DIVERGED if _reach((seen, params)) > HUGE else SLOPE
    if "softplus" not in name and "log" in name and low <= 0:
        return (
            f"the logarithm needs values above 0 and got {low:.3g}: add a small constant, or take jax.nn.log_softmax "
            "or jax.nn.log_sigmoid of the logits"
        )
    if "exp" in name and high > (limit := _largest_exponent(seen)):
        return (
            f"exp overflows above {limit:.3g} and got {high:.3g}: subtract the maximum first, as jax.nn.softmax and "
            "jax.nn.logsumexp do"
        )
    if "sqrt" in name and low < 0:
        return f"the square root needs values from 0 and got {low:.3g}: use jnp.maximum(x, 0)"
    if any(word in name for word in ("div", "reciprocal", "rsqrt")) and low <= 0 <= high:
        return "it divides by a value that can be 0: add a small constant to it"
    return DIVERGED if _reach((seen, params)) > HUGE else ""


def _largest_exponent(seen: Any) -> float:
    return min((math.log(float(jnp.finfo(one.dtype).max)) for one in listed(seen)), default=math.inf)


def _reach(tree: Any) -> float:
    """The largest absolute value."""
    return max(abs(_low(tree)), abs(_high(tree)))


def _low(tree: Any) -> float:
    return min((one.low for one in _spanned(tree)), default=0.0)


def _high(tree: Any) -> float:
    return max((one.high for one in _spanned(tree)), default=0.0)


def _spanned(tree: Any) -> list[Numbers]:
    """Numbers of arrays that hold a finite value."""
    return [one for one in listed(tree) if one.low <= one.high]
