"""A run: what training leaves behind, and what can be asked of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.check import InputError
from jdl.data import Dataset, Stream, as_stream, evaluation_batches
from jdl.gradients import merge_reports
from jdl.nn.core import Layer
from jdl.nn.settings import Tree, Variables
from jdl.objectives import (
    PADDING,
    Batch,
    Objective,
    Supervised,
    masked,
    model_inputs,
    select_from,
    supervised_terms,
    without_padding,
)
from jdl.programs import Program, cached_program
from jdl.steps import TrainState, eval_variables

Array = jax.Array
EVALUATION_BATCH = 256


class Run:
    """A model in training or trained.

    Attributes:
        model: the layer that trains.
        objective: what is minimised, or ``None`` where a gradient of no objective was given.
        state: the :class:`jdl.TrainState`; its arrays are given up to the next step while training goes on.
        history: a dict for each report: ``step``, ``epoch`` (from 1), ``seconds``, ``loss``, metrics, and
            ``validation_…``.
        steps: how many steps are planned.
        batch: the shapes and dtypes of a training batch.
        settings: what the run was given, in words, to compare it with others.
        compilations: how often each program was compiled in this run.
        compile_seconds: for each of them how long the phases ``trace``, ``lower`` and ``compile`` took.
        speed: since the report before, or since something was compiled: ``steps_per_second``,
            ``examples_per_second``, and ``waiting``, the share of time that the loop waited for data.
        findings: what the light diagnosis at the start found (see :func:`jdl.diagnose`).
        chosen: variables to evaluate with instead of the last ones, set by early stopping.
        resumed: the step of the checkpoint from which this run went on, or None.
        stopped: why training ended before its last step, or None.
    """

    def __init__(self, model: Layer, objective: Objective | None, state: TrainState):
        self.model, self.objective, self.state = model, objective, state
        self.history: list[dict[str, Any]] = []
        self.steps = 0
        self.batch: Batch = {}
        self.settings: dict[str, str] = {}
        self.compilations: dict[str, int] = {}
        self.compile_seconds: dict[str, dict[str, float]] = {}
        self.speed: dict[str, float] = {}
        self.findings: list[Any] = []
        self.chosen: Variables | None = None
        self.resumed: int | None = None
        self.training = False
        self.stopped: str | None = None

    def __repr__(self) -> str:
        last = {name: value for name, value in (self.history or [{}])[-1].items() if name != "seconds"}
        return f"Run({format_row(last) or 'not trained yet'})"

    @property
    def variables(self) -> Variables:
        """Parameters to evaluate with, and state: ``model(run.variables, inputs)``. A copy while training goes on."""
        return jax.tree.map(jnp.copy, self._evaluated) if self.training else self._evaluated

    @property
    def params(self) -> Tree:
        """The parameters of :attr:`variables`."""
        return self.variables.params

    @property
    def _evaluated(self) -> Variables:
        return eval_variables(self.state) if self.chosen is None else self.chosen

    def stop(self, reason: str = "asked to") -> None:
        """Called by a callback: end training after this report."""
        self.stopped = reason

    def evaluate(self, data: Any, batch_size: int = EVALUATION_BATCH) -> dict[str, Any]:
        """Loss and metrics over a data set, as the objective reports them in evaluation mode.

        The last batch is padded and masked, so every example counts once. ``data`` comes in any form that ``fit``
        takes. Numbers come as floats, other metrics (a confusion matrix) as NumPy arrays.

        Raises:
            InputError: the run has no objective, or the data cannot be used.
        """
        if self.objective is None:
            raise InputError("this run has a gradient and no objective to evaluate; give fit an objective or a loss")
        return evaluate(self.objective, self._evaluated, data, batch_size)

    def predict(self, inputs: Any, batch_size: int = EVALUATION_BATCH) -> Any:
        """The model's outputs for inputs ``[N, …]`` (or a tuple or dict of them, or a Dataset), as NumPy arrays."""
        return predict(self.model, self._evaluated, inputs, batch_size)

    def plot(self, path: str | Path | None = None) -> Any:
        """Curves of the history; written to ``path`` (PNG, SVG, PDF) where one is given. Returns the figure."""
        from jdl.show.curves import plot_history  # matplotlib is an extra

        return plot_history(self.history, path)


def evaluate(
    objective: Objective, variables: Variables, data: Any, batch_size: int = EVALUATION_BATCH
) -> dict[str, Any]:
    """The report of an objective over a data set in evaluation mode; see :meth:`Run.evaluate`."""
    data = as_stream(data)
    if isinstance(data, Dataset):
        check_targets(objective, variables, data, "data")
    return evaluate_batches(evaluation_program(objective), variables, padded_batches(data, batch_size))


