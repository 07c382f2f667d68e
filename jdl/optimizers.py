"""What wraps an optimizer, and what is read from its state.

Each is an optax transformation, so that it composes with all others. What it keeps stands in ``opt_state``, where a
selector finds it, however deep in ``optax.chain``, ``masked`` or ``inject_hyperparams``. Selectors take a
:class:`jdl.TrainState` or an ``opt_state`` alone; of runs that ``vmap`` trains together, their numbers are ``[runs]``.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from jdl import check
from jdl.check import Array, InputError
from jdl.nn.paths import label
from jdl.nn.settings import Tree

S = TypeVar("S")


class SkipState(NamedTuple):
    """What :func:`skip_nonfinite` keeps: how many steps were skipped, in a row up to now and in all."""

    inner: Any
    consecutive: Array
    total: Array
    limit: Array


def skip_nonfinite(optimizer: optax.GradientTransformation, limit: int = 10) -> optax.GradientTransformationExtraArgs:
    """An optimizer that leaves out a step in which something is not finite: updates of 0, and its state as it was.

    What is looked at: the loss, where it comes as ``value``; the gradient; the update; and every number of the
    optimizer's state that was finite before, as the second moment of a gradient of 1e20 is not. Put it around the
    whole chain. :func:`skipped` finds the counts. Unlike ``optax.apply_if_finite`` it never applies such an update:
    after ``limit`` of them in a row ``fit`` ends the run.

    In :class:`jdl.make_step` a skipped step counts for nothing in the metrics, and an array of the model's state keeps
    its old value where the new one is not finite.

    >>> optimizer = jdl.skip_nonfinite(optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3)))

    Raises:
        InputError: ``limit`` is no integer of at least 1.
    """
    wrapped = _wrapped("skip_nonfinite", optimizer)
    _check_count("limit", limit)

    def init(params: Tree) -> SkipState:
        return SkipState(wrapped.init(params), *(jnp.full((), count, jnp.int32) for count in (0, 0, limit)))

    def update(grads: Tree, state: SkipState, params: Tree | None = None, **extra: Any) -> tuple[Tree, SkipState]:
        updates, inner = wrapped.update(grads, state.inner, params, **extra)
        bad = _any_not_finite(extra.get("value"), grads, updates, inner, state.inner)
        updates = jax.tree.map(lambda update: jnp.where(bad, jnp.zeros_like(update), update), updates)
        inner = jax.tree.map(lambda new, old: jnp.where(bad, old, new), inner, state.inner)
        consecutive = jnp.where(bad, state.consecutive + 1, 0)
        limit_now = jnp.full((), limit, jnp.int32)  # a run that goes on with another limit has the new one
        return updates, SkipState(inner, consecutive, state.total + bad.astype(jnp.int32), limit_now)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def skipped(state: Any) -> SkipState | None:
    """The first :class:`SkipState` in an optimizer's state, with ``consecutive``, ``total`` and ``limit``, or None."""
    return next(iter(find(state, SkipState)), None)


def still_finite(new: Array, old: Array) -> Array:
    """``new``, or ``old`` where that was finite and ``new`` is not any more."""
    return new if new is old or not _is_inexact(new) else jnp.where(jnp.any(_spoilt(new, old)), old, new)


class NormState(NamedTuple):
    """What :func:`record_norms` keeps: global L2 norms, in float32, and how many steps there were."""

    inner: Any
    step: Array
    gradient: Array
    update: Array
    parameters: Array


