"""The precision policy: one value around a model instead of a setting on each layer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jdl import check
from jdl.check import InputError
from jdl.nn import init
from jdl.nn.containers import _Around
from jdl.nn.net import Net
from jdl.nn.settings import Param

DTYPES = ("bfloat16", "float16", "float32")
LOSS_SCALE, GOOD_STEPS = "loss_scale", "loss_scale_good_steps"  # what loss_scaled looks for in the state
FIRST_SCALE = 2.0**16


class Precision(_Around):
    """The same layer computed in ``compute``, its parameters kept as they are, in float32: mixed precision.

    ``"bfloat16"`` or ``"float16"`` (Micikevicius et al. 2018, arXiv:1710.03740). Floating inputs and parameters, frozen
    ones too, are cast on the way in, floating outputs to ``output`` on the way out, so that losses see float32.
    Gradients arrive in the dtype of the parameters. Norms and softmax compute in float32 inside, and state such as
    running statistics keeps its dtype. A layer of your own that mixes in float32 constants computes in float32 from
    there on.

    The small gradients of float16 vanish without :class:`jdl.loss_scaled`. For it, and for float16 alone, the state
    holds ``loss_scale`` (65536 at first) and ``loss_scale_good_steps``.

    Raises:
        InputError: a dtype that is none of bfloat16, float16 and float32.
    """

    compute: Any = "bfloat16"
    output: Any = "float32"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("compute", "output"):  # names, so that jnp.float16 and "float16" make equal models
            object.__setattr__(self, name, _dtype_name(getattr(self, name), f"Precision.{name}"))

    def state(self, *inputs: Any) -> dict[str, Param]:
        if self.compute != "float16":
            return {}
        return {
            LOSS_SCALE: Param((), init.constant(FIRST_SCALE)),
            GOOD_STEPS: Param((), init.zeros(), jnp.int32),
        }

    def traverse(self, net: Net, *inputs: Any, **options: Any) -> Any:
        if net._collecting:
            net._declare(inputs, options)
        inputs, options = _cast((inputs, options), self.compute)
        inner, own = net._inner(self.layer, compute=self.compute), self.state()
        # at one path with the layer's own state, of which Repeat and Ensemble count the copies
        inner._state = {name: value for name, value in net._state.items() if name not in own}
        return _cast(inner(*inputs, **options), self.output)


def _cast(tree: Any, dtype: str) -> Any:
    """The floating arrays of a tree in another dtype; everything else as it is."""

    def cast(x: Any) -> Any:
        return x.astype(dtype) if check.is_array(x) and jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, tree)


def _dtype_name(value: Any, where: str) -> str:
    try:
        name = jnp.dtype(value).name
    except TypeError:
        name = ""
    if value is None or name not in DTYPES:
        raise InputError(f"got {check.describe(value)}, wanted one of {', '.join(map(repr, DTYPES))}", where)
    return name
