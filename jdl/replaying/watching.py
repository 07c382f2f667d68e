"""One pass of an objective, forward and backward, with numbers about every value that its layers get and give."""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import get_opaque_trace_state

from jdl import check
from jdl.nn.core import Layer
from jdl.nn.probing import Recording, Seen, recorded, zero_shifts
from jdl.nn.settings import Settings, Tree, Variables
from jdl.objectives import Aux, Batch, Objective

Array = jax.Array


@functools.partial(jax.tree_util.register_dataclass, data_fields=["parts"], meta_fields=["dtype", "shape", "leads"])
@dataclasses.dataclass(frozen=True)
class Numbers:
    """About one floating array: how many of its values are NaN, inf and -inf, and the range of the others.

    ``parts`` holds the five, of every example ``[B]`` where the array ``leads`` with the batch axis, else of the whole.
    """

    parts: tuple[Any, Any, Any, Any, Any]
    dtype: str
    shape: tuple[int, ...]
    leads: bool

    @property
    def counts(self) -> dict[str, int]:
        """How many values are not finite, by kind."""
        return {kind: int(np.sum(part)) for kind, part in zip(("NaN", "inf", "-inf"), self.parts, strict=False)}

    @property
    def bad(self) -> int:
        """How many values are not finite."""
        return sum(self.counts.values())

    @property
    def low(self) -> float:
        """The smallest finite value; inf where there is none."""
        return float(np.min(self.parts[3], initial=np.inf))

    @property
    def high(self) -> float:
        """The largest finite value; -inf where there is none."""
        return float(np.max(self.parts[4], initial=-np.inf))

    @property
    def examples(self) -> list[int]:
        """The examples with a value that is not finite, where the array has one entry for each."""
        return np.flatnonzero(sum(self.parts[:3])).tolist() if self.leads else []


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["inputs", "output", "back_inputs", "back_output"],
    meta_fields=["path", "layer", "depth"],
)
@dataclasses.dataclass(frozen=True)
class Use:
    """One use of a layer: numbers of its inputs and output, and of the loss's gradient at both."""

    path: str
    layer: Settings
    depth: int
    inputs: Any
    output: Any
    back_inputs: Any
    back_output: Any


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["loss", "terms", "uses", "grads", "aux"], meta_fields=["names"]
)
@dataclasses.dataclass(frozen=True)
class Look:
    """What one pass showed: the loss, its terms by name, the uses of layers, and the gradient as numbers by path."""

    loss: Numbers
    terms: list[Numbers]
    names: tuple[str, ...]
    uses: list[Use]
    grads: Tree
    aux: Aux


def numbers(tree: Any, batch_size: int | None = None) -> Any:
    """:class:`Numbers` in place of every floating array, None in place of everything else."""
    return jax.tree.map(functools.partial(_numbers, batch_size=batch_size), floating(tree))


def floating(tree: Any) -> Any:
    """The floating arrays of a tree, None in place of everything else."""
    return jax.tree.map(lambda x: x if _is_floating(x) else None, tree)


def bad(tree: Any) -> bool:
    """Whether any of these numbers tells of a value that is not finite."""
    return any(one.bad for one in listed(tree))


def listed(tree: Any) -> list[Numbers]:
    """All numbers in a tree."""
    return jax.tree.leaves(tree, is_leaf=lambda leaf: isinstance(leaf, Numbers))


