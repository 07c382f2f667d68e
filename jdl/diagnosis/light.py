"""What can be seen of data in milliseconds, without running a model: the light form, for the start of ``fit``."""

from __future__ import annotations

from typing import Any

from jdl.data import Dataset
from jdl.diagnosis import inputs, labels, rows
from jdl.diagnosis.findings import NO_VALIDATION, Finding
from jdl.nn.core import Layer
from jdl.objectives import Objective, Supervised, supervised_terms


def no_validation() -> Finding:
    """The finding for a run that holds nothing out."""
    why = "The training loss falls for what is learned by heart, too: nothing says when to stop, or what is better."
    fix = "hold out a tenth: train, validation = data.split((0.9, 0.1), stratify='targets')"
    return Finding(NO_VALIDATION, "validation is None", why, fix)


def light(objective: Objective | None, model: Layer, train: Any, validation: Any) -> list[Finding]:
    """What can be seen in milliseconds, without running or compiling anything: ``fit`` calls it before the first step.

    The scale of the inputs (a few hundred examples), targets that are all of one class, and a thousand validation
    examples looked for in the training data (at most 200,000 of it); then whether anything is held out. Data that is
    not in memory is not looked at.
    """
    findings: list[Finding] = []
    terms = supervised_terms(objective) or [inputs_alone(model)]
    if isinstance(train, Dataset):
        for term in terms:
            if (given := entry(train, term.inputs)) is not None:
                findings += inputs.check_inputs(term.model, given, name_of(term.inputs))
            if labels.is_classification(term) and (targets := entry(train, term.targets)) is not None:
                findings += labels.check_one_class(targets, name_of(term.targets))
    if validation is None:
        return [*findings, no_validation()]
    if isinstance(train, Dataset) and isinstance(validation, Dataset):
        mine, theirs = (entry(data, "inputs") for data in (train, validation))
        if mine is not None and theirs is not None:
            findings += rows.check_overlap(mine, theirs)
    return findings


def _no_loss(outputs: Any, targets: Any) -> Any:
    raise NotImplementedError


def inputs_alone(model: Layer) -> Supervised:
    """A term that only says where the model's inputs are."""
    return Supervised(model, _no_loss)


def entry(data: Dataset, selector: Any) -> Any:
    """An entry of the data by name; None for one that is computed, or that is not there."""
    return data.arrays.get(selector) if isinstance(selector, str) else None


def name_of(selector: Any) -> str:
    """What an entry is called; nothing where it is computed."""
    return selector if isinstance(selector, str) else ""
