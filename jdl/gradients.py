"""Gradients: vector fields over parameters, and what transforms one into another.

A gradient is called ``(params, state, batch, key)`` and returns ``(grads, Aux)``. Usually it is the gradient of an
objective; any function of that signature will do: a game of two players, a policy gradient, a perceptron's rule.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl import check
from jdl.check import InputError
from jdl.metrics import all_reduce
from jdl.nn.net import merge
from jdl.nn.paths import matches, paths
from jdl.nn.precision import GOOD_STEPS, LOSS_SCALE
from jdl.nn.settings import Tree
from jdl.objectives import Aux, Batch, Objective

Array = jax.Array
GradientFunction = Callable[[Tree, Tree, Batch, Array | None], tuple[Tree, Aux]]


class Gradient:
    """Base of the gradients made here; ``fit`` takes it in place of a loss; wrap yours in :class:`vector_field`."""

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None) -> tuple[Tree, Aux]:
        """A tree like ``params``, to be subtracted by the optimizer, and what comes beside it."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, params, state, batch, key)")


@dataclasses.dataclass(frozen=True)
class vector_field(Gradient):
    """A function ``(params, state, batch, key) -> (grads, Aux)`` as a :class:`Gradient`."""

    function: GradientFunction

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None) -> tuple[Tree, Aux]:
        return self.function(params, state, batch, key)


