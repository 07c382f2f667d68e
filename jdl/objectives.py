"""Objectives: what a run minimises, as values that add and scale.

An objective is called ``(params, state, batch, key, train)`` and returns ``(loss, Aux)``. Terms that do not share a
forward pass are added (``supervised(...) + 1e-4 * l2("**/kernel")``); losses on one output are added before
:func:`supervised`.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdl import check
from jdl.check import InputError
from jdl.data.augment import Compose
from jdl.losses import Configured
from jdl.metrics import Mean, State, metric_name
from jdl.nn.core import Layer
from jdl.nn.paths import select
from jdl.nn.settings import Tree

Array = jax.Array
Batch = dict[str, Any]
Selector = str | Callable[[Batch], Any]

PADDING = "padding"  # in evaluation, 0 for examples that only fill the last batch; ``mask`` holds it too


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["loss", "weight", "state", "metrics", "terms"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Aux:
    """What comes beside a loss or a gradient.

    ``weight`` is what the loss was divided by (the sum of the mask, or the number of examples): ``None`` where the
    value does not depend on the batch, a tuple where terms of a sum have different ones. ``state`` is the model's new
    state; ``metrics`` maps names to metric states, which merge by ``+``.
    """

    loss: Array
    weight: Any
    state: Tree
    metrics: dict[str, Any]
    terms: tuple[Any, ...] = ()

    @property
    def mean(self) -> Any:
        """The loss as a metric state: a mean, or a total of means where terms have weights of their own."""
        if self.terms:
            return Total(self.terms)
        weight = jnp.asarray(1.0 if self.weight is None else self.weight, jnp.float32)
        return Mean(self.loss * weight, weight)

    @property
    def report(self) -> dict[str, Any]:
        """The metrics and, as ``loss``, the total."""
        return {"loss": self.mean} | self.metrics


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Total(State):
    """The sum of several means."""

    means: tuple[Mean, ...]

    def compute(self) -> Any:
        return sum(mean.compute() for mean in self.means)


class Objective:
    """Base of every objective: subclass it as a frozen dataclass and define ``__call__``."""

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None, train: bool) -> tuple[Array, Aux]:
        """The loss, a scalar, and what comes beside it."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, params, state, batch, key, train)")

    def __add__(self, other: Any) -> Objective:
        return Sum(self, other) if isinstance(other, Objective) else NotImplemented

    def __radd__(self, other: Any) -> Objective:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # the start of sum(objectives)

    def __mul__(self, factor: Any) -> Objective:
        return NotImplemented if isinstance(factor, Objective) else Scaled(self, factor)

    __rmul__ = __mul__


def supervised(
    model: Layer,
    loss: Callable[..., Array],
    metrics: tuple[Any, ...] | list[Any] = (),
    *,
    inputs: Selector = "inputs",
    targets: Selector = "targets",
    mask: Selector = "mask",
) -> Objective:
    """The loss of a model's outputs against targets, averaged over a batch.

    ``loss(outputs, targets)`` returns the mean, a scalar; where the batch holds a mask it is called with ``mask=``,
    or, if it takes none, example by example, to be averaged by the mask.
    ``metrics`` are called alike and return metric states (see :mod:`jdl.metrics`) or scalars. Selectors name an entry
    of the batch or compute one from it. Inputs that are a tuple become ``*inputs`` of the model, a dict ``**inputs``.

    Raises:
        InputError: a batch without the entries, a loss that is not a scalar, a metric name used twice or called
        ``loss``.
    """
    return Supervised(model, loss, as_tuple(metrics, "metrics"), inputs, targets, mask)


@dataclasses.dataclass(frozen=True)
class Supervised(Objective):
    """See :func:`supervised`."""

    model: Layer
    loss: Callable[..., Array]
    metrics: tuple[Any, ...] = ()
    inputs: Selector = "inputs"
    targets: Selector = "targets"
    mask: Selector = "mask"

    def __post_init__(self) -> None:
        if not isinstance(self.model, Layer):
            raise InputError(f"model got {check.describe(self.model)}, wanted a layer such as nn.Chain(nn.Dense(10))")
        if not callable(self.loss):
            raise InputError(
                f"loss got {check.describe(self.loss)}, wanted a function such as jdl.losses.cross_entropy"
            )
        names = ["loss", *map(metric_name, self.metrics)]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise InputError(f"metrics got the names {sorted(repeated)} twice (loss is always the total); rename one")

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None, train: bool) -> tuple[Array, Aux]:
        positional, named = model_inputs(select_from(batch, self.inputs, "inputs"))
        targets = select_from(batch, self.targets, "targets")
        mask = select_from(batch, self.mask, "mask", optional=True)
        if self.mask != "mask" and PADDING in batch:
            mask = without_padding(mask, batch[PADDING])
        outputs, state = self.model.apply(params, state, *positional, key=key, train=train, **named)
        loss = masked(self.loss, outputs, targets, mask)
        if jnp.shape(loss) != ():
            raise InputError(f"the loss is {check.describe(loss)}, wanted a scalar; use reduction='mean'", "supervised")
        weight = float(_batch_size(targets)) if mask is None else jnp.sum(jnp.asarray(mask, jnp.float32))
        metrics = {
            metric_name(metric): _as_state(masked(metric, outputs, targets, mask), weight)
            for metric in self.metrics
            if not (train and getattr(metric, "gathers", False))  # scores are gathered in evaluation only
        }
        return loss, Aux(loss, weight, state, metrics)


