"""Feeding a sequence step by step: recurrent layers that remember where they are."""

from __future__ import annotations

from typing import Any

from jax.extend.core import get_opaque_trace_state

from jdl.check import InputError
from jdl.nn.core import Layer
from jdl.nn.net import INSIDE, Net, Scope, merge
from jdl.nn.settings import Tree, Variables


def streams(net: Net) -> bool:
    """Whether this pass asks for the state that a stream starts from."""
    return net._scope.streams


def kept(net: Net, name: str) -> Tree:
    """What :func:`keep` has left under this name in an earlier pass; empty where there is nothing."""
    if name in net._params:
        raise InputError(f"{name!r} is state and stands in params; let unfreeze name parameters only")
    here = net._state.get(name)
    return here if isinstance(here, dict) else {}


def keep(net: Net, name: str, values: Tree) -> None:
    """Set state that no layer declares, as only some runs have it: what a stream has come to."""
    if get_opaque_trace_state() != net._scope.state_trace:
        raise net._error(f"updates its state {INSIDE}")
    place = (*net._path, name)
    if place in net._scope.updates:
        raise InputError(f"is used twice in one pass, where one {name!r} cannot say where each use stands")
    net._scope.updates[place] = values


def with_carry(model: Layer, variables: Variables, /, *inputs: Any, **options: Any) -> Variables:
    """Variables for streaming: every Recurrent layer keeps its carry in the state, now that before the first step.

    ``inputs`` are one call's, of any number of steps. From then on ``apply`` goes on where the last call stopped, so
    steps fed one at a time give the numbers of the whole sequence; to begin anew, start from these variables again.
    This holds where all other layers act on each step alone, as Dense does: a convolution, attention or pooling along
    time, or a mean over it, sees the steps of one call only, which nothing here can notice.

    >>> params, state = nn.with_carry(model, variables, x[:, :1])
    >>> for t in range(x.shape[1]):
    ...     y, state = model.apply(params, state, x[:, t : t + 1])

    Raises:
        InputError: a layer goes backwards, or the model holds no recurrent layer.
    """
    scope = Scope(train=False, key=None, streams=True)
    Net(model, (), scope, *variables)(*inputs, **options)
    updates = scope.updates
    if not updates:
        raise InputError(f"with_carry got {type(model).__name__}, which holds no nn.Recurrent layer")
    return Variables(variables.params, merge(variables.state, updates))
