"""Steps: ``(TrainState, batch) -> (TrainState, metrics)``, the whole update as one function to compile.

Between a gradient and a step stands an optax optimizer, used as it is.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jdl import check
from jdl.check import InputError
from jdl.gradients import GradientFunction, as_gradient, merge_stacked
from jdl.nn.core import Layer
from jdl.nn.settings import Tree, Variables, check_variables
from jdl.objectives import Batch, Objective, Selector, model_inputs, select_from
from jdl.optimizers import SkipState, averaged, find, still_finite

Array = jax.Array
Metrics = dict[str, Any]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["params", "state", "opt_state", "step", "key"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything a run carries from step to step: all that a checkpoint needs."""

    params: Tree
    state: Tree
    opt_state: Any
    step: Array
    key: Array

    @property
    def variables(self) -> Variables:
        """``Variables(params, state)``, as a model takes them."""
        return Variables(self.params, self.state)


def init_state(
    model: Layer,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    seed: int = 0,
    *,
    inputs: Selector = "inputs",
    variables: Variables | None = None,
) -> TrainState:
    """The first state of a run: the model initialised on a batch like this one, or a copy of ``variables``.

    The result aliases nothing that the caller holds, so donating it deletes none of their arrays.
    """
    init_key, run_key = jax.random.split(jax.random.key(seed))
    if variables is None:
        positional, named = model_inputs(select_from(batch, inputs, "inputs"))
        variables = model.init(init_key, *positional, **named)
    return start_state(variables, optimizer, run_key)


def start_state(variables: Variables, optimizer: optax.GradientTransformation, key: Array) -> TrainState:
    """A first state from variables that stand ready; use it where several networks train together."""
    check_variables(variables)
    params, state = variables
    first = TrainState(params, state, optimizer.init(params), jnp.zeros((), jnp.int32), key)
    return jax.tree.map(lambda leaf: _strong(jnp.array(leaf, copy=True)), first)


def _strong(leaf: Array) -> Array:
    """Drop a weak type, as ``0.5`` leaves one in an optimizer's state: the next step would compile again for it."""
    weak = getattr(leaf, "weak_type", False)  # a key has none
    return jax.lax.convert_element_type(leaf, leaf.dtype) if weak else leaf


@dataclasses.dataclass(frozen=True)
class make_step:
    """A step from a gradient (or an objective, whose gradient it takes) and an optax optimizer.

    The gradient's key is the run's key folded with the step number. Optimizers that take them get ``value`` (the loss),
    ``grad``, and, given an objective, ``value_fn``.

    >>> step = jax.jit(jdl.make_step(gradient, optimizer), donate_argnums=0)
    >>> state, metrics = step(state, batch)
    """

    gradient: GradientFunction | Objective
    optimizer: optax.GradientTransformation

    def __post_init__(self) -> None:
        if not callable(self.gradient):
            raise InputError(f"make_step got {check.describe(self.gradient)}, wanted a gradient or an objective")
        if isinstance(self.optimizer, Mapping):  # which has an update, too
            fix = "optax.multi_transform(optimizers, jdl.label({pattern: pattern for pattern in optimizers}))"
            named = ", ".join(map(repr, self.optimizer))
            raise InputError(f"optimizer got a dict of {named}, wanted one; make it one by {fix}")
        if not hasattr(self.optimizer, "update"):
            raise InputError(
                f"make_step got {check.describe(self.optimizer)}, wanted an optax optimizer: optax.adamw(1e-3)"
            )

    def __call__(self, state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.step)
        grads, aux = as_gradient(self.gradient)(state.params, state.state, batch, key)
        extra: dict[str, Any] = {"value": aux.loss, "grad": grads}
        if isinstance(self.gradient, Objective):
            objective = self.gradient
            extra["value_fn"] = lambda params: objective(params, state.state, batch, key, True)[0]
        update = optax.with_extra_args_support(self.optimizer).update
        with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
            updates, opt_state = update(grads, state.opt_state, state.params, **extra)
        params = optax.apply_updates(state.params, updates)
        new = TrainState(params, aux.state, opt_state, state.step + 1, state.key)  # pyright: ignore[reportArgumentType]
        new, report = _leave_out_skipped(state, new, aux.report)
        return jax.tree.map(_strong, new), report


def _leave_out_skipped(old: TrainState, new: TrainState, report: Metrics) -> tuple[TrainState, Metrics]:
    """What remains of a step, where the optimizer may have skipped it: nothing in the report, nor what is not finite.

    Without :func:`jdl.skip_nonfinite` no operation is added. The rest of the model's state goes on: what scales the
    loss of a float16 model learns from a bad step.
    """
    pairs = list(zip(find(old, SkipState), find(new, SkipState), strict=True))
    if not pairs:
        return new, report
    skipped = functools.reduce(jnp.logical_or, [after.total > before.total for before, after in pairs])
    report = jax.tree.map(lambda leaf: jnp.where(skipped, jnp.zeros_like(leaf), leaf), report)
    return dataclasses.replace(new, state=jax.tree.map(still_finite, new.state, old.state)), report


Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class scan_steps:
    """Many steps in one call: batches stacked along a new leading axis, metrics merged over them."""

    step: Step

    def __call__(self, state: TrainState, batches: Batch) -> tuple[TrainState, Metrics]:
        state, metrics = jax.lax.scan(self.step, state, batches)
        return state, merge_stacked(metrics)


def eval_params(state: TrainState) -> Tree:
    """The parameters to evaluate with: the average where the optimizer keeps one, else those that train.

    Understands :func:`average_params` and ``optax.contrib.schedule_free``, also where they see some of the parameters.
    """
    return averaged(state, state.params)


def eval_variables(state: TrainState) -> Variables:
    """What to evaluate with: :func:`eval_params`, and the model's state."""
    return Variables(eval_params(state), state.state)
