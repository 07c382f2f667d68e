"""A run in training as monitors see it, step by step and without the clock of a real one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

import jdl
from tests.networks import batch_of, classify, mlp

STEPS = 3  # between reports
OPTIMIZER = jdl.record_norms(optax.inject_hyperparams(optax.sgd)(0.5))
OBJECTIVE = classify(mlp())


@functools.cache
def made(optimizer: optax.GradientTransformation, objective: Any) -> tuple[Any, Any]:
    """A step and a first state, compiled once; nothing is donated, so all runs may begin with the one state."""
    return jax.jit(jdl.make_step(objective, optimizer)), jdl.init_state(mlp(), optimizer, batch_of())


class Watched:
    """Trains a small network and calls monitors as ``fit`` does: begin, a call for each report, end."""

    def __init__(
        self,
        monitors: Sequence[Any] = (),
        optimizer: optax.GradientTransformation | None = None,
        reports: int = 4,
        resumed: int | None = None,
        objective: Any = None,
        row: Callable[[int], dict[str, Any]] = lambda report: {},
    ):
        self.monitors, self.row = monitors, row
        self.batch = batch_of()
        self.step, state = made(optimizer or OPTIMIZER, objective or OBJECTIVE)
        self.run = run = jdl.Run(mlp(), objective or OBJECTIVE, state)
        run.steps, run.resumed = reports * STEPS, resumed
        run.settings = {"model": repr(run.model), "batch_size": 12}
        run.batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), self.batch)
        run.speed, run.findings, run.chosen = {}, [], None
        run.compilations = {"train": 1}

    def begin(self) -> None:
        for monitor in self.monitors:
            monitor.begin(self.run)

    def report(self) -> None:
        for _ in range(STEPS):
            self.run.state, report = self.step(self.run.state, self.batch)
        number = len(self.run.history) + 1
        row = {
            "step": STEPS * number,
            "epoch": number,
            "seconds": 0.5 * number,
            "loss": float(report["loss"].compute()),
        }
        self.run.speed = {"examples_per_second": 12 * 100.0, "steps_per_second": 100.0, "waiting": 0.25}
        self.run.history.append(row | self.row(number))
        for monitor in self.monitors:
            monitor(self.run)

    def end(self) -> None:
        for monitor in self.monitors:
            monitor.end(self.run)

    def all(self) -> jdl.Run:
        """The whole run, however it ends."""
        self.begin()
        try:
            while len(self.run.history) * STEPS < self.run.steps and self.run.stopped is None:
                self.report()
        finally:
            self.end()
        return self.run
