"""The layer: static settings that declare arrays, and two pure functions over them.

Reading order: ``settings.py`` (what a layer is), ``net.py`` (what its forward sees), ``traversal.py`` (how a pass
collects or runs), and here what a user calls.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.check import InputError
from jdl.nn.net import merge, path_hash
from jdl.nn.settings import Param, Settings, Tree, Variables
from jdl.nn.traversal import collect, map_specs, run

Array = jax.Array


class Layer(Settings):
    """Base of every layer: subclassing makes a frozen dataclass of static settings.

    Override ``forward(net, *inputs, **options)``, and ``params`` / ``state`` to declare arrays.
    """

    # what a user calls

    def init(self, key: Array, /, *inputs: Any, **options: Any) -> Variables:
        """Make the model's arrays for inputs like these (arrays or ``jax.ShapeDtypeStruct``).

        ``forward`` is only traced, with ``train`` false and true. Every array comes from ``key`` folded with its path,
        by one compiled program per (initialiser, shape, dtype).
        """
        _check_key(key)
        specs = collect(self, inputs, options)
        return Variables(*(map_specs(functools.partial(_make_array, key), tree) for tree in specs))

    def apply(
        self, params: Tree, state: Tree, /, *inputs: Any, key: Array | None = None, train: bool = False, **options: Any
    ) -> tuple[Any, Tree]:
        """Run the model: ``(output, new state)``, a pure function of its arguments.

        ``key`` is needed where a layer draws random numbers, as Dropout does when ``train`` is true.
        """
        for name, tree in (("params", params), ("state", state)):
            if not isinstance(tree, dict):
                raise InputError(
                    f"{name} got {type(tree).__name__}, wanted a nested dict; "
                    "call apply(variables.params, variables.state, inputs) or model(variables, inputs)"
                )
        if not isinstance(train, bool):
            raise InputError(f"train got {check.describe(train)}, wanted True or False; mark it static under jax.jit")
        if key is not None:
            _check_key(key)
        inputs, options = jax.tree.map(_to_jax, (inputs, options))
        output, updates = run(self, params, state, inputs, options, key=key, train=train)
        return output, merge(state, updates)

    def __call__(self, variables: Variables, /, *inputs: Any, **options: Any) -> Any:
        """The output in evaluation mode: ``model(variables, inputs)``."""
        if not isinstance(variables, tuple) or len(variables) != 2:
            raise InputError(
                f"{type(self).__name__} got {check.describe(variables)} for variables; call model(variables, x), "
                "and inside a forward net.name(x)"
            )
        return self.apply(*variables, *inputs, **options)[0]

    def spec(self, *inputs: Any, **options: Any) -> Any:
        """Names, shapes, counts and FLOPs for inputs like these, without allocating: a :class:`jdl.nn.Spec`."""
        from jdl.nn.spec import measure  # the table is built on top of the traversal, not inside it

        return measure(self, inputs, options)


@functools.partial(jax.jit, static_argnums=(2, 3, 4))
def _initialise(key: Array, path: Array, init: Callable[..., Array], shape: tuple[int, ...], dtype: Any) -> Array:
    return init(jax.random.fold_in(key, path), shape, dtype)


def _make_array(key: Array, path: str, spec: Param) -> Array:
    try:
        value = _initialise(key, path_hash(path), spec.init, spec.shape, spec.dtype)
    except Exception as error:
        error.add_note(f"while {spec.init!r} made {path}: {check.describe(spec)}")
        raise
    if value.shape != spec.shape or value.dtype != spec.dtype:
        raise InputError(f"{spec.init!r} made {check.describe(value)}, wanted {check.describe(spec)}", path)
    return value


def _to_jax(x: Any) -> Any:
    return jnp.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else x


def _check_key(key: Any) -> None:
    if not (check.is_array(key) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.ndim == 0):
        raise InputError(f"key got {check.describe(key)}, wanted one typed key; make it with jax.random.key(0)")
