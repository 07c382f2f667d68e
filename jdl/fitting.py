"""``fit``: a short loop over public pieces."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import optax

from jdl import check
from jdl.check import InputError
from jdl.checkpoints import Checkpoints
from jdl.data import Dataset, Splits, Stream, as_stream, cache_dir, load
from jdl.diagnosis import PitfallWarning, light
from jdl.diagnosis.findings import LABELS, NO_VALIDATION
from jdl.feeding import Feed, Plan, Resident, Streamed
from jdl.gradients import Gradient
from jdl.looping import Callback, Loop
from jdl.nn.core import Layer
from jdl.nn.settings import Variables
from jdl.nonfinite import has_loss_scale
from jdl.objectives import Batch, Objective, as_tuple, supervised, supervised_terms
from jdl.optimizers import skipped
from jdl.programs import keep_compiled
from jdl.progress import Progress
from jdl.resuming import describe_data, program_checksum, readable
from jdl.runs import Run, check_targets
from jdl.steps import TrainState, init_state, make_step

Array = jax.Array
BATCH_SIZE = 32


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
    batch_size: int | None = None,
    steps_per_call: int = 1,
    validate_every: int | None = None,
    seed: int = 0,
    variables: Variables | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | Path | Checkpoints | None = None,
    max_compilations: int | None = None,
    progress: bool | None = None,
) -> Run:
    """Train a model and return the :class:`jdl.Run`.

    Args:
        model: a layer.
        loss: ``loss(outputs, targets, mask=None)``, or an :class:`Objective` or :class:`Gradient` in its place.
        optimizer: any optax transformation.
        data: a Dataset, ``(inputs, targets)``, a dict of arrays, Splits, or the name of a data set, kept on the device;
            or data that does not fit there: a :class:`jdl.data.Stream`, or what :func:`jdl.data.as_stream` makes one
            of: a torch DataLoader, a Hugging Face or grain data set, any iterable of batches.
        validation: data of the same forms, evaluated at every report and never trained on. Splits and names bring their
            own.
        metrics: functions of outputs and targets, as in :mod:`jdl.metrics`; reported for training and validation.
        epochs: how long to train, or ``steps``: one of the two. Each epoch is a permutation from ``(seed, epoch)``;
            what does not fill a batch goes into the next epoch.
        steps: how long to train, in steps.
        batch_size: examples in a step; by default 32, or as many as a stream's own batches hold.
        steps_per_call: steps in one compiled call, by scan; the result is the same to 1e-6.
        validate_every: report and validate every so many epochs (or steps, where ``steps`` is given); by default each
            epoch, or a tenth of the steps where the data does not know its length.
        seed: of the initial parameters, the order of the data, and every key drawn in training.
        variables: start from a copy of these instead of new ones.
        callbacks: each is called with the run at every report, and may call ``run.stop(reason)`` or set ``run.state``.
            Those with methods ``begin(run)`` and ``end(run)`` hear of the first step and the last; ``get_state()`` and
            ``set_state(state)`` let a checkpoint keep what they know.
        checkpoint: a folder, or :class:`jdl.Checkpoints`. A run finds there where it stopped and goes on, to the same
            bits as if it had not; SIGTERM and SIGINT write a checkpoint and leave by :class:`jdl.Interrupted`.
        max_compilations: more programs compiled than this are an error.
        progress: show a bar; by default where stderr is a terminal.

    A look at the data comes first: what it finds stands in ``run.findings``, and all but that nothing is held out is a
    :class:`jdl.PitfallWarning`; :func:`jdl.diagnose` looks closer.

    What is compiled is kept in ``jdl.data.cache_dir() / "compiled"`` for the next process, unless
    ``jax_compilation_cache_dir`` is set; ``jax.config.update("jax_enable_compilation_cache", False)`` turns that off.

    Raises:
        InputError: before any training step, when one of these cannot be used.
        Interrupted: a signal came and a checkpoint is written.
        TooManyCompilations: see ``max_compilations``.
    """
    with contextlib.suppress(InputError, RuntimeError, OSError):  # without a home, nothing is kept
        keep_compiled(cache_dir() / "compiled")
    train, held_out = _data(data, validation)
    feed = _feed(train, batch_size, steps_per_call, epochs, steps, validate_every, seed)
    objective = _objective(model, loss, metrics)
    if held_out is not None and objective is None:
        raise InputError("fit got validation data and a gradient of no objective; evaluate in a callback instead")
    step = make_step(loss if isinstance(loss, Gradient) else objective, optimizer)  # pyright: ignore[reportArgumentType]
    called = as_tuple(callbacks, "callbacks")
    if max_compilations is not None and (type(max_compilations) is not int or max_compilations < 0):
        raise InputError(f"max_compilations got {max_compilations!r}, wanted a whole number of at least 0")
    if isinstance(checkpoint, (str, Path)):
        checkpoint = Checkpoints(checkpoint)
    first = feed.first()
    start = functools.partial(_first_state, model, objective, optimizer, first, seed, variables)
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(Progress("training", feed.plan.steps, progress))
        stack.callback(feed.close)
        store = None if checkpoint is None else stack.enter_context(checkpoint.open())
        run = Run(model, objective, jax.eval_shape(start))
        run.steps, run.batch = feed.plan.steps, jax.eval_shape(lambda: first)
        sample = train if isinstance(train, Dataset) else Dataset(first)
        for name, part in (("data", sample), ("validation", held_out)):
            if isinstance(part, Dataset):
                check_targets(objective, run.state.variables, part, name)
        if has_loss_scale(run.state) and skipped(run.state) is None:
            raise InputError("a loss scale runs into steps that are not finite; give fit jdl.skip_nonfinite(optimizer)")
        program, (_, report) = jax.make_jaxpr(step, return_shape=True)(run.state, run.batch)
        run.settings = _settings(run, feed, train, held_out, seed)
        if store is not None:
            run.settings["program"] = program_checksum(program)
        loop = Loop(run, step, report, feed, held_out, called, bar, store, max_compilations)
        loop.go_on_or(start)
        run.findings = light(objective, model, sample, held_out)
        for finding in run.findings:
            # many a run needs no validation, and of a stream one batch is seen
            if finding.name != NO_VALIDATION and (sample is train or finding.name != LABELS):
                warnings.warn(PitfallWarning(str(finding)), stacklevel=2)
        loop.train()
    return run


def _feed(
    train: Dataset | Stream,
    batch_size: int | None,
    steps_per_call: int,
    epochs: float | None,
    steps: int | None,
    validate_every: int | None,
    seed: int,
) -> Feed:
    if isinstance(train, Dataset):
        plan = Plan(
            len(train), BATCH_SIZE if batch_size is None else batch_size, steps_per_call, epochs, steps, validate_every
        )
        return Resident(train, plan, seed)
    size = (train.batch_size or BATCH_SIZE) if batch_size is None else batch_size
    return Streamed(train, Plan(train.examples, size, steps_per_call, epochs, steps, validate_every), seed)


def _first_state(
    model: Layer,
    objective: Objective | None,
    optimizer: optax.GradientTransformation,
    batch: Batch,
    seed: int,
    variables: Variables | None,
) -> TrainState:
    inputs = next((term.inputs for term in supervised_terms(objective)), "inputs")
    state = init_state(model, optimizer, batch, seed, inputs=inputs, variables=variables)
    if not jax.tree.leaves(state.params):
        raise InputError("there is nothing to train: the model has no parameters, or all of them are frozen")
    return state


def _settings(
    run: Run, feed: Feed, train: Dataset | Stream, held_out: Dataset | Stream | None, seed: int
) -> dict[str, str]:
    """What a person would want to compare between two runs, in words."""
    plan = feed.plan
    return {
        "model": readable(run.model),
        "objective": readable(run.objective).replace(readable(run.model), "model"),
        "data": describe_data(train),
        "validation": describe_data(held_out),
        "batch_size": str(plan.batch_size),
        "steps": str(plan.steps),
        "steps_per_call": str(plan.steps_per_call),
        "seed": str(seed),
        "versions": f"jax {jax.__version__}, optax {optax.__version__}",
    }


def _data(data: Any, validation: Any) -> tuple[Dataset | Stream, Dataset | Stream | None]:
    if isinstance(data, str):
        data = load(data)
    if isinstance(data, Splits):
        data, validation = data.train, data.validation if validation is None else validation
    train = as_stream(data)
    try:
        return train, None if validation is None else as_stream(validation)
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
