"""``fit``: a short loop over public pieces."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdl import check
from jdl.check import InputError
from jdl.data import Dataset, Splits, epoch_end_step, indices_between, load, steps_in_epochs
from jdl.gradients import Gradient, merge_reports
from jdl.nn.core import Layer
from jdl.nn.settings import Variables
from jdl.objectives import Batch, Objective, as_tuple, supervised, supervised_terms
from jdl.programs import Compilations, Program, cached_program
from jdl.progress import Progress
from jdl.runs import (
    EVALUATION_BATCH,
    Run,
    check_targets,
    evaluate_batches,
    evaluation_program,
    format_row,
    padded_batches,
    read_metrics,
)
from jdl.steps import Step, TrainState, eval_variables, init_state, make_step

Array = jax.Array
Callback = Callable[[Run], None]


def fit(
    model: Layer,
    loss: Callable[..., Array] | Objective | Gradient,
    optimizer: optax.GradientTransformation,
    data: Any,
    *,
    validation: Any = None,
    metrics: Sequence[Any] = (),
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    steps_per_call: int = 1,
    validate_every: int | None = None,
    seed: int = 0,
    variables: Variables | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
) -> Run:
    """Train a model and return the :class:`jdl.Run`.

    Args:
        model: a layer.
        loss: ``loss(outputs, targets, mask=None)``, or an :class:`Objective` or :class:`Gradient` in its place.
        optimizer: any optax transformation.
        data: a Dataset, ``(inputs, targets)``, a dict of arrays, Splits, or the name of a data set; kept on the device.
        validation: data of the same form, evaluated at every report and never trained on. Splits and names bring their
            own.
        metrics: functions of outputs and targets, as in :mod:`jdl.metrics`; reported for training and validation.
        epochs: how long to train, or ``steps``: one of the two. Each epoch is a permutation from ``(seed, epoch)``;
            what does not fill a batch goes into the next epoch.
        steps: how long to train, in steps.
        batch_size: examples in a step.
        steps_per_call: steps in one compiled call, by scan; the result is the same to 1e-6.
        validate_every: report and validate every so many epochs (or steps, where ``steps`` is given); by default each
            epoch.
        seed: of the initial parameters, the order of the data, and every key drawn in training.
        variables: start from a copy of these instead of new ones.
        callbacks: each is called with the run at every report, and may call ``run.stop(reason)``.
        progress: show a bar; by default where stderr is a terminal.

    Raises:
        InputError: before any training step, when one of these cannot be used.
    """
    train, held_out = _data(data, validation)
    plan = _Plan(len(train), batch_size, steps_per_call, epochs, steps, validate_every)
    objective = _objective(model, loss, metrics)
    if held_out is not None and objective is None:
        raise InputError("fit got validation data and a gradient of no objective; evaluate in a callback instead")
    step = make_step(loss if isinstance(loss, Gradient) else objective, optimizer)  # pyright: ignore[reportArgumentType]
    called = as_tuple(callbacks, "callbacks")
    with Progress("training", plan.steps, progress) as bar:
        run = Run(model, objective, _first_state(model, objective, optimizer, train, plan, seed, variables))
        for name, part in (("data", train), ("validation", held_out)):
            if part is not None:
                check_targets(objective, run.state.variables, part, name)
        batches = None if held_out is None else jax.device_put(padded_batches(held_out, EVALUATION_BATCH))
        _train(run, step, train, batches, plan, seed, called, bar)
    return run


def _train(
    run: Run,
    step: Step,
    train: Dataset,
    batches: list[Batch] | None,
    plan: _Plan,
    seed: int,
    callbacks: tuple[Callback, ...],
    bar: Progress,
) -> None:
    """The loop: calls up to a report, then the report, until the last one or ``run.stop``."""
    call = Compilations(run.compilations)
    single, several = train_program(step), train_program(step, True)
    arrays = jax.tree.map(jnp.asarray, dict(train.arrays))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), _report_shapes(step, run.state, train, plan))
    evaluation = None if batches is None or run.objective is None else evaluation_program(run.objective)
    state, done, begin, run.training = run.state, 0, time.perf_counter(), True
    try:
        for report in plan.reports:
            totals = jax.device_put(zeros)
            for stop, rows in plan.calls(done, report, seed):
                program = single if rows.ndim == 1 else several
                state, totals = call(program, state, totals, arrays, rows)
                bar(stop, functools.partial(_line, totals))
            run.state, done = state, report
            row: dict[str, Any] = {"step": report, "epoch": -(-report * plan.batch_size // len(train))}
            row |= {"seconds": time.perf_counter() - begin} | read_metrics(jax.device_get(totals))
            if evaluation is not None and batches is not None:
                scores = evaluate_batches(evaluation, eval_variables(state), batches, call)
                row |= {f"validation_{name}": value for name, value in scores.items()}
            run.history.append(row)
            bar(report, functools.partial(format_row, row))
            for callback in callbacks:
                callback(run)
            if run.stopped is not None:
                break
    finally:  # what a callback kept of an interrupted run stays usable
        run.state, run.training = state, False


def _first_state(
    model: Layer,
    objective: Objective | None,
    optimizer: optax.GradientTransformation,
    train: Dataset,
    plan: _Plan,
    seed: int,
    variables: Variables | None,
) -> TrainState:
    batch = train.gather(indices_between(len(train), plan.batch_size, seed, 0, 1)[0])
    inputs = next((term.inputs for term in supervised_terms(objective)), "inputs")
    state = init_state(model, optimizer, batch, seed, inputs=inputs, variables=variables)
    if not jax.tree.leaves(state.params):
        raise InputError("there is nothing to train: the model has no parameters, or all of them are frozen")
    return state


def _line(totals: Any) -> str:
    return format_row(read_metrics(jax.device_get(totals)))


def _report_shapes(step: Step, state: TrainState, train: Dataset, plan: _Plan) -> Any:
    return jax.eval_shape(step, state, train.gather(np.zeros(plan.batch_size, np.int32)))[1]


@cached_program
def train_program(step: Step, several: bool = False) -> Program:
    """``(state, totals, data, indices) -> (state, totals)``: gather a batch on the device, step, and add up the
    metrics.

    With ``several``, indices are ``[K, B]`` and the steps run by scan.
    """

    def train(state: TrainState, totals: Any, data: Any, indices: Array) -> tuple[TrainState, Any]:
        batch = jax.tree.map(lambda x: x.at[indices].get(mode="promise_in_bounds"), data)
        state, report = step(state, batch)
        return state, merge_reports(totals, report)

    def train_several(state: TrainState, totals: Any, data: Any, indices: Array) -> tuple[TrainState, Any]:
        def one(carry: tuple[TrainState, Any], rows: Array) -> tuple[tuple[TrainState, Any], None]:
            return train(*carry, data, rows), None

        return jax.lax.scan(one, (state, totals), indices)[0]

    return Program(train_several if several else train, "train_several" if several else "train", donate_argnums=(0, 1))


class _Plan:
    """Which steps run together, and where the reports are."""

    def __init__(
        self, n: int, batch_size: int, per_call: int, epochs: float | None, steps: int | None, every: int | None
    ):
        if (epochs is None) == (steps is None):
            raise InputError(f"fit got epochs={epochs} and steps={steps}, wanted one of the two")
        for name, value in (("steps_per_call", per_call), ("validate_every", every), ("steps", steps)):
            if value is not None and (not isinstance(value, (int, np.integer)) or value < 1):
                raise InputError(f"{name} got {value!r}, wanted an integer of at least 1")
        self.n, self.batch_size, self.steps_per_call = n, batch_size, per_call
        self.steps = steps_in_epochs(n, batch_size, epochs) if steps is None else steps  # pyright: ignore
        if steps is not None and every is not None:
            ends = list(range(every, self.steps, every))
        else:
            last = -(-self.steps * batch_size // n)
            ends = [epoch_end_step(n, batch_size, epoch) for epoch in range((every or 1) - 1, last, every or 1)]
        self.reports = sorted({end for end in ends if 0 < end < self.steps} | {self.steps})

    def calls(self, start: int, stop: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
        """For each call the step it leads to and its rows: full calls ``[K, B]``, then single steps ``[B]``."""
        size = self.steps_per_call
        block = size * max(1, 256 // size)  # rows of many steps at once cost far less than one by one
        for begin in range(start, stop, block):
            rows = indices_between(self.n, self.batch_size, seed, begin, min(begin + block, stop))
            full = len(rows) // size * size if size > 1 else 0
            for first in range(0, full, size):
                yield begin + first + size, rows[first : first + size]
            for index in range(full, len(rows)):
                yield begin + index + 1, rows[index]


def _data(data: Any, validation: Any) -> tuple[Dataset, Dataset | None]:
    if isinstance(data, str):
        data = load(data)
    if isinstance(data, Splits):
        data, validation = data.train, data.validation if validation is None else validation
    train = Dataset.of(data)
    try:
        return train, None if validation is None else Dataset.of(validation)
    except InputError as error:
        raise InputError(error.message, "validation") from None


def _objective(model: Layer, loss: Any, metrics: Sequence[Any]) -> Objective | None:
    if not isinstance(model, Layer):
        raise InputError(f"model got {check.describe(model)}, wanted a layer such as nn.Chain(nn.Dense(10))")
    found = loss
    while isinstance(found, Gradient):
        found = getattr(found, "objective", getattr(found, "gradient", None))
    if found is None or isinstance(found, Objective):
        if metrics:
            raise InputError(
                "fit got metrics beside an objective or a gradient; give them to supervised(..., metrics=[...])"
            )
        return found
    return supervised(model, loss, metrics)  # pyright: ignore[reportArgumentType]