def record_norms(optimizer: optax.GradientTransformation, every: int = 1) -> optax.GradientTransformationExtraArgs:
    """An optimizer that records how large what goes in and comes out is, at each step; :func:`norms` reads it.

    The global L2 norms of the gradient as it comes in (so put it around the whole chain, outside of clipping), of the
    update, and of the parameters before it. They take three passes over the parameters, which tells where a step does
    little else (784-128-10, batch 32, CPU: +50%); with ``every=10``, at the first step and each tenth after, +15%.

    Raises:
        InputError: ``every`` is no integer of at least 1; or, in a step, there are no parameters.
    """
    wrapped = _wrapped("record_norms", optimizer)
    _check_count("every", every)

    def init(params: Tree) -> NormState:
        zero = jnp.zeros((), jnp.float32)
        return NormState(wrapped.init(params), jnp.zeros((), jnp.int32), zero, zero, zero)

    def update(grads: Tree, state: NormState, params: Tree | None = None, **extra: Any) -> tuple[Any, NormState]:
        _need_params("record_norms", params)
        updates, inner = wrapped.update(grads, state.inner, params, **extra)

        def measure() -> tuple[Array, ...]:
            return tuple(map(_norm, (grads, updates, params)))

        found = measure() if every == 1 else jax.lax.cond(state.step % every == 0, measure, lambda: tuple(state[2:]))
        return updates, NormState(inner, _next(state.step), *found)

    return optax.GradientTransformationExtraArgs(init, update)  # pyright: ignore[reportArgumentType]


def norms(state: Any) -> dict[str, Array] | None:
    """``gradient``, ``update`` and ``parameters`` of the last step that :func:`record_norms` measured, else None."""
    found = find(state, NormState)
    return {name: getattr(found[0], name) for name in NormState._fields[2:]} if found else None


class ScaleState(NamedTuple):
    """What :func:`scale_updates` counts where a factor follows a schedule."""

    step: Array


def scale_updates(factors: Mapping[str, Any]) -> optax.GradientTransformation:
    """Updates times a factor by path pattern, the first match wins: learning rates by group. Put it last in a chain.

    A factor is a number or a schedule. Weight decay that the chain applies before is scaled alike. A factor of 0 keeps
    parameters where they are, but :func:`jdl.freeze` does that without gradients and moments for them.

    >>> optax.chain(optax.adamw(1e-3), jdl.scale_updates({"encoder/**": 0.1, "**": 1.0}))

    Raises:
        InputError: a factor is something else, or, once there are parameters, a pattern matches nothing or a path is
        left without a factor.
    """
    if not isinstance(factors, Mapping) or not factors:
        raise InputError(f"scale_updates got {check.describe(factors)}, wanted a dict of path patterns to factors")
    for pattern, factor in factors.items():
        if not callable(factor) and not (isinstance(factor, Real) and math.isfinite(factor)):
            raise InputError(f"scale_updates got {pattern!r}: {check.describe(factor)}, wanted a number or a schedule")
    patterns, scheduled = label({pattern: pattern for pattern in factors}), any(map(callable, factors.values()))

    def init(params: Tree) -> ScaleState | optax.EmptyState:
        patterns(params)  # refuses what matches nothing, before the first step
        return ScaleState(jnp.zeros((), jnp.int32)) if scheduled else optax.EmptyState()

    def update(updates: Tree, state: Any, params: Tree | None = None) -> tuple[Tree, Any]:
        now = {pattern: factor(state.step) if callable(factor) else factor for pattern, factor in factors.items()}
        scaled = jax.tree.map(lambda update, pattern: _times(update, now[pattern]), updates, patterns(updates))
        return scaled, ScaleState(_next(state.step)) if scheduled else state

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


class AverageState(NamedTuple):
    """The running average that :func:`average_params` keeps."""

    average: Tree


def average_params(decay: float = 0.999) -> optax.GradientTransformation:
    """An exponential moving average of the parameters; put it last in ``optax.chain``.

    ``average = decay * average + (1 - decay) * params`` after each update, starting from the first parameters. Updates
    pass unchanged; :func:`jdl.eval_params` finds the average. In ``optax.masked`` or ``multi_transform`` it averages
    the parameters of its group alone, and the others are evaluated as they are.
    """
    if not check.is_array(decay) and not (isinstance(decay, (int, float)) and 0 <= decay < 1):
        raise InputError(f"decay got {check.describe(decay)}, wanted a number from 0 to less than 1")

    def init(params: Tree) -> AverageState:
        return AverageState(params)

    def update(updates: Tree, state: AverageState, params: Tree | None = None) -> tuple[Tree, AverageState]:
        new: Any = optax.apply_updates(_need_params("average_params", params), updates)
        average: Any = optax.incremental_update(new, state.average, 1 - decay)
        return updates, AverageState(average)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def averaged(state: Any, params: Tree) -> Tree:
    """The parameters with each replaced by its average, where an optimizer's state keeps one; the first one counts."""
    for kept in reversed(find(state, AverageState, optax.contrib.ScheduleFreeState)):
        if isinstance(kept, AverageState):
            params = _or_masked(kept.average, params)
        else:
            own = jax.tree.map(lambda z, p: z if _is_masked(z) else p, kept.z, params, is_leaf=_is_masked)
            params = _or_masked(optax.contrib.schedule_free_eval_params(kept, own), params)
    return params