@dataclasses.dataclass(frozen=True)
class gradient(Gradient):
    """The gradient of an objective's loss with respect to the parameters, in training mode."""

    objective: Objective

    def __post_init__(self) -> None:
        if not isinstance(self.objective, Objective):
            raise InputError(
                f"gradient got {check.describe(self.objective)}, wanted an objective: supervised(model, loss)"
            )

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None) -> tuple[Tree, Aux]:
        def loss(params: Tree) -> tuple[Array, Aux]:
            return self.objective(params, state, batch, key, True)

        (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(params)
        return grads, aux


def as_gradient(value: Any) -> GradientFunction:
    """A gradient as it is, an objective as the gradient of it."""
    if isinstance(value, Objective):
        return gradient(value)
    if not callable(value):
        raise InputError(f"got {check.describe(value)}, wanted a gradient or an objective")
    return value  # pyright: ignore[reportReturnType]


@dataclasses.dataclass(frozen=True)
class _Transformed(Gradient):
    """A gradient made from another, or from an objective."""

    gradient: GradientFunction | Objective

    def __post_init__(self) -> None:
        as_gradient(self.gradient)  # refuses what is neither

    @property
    def field(self) -> GradientFunction:
        """The gradient that is transformed."""
        return as_gradient(self.gradient)


@dataclasses.dataclass(frozen=True)
class accumulate(_Transformed):
    """The gradient of a large batch from ``microbatches`` smaller ones, one after another.

    Each microbatch counts by its ``Aux.weight``, so a loss that is a weighted mean with one weight gives the whole
    batch's gradient, also where masks make microbatches unequal or empty. Losses across examples (contrastive, batch
    dice) and layers with batch statistics see microbatches, not the batch.

    Raises:
        InputError: the batch does not divide, or terms of a sum, or players of a game, have weights of their own.
    """

    microbatches: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.microbatches, int) or self.microbatches < 1:
            raise InputError(f"microbatches got {self.microbatches!r}, wanted an integer of at least 1")

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None) -> tuple[Tree, Aux]:
        parts = jax.tree.map(self._divide, batch)

        def one(total: tuple[Any, ...], item: tuple[Array, Batch]) -> tuple[tuple[Any, ...], dict[str, Any]]:
            state, grads, loss, weight = total
            index, part = item
            own = None if key is None else jax.random.fold_in(key, index)
            g, aux = self.field(params, state, part, own)
            # An empty microbatch counts for next to nothing, and for a full share where all are empty.
            w = jnp.maximum(_one_weight(aux), 1e-20)
            grads = jax.tree.map(lambda a, b: a + w.astype(a.dtype) * b.astype(a.dtype), grads, g)
            return (aux.state, grads, loss + w * aux.loss, weight + w), aux.metrics

        zero = jnp.zeros(())
        start = (state, jax.tree.map(lambda p: jnp.zeros(p.shape, _wide(p)), params), zero, zero)
        axes = frozenset().union(*map(check.manual_axes, jax.tree.leaves((params, batch))))
        start = jax.tree.map(lambda x: _vary(x, axes), start)  # under shard_map, what the scan adds differs by device
        (state, grads, loss, weight), metrics = jax.lax.scan(one, start, (jnp.arange(self.microbatches), parts))
        grads = jax.tree.map(lambda g, p: (g / weight.astype(g.dtype)).astype(p.dtype), grads, params)
        return grads, Aux(loss / weight, weight, state, merge_stacked(metrics))

    def _divide(self, x: Any) -> Array:
        n = self.microbatches
        if x.shape[0] % n:
            raise InputError(f"accumulate got {check.describe(x)}, wanted a batch that divides into {n} microbatches")
        return jnp.reshape(x, (n, x.shape[0] // n, *x.shape[1:]))


@dataclasses.dataclass(frozen=True)
class per_example_gradients(_Transformed):
    """The gradient of every example alone, by vmap: leaves ``[B, …]``, and an ``Aux`` of ``[B]`` entries.

    Raises:
        InputError: the model updates state, which one example alone cannot do.
    """

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None) -> tuple[Tree, Aux]:
        size = jax.tree.leaves(batch)[0].shape[0]

        def one(example: Batch, index: Array) -> tuple[Tree, Aux]:
            example = jax.tree.map(lambda x: x[None], example)
            own = None if key is None else jax.random.fold_in(key, index)
            grads, aux = self.field(params, state, example, own)
            if any(new is not old for new, old in zip(jax.tree.leaves(aux.state), jax.tree.leaves(state), strict=True)):
                raise InputError(
                    "per-example gradients got a model that updates its state (batch statistics?); use another norm"
                )
            return grads, dataclasses.replace(aux, state={})

        grads, aux = jax.vmap(one)(batch, jnp.arange(size))
        return grads, dataclasses.replace(aux, state=state)


@dataclasses.dataclass(frozen=True)
class clip_per_example(_Transformed):
    """The weighted mean of per-example gradients, each scaled down to a global norm of at most ``max_norm``.

    Abadi et al. 2016, arXiv:1607.00133, without the noise.
    """

    max_norm: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.max_norm < float("inf"):
            raise InputError(f"max_norm got {self.max_norm!r}, wanted a positive number")

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None) -> tuple[Tree, Aux]:
        grads, aux = per_example_gradients(self.field)(params, state, batch, key)
        leaves = jax.tree.leaves(grads)
        squares = [jnp.sum(jnp.square(g.astype(jnp.float32)), axis=tuple(range(1, g.ndim))) for g in leaves]
        norms = jnp.sqrt(jnp.stack(squares).sum(axis=0))
        weight = jnp.broadcast_to(_one_weight(aux), norms.shape)
        total = jnp.sum(weight)
        share = weight / jnp.where(total > 0, total, 1)
        factor = share * self.max_norm / jnp.maximum(norms, self.max_norm)
        clipped = jax.tree.map(lambda g: jnp.tensordot(factor.astype(g.dtype), g, axes=1), grads)
        return clipped, Aux(jnp.sum(share * aux.loss), total, aux.state, merge_stacked(aux.metrics))


@dataclasses.dataclass(frozen=True)
class sharpness_aware(_Transformed):
    """The gradient at the point ``radius`` uphill from the parameters (Foret et al. 2021, arXiv:2010.01412).

    Loss, state and metrics are those of the parameters themselves.
    """

    radius: float = 0.05

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None) -> tuple[Tree, Aux]:
        grads, aux = self.field(params, state, batch, key)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g.astype(jnp.float32))) for g in jax.tree.leaves(grads)))
        scale = self.radius / jnp.maximum(norm, 1e-12)
        uphill = jax.tree.map(lambda p, g: p + scale.astype(p.dtype) * g, params, grads)
        return self.field(uphill, state, batch, key)[0], aux


