"""Whether evaluation is what it should be: without chance, without learning, and not far from training."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jdl import nn
from jdl.check import InputError
from jdl.diagnosis.findings import EVALUATION, Finding
from jdl.diagnosis.passes import pass_program
from jdl.diagnosis.trial import Goal
from jdl.nn.paths import paths
from jdl.nn.settings import Settings, Variables
from jdl.objectives import Batch, Objective

Array = jax.Array

TIMES = 3.0  # the loss in evaluation over that in training, on the same examples
PART = 0.3  # and at least so much of what there is to learn lies between them


def check_flags(
    objective: Objective, variables: Variables, batch: Batch, key: Array, layers: set[Settings]
) -> list[Finding]:
    """One pass of each kind: evaluation draws and updates nothing, training does where the model's ``layers`` do."""
    try:
        loss, state = jax.device_get(pass_program(objective, False)(variables, batch, None))
    except InputError as error:
        if "key=None" not in error.message:
            raise
        why = "Evaluation and prediction have no key: their results would be another each time, and worse."
        fix = "draw only in training: `if net.train:` in forward; Dropout does so"
        return [_finding(f"{error}", why, fix)]
    if changed := _changed(variables.state, state):
        words = f"an evaluation pass changes the model's state: {', '.join(changed[:4])}" + ", …" * (len(changed) > 4)
        why = "The model learns from the data that it is measured on, and runs in training mode while it is."
        return [_finding(words, why, "hand the flag on in your objective: model.apply(..., train=train)")]
    trained, moved = jax.device_get(pass_program(objective, True)(variables, batch, key))
    told = sorted({type(layer).__name__ for layer in layers if _differs(layer)})
    if told and trained == loss:
        words = (
            f"the loss of the batch is {loss:.6g} in training and in evaluation, though the model holds {_and(told)}"
        )
        why = "Training runs in evaluation mode: nothing is dropped, and no batch statistics are learned."
        return [_finding(words, why, "hand the flag on in your objective: model.apply(..., train=train)")]
    if "BatchNorm" in told and not _changed(variables.state, moved):
        words = "a training pass leaves all of the model's state as it was, though the model holds BatchNorm"
        why = "Running means and variances stay those of the start, and evaluation normalises by them."
        fix = "return the new state of model.apply(..., train=True) in Aux; let BatchNorm.momentum be below 1"
        return [_finding(words, why, fix)]
    return []


def check_distance(
    trained: float, evaluated: float, goal: Goal | None, steps: int, layers: set[Settings]
) -> list[Finding]:
    """The loss of the same examples in both modes, once the batch has been trained on."""
    room = trained if goal is None else goal.nothing - goal.least
    if np.isfinite(evaluated) and evaluated <= max(TIMES * trained, trained + PART * room):
        return []
    told = sorted({type(layer).__name__ for layer in layers if _differs(layer)})
    words = (
        f"after {steps} steps on one batch its loss is {trained:.3g} in training mode and {evaluated:.3g} in evaluation"
    )
    why = "The examples are the same, so what differs is the mode: running statistics that lag, or a forgotten flag."
    fix = "BatchNorm(momentum=0.9) (the share that is kept), larger batches, GroupNorm; look at every `net.train`"
    return [_finding(words + (f"; the model holds {_and(told)}" if told else ""), why, fix)]


def _differs(layer: Settings) -> bool:
    """Whether a layer is another one in training."""
    return isinstance(layer, nn.BatchNorm) or (isinstance(layer, nn.Dropout) and layer.rate > 0)


def _changed(old: Any, new: Any) -> list[str]:
    if jax.tree.structure(old) != jax.tree.structure(new):
        return ["other entries"]
    pairs = zip(paths(old), jax.tree.leaves(old), jax.tree.leaves(new), strict=True)
    return [path for path, a, b in pairs if not np.array_equal(np.asarray(a), np.asarray(b))]


def _finding(measured: str, why: str, fix: str) -> Finding:
    return Finding(EVALUATION, measured, why, fix)


def _and(names: list[str]) -> str:
    return " and ".join(names)