def supervised_terms(objective: Any) -> list[Supervised]:
    """The supervised terms of a sum, scaled or augmented ones too."""
    if isinstance(objective, Sum):
        return supervised_terms(objective.first) + supervised_terms(objective.second)
    if isinstance(objective, (Scaled, Augmented)):
        return supervised_terms(objective.objective)
    return [objective] if isinstance(objective, Supervised) else []


def l1(*patterns: str, name: str = "l1") -> Objective:
    """The sum of absolute values of the parameters that match the patterns, Σ|w|."""
    return Penalty(patterns or ("**",), absolute, name)


def l2(*patterns: str, name: str = "l2") -> Objective:
    """The sum of squares of the parameters that match the patterns, Σ w², without a half."""
    return Penalty(patterns or ("**",), square, name)


def absolute(x: Array) -> Array:
    """|x|, by a name that pickles."""
    return jnp.abs(x)


def square(x: Array) -> Array:
    """x², by a name that pickles."""
    return jnp.square(x)


@dataclasses.dataclass(frozen=True)
class Penalty(Objective):
    """The sum of ``function`` over the selected parameters, in float32. It does not depend on the batch."""

    patterns: tuple[str, ...]
    function: Callable[[Array], Array]
    name: str

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None, train: bool) -> tuple[Array, Aux]:
        chosen = jax.tree.leaves(select(*self.patterns)(params))
        leaves = [leaf for leaf, wanted in zip(jax.tree.leaves(params), chosen, strict=True) if wanted]
        loss = sum((jnp.sum(self.function(leaf.astype(jnp.float32))) for leaf in leaves), start=jnp.zeros(()))
        return loss, Aux(loss, None, state, {self.name: Mean(loss, jnp.ones(()))})


@dataclasses.dataclass(frozen=True)
class Sum(Objective):
    """The sum of two objectives; the second sees the state that the first leaves."""

    first: Objective
    second: Objective

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None, train: bool) -> tuple[Array, Aux]:
        other = None if key is None else jax.random.fold_in(key, _count(self.first))
        a, aux_a = self.first(params, state, batch, key, train)
        b, aux_b = self.second(params, aux_a.state, batch, other, train)
        if both := aux_a.metrics.keys() & aux_b.metrics.keys():
            raise InputError(f"two terms of a sum report the metrics {sorted(both)}; give one another name=")
        weight, terms = joint_weight((self.first, self.second), (aux_a, aux_b))
        return a + b, Aux(a + b, weight, aux_b.state, aux_a.metrics | aux_b.metrics, terms)


@dataclasses.dataclass(frozen=True)
class Scaled(Objective):
    """An objective times a factor; its metrics stay as they are."""

    objective: Objective
    factor: Any

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None, train: bool) -> tuple[Array, Aux]:
        loss, aux = self.objective(params, state, batch, key, train)
        loss = self.factor * loss
        terms = tuple(Mean(self.factor * mean.total, mean.count) for mean in aux.terms)
        return loss, dataclasses.replace(aux, loss=loss, terms=terms)


def augmented(objective: Objective, *augmentations: Callable[[Array, Batch], Batch]) -> Objective:
    """The objective on batches that augmentations have changed, one after another; in evaluation as they are.

    An augmentation is a function ``(key, batch) -> batch``, such as :class:`jdl.data.Crop`. It runs inside the compiled
    step, with a key of its own: ``augmented(supervised(model, loss), Crop(4), Flip())``.

    Raises:
        InputError: what is no objective or augmentation, or training without a key.
    """
    return Augmented(objective, Compose(*augmentations))


# No count of terms and no microbatch comes near these, so no key is folded from the same numbers as another.
AUGMENTATION_KEY, AUGMENTED_KEY = 0x41554701, 0x41554702


@dataclasses.dataclass(frozen=True)
class Augmented(Objective):
    """See :func:`augmented`."""

    objective: Objective
    augmentation: Callable[[Array, Batch], Batch]

    def __post_init__(self) -> None:
        if not isinstance(self.objective, Objective):
            raise InputError(
                f"augmented got {check.describe(self.objective)}, wanted an objective: supervised(model, loss)"
            )

    def __call__(self, params: Tree, state: Tree, batch: Batch, key: Array | None, train: bool) -> tuple[Array, Aux]:
        if not train:
            return self.objective(params, state, batch, key, train)
        if key is None:
            raise InputError("augmented got no key to draw from in training; give one: key=jax.random.key(0)")
        batch = self.augmentation(jax.random.fold_in(key, AUGMENTATION_KEY), batch)
        return self.objective(params, state, batch, jax.random.fold_in(key, AUGMENTED_KEY), train)