@dataclasses.dataclass(frozen=True)
class mean_over_devices(_Transformed):
    """The gradient of the batch of all devices along a mapped axis: each device counts by its ``Aux.weight``.

    For use under ``jax.vmap`` or ``jax.shard_map`` with ``axis_name``; state is averaged (integers: the largest),
    metrics are merged.
    """

    axis_name: str

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None) -> tuple[Tree, Aux]:
        own = None if key is None else jax.random.fold_in(key, jax.lax.axis_index(self.axis_name))
        grads, aux = self.field(_own_copy(params, batch, self.axis_name), state, batch, own)
        weight = _one_weight(aux)
        total = jax.lax.psum(weight, self.axis_name)
        share = weight / jnp.where(total > 0, total, 1)
        grads = jax.tree.map(lambda g: jax.lax.psum(share.astype(g.dtype) * g, self.axis_name), grads)
        state = jax.tree.map(lambda s: _shared(s, self.axis_name), aux.state)
        metrics = {name: all_reduce(metric, self.axis_name) for name, metric in aux.metrics.items()}
        return grads, Aux(jax.lax.psum(share * aux.loss, self.axis_name), total, state, metrics)


@dataclasses.dataclass(frozen=True)
class loss_scaled(_Transformed):
    """The gradient of a float16 model, taken of the loss times a scale, so that small values do not vanish on the way.

    Gradients are divided by the scale, in float32; ``Aux.loss`` is the loss itself. The scale stands in the state of
    ``nn.Precision(model, "float16")``. A gradient that is not finite halves it, leaves the rest of the state as it was,
    and is returned as it is, for :func:`jdl.skip_nonfinite` to skip; ``interval`` finite ones in a row double it
    (Micikevicius et al. 2018, arXiv:1710.03740; the rule of PyTorch's GradScaler).

    Takes an objective, or what scales with the loss of one: :class:`accumulate`, :class:`sharpness_aware` or
    :class:`mean_over_devices`.

    >>> optimizer = jdl.skip_nonfinite(optax.adam(1e-3))
    >>> jdl.fit(nn.Precision(net, "float16"), jdl.loss_scaled(objective), optimizer, data, epochs=20)

    Raises:
        InputError: another gradient, an interval below 1, or a state that holds no scale, or more than one.
    """

    interval: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        _with_scaled_loss(self.gradient)  # refuses what cannot be scaled from outside
        if not isinstance(self.interval, int) or self.interval < 1:
            raise InputError(f"interval got {self.interval!r}, wanted a number of steps, at least 1")

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None) -> tuple[Tree, Aux]:
        place = _place_of_scale(state)
        scale, good = (_at(state, (*place, name)) for name in (LOSS_SCALE, GOOD_STEPS))
        grads, aux = _with_scaled_loss(self.gradient)(params, state, batch, key)
        grads = jax.tree.map(lambda g: (g.astype(_wide(g)) / scale.astype(_wide(g))).astype(g.dtype), grads)
        finite = functools.reduce(jnp.logical_and, [jnp.all(jnp.isfinite(g)) for g in jax.tree.leaves(grads)], True)
        due = finite & (good + 1 >= self.interval)
        new = {
            LOSS_SCALE: jnp.where(finite, jnp.where(due & jnp.isfinite(2 * scale), 2 * scale, scale), _halved(scale)),
            GOOD_STEPS: jnp.where(finite & ~due, good + 1, 0).astype(good.dtype),
        }
        kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), aux.state, state)
        return grads, dataclasses.replace(aux, state=merge(kept, {place: new}))


@dataclasses.dataclass(frozen=True)
class _TimesScale(Objective):
    """An objective times the loss scale in its state, in float32; what it reports stays as it is."""

    objective: Objective

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None, train: bool) -> tuple[Array, Aux]:
        loss, aux = self.objective(params, state, batch, key, train)
        scale = _at(state, (*_place_of_scale(state), LOSS_SCALE))
        return loss.astype(scale.dtype) * scale, aux


