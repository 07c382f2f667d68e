"""Numbers that are not finite: noticed at reports and before every save, then traced back to their step.

A run is a function of its settings, so the step that went wrong need not be caught in the act: from the last good
checkpoint the same steps run once more, one look after each, and the state before the bad one is written to a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdl.feeding import Feed
from jdl.nn.paths import paths
from jdl.nn.precision import LOSS_SCALE
from jdl.objectives import Batch
from jdl.optimizers import skipped
from jdl.programs import Program, cached_program
from jdl.replaying import save_step
from jdl.steps import Step, TrainState


class NonFiniteWarning(UserWarning):
    """A loss, gradient or parameter became NaN or infinite; the message says what was done and what to try."""


class BadStep(NamedTuple):
    """A step with a number that is not finite: the state before it, its batch, and its number (from 1)."""

    state: TrainState
    batch: Batch
    step: int


def is_finite(state: TrainState, totals: Any) -> bool:
    """Whether the parameters and the sum of losses are finite."""
    return bool(_all_finite((state.params, totals["loss"])))


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(leaf)) for leaf in leaves]))


def count_skipped(state: TrainState) -> int:
    """How many steps ``jdl.skip_nonfinite`` has skipped."""
    found = skipped(state)
    return 0 if found is None else int(found.total)


def has_loss_scale(state: TrainState) -> bool:
    """Whether ``jdl.loss_scaled`` is at work, which finds its scale by running into steps that are not finite."""
    return any(path.rpartition("/")[2] == LOSS_SCALE for path in paths(state.state))


def find_bad_step(feed: Feed, step: Step, state: TrainState, totals: Any, stop: int, position: Any) -> BadStep | None:
    """Run from a sound state up to step ``stop``, looking after every call, and then at each step of the first bad one.

    None where it does not come again, as numbers of a scan and of single steps differ in their last bits.
    """
    for call in feed.calls(int(state.step), position):
        if call.stop > stop:
            break
        before, count = jax.tree.map(jnp.copy, state), count_skipped(state)
        state, totals = feed.program(step, call.several)(state, totals, *call.arguments)
        if not is_finite(state, totals) or count_skipped(state) > count:
            return _within(step, before, feed.batches(call))
    return None


def _within(step: Step, state: TrainState, batches: list[Batch]) -> BadStep | None:
    for batch in batches:
        new, report = step_program(step)(state, batch)
        if not is_finite(new, report) or count_skipped(new) > count_skipped(state):
            return BadStep(state, batch, int(new.step))
        state = new
    return None


@cached_program
def step_program(step: Step) -> Program:
    """``(state, batch) -> (state, report)``, keeping the state it is given."""
    return Program(step, "step")


def write_bad_step(folder: Path, bad: BadStep) -> Path:
    """The file that ``jdl.replay`` reads."""
    path = folder / f"nonfinite_{bad.step:08d}.safetensors"
    save_step(path, bad.state, bad.batch)
    return path