def named(tree: Any) -> dict[str, Numbers]:
    """All numbers in a tree by the paths of their arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda leaf: isinstance(leaf, Numbers))
    return {jax.tree_util.keystr(path, simple=True, separator="/"): one for path, one in leaves}


def mended(tree: Any, number: int) -> Any:
    """The tree with ``number`` in place of what is not finite."""
    return jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, number) if _is_floating(x) else x, tree)


def size_of(batch: Batch) -> int | None:
    """The number of examples: the leading axis of the first array."""
    return next((leaf.shape[0] for leaf in jax.tree.leaves(batch) if getattr(leaf, "ndim", 0)), None)


def look(objective: Objective, params: Tree, state: Tree, batch: Batch, key: Array | None, mend: Array) -> Look:
    """One pass in training mode. The outputs of the uses numbered in ``mend`` are made finite.

    Inside the pass zeros are added to every input and output of a layer: the gradients with respect to them are those
    of the loss there.
    """

    def forward(params: Tree, shifts: tuple[Any, Any]) -> tuple[Array, tuple[list[Seen], list[Array], Aux]]:
        watcher = _Watcher(shifts[0], shifts[1], mend)
        loss, aux = _watched(objective, watcher)(params, state, batch, key, True)
        seen = [dataclasses.replace(s, inputs=floating(s.inputs), output=floating(s.output)) for s in watcher.seen()]
        names[:] = [name for name, _ in watcher.terms]
        return loss, (seen, [term for _, term in watcher.terms], aux)

    names: list[str] = []
    abstract = jax.eval_shape(lambda params: forward(params, (None, None))[1][0], params)
    inputs = zero_shifts([dataclasses.replace(seen, output=seen.inputs) for seen in abstract])
    shifts = (zero_shifts(abstract), inputs)
    (loss, (seen, terms, aux)), (grads, back) = jax.value_and_grad(forward, (0, 1), has_aux=True)(params, shifts)
    about = functools.partial(numbers, batch_size=size_of(batch))
    uses = [
        Use(one.path, one.layer, one.depth, *map(about, (one.inputs, one.output, back_inputs, back_output)))
        for one, back_output, back_inputs in zip(seen, *back, strict=True)
    ]
    return Look(numbers(loss), numbers(terms), tuple(names), uses, numbers(grads), aux)


class _Watcher(Recording):
    """Records uses of layers, over all models of an objective, and the losses of its terms."""

    def __init__(self, shifts: Any, entering: Any, mend: Array):
        super().__init__(shifts, entering)
        self.mend = mend
        self.terms: list[tuple[str, Array]] = []

    def end(self, call: int, output: Any) -> Any:
        if call >= 0:
            output = jax.tree.map(lambda y: _mend(y, jnp.any(self.mend == call)) if _is_floating(y) else y, output)
        return super().end(call, output)

    def note(self, name: str, loss: Array) -> None:
        if get_opaque_trace_state() == self._trace:
            self.terms.append((name, loss))


class _Watched(Layer):
    """A model, its passes recorded."""

    layer: Any
    watcher: Any

    def apply(
        self, params: Tree, state: Tree, /, *inputs: Any, key: Array | None = None, train: bool = False, **options: Any
    ) -> tuple[Any, Tree]:
        variables = Variables(params, state)
        return recorded(self.layer, variables, inputs, options, key=key, train=train, recorder=self.watcher)

    def __getattr__(self, name: str) -> Any:
        return getattr(object.__getattribute__(self, "layer"), name)


@dataclasses.dataclass(frozen=True)
class _Term(Objective):
    """An objective that is no sum of others, its loss noted."""

    objective: Objective
    name: str
    watcher: _Watcher

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None, train: bool) -> tuple[Array, Aux]:
        loss, aux = self.objective(params, state, batch, key, train)
        self.watcher.note(self.name, loss)
        return loss, aux


def _watched(value: Any, watcher: _Watcher) -> Any:
    """A copy of an objective, with every model and term that stands in its fields watched."""
    if isinstance(value, Layer):
        return _Watched(value, watcher)
    if isinstance(value, dict):
        return {name: _watched(item, watcher) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_watched(item, watcher) for item in value)
    if not isinstance(value, Objective):
        return value
    twin = copy.copy(value)
    for name, item in vars(value).items():
        object.__setattr__(twin, name, _watched(item, watcher))
    whole = not any(isinstance(item, Objective) for item in jax.tree.leaves(tuple(vars(value).values())))
    return _Term(twin, _name(value), watcher) if whole else twin


def _name(objective: Any) -> str:
    loss = getattr(objective, "loss", None)
    if callable(loss):
        return getattr(loss, "__name__", None) or check.describe(loss)
    return getattr(objective, "name", None) or type(objective).__name__


def _is_floating(x: Any) -> bool:
    return check.is_array(x) and jnp.issubdtype(x.dtype, jnp.inexact)


def _mend(y: Array, here: Array) -> Array:
    return jnp.where(here & ~jnp.isfinite(y), jnp.zeros_like(y), y)


def _numbers(x: Any, batch_size: int | None) -> Numbers:
    leads = x.ndim > 0 and x.shape[0] == batch_size
    # What is no tracer is counted by NumPy, as jax would compile a program for every shape.
    traced = isinstance(x, Tracer)
    return Numbers((_reduced if traced else _counted)(x, range(int(leads), x.ndim)), x.dtype.name, x.shape, leads)


def _reduced(x: Array, axes: range) -> Any:
    """The parts in one reduction, which compiles in a fifth of the time of five."""
    size = _size(x, jnp)
    kinds = [kind.astype(jnp.int32) for kind in (jnp.isnan(size), jnp.isposinf(size), jnp.isneginf(size))]
    finite, infinity = jnp.isfinite(size), np.asarray(np.inf, size.dtype)
    none = np.int32(0)

    def add(a: Any, b: Any) -> Any:
        return (*(x + y for x, y in zip(a[:3], b[:3], strict=True)), jnp.minimum(a[3], b[3]), jnp.maximum(a[4], b[4]))

    values = (*kinds, jnp.where(finite, size, infinity), jnp.where(finite, size, -infinity))
    return tuple(jax.lax.reduce(values, (none, none, none, infinity, -infinity), add, tuple(axes)))


def _counted(x: Any, axes: range) -> Any:
    size, over = _size(np.asarray(x), np), tuple(axes)
    finite = np.isfinite(size)
    kinds = (np.isnan(size), np.isposinf(size), np.isneginf(size))
    low, high = np.min(size, over, where=finite, initial=np.inf), np.max(size, over, where=finite, initial=-np.inf)
    return (*(np.sum(kind, over) for kind in kinds), low, high)


def _size(x: Any, xp: Any) -> Any:
    size = xp.abs(x) if jnp.issubdtype(x.dtype, jnp.complexfloating) else x
    return size.astype(np.float32) if size.dtype.itemsize < 4 else size
