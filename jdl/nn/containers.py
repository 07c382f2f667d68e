"""Layers made of layers: in sequence, side by side, around a shortcut, repeated, rematerialised, and as an ensemble.

Residual, Repeat, Remat and Ensemble stand in the place of the layer they hold: parameters keep its paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jdl import check
from jdl.check import InputError
from jdl.nn.core import Layer
from jdl.nn.net import Net
from jdl.nn.settings import Settings, as_layer, check_name
from jdl.nn.traversal import stack_specs

Array = jax.Array


def _named(layers: tuple[Any, ...], named: dict[str, Any], owner: str) -> tuple[tuple[str, Settings], ...]:
    """Pairs of name and layer: positions "0", "1", … first, then keywords."""
    pairs = [(str(index), layer) for index, layer in enumerate(layers)] + list(named.items())
    seen: set[str] = set()
    entries = []
    for name, layer in pairs:
        if name in seen:
            raise InputError(
                f"{owner} got the name {name!r} twice; positional layers are named 0, 1, …: rename the keyword"
            )
        seen.add(name)
        check_name(name, owner)
        if isinstance(layer, (list, tuple)):
            raise InputError(f"got a {type(layer).__name__} of layers; unpack it: {owner}(*layers)", owner)
        try:
            entries.append((name, as_layer(layer)))
        except InputError as error:
            raise InputError(error.message, f"{owner}, layer {name!r}") from None
    return tuple(entries)


class _Several(Layer):
    """What Chain and Parallel share: named layers in order."""

    entries: tuple[tuple[str, Settings], ...]

    def _hold(self, layers: tuple[Any, ...], named: dict[str, Any]) -> None:
        object.__setattr__(self, "entries", _named(layers, named, type(self).__name__))
        self.__post_init__()

    def __repr__(self) -> str:
        parts = [repr(layer) if name == str(i) else f"{name}={layer!r}" for i, (name, layer) in enumerate(self.entries)]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[Settings]:
        return (layer for _, layer in self.entries)

    def __getitem__(self, name: str | int) -> Settings:
        return self.entries[name][1] if isinstance(name, int) else dict(self.entries)[name]


class Chain(_Several):
    """Layers one after another: ``Chain(Dense(128), jax.nn.relu, Dense(10))``.

    Any named function of arrays is a layer. Positional layers are named "0", "1", …, keyword ones by their keyword,
    which a layer inserted later does not rename. A tuple that one layer returns becomes the inputs of the next, so
    ``Chain(Parallel(a, b), jnp.add)`` is a sum of two branches.
    """

    def __init__(self, *layers: Any, **named: Any):
        self._hold(layers, named)

    def forward(self, net: Net, *inputs: Any) -> Any:
        output: Any = inputs[0] if len(inputs) == 1 else inputs
        for name, layer in self.entries:
            output = net.child(name, layer)(*(output if isinstance(output, tuple) else (output,)))
        return output


class Parallel(_Several):
    """Layers side by side on the same inputs; returns the tuple of their outputs."""

    def __init__(self, *layers: Any, **named: Any):
        self._hold(layers, named)

    def forward(self, net: Net, *inputs: Any) -> tuple[Any, ...]:
        return tuple(net.child(name, layer)(*inputs) for name, layer in self.entries)


class _Around(Layer):
    """A transformation of one layer, which stands in its place."""

    layer: Any

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "layer", as_layer(self.layer))
        except InputError as error:
            raise InputError(error.message, f"{type(self).__name__}.layer") from None


class Residual(_Around):
    """``x + layer(x)`` (He et al. 2015, arXiv:1512.03385). Raises when the two shapes differ."""

    def forward(self, net: Net, x: Array, *others: Any, **options: Any) -> Array:
        y = net._inner(self.layer)(x, *others, **options)
        check.same_shape(
            x, y, ("input", "output"), "a residual layer keeps the shape; project the input or choose equal widths"
        )
        return x + y


class Remat(_Around):
    """The same layer, its activations recomputed in the backward pass instead of stored (``jax.checkpoint``).

    ``policy`` is one of ``jax.checkpoint_policies``; by default nothing is stored.
    """

    policy: Callable[..., Any] | None = None

    def traverse(self, net: Net, *inputs: Any, **options: Any) -> Any:
        # without jit, as of a scan, every value is there to be looked at
        if net._collecting or net._scope.stores or getattr(jax.config, "jax_disable_jit", False):
            return net._inner(self.layer)(*inputs, **options)

        run = net._function(self.layer, options)
        remat = jax.checkpoint(lambda params, state, key: run(params, state, key, *inputs), policy=self.policy)
        output, updates = remat(*net._variables(), net._scope.key)
        net._record(updates)
        return output


class _Copies(_Around):
    """A layer and how often."""

    n: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.n, int) or self.n < 1:
            raise InputError(f"{type(self).__name__} got n={self.n!r}, wanted a whole number of copies, at least 1")


class Repeat(_Copies):
    """``n`` copies of a layer in sequence, each with its own parameters, by scan: compile time does not grow with
    ``n``.

    The layer keeps the shape of its first input; further inputs go to every copy. Parameters and state gain a leading
    axis ``[n, …]``; each copy draws its own keys.
    """

    def traverse(self, net: Net, x: Array, *others: Any, **options: Any) -> Any:
        if net._collecting:
            specs, output = net._collect_inner(self.layer, (x, *others), options)
            _check_kept(x, output)
            net._adopt(stack_specs(specs, self.n))
            return output
        check_stack(net, self.n)
        run, key = net._function(self.layer, options), net._scope.key

        def one(x: Array, copy: Any) -> tuple[Array, Any]:
            params, state, index = copy
            own = None if key is None else jax.random.fold_in(key, index)
            output, updates = run(params, state, own, x, *others)
            _check_kept(x, output)
            return output, updates

        output, updates = jax.lax.scan(one, x, (*net._variables(), jnp.arange(self.n)))
        net._record(updates)
        return output


class Ensemble(_Copies):
    """``n`` copies of a layer on the same input, each with its own parameters, by vmap: ``[n, B, …]``."""

    def traverse(self, net: Net, *inputs: Any, **options: Any) -> Any:
        if net._collecting:
            specs, output = net._collect_inner(self.layer, inputs, options)
            net._adopt(stack_specs(specs, self.n))
            return jax.tree.map(lambda y: jnp.broadcast_to(y, (self.n, *y.shape)), output)
        check_stack(net, self.n)
        run, key = net._function(self.layer, options), net._scope.key
        keys = None if key is None else jax.random.split(key, self.n)
        copies = jax.vmap(lambda params, state, key: run(params, state, key, *inputs), axis_size=self.n)
        output, updates = copies(*net._variables(), keys)
        net._record(updates)
        return output


def _check_kept(x: Any, output: Any) -> None:
    if jax.tree.map(check.describe, x) != jax.tree.map(check.describe, output):
        raise InputError(
            f"got {check.describe(x)} and returns {check.describe(output)}, wanted the same shape and dtype"
        )


def check_stack(net: Net, n: int) -> None:
    """Every array below ``net`` has the leading axis of ``n`` copies."""
    for tree in (net._params, net._state):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if leaf.ndim == 0 or leaf.shape[0] != n:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise InputError(
                    f"holds {n} copies, but {name} is {check.describe(leaf)}, wanted a leading axis of {n}; "
                    "do the variables belong to a model of another depth?"
                )
