"""Single passes of an objective, compiled once for all checks, and what it is made of."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jdl.nn.settings import Tree, Variables
from jdl.objectives import Augmented, Batch, Objective, Penalty, Scaled, Sum, Supervised
from jdl.programs import Program, cached_program

Array = jax.Array


@cached_program
def pass_program(objective: Objective, train: bool) -> Program:
    """``(variables, batch, key) -> (loss, state)``."""

    def passed(variables: Variables, batch: Batch, key: Array | None) -> tuple[Array, Tree]:
        loss, aux = objective(*variables, batch, key, train)
        return jnp.asarray(loss, jnp.float32), aux.state

    return Program(passed, "diagnosis_train" if train else "diagnosis_evaluation")


def evaluate(objective: Objective, variables: Variables, batch: Batch) -> float:
    """The loss in evaluation."""
    return float(pass_program(objective, False)(variables, batch, None)[0])


def in_training(objective: Objective, variables: Variables, batch: Batch, key: Array) -> float:
    """The loss in training."""
    return float(pass_program(objective, True)(variables, batch, key)[0])


def without_penalties(objective: Objective) -> Objective:
    """What of an objective depends on the data."""
    if isinstance(objective, (Scaled, Augmented)):
        return dataclasses.replace(objective, objective=without_penalties(objective.objective))
    if not isinstance(objective, Sum):
        return objective
    parts = [part for part in (objective.first, objective.second) if not _is_penalty(part)]
    return Sum(*map(without_penalties, parts)) if len(parts) == 2 else without_penalties((*parts, objective.first)[0])


def _is_penalty(objective: Objective) -> bool:
    return isinstance(objective, Penalty) or (isinstance(objective, Scaled) and _is_penalty(objective.objective))


def weighted_terms(objective: Objective) -> list[tuple[float, Supervised]] | None:
    """Supervised terms and their factors; None where the objective holds anything else."""
    if isinstance(objective, Supervised):
        return [(1.0, objective)]
    if isinstance(objective, Augmented):
        return weighted_terms(objective.objective)
    if isinstance(objective, Scaled):
        below: Any = weighted_terms(objective.objective)
        return None if below is None else [(float(objective.factor) * factor, term) for factor, term in below]
    if isinstance(objective, Sum):
        first, second = weighted_terms(objective.first), weighted_terms(objective.second)
        return None if first is None or second is None else first + second
    return None
