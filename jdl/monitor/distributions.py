"""Histograms of parameters and activations while a run lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.check import InputError
from jdl.data import Dataset
from jdl.monitor import ending
from jdl.monitor.boards import open_writer, writer_of
from jdl.nn.core import Layer
from jdl.nn.paths import paths
from jdl.nn.probing import probe
from jdl.nn.settings import Variables
from jdl.objectives import model_inputs, select_from, supervised_terms
from jdl.programs import Program, cached_program
from jdl.runs import Run
from jdl.show.histograms import Histogram, histogram, plot_histograms
from jdl.steps import eval_variables

SUFFIX = ".histograms"


class Histograms:
    """A callback that draws the distributions of parameters, and, given a batch, of every layer's output.

    They go to TensorBoard as ``parameters/…`` and ``activations/…``, and at the end into ``histograms.png``. It copies
    every parameter to the host, so ask for it where you look for something, or seldom. Layers inside ``Repeat``,
    ``Ensemble`` and ``Remat`` are seen as one.

    Args:
        folder: of the event files and the picture.
        batch: a dict as the objective takes it, or a Dataset, of which the first examples serve; evaluation mode.
        every: reports from one to the next.

    Raises:
        InputError: ``every`` is less than 1, or the batch is none; or, at the beginning of a run, the model does not
            take it, or nothing can be written into the folder.
        ModuleNotFoundError: at the beginning of a run, where tensorboardX is missing; says which extra brings it.
    """

    def __init__(self, folder: str | Path, batch: Any = None, every: int = 1):
        if not isinstance(every, int) or every < 1:
            raise InputError(f"every got {every!r}, wanted an integer of at least 1")
        if isinstance(batch, Dataset):
            batch = batch.gather(np.arange(min(len(batch), _EXAMPLES)))
        if batch is not None and not isinstance(batch, Mapping):
            raise InputError(f"batch got {check.describe(batch)}, wanted a dict such as {{'inputs': x}}, or a Dataset")
        self.folder, self.every = Path(folder), every
        self.batch = None if batch is None else dict(batch)
        self.writer: Any = None
        self.last: dict[str, Histogram] = {}

    def begin(self, run: Run) -> None:
        """Open the event file, and compile."""
        histograms(run, self.batch)  # says what is wrong with the batch before the first step
        self.writer, self.last = open_writer(self.folder, run, SUFFIX), {}

    def __call__(self, run: Run) -> None:
        if len(run.history) % self.every:
            return
        with ending.forgiven(self):
            self.last = histograms(run, self.batch)
            self.writer = writer_of(self.writer, self.folder, run, SUFFIX)
            for name, one in self.last.items():
                if one.counts.any():
                    self._write(name, one, run.history[-1]["step"])

    def end(self, run: Run) -> None:
        """Close the event file and draw the last histograms."""
        if self.writer is None:
            return  # it never began
        with ending.forgiven(self):
            self.writer.close()
            if self.last:
                with contextlib.suppress(ModuleNotFoundError):  # no matplotlib
                    plot_histograms(self.last, self.folder / "histograms.png")

    def _write(self, name: str, one: Histogram, step: int) -> None:
        number, total = int(one.counts.sum()), one.mean * one.counts.sum()
        self.writer.add_histogram_raw(
            tag=name,
            min=one.edges[0],
            max=one.edges[-1],
            num=number,
            sum=total,
            sum_squares=number * (one.deviation**2 + one.mean**2),
            bucket_limits=one.edges[1:].tolist(),
            bucket_counts=one.counts.tolist(),
            global_step=step,
        )


_EXAMPLES = 256


def histograms(run: Run, batch: Mapping[str, Any] | None = None) -> dict[str, Histogram]:
    """Histograms by name: ``parameters/PATH``, and, given a batch, ``activations/PATH`` in evaluation mode."""
    params = run.state.params
    found = dict(zip((f"parameters/{path}" for path in paths(params)), jax.tree.leaves(params), strict=True))
    if batch is not None:
        selector = next((term.inputs for term in supervised_terms(run.objective)), "inputs")
        inputs = jax.tree.map(jnp.asarray, select_from(dict(batch), selector, "inputs"))
        outputs = activation_program(run.model)(eval_variables(run.state), inputs)
        found |= {f"activations/{path}": output for path, output in outputs.items()}
    return {name: histogram(values) for name, values in jax.device_get(found).items()}


@cached_program
def activation_program(model: Layer) -> Program:
    """``(variables, inputs) -> outputs by path``, in evaluation mode; a second use of a layer is ``PATH (2)``."""

    def activations(variables: Variables, inputs: Any) -> dict[str, Any]:
        positional, named = model_inputs(inputs)
        found: dict[str, Any] = {}
        for seen in probe(model, variables, *positional, **named)[2][1:]:  # the first is the model itself
            if check.is_array(seen.output) and jnp.issubdtype(seen.output.dtype, jnp.floating):
                uses = sum(name == seen.path or name.startswith(f"{seen.path} (") for name in found)
                found[f"{seen.path} ({uses + 1})" if uses else seen.path] = seen.output
        return found

    return Program(activations, "activations")