def check_targets(objective: Objective | None, variables: Variables, data: Dataset, name: str) -> None:
    """Hold targets against outputs before compute: labels out of range, floats for labels, other shapes.

    Inside a compiled step values are unknown. So each supervised loss and metric is traced on abstract outputs and
    these targets.
    """
    for term in supervised_terms(objective):
        try:
            two, three = (_abstract_outputs(term, variables, data, n) for n in (2, 3))
        except InputError:  # inputs that do not fit, or a carry, which is of one batch size: the step will say
            continue
        if any(leaf.shape[:1] != (n,) for n, output in ((2, two), (3, three)) for leaf in jax.tree.leaves(output)):
            continue  # the batch does not lead, as in an ensemble
        outputs = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(data), *leaf.shape[1:]), leaf.dtype), two)
        targets = select_from(dict(data.arrays), term.targets, "targets")
        mask = select_from(dict(data.arrays), term.mask, "mask", optional=True)
        for function in (term.loss, *term.metrics):
            try:
                jax.eval_shape(lambda x, f=function, y=targets, m=mask: masked(f, x, y, m), outputs)
            except InputError as error:
                raise InputError(error.message, error.where or name) from None
            except Exception:  # one that takes batches of some sizes only; the step will say
                continue


def _abstract_outputs(term: Supervised, variables: Variables, data: Dataset, n: int) -> Any:
    batch = data.gather(np.zeros(n, np.int32))
    positional, named = model_inputs(select_from(batch, term.inputs, "inputs"))
    return jax.eval_shape(lambda arrays: term.model.apply(*arrays, *positional, **named)[0], variables)


def padded_batches(data: Dataset | Stream, batch_size: int) -> Iterable[Batch]:
    """All of a data set as batches of one shape: the last one repeats an example, and its mask leaves that out."""
    if isinstance(data, Stream):
        return data.evaluation_batches(batch_size)
    indices, masks = evaluation_batches(len(data), min(batch_size, len(data)))
    batches = []
    for rows, mask in zip(indices, masks, strict=True):
        batch = data.gather(rows)
        batch["mask"] = without_padding(batch.get("mask"), mask)
        batch[PADDING] = mask
        batches.append(batch)
    return batches


def evaluate_batches(
    program: Program, variables: Variables, batches: Iterable[Batch], call: Callable[..., Any] = Program.__call__
) -> dict[str, Any]:
    """The merged report over batches that carry their masks; ``call(program, ...)`` may count compilations."""
    reports = jax.device_get([call(program, variables, batch) for batch in batches])
    return read_metrics(functools.reduce(merge_reports, reports))


def read_metrics(report: dict[str, Any]) -> dict[str, Any]:
    """Values of metric states, the loss first: floats, or NumPy arrays where a metric has several numbers."""
    names = sorted(report, key=lambda name: (name != "loss", name))
    values = {name: np.asarray(report[name].compute()) for name in names}
    return {name: float(value) if value.ndim == 0 else value for name, value in values.items()}


def predict(model: Layer, variables: Variables, inputs: Any, batch_size: int = EVALUATION_BATCH) -> Any:
    """The outputs of a model for many inputs, in batches of one shape; see :meth:`Run.predict`."""
    data = inputs if isinstance(inputs, Dataset) else Dataset({"inputs": inputs})
    n = len(data)
    program = prediction_program(model)
    indices, _ = evaluation_batches(n, min(batch_size, n))
    parts = [program(variables, data.gather(rows)["inputs"]) for rows in indices]
    if wrong := [leaf for leaf in jax.tree.leaves(parts[0]) if leaf.shape[:1] != indices.shape[1:]]:
        raise InputError(
            f"predict got {check.describe(wrong[0])} for {indices.shape[1]} inputs, wanted the batch on axis 0; "
            "call model(run.variables, inputs)"
        )
    return jax.tree.map(lambda *leaves: np.concatenate(leaves)[:n], *jax.device_get(parts))


@cached_program
def evaluation_program(objective: Objective) -> Program:
    """``(variables, batch) -> report`` in evaluation mode."""

    def evaluation(variables: Variables, batch: Batch) -> dict[str, Any]:
        return objective(variables.params, variables.state, batch, None, False)[1].report

    return Program(evaluation, "evaluation")


@cached_program
def prediction_program(model: Layer) -> Program:
    """``(variables, inputs) -> outputs`` in evaluation mode."""

    def prediction(variables: Variables, inputs: Any) -> Any:
        positional, named = model_inputs(inputs)
        return model.apply(*variables, *positional, **named)[0]

    return Program(prediction, "prediction")


def format_row(row: dict[str, Any]) -> str:
    """A history row in one line of text."""
    return "  ".join(f"{name} {_number(value)}" for name, value in row.items() if np.ndim(value) == 0)


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
