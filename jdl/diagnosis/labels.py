"""Targets that the model's head and its loss cannot mean, and heads that the loss does not mean."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
from jax.extend.core import Jaxpr

from jdl import check, losses
from jdl.check import InputError, describe
from jdl.data import Dataset
from jdl.diagnosis import heads
from jdl.diagnosis.findings import LABELS, Finding
from jdl.losses import inputs as loss_inputs
from jdl.nn.settings import Variables
from jdl.nn.tracing import programs_within
from jdl.objectives import Objective, Supervised, masked, supervised_terms
from jdl.runs import check_targets

FEW = 8  # examples of one class that may be chance

_WHY = "The loss then measures something else than what is wanted, and it may fall all the same."
_ONE_CLASS = "There is nothing to tell apart: the loss falls to 0 and nothing is learned."


def check_shapes_and_values(objective: Objective, variables: Variables, data: Dataset, name: str) -> list[Finding]:
    """What a loss of jdl refuses: labels out of range, floats for labels, one-hot of another width, -1 for 0 or 1."""
    try:
        check_targets(objective, variables, data, name)
        for term in supervised_terms(objective):
            _check_range(term, data)
    except InputError as error:
        if "key=None" in error.message:
            return []  # the model draws in evaluation, which is another finding
        measured, _, fix = error.message.partition("; ")
        return [Finding(LABELS, measured, _WHY, fix or "choose the head and the loss that these targets need", name)]
    return []


def _check_range(term: Supervised, data: Dataset) -> None:
    """Targets that mean probabilities lie in 0 to 1, those of a margin are signs. Raises InputError."""
    function = heads.function_of(term.loss)
    targets: Any = data.arrays.get(term.targets) if isinstance(term.targets, str) else None
    mask: Any = data.arrays.get(term.mask) if isinstance(term.mask, str) else None
    if not check.is_array(targets):
        return
    if function in heads.BINARY:
        loss_inputs.check_range(targets, mask, 0, 1, "targets are 0 or 1: use (targets + 1) / 2 for -1 and 1")
    if function in heads.OF_MARGINS and np.unique(targets).size == 2:
        loss_inputs.check_signs(targets, mask)


def check_one_class(targets: Any, name: str) -> list[Finding]:
    """All targets equal, over more than a handful of examples."""
    leaf = np.asarray(targets)
    one_hot = leaf.ndim > 1 and leaf.shape[-1] > 1 and leaf.dtype.kind in "fb"
    rows = leaf.reshape(len(leaf), -1)
    if len(rows) < FEW or leaf.dtype.kind not in "iufb" or not (rows == rows[0]).all():
        return []
    if not one_hot and rows.shape[1] > 1 and not (rows == rows[0, 0]).all():
        return []  # one sequence, repeated
    value = int(rows[0].argmax()) if one_hot else rows[0, 0]
    measured = f"all {len(rows):,} targets are {value:g}"
    fix = "shuffle before taking a part of sorted data; look at how labels were read and encoded"
    return [Finding(LABELS, measured, _ONE_CLASS, fix, name, {"value": value})]


@dataclasses.dataclass(frozen=True)
class Head:
    """What the model puts out for a batch, and what it is to be."""

    term: Supervised
    outputs: np.ndarray
    targets: np.ndarray
    last: Any = None  # the function that the model ends with, where that is known

    def findings(self) -> list[Finding]:
        """Probabilities where logits are wanted or the other way round, classes as numbers, and broadcasting."""
        for said in (self._normalised_twice(), self._not_normalised(), self._numbered(), self._broadcasts()):
            if said is not None:
                return [Finding(LABELS, *said, "outputs")]
        return []

    def _normalised_twice(self) -> tuple[str, str, str] | None:
        function = heads.function_of(self.term.loss)
        if function not in heads.ON_LOGITS:
            return None
        name = getattr(function, "__name__", "")
        why = "The loss takes a softmax or sigmoid of it again: it cannot fall to 0, and gradients are small."
        fix = f"end the model with the layer before; {name} takes logits"
        if function in heads.BINARY:
            if getattr(self.last, "__name__", "") == "sigmoid":
                return "the model ends with a sigmoid, and the loss wants logits", why, fix
        elif self.outputs.min() >= 0 and np.allclose(self.outputs.sum(-1), 1, atol=1e-3):
            return "outputs are probabilities: none is negative and they add up to 1; the loss wants logits", why, fix
        return None

    def _not_normalised(self) -> tuple[str, str, str] | None:
        function = heads.function_of(self.term.loss)
        if function not in heads.ON_PROBABILITIES:
            return None
        low, high = float(self.outputs.min()), float(self.outputs.max())
        sums = self.outputs.sum(-1)
        if low >= 0 and high <= 1 and (function not in heads.CLASSES or np.allclose(sums, 1, atol=1e-3)):
            return None
        measured = f"outputs from {low:.3g} to {high:.3g} are no probabilities, which the loss wants"
        why = "What lies outside of 0 and 1 is clipped, and no gradient flows from there."
        wanted = "cross_entropy" if function in heads.CLASSES else "binary_cross_entropy"
        return measured, why, f"use jdl.losses.{wanted}, which takes logits"

    def _numbered(self) -> tuple[str, str, str] | None:
        """Class numbers that are fitted as if 2 were twice 1: whole numbers 0, 1, …, K, each of them there."""
        if heads.function_of(self.term.loss) not in heads.OF_VALUES or self.targets.dtype.kind not in "iu":
            return None
        values = np.unique(self.targets)
        if len(values) < 3 or len(self.targets) < 2 * len(values):
            return None
        if values[0] != 0 or values[-1] != len(values) - 1:
            return None
        measured = f"targets are whole numbers from 0 to {values[-1]}, {describe(self.targets)}, fitted as quantities"
        why = "Where they number classes, a mistake of 0 for 2 costs four times one of 0 for 1."
        fix = f"for classes: nn.Dense({len(values)}) and jdl.losses.cross_entropy; for quantities: floats"
        return measured, why, fix

    def _broadcasts(self) -> tuple[str, str, str] | None:
        """A loss of the user's own that compares every output with every target."""
        shapes = self.outputs.shape, self.targets.shape
        if heads.function_of(self.term.loss) in heads.KNOWN or (*min(shapes, key=len), 1) != max(shapes, key=len):
            return None
        rows = 13  # a size that nothing else has
        abstract = [jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for x in (self.outputs, self.targets)]
        try:
            program = jax.make_jaxpr(lambda x, y: masked(self.term.loss, x, y, None))(*abstract)
        except Exception:  # a loss for batches of other sizes; nothing is known
            return None
        if not _pairs(program.jaxpr, rows):
            return None
        a, b = map(describe, (self.outputs, self.targets))
        measured = f"outputs {a} and targets {b} broadcast to every pair of them inside the loss"
        why = "Each output is drawn to all targets: the model learns their mean."
        return measured, why, "use targets[..., None] or outputs[..., 0], or one of jdl.losses, which refuse this"


def _pairs(program: Jaxpr, rows: int) -> bool:
    """Whether an array of ``[rows, …, rows]`` arises."""
    for eqn in program.eqns:
        if any(getattr(var.aval, "shape", ()).count(rows) > 1 for var in eqn.outvars):
            return True
        if any(_pairs(below, rows) for below in programs_within(eqn.params)):
            return True
    return False


def is_classification(term: Supervised) -> bool:
    """Whether the loss is one of classes, of those known here."""
    function = heads.function_of(term.loss)
    return function in (*heads.CLASSES, *heads.BINARY, *heads.OF_MARGINS) or function is losses.ctc