def _with_scaled_loss(value: Any) -> GradientFunction:
    """The gradient with its objective times the loss scale; whatever stands around that must scale with it."""
    if isinstance(value, Objective):
        return gradient(_TimesScale(value))
    if isinstance(value, gradient):
        return gradient(_TimesScale(value.objective))
    if isinstance(value, (accumulate, sharpness_aware, mean_over_devices)):
        return dataclasses.replace(value, gradient=_with_scaled_loss(value.gradient))
    raise InputError(
        f"loss_scaled got {check.describe(value)}, wanted an objective, or accumulate, sharpness_aware or "
        "mean_over_devices of one, whose gradients scale with the loss; use bfloat16, which needs no scale"
    )


def _place_of_scale(state: Tree) -> tuple[str, ...]:
    """Where in the state the one loss scale stands."""
    found = [path for path in paths(state) if matches(f"**/{LOSS_SCALE}", path)]
    if len(found) != 1:
        got = f"{len(found)} loss scales ({', '.join(found)})" if found else "no loss scale"
        raise InputError(
            f'loss_scaled got a state with {got}, wanted one; wrap the whole model: nn.Precision(model, "float16")'
        )
    place = tuple(found[0].split("/")[:-1])
    if (scale := _at(state, (*place, LOSS_SCALE))).shape != ():
        raise InputError(
            f"{found[0]} is {check.describe(scale)}, wanted a scalar; put nn.Precision around Repeat or Ensemble"
        )
    return place


def _at(tree: Tree, path: tuple[str, ...]) -> Array:
    return functools.reduce(lambda below, name: below[name], path, tree)  # pyright: ignore[reportReturnType]


def _halved(scale: Array) -> Array:
    """Half of it, but never 0."""
    return jnp.maximum(scale / 2, jnp.finfo(scale.dtype).tiny)


def merge_stacked(metrics: dict[str, Any]) -> dict[str, Any]:
    """Merge metric states stacked along a leading axis into one."""
    if not metrics:
        return {}

    def add(total: Any, state: Any) -> tuple[Any, None]:
        return merge_reports(total, state), None

    first = jax.tree.map(lambda x: x[0], metrics)
    return jax.lax.scan(add, first, jax.tree.map(lambda x: x[1:], metrics))[0]


def merge_reports(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Two reports as one: metric states add up."""
    return {name: a[name] + b[name] for name in a}


def _one_weight(aux: Aux) -> Array:
    if isinstance(aux.weight, tuple):
        raise InputError(
            "got terms of a sum, or players of a game, that average over weights of their own, which parts of a batch "
            "cannot reproduce; let all average by one mask, supervised(..., mask=...), or leave masks out"
        )
    return jnp.asarray(1.0 if aux.weight is None else aux.weight, jnp.float32)


def _own_copy(params: Tree, batch: Batch, axis_name: str) -> Tree:
    """Parameters that shard_map replicates would have their gradients summed already: make them this device's own."""
    sharded = any(axis_name in check.manual_axes(leaf) for leaf in jax.tree.leaves(batch))
    return jax.tree.map(lambda p: _vary(p, {axis_name}), params) if sharded else params


def _shared(x: Array, axis_name: str) -> Array:
    """One state for all devices: the mean, or of integers the largest."""
    return (jax.lax.pmean if jnp.issubdtype(x.dtype, jnp.inexact) else jax.lax.pmax)(x, axis_name)


def _vary(x: Array, axes: Any) -> Array:
    """``x`` as an array that may differ along these mesh axes."""
    missing = tuple(sorted(set(axes) - check.manual_axes(x)))
    return jax.lax.pcast(x, missing, to="varying") if missing else x


def _wide(p: Array) -> Any:
    """The dtype to add up in: the parameter's own, float32 at least."""
    return p.dtype if p.dtype.itemsize >= 4 else jnp.float32