def hyperparams(state: Any) -> dict[str, Array]:
    """The hyper-parameters that stand in an optimizer's state, by name: those of ``optax.inject_hyperparams``.

    A name that several parts of the optimizer have is told apart by where: ``slow/learning_rate``, ``0/learning_rate``.
    One that follows a schedule has the value of the last step.
    """
    leaves = jax.tree.leaves(_opt_state(state))
    return {name: leaves[place] for name, (place, _) in _injected(_opt_state(state)).items()}


def with_hyperparams(state: S, **values: Any) -> S:
    """The state with other hyper-parameters, of the same shape and dtype, so that nothing compiles again.

    >>> optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)
    >>> state = jdl.with_hyperparams(state, learning_rate=1e-4)

    Raises:
        InputError: a name that is not there (the message lists those that are), one that follows a schedule, or a value
        of another shape.
    """
    opt_state = _opt_state(state)
    leaves, structure = jax.tree.flatten(opt_state)
    injected = _injected(opt_state)
    for name, value in values.items():
        if name not in injected:
            raise InputError(
                f"there is no hyper-parameter {name!r} in the optimizer's state, which has "
                f"{', '.join(injected) or 'none'}; make the optimizer by optax.inject_hyperparams(optax.adam)"
                "(learning_rate=1e-3)"
            )
        place, follows = injected[name]
        if follows:
            raise InputError(f"{name} follows a schedule, which would overrule {value!r}; give the optimizer a number")
        leaves[place] = _like(leaves[place], value, name)
    opt_state = jax.tree.unflatten(structure, leaves)
    return opt_state if _opt_state(state) is state else dataclasses.replace(state, opt_state=opt_state)  # pyright: ignore


def find(state: Any, *kinds: type) -> list[Any]:
    """The values of these types in an optimizer's state, from the outside in, but none inside another of them."""
    is_one = lambda item: isinstance(item, kinds)  # noqa: E731
    return [item for item in jax.tree.leaves(_opt_state(state), is_leaf=is_one) if is_one(item)]


def _opt_state(state: Any) -> Any:
    """That of a TrainState; anything else is one."""
    return getattr(state, "opt_state", state) if dataclasses.is_dataclass(state) else state


def _wrapped(name: str, optimizer: Any) -> optax.GradientTransformationExtraArgs:
    if not hasattr(optimizer, "update"):
        raise InputError(f"{name} got {check.describe(optimizer)}, wanted an optax optimizer: {name}(optax.adam(1e-3))")
    return optax.with_extra_args_support(optimizer)


def _check_count(name: str, count: Any) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise InputError(f"{name} got {check.describe(count)}, wanted an integer of at least 1")


def _next(step: Array) -> Array:
    return jnp.asarray(optax.safe_increment(step))


def _need_params(name: str, params: Tree | None) -> Tree:
    if params is None:
        raise InputError(f"{name} needs the parameters; call update(updates, state, params)")
    return params