def without_padding(mask: Any, padding: Any) -> Any:
    """A mask ``[B]`` or ``[B, T]``, or none, that also leaves out the examples where ``padding`` ``[B]`` is 0."""
    return padding if mask is None else mask * padding.reshape(-1, *[1] * (mask.ndim - 1)).astype(mask.dtype)


def masked(function: Callable[..., Any], outputs: Any, targets: Any, mask: Array | None) -> Any:
    """A loss or metric under a mask ``[B]``, also where ``function`` takes none and returns a scalar for a batch."""
    if mask is None:
        return function(outputs, targets)
    if _takes_mask(function):
        return function(outputs, targets, mask=mask)
    name, fix = getattr(function, "__name__", repr(function)), "give it an argument mask=None"
    if mask.ndim != 1:
        raise InputError(
            f"{name} takes no mask, and this one is {check.describe(mask)}, not one weight an example; {fix}"
        )
    examples = jax.tree.map(lambda x: jnp.expand_dims(x, 1), (outputs, targets))
    values = jax.vmap(function)(*examples)
    if not check.is_array(values) or values.shape != mask.shape:
        raise InputError(f"{name} takes no mask and returns no scalar for a batch; {fix}")
    weight = jnp.asarray(mask, values.dtype)
    total = jnp.sum(weight)
    return jnp.sum(jnp.where(weight != 0, weight * values, 0)) / jnp.where(total != 0, total, 1)


def _takes_mask(function: Any) -> bool:
    """Whether a loss or metric names a mask among its arguments; ``**options`` might swallow one."""
    return "mask" in inspect.signature(function.function if isinstance(function, Configured) else function).parameters


def as_tuple(functions: Any, name: str) -> tuple[Any, ...]:
    """Several functions, given as a list or tuple."""
    if not isinstance(functions, (list, tuple)) or not all(map(callable, functions)):
        raise InputError(f"{name} got {check.describe(functions)}, wanted a list of functions: {name}=[...]")
    return tuple(functions)


def model_inputs(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """How a model is called: an array is one input, a tuple becomes ``*inputs``, a dict ``**inputs``."""
    if isinstance(inputs, dict):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def select_from(batch: Batch, selector: Selector, name: str, optional: bool = False) -> Any:
    """An entry of the batch by name, or what a function makes of the batch."""
    if not isinstance(batch, dict):
        raise InputError(f"batch got {check.describe(batch)}, wanted a dict such as {{'inputs': x, 'targets': y}}")
    if callable(selector):
        return selector(batch)
    if selector not in batch and not optional:
        raise InputError(
            f"the batch holds {sorted(batch)} and no {selector!r}; name its {name} by supervised(..., {name}=...)"
        )
    return batch.get(selector)


def _batch_size(targets: Any) -> int:
    sizes = [leaf.shape[0] for leaf in jax.tree.leaves(targets) if getattr(leaf, "ndim", 0)]
    return sizes[0] if sizes else 1


def _as_state(value: Any, weight: Any) -> Any:
    """A metric's own state; a plain scalar as a mean over the batch."""
    if not hasattr(value, "compute") and (not check.is_array(value) or value.shape != ()):
        raise InputError(
            f"a metric returned {check.describe(value)}, wanted a scalar or a state such as metrics.Mean.of(x)"
        )
    return (
        value
        if hasattr(value, "compute")
        else Mean(value * jnp.asarray(weight, jnp.float32), jnp.asarray(weight, jnp.float32))
    )


def _count(objective: Objective) -> int:
    """How many terms draw from keys of their own; a factor passes the key on."""
    if isinstance(objective, (Scaled, Augmented)):
        return _count(objective.objective)
    return _count(objective.first) + _count(objective.second) if isinstance(objective, Sum) else 1


def _means(aux: Aux) -> tuple[Any, ...]:
    return aux.terms or (aux.mean,)


def joint_weight(objectives: Sequence[Objective], reports: Sequence[Aux]) -> tuple[Any, tuple[Any, ...]]:
    """One weight where there is one: equal batch sizes and one and the same mask are, and who has none joins.

    Where there are several they are a tuple, and beside it stand the means that they belong to.
    """
    weights = [aux.weight for aux in reports if aux.weight is not None]
    if len(weights) < 2:
        return weights[0] if weights else None, ()
    if all(isinstance(weight, float) for weight in weights):
        same = len(set(weights)) == 1
    else:
        masks = frozenset().union(*map(_masks, objectives))
        same = len(masks) == 1 and all(check.is_array(weight) for weight in weights)
    return (weights[0], ()) if same else (tuple(weights), tuple(mean for aux in reports for mean in _means(aux)))


def _masks(objective: Objective) -> frozenset[Any]:
    """The selectors of the masks by which an objective averages; of one that is not known, something like no other."""
    if isinstance(objective, Sum):
        return _masks(objective.first) | _masks(objective.second)
    if isinstance(objective, Scaled):
        return _masks(objective.objective)
    if isinstance(objective, Penalty):
        return frozenset()
    return frozenset({objective.mask if isinstance(objective, Supervised) else object()})
