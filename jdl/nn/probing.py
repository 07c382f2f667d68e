"""What every layer got and gave in one pass: the same program, looked at from inside."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from jdl import check
from jdl.check import InputError
from jdl.nn.net import Recorder, merge
from jdl.nn.settings import Settings, Tree, Variables, check_variables
from jdl.nn.traversal import run

Array = jax.Array


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["inputs", "output"], meta_fields=["path", "layer", "depth"]
)
@dataclasses.dataclass(frozen=True)
class Seen:
    """One use of a layer: its path, settings, positional inputs (a tuple), output, and in how many others it stands.

    A pytree of the inputs and the output, so that a compiled function can return it.
    """

    path: str
    layer: Settings
    inputs: tuple[Any, ...]
    output: Any
    depth: int


def probe(
    layer: Settings,
    variables: Variables,
    /,
    *inputs: Any,
    key: Array | None = None,
    train: bool = False,
    shifts: Sequence[Any] | None = None,
    **options: Any,
) -> tuple[Any, Tree, list[Seen]]:
    """Run a model once: ``(output, new state, seen)``, with a :class:`Seen` for every use of a layer, as they start.

    The first is the model itself. Values are arrays, or tracers under a ``jax.jit``, ``grad`` or ``vmap`` around the
    call. What runs inside a transform of its own (the copies of ``Repeat`` and ``Ensemble``, the layer in ``Remat``, a
    scan in a forward) is left out; the transform is seen as one use. Under ``jax.disable_jit()`` scans run turn by
    turn, and the copies of Repeat and the layer in Remat are seen too.

    Args:
        layer: any layer.
        variables: its arrays.
        inputs: as in ``apply``.
        key: as in ``apply``.
        train: as in ``apply``.
        **options: as in ``apply``.
        shifts: for every use, in the order of ``seen``, an array (or tree) to add to its output, or None. The
            gradient with respect to zeros there is the loss's gradient at that layer's output:

            >>> zeros = jdl.nn.zero_shifts(jax.eval_shape(lambda: jdl.nn.probe(model, variables, x)[2]))
            >>> jax.grad(lambda shifts: loss(jdl.nn.probe(model, variables, x, shifts=shifts)[0]))(zeros)

    Raises:
        InputError: shifts that do not fit the uses or their outputs.
    """
    check_variables(variables)
    recorder = Recording(shifts)
    output, state = recorded(layer, variables, inputs, options, key=key, train=train, recorder=recorder)
    return output, state, recorder.seen()


def recorded(
    layer: Settings,
    variables: Variables,
    inputs: tuple[Any, ...],
    options: dict[str, Any],
    *,
    key: Array | None,
    train: bool,
    recorder: Recorder,
) -> tuple[Any, Tree]:
    """What ``apply`` returns, every use of a layer told to ``recorder``."""
    inputs, options = jax.tree.map(_to_jax, (inputs, options))
    output, updates = run(layer, *variables, inputs, options, key=key, train=train, recorder=recorder)
    return output, merge(variables[1], updates)


def zero_shifts(seen: Sequence[Seen]) -> list[Any]:
    """Zeros to give :func:`probe` as ``shifts``: like the floating outputs (arrays or abstract), None for others."""
    return [jax.tree.map(_zeros, one.output) for one in seen]


class Recording:
    """The uses of layers in one jax trace: that in which this is made.

    A value from another trace, inside a scan or a vmap, would leak out of it. ``shifts`` are added to outputs,
    ``entering`` to inputs.
    """

    def __init__(self, shifts: Sequence[Any] | None = None, entering: Sequence[Any] | None = None):
        self._shifts, self._entering = shifts, entering
        self._calls: list[Seen] = []
        self._open = 0
        self._trace = get_opaque_trace_state()

    def start(self, path: str, layer: Settings, inputs: tuple[Any, ...]) -> tuple[int, tuple[Any, ...]]:
        if get_opaque_trace_state() != self._trace:
            return -1, inputs
        call, seen = len(self._calls), Seen(path, layer, inputs, None, self._open)
        if self._entering is not None and call < len(self._entering):
            inputs = _shifted(inputs, self._entering[call], call, seen)
        self._calls.append(dataclasses.replace(seen, inputs=inputs))
        self._open += 1
        return call, inputs

    def end(self, call: int, output: Any) -> Any:
        if call < 0:
            return output
        self._open -= 1
        if self._shifts is not None and call < len(self._shifts):
            output = _shifted(output, self._shifts[call], call, self._calls[call])
        self._calls[call] = dataclasses.replace(self._calls[call], output=output)
        return output

    def seen(self) -> list[Seen]:
        """All uses, in the order in which they started."""
        if self._shifts is not None and len(self._shifts) != len(self._calls):
            raise InputError(f"shifts got {len(self._shifts)} entries, wanted one for each of {len(self._calls)} uses")
        return self._calls


def _shifted(output: Any, shift: Any, call: int, seen: Seen) -> Any:
    if shift is None:
        return output
    try:
        return jax.tree.map(lambda s, y: y if s is None else _add(s, y), shift, output, is_leaf=lambda s: s is None)
    except ValueError as error:
        where = f"shifts[{call}], {seen.path or 'the model'}: {seen.layer!r}"
        message = error.message if isinstance(error, InputError) else f"got {check.describe(shift)}"
        raise InputError(f"{message}, wanted zeros like its output {check.describe(output)}", where) from None


def _add(shift: Any, y: Any) -> Any:
    if not check.is_array(shift) or (shift.shape, shift.dtype) != (y.shape, y.dtype):
        raise InputError(f"got {check.describe(shift)}")
    return y + shift


def _zeros(leaf: Any) -> Any:
    floating = check.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)
    return jnp.zeros(leaf.shape, leaf.dtype) if floating else None


def _to_jax(x: Any) -> Any:
    return jnp.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else x