def _any_not_finite(value: Any, grads: Any, updates: Any, inner: Any, old: Any) -> Array:
    """Whether the loss, a gradient or an update is not finite, or a number of the state is not any more.

    What belongs to one parameter, its moments among it, is looked at in one pass: each costs memory traffic.
    """
    structure = jax.tree.structure(grads)

    def parts(tree: Any) -> list[Any]:
        """The trees in a state that are like the gradient, and its other leaves."""
        return jax.tree.leaves(tree, is_leaf=lambda node: jax.tree.structure(node) == structure)

    flags: dict[Any, Array] = {}
    pairs = [(value, value), (grads, grads), (updates, updates)]
    for number, (new, old_part) in enumerate([*pairs, *zip(parts(inner), parts(old), strict=True)]):
        alike = jax.tree.structure(new) == structure
        leaves = zip(jax.tree.leaves(new), jax.tree.leaves(old_part), strict=True)
        for place, (leaf, before) in enumerate(leaves):
            if _is_inexact(leaf):
                flag = ~jnp.isfinite(leaf) if number < len(pairs) else _spoilt(leaf, before)
                key = (place, jnp.shape(leaf)) if alike else (number, place, "alone")
                flags[key] = flags[key] | flag if key in flags else flag
    return functools.reduce(jnp.logical_or, map(jnp.any, flags.values()), jnp.zeros((), bool))


def _spoilt(new: Array, old: Array) -> Array:
    """Where a number was finite and is not any more. Some states hold an infinity from the start."""
    return ~jnp.isfinite(new) & jnp.isfinite(old)


def _is_inexact(x: Any) -> bool:
    return jnp.issubdtype(x.dtype if check.is_array(x) else jnp.result_type(x), jnp.inexact)  # a key has no result type


def _norm(tree: Any) -> Array:
    squares = [jnp.sum(jnp.square(jnp.abs(leaf).astype(jnp.float32))) for leaf in jax.tree.leaves(tree)]
    return jnp.sqrt(sum(squares, start=jnp.zeros((), jnp.float32)))


def _times(update: Array, factor: Any) -> Array:
    if isinstance(factor, Real) and factor in (0, 1):
        return update if factor else jnp.zeros_like(update)
    return update * jnp.asarray(factor).astype(update.dtype)


def _is_masked(x: Any) -> bool:
    return isinstance(x, optax.MaskedNode)


def _or_masked(tree: Tree, other: Tree) -> Tree:
    """``tree``, and what a mask left out of it from ``other``."""
    return jax.tree.map(lambda own, whole: whole if _is_masked(own) else own, tree, other, is_leaf=_is_masked)


def _injected(opt_state: Any) -> dict[str, tuple[int, bool]]:
    """Hyper-parameters by name: their place among the leaves, and whether they follow a schedule."""
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(opt_state)]
    found = [(place, path) for place, path in enumerate(paths) if _names(path)[-2:-1] == ["hyperparams"]]
    states = {(*path[:depth], path[depth + 1]) for path in paths for depth in _depths(path, "hyperparams_states")}
    spellings = [_spellings(path) for _, path in found]
    counts = collections.Counter(text for several in spellings for text in set(several))
    names = [next(text for text in several if counts[text] == 1) for several in spellings]
    return {name: (place, (*path[:-2], path[-1]) in states) for name, (place, path) in zip(names, found, strict=True)}


def _names(path: Iterable[Any]) -> list[str]:
    return [jax.tree_util.keystr((key,), simple=True) for key in path]


def _depths(path: tuple[Any, ...], name: str) -> list[int]:
    return [depth for depth, own in enumerate(_names(path)[:-1]) if own == name]


def _spellings(path: tuple[Any, ...]) -> tuple[str, str, str]:
    """What a hyper-parameter may be called, the shortest first: its name, with the part it stands in, its path."""
    *parts, _, name = path
    inside = [text for key, text in zip(parts, _names(parts), strict=True) if not hasattr(key, "name")]
    return _names((name,))[0], "/".join([*inside, *_names((name,))]), "/".join(_names(path))


def _like(old: Array, value: Any, name: str) -> Array:
    """A value as an array that a compiled program takes in the place of ``old``."""
    given = value if check.is_array(value) else np.asarray(value)
    whole = jnp.issubdtype(old.dtype, jnp.integer)
    if given.shape not in ((), old.shape) or not jnp.issubdtype(given.dtype, jnp.integer if whole else jnp.number):
        raise InputError(f"{name} got {check.describe(value)}, wanted a number like the {check.describe(old)} there")
    new = jnp.broadcast_to(jnp.array(given, old.dtype, copy=True), old.shape)
    return jax.device_put(new, old.sharding) if getattr(old, "committed", False) else new
