"""Training on one batch for a moment: is the learning rate right, and can the batch be learned by heart?"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdl.diagnosis.findings import NOT_OVERFITTED, RATE_TOO_HIGH, RATE_TOO_LOW, Finding
from jdl.diagnosis.passes import evaluate
from jdl.gradients import gradient
from jdl.objectives import Batch, Objective
from jdl.programs import Program, cached_program
from jdl.steps import Step, TrainState, make_step, start_state

Array = jax.Array

STEPS = 20
RISES = 2.0  # the loss times this, or that of knowing nothing, is not reached by a step of the right size
STANDS = 0.98  # of the loss at the start: it has not moved
FALLS = 0.5  # of the loss at the start: it can be moved
LONGEST = 1.0  # of the weights: an update larger than they are replaces what was initialised
USUAL = 1e-3  # of the weights, for an update
LOWER = (0.1, 1e-2, 1e-3, *(10.0**-power for power in range(4, 38, 2)))
HIGHER = (1e2, 1e4, 1e6)
LEARNED = 0.2  # of the way from the least possible loss to that of knowing nothing
NOTHING = 0.8  # the same, for a model that learns nothing, whatever its size
TOGETHER = 64  # examples, at most, to learn by heart


@dataclasses.dataclass(frozen=True)
class Trial:
    """Losses ``[steps]`` in training mode before each step, update-to-weight ratios ``[steps]``, and the last state.

    A ratio is inf where weights or updates are not finite, and NaN where all weights are still zero.
    """

    factor: float
    losses: np.ndarray
    ratios: np.ndarray
    state: TrainState

    @property
    def end(self) -> float:
        """Where the loss is after it: the mean of the last quarter."""
        return float(np.mean(self.losses[-len(self.losses) // 4 :]))

    def is_stable(self, ceiling: float) -> bool:
        """Whether the loss stayed finite and below a ceiling."""
        return bool(np.isfinite(self.losses).all() and self.losses.max() <= ceiling)

    @property
    def ratio(self) -> float:
        """The median update-to-weight ratio over the steps."""
        return float(np.median(self._known))

    @property
    def first(self) -> float:
        """The ratio of the first update that moves weights that are not all zero."""
        return float(next((ratio for ratio in self._known if ratio > 0), 0.0))

    @property
    def is_long(self) -> bool:
        """Whether updates are larger than the weights: the first, before weights grow with it, or most of them.

        Weights that start at zero have no ratio at the first, and a usual one may be a little above 1 at the second.
        """
        return bool(self.ratios[0] > LONGEST or self.ratio > LONGEST)

    @property
    def _known(self) -> np.ndarray:
        known = self.ratios[~np.isnan(self.ratios)]
        return known if known.size else np.zeros(1)  # zero weights that no update has moved


def run_trial(step: Step, state: TrainState, batch: Batch, factor: float = 1.0, steps: int = STEPS) -> Trial:
    """So many steps on one batch, with updates ``factor`` times as large, under the same key: one fixed function."""
    program = trial_program(step)
    losses, ratios = [], []
    for _ in range(steps):
        state, loss, ratio = program(state, batch, jnp.float32(factor))
        state = dataclasses.replace(state, step=jnp.zeros_like(state.step))
        losses.append(loss)
        ratios.append(ratio)
    return Trial(factor, np.asarray(jax.device_get(losses)), np.asarray(jax.device_get(ratios)), state)


@cached_program
def trial_program(step: Step) -> Program:
    """``(state, batch, factor) -> (state, loss, ratio)``: a step whose update is multiplied by ``factor``.

    The ratio is the median over kernels of the root mean square of the update over that of the weights, without those
    that are zero.
    """

    def one(state: TrainState, batch: Batch, factor: Array) -> tuple[TrainState, Array, Array]:
        new, report = step(state, batch)
        params = jax.tree.map(lambda a, b: a + factor.astype(a.dtype) * (b - a), state.params, new.params)
        pairs = list(zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True))
        kernels = [(a, b) for a, b in pairs if a.ndim > 1] or pairs
        ratios = jnp.stack([_ratio(b - a, a) for a, b in kernels if a.size])
        return dataclasses.replace(new, params=params), report["loss"].compute(), jnp.nanmedian(ratios)

    return Program(one, "diagnosis_step")


def _ratio(update: Array, weights: Array) -> Array:
    """Of their sizes: NaN for finite updates of weights that are zero, inf where either is not finite."""
    above, below = _rms(update), _rms(weights)
    ratio = jnp.where(below == 0, jnp.nan, above / jnp.where(below == 0, 1, below))
    return jnp.where(jnp.isfinite(above) & jnp.isfinite(below), ratio, jnp.inf)


def _rms(x: Array) -> Array:
    """Made smaller before squaring where squares would overflow."""
    x = x.astype(jnp.float32)
    scale = jnp.where(jnp.max(jnp.abs(x)) > 1e15, jnp.float32(1e-25), jnp.float32(1))
    return jnp.sqrt(jnp.mean(jnp.square(x * scale))) / scale


def calm_trial(step: Step, state: TrainState, batch: Batch, trial: Trial) -> Trial:
    """The trial itself, or where its loss runs away the first by smaller updates of which it does not."""
    ceiling = RISES * float(trial.losses[0])
    smaller = (run_trial(step, state, batch, factor) for factor in LOWER)
    return next((one for one in itertools.chain([trial], smaller) if one.is_stable(ceiling)), trial)


def check_rate(
    step: Step, state: TrainState, batch: Batch, trial: Trial, ceiling: float, learned: bool
) -> list[Finding]:
    """Whether the updates of a trial are too large or too small, tried by smaller and larger ones.

    ``ceiling`` is a loss that is not reached by steps of the right size; ``learned`` says that little is left to learn.
    """
    start = float(trial.losses[0])
    stable, moves, long = trial.is_stable(ceiling), trial.end < STANDS * start, trial.is_long
    if not np.isfinite(start) or (stable and moves and not long):
        return []
    ratio = trial.ratio if stable and not long else trial.first  # what has died or diverged no longer moves
    said = f"updates are {ratio:.1e} of the weights (median over kernels; 1e-3 is usual), and within "
    said += f"{len(trial.losses)} steps on one batch the loss goes from {start:.3g} to {trial.end:.3g}"
    if not stable:
        said += f", at most {trial.losses.max():.3g}"
    numbers = {"ratio": ratio, "losses": trial.losses}
    why = "Steps longer than the valley is wide climb its walls: the loss rises, jumps or becomes NaN."
    enough = (FALLS if stable and not long else STANDS) * start
    for factor in LOWER:
        if factor * trial.ratios[0] > LONGEST:  # as long as the weights, still
            continue
        other = run_trial(step, state, batch, factor)
        if other.is_stable(ceiling) and other.end < enough and not other.is_long:
            words = f"{said}; with updates {factor:g} times as large it falls to {other.end:.3g}"
            fix = f"a learning rate {_count(1 / factor)} times lower, warm-up, optax.clip_by_global_norm(1.0)"
            return [Finding(RATE_TOO_HIGH, words, why, fix, "", numbers | {"factor": factor})]
    if long:
        size = max(trial.first, trial.ratio)
        lower = f"{_count(size / USUAL)} times lower" if np.isfinite(size) else "of a usual size, such as 1e-3 for Adam"
        fix = f"a learning rate {lower}, warm-up, optax.clip_by_global_norm(1.0)"
        return [Finding(RATE_TOO_HIGH, said, why, fix, "", numbers)]
    if not stable or learned or _warms_up(trial):
        return []
    for factor in HIGHER:
        other = run_trial(step, state, batch, factor)
        if other.is_stable(ceiling) and other.end < FALLS * start:
            words = f"{said}; with updates {factor:g} times as large it falls to {other.end:.3g}"
            why = "Training ends before it has got anywhere, and what is found is close to the initial weights."
            fix = f"a learning rate {factor:,.0f} times higher, or what lies between"
            return [Finding(RATE_TOO_LOW, words, why, fix, "", numbers | {"factor": factor})]
    return []


def _count(number: float) -> str:
    return f"{number:,.0f}" if number < 1e7 else f"{number:.0e}".replace("e+0", "e").replace("e+", "e")


def _warms_up(trial: Trial) -> bool:
    """Whether updates grow steadily, as a schedule lets them at its start."""
    quarter = len(trial.ratios) // 4
    return bool(trial.ratios[-1] > 1.5 * trial.ratios[quarter] > 0) or trial.ratios[-1] > trial.ratios[0] == 0


class Way(NamedTuple):
    """How to train: a step, from a state, with updates ``factor`` times as large; ``other`` if not as given."""

    name: str
    step: Step
    state: TrainState
    factor: float = 1.0
    other: bool = True

    @property
    def said(self) -> str:
        """What to add to a result that the given optimizer has not reached."""
        return f", by {self.name}, not by the optimizer given" if self.other else ""


@dataclasses.dataclass(frozen=True)
class Goal:
    """The loss of the supervised terms: of a model that knows nothing, and the least there can be."""

    nothing: float
    least: float

    def share(self, loss: float) -> float:
        """0 where all is learned, 1 where nothing is."""
        return (loss - self.least) / max(self.nothing - self.least, 1e-12)


def learn_by_heart(steps: list[Way], bare: Objective, batch: Batch, goal: Goal, most: int) -> tuple[Way, int, float]:
    """Train on the batch in each of these ways until the loss in evaluation is low: the way at its end, steps, loss.

    If none gets there, the one that got furthest.
    """
    best: tuple[Way, int, float] | None = None
    for way in steps:
        name, step, state, factor, other = way
        program, loss, done = trial_program(step), np.inf, 0
        while done < most and not goal.share(loss) < LEARNED:
            for _ in range(min(10, most - done)):
                state, trained, _ = program(state, batch, jnp.float32(factor))
                done += 1
            loss = np.nan_to_num(min(evaluate(bare, state.variables, batch), float(trained)), nan=np.inf)
            if loss == np.inf:
                break
        if best is None or loss < best[2]:
            best = Way(name, step, state, factor, other), done, float(loss)
        if goal.share(loss) < LEARNED:
            break
    assert best is not None
    return best


def sane_ways(objective: Objective, state: TrainState) -> list[Way]:
    """Adam at two rates, one of which suits nearly any network of usual scales."""
    ways = []
    for rate, written in ((1e-2, "1e-2"), (1e-3, "1e-3")):
        step = make_step(gradient(objective), _adam(rate))
        ways.append(Way(f"Adam at {written}", step, start_state(state.variables, step.optimizer, state.key)))
    return ways


@functools.cache
def _adam(rate: float) -> optax.GradientTransformation:
    """One value a rate, so that programs made of it are found again."""
    return optax.adam(rate)


def not_overfitted(examples: int, name: str, done: int, loss: float, goal: Goal) -> Finding:
    """The finding for a batch that nothing learned."""
    words = f"{examples} examples, {done} steps of each of several optimizers: the loss is still {loss:.3g} "
    words += f"({name} did best), where saying the same of every example gives {goal.nothing:.3g}"
    words += f", and {goal.least:.3g} is possible" if goal.least > 0.01 * goal.nothing else ""
    why = "A network that cannot learn a handful of examples by heart has a fault in its wiring, its data or its loss."
    fix = "see that inputs and targets belong together and reach the loss, that all layers train, and add width"
    return Finding(NOT_OVERFITTED, words, why, fix, "", {"loss": loss, "share": goal.share(loss)})
