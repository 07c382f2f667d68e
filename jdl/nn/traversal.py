"""Starting one traversal of a layer: it either collects specifications or runs on arrays."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax

from jdl import check
from jdl.check import InputError
from jdl.nn.net import Net, Path, Recorder, Scope
from jdl.nn.settings import Param, Settings, Tree, Variables

Array = jax.Array


def collect(layer: Settings, inputs: tuple[Any, ...], options: dict[str, Any]) -> Variables:
    """The specifications of everything ``layer`` holds, by tracing alone: once for evaluation, once for training."""
    leaves, treedef = jax.tree.flatten((inputs, options))
    dynamic = [index for index, leaf in enumerate(leaves) if check.is_array(leaf)]
    specs = Variables({}, {})

    def trace(arrays: list[Any], train: bool) -> Any:
        inputs, options = refill(leaves, treedef, dynamic, arrays)
        scope = Scope(train=train, key=None, specs=specs)
        return Net(layer, (), scope, {}, {})(*inputs, **options)

    for train in (False, True):
        try:
            jax.eval_shape(functools.partial(trace, train=train), [leaves[index] for index in dynamic])
        except TypeError as error:
            if leaves:
                raise
            fix = "give arrays or jax.ShapeDtypeStruct like those it will run on: init(key, x)"
            raise InputError(f"{type(layer).__name__} got no inputs; {fix}") from error
    return specs


def refill(
    leaves: list[Any], treedef: Any, dynamic: list[int], arrays: list[Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Inputs and options with traced ``arrays`` in place of the arrays among ``leaves``; the rest is static."""
    filled = list(leaves)
    for index, value in zip(dynamic, arrays, strict=True):
        filled[index] = value
    return jax.tree.unflatten(treedef, filled)


def run(
    layer: Settings,
    params: Tree,
    state: Tree,
    inputs: tuple[Any, ...],
    options: dict[str, Any],
    *,
    key: Array | None,
    train: bool,
    recorder: Recorder | None = None,
) -> tuple[Any, dict[Path, Tree]]:
    """One pass on arrays: ``(output, updated state by path)``."""
    scope = Scope(train=train, key=key, recorder=recorder)
    return Net(layer, (), scope, params, state)(*inputs, **options), scope.updates


def stack_specs(specs: Variables, n: int) -> Variables:
    """The specifications of ``n`` copies along a new leading axis, each initialised on its own."""

    def stacked(path: str, spec: Param) -> Param:
        return Param((n, *spec.shape), Stacked(spec.init, n), spec.dtype)

    return Variables(*(map_specs(stacked, tree) for tree in specs))


@dataclasses.dataclass(frozen=True)
class Stacked:
    """``n`` independent draws of an initialiser along the leading axis."""

    init: Callable[..., Array]
    n: int

    def __call__(self, key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
        return jax.vmap(lambda k: self.init(k, shape[1:], dtype))(jax.random.split(key, self.n))


def map_specs(function: Callable[[str, Param], Any], tree: Tree, prefix: str = "") -> Tree:
    """Map ``(path, Param)`` over a tree of specifications."""
    return {
        name: function(f"{prefix}{name}", spec)
        if isinstance(spec, Param)
        else map_specs(function, spec, f"{prefix}{name}/")
        for name, spec in tree.items()
    }
