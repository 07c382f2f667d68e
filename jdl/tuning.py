"""Finding a learning rate: a short run in which it rises, and the curve of the loss over it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from numbers import Real
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdl import check
from jdl.check import InputError
from jdl.data import Dataset, Splits, indices_between, load
from jdl.gradients import Gradient
from jdl.nn.core import Layer
from jdl.nn.settings import Variables
from jdl.objectives import Batch, Objective, supervised, supervised_terms
from jdl.runs import check_targets
from jdl.steps import TrainState, init_state, make_step

Array = jax.Array

LEAST_STEPS = 20
_WIDTH = 0.05  # of the window of the smoothed curve, its standard deviation as a share of the steps
_RECENT = 5  # losses whose mean tells divergence
_ROUNDING = 1e-4  # a smaller share of the loss is no fall
_STANDARD_ERRORS = 5  # a fall of so many is none by chance: of 1000 curves of noise alone about 5 have one


@dataclasses.dataclass(frozen=True, eq=False)
class LearningRateSearch:
    """What :func:`find_learning_rate` saw, up to where the loss diverged.

    Attributes:
        rates: ``[K]``, rising.
        losses: ``[K]``, of the training batch before the step with each rate.
        smoothed: ``[K]``, the losses by local linear regression over the logarithm of the rate.
        slopes: ``[K]``, of that curve: by how much the loss changes from one step to the next.
        steps: how many were to be taken.
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    slopes: np.ndarray
    steps: int

    @property
    def diverged(self) -> bool:
        """Whether the run ended before the last rate."""
        return len(self.losses) < self.steps

    @property
    def suggestion(self) -> float:
        """The rate at which the smoothed loss falls most steeply, before its minimum.

        A safe start; what trains best is often up to ten times as large.

        Raises:
            InputError: the loss did not fall by more than its noise explains.
        """
        self._check_fall()
        least = int(np.argmin(self.smoothed))
        return float(self.rates[np.argmin(self.slopes[: least + 1])])

    def __repr__(self) -> str:
        try:
            result = f"suggestion={self.suggestion:.2g}"
        except InputError:
            result = "no suggestion"
        span = f"{len(self.rates)} rates from {self.rates[0]:.2g} to {self.rates[-1]:.2g}"
        return f"LearningRateSearch({span}{', diverged' * self.diverged}, {result})"

    def plot(self, path: str | Path | None = None) -> Any:
        """The loss over the rate, with the suggestion; written to ``path`` (PNG, SVG, PDF) where one is given.

        Returns the figure.
        """
        from jdl.show import figures  # matplotlib is an extra

        figure, (axes,) = figures.new_figure(1, 1, (6.0, 3.8), path)
        figures.style(axes, "loss by learning rate")
        axes.set_xscale("log")
        axes.set_xlabel("learning rate", fontsize=8, color=figures.QUIET)
        axes.plot(self.rates, self.losses, ".", color=figures.QUIET, markersize=3, alpha=0.6, label="batches")
        axes.plot(self.rates, self.smoothed, color=figures.BLUE, linewidth=1.8, label="smoothed")
        # Up to the scatter before the fall: what diverges would flatten all else.
        low, high = np.min(self.losses), np.max(self.losses[: np.argmin(self.losses) + 1])
        margin = 0.08 * (high - low) or 1.0
        axes.set_ylim(low - margin, high + margin)
        try:
            rate = self.suggestion
            axes.axvline(rate, color=figures.ORANGE, linewidth=1.4, label=f"steepest at {rate:.2g}")
        except InputError:
            axes.set_title("loss by learning rate: it does not fall", fontsize=10, color=figures.INK, loc="left")
        axes.legend(fontsize=7.5, frameon=False, labelcolor=figures.INK)
        return figures.finish(figure, path)

    def _check_fall(self) -> None:
        seen = f"between the rates {self.rates[0]:.2g} and {self.rates[-1]:.2g}"
        if len(self.losses) < LEAST_STEPS // 2:
            raise InputError(f"the loss diverged after {len(self.losses)} steps, {seen}; start from a smaller low=")
        least = int(np.argmin(self.smoothed))
        fall = float(np.max(self.smoothed[: least + 1]) - self.smoothed[least])
        noise = float(np.std((self.losses - self.smoothed)[: least + 1]))
        by_chance = _STANDARD_ERRORS * noise / math.sqrt(_WIDTH * self.steps)
        if fall <= max(by_chance, _ROUNDING * abs(self.smoothed[0])):
            raise InputError(
                f"no rate to suggest: {seen} the loss fell by {fall:.3g} at most, and batches scatter by {noise:.3g}; "
                "try other low= and high=, more steps= or a larger batch_size=, and see that the loss fits the data"
            )


def find_learning_rate(
    model: Layer,
    loss: Callable[..., Array] | Objective | Gradient,
    optimizer: Callable[[Any], optax.GradientTransformation],
    data: Any,
    *,
    low: float = 1e-7,
    high: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    seed: int = 0,
    variables: Variables | None = None,
) -> LearningRateSearch:
    """Train for a few steps while the learning rate rises, and see where the loss falls.

    Step k has the rate ``low · (high / low) ** (k / (steps - 1))``. The run ends where the loss is not finite, or the
    mean of the last five is above four times the least such mean (Smith 2017, arXiv:1506.01186).

    >>> search = jdl.find_learning_rate(model, jdl.losses.cross_entropy, optax.adam, digits.train)
    >>> search.plot("rates.png")
    >>> run = jdl.fit(model, jdl.losses.cross_entropy, optax.adam(search.suggestion), digits.train, epochs=20)

    Args:
        model: a layer.
        loss: what ``fit`` takes: a loss, an objective or a gradient.
        optimizer: a function of the rate: ``optax.adam``, or ``lambda rate: optax.sgd(rate, momentum=0.9)``.
        data: a Dataset, ``(inputs, targets)``, a dict of arrays, Splits, or the name of a data set.
        low: the first rate.
        high: the last rate.
        steps: how many, at least 20.
        batch_size: examples in a step.
        seed: of the initial parameters, the order of the data and the keys.
        variables: start from a copy of these; they stay as they are.

    Raises:
        InputError: one of these cannot be used, or the first loss is not finite.
    """
    rising = optax.inject_hyperparams(_by_rate(optimizer))(learning_rate=_Rising(*_range(low, high, steps)))
    train = _training_data(data)
    rows = indices_between(len(train), batch_size, seed, 0, steps)
    field = loss if isinstance(loss, (Objective, Gradient)) else supervised(model, loss)
    objective = _objective_of(field)
    inputs = next((term.inputs for term in supervised_terms(objective)), "inputs")
    state = init_state(model, rising, train.gather(rows[0]), seed, inputs=inputs, variables=variables)
    check_targets(objective, state.variables, train, "data")
    step = make_step(field, rising)

    def search_step(state: TrainState, data: Batch, indices: Array) -> tuple[TrainState, Array]:
        batch = jax.tree.map(lambda x: x.at[indices].get(mode="promise_in_bounds"), data)
        state, metrics = step(state, batch)
        return state, metrics["loss"].compute()

    compiled = jax.jit(search_step, donate_argnums=0)
    arrays = jax.tree.map(jnp.asarray, dict(train.arrays))
    losses: list[float] = []
    for indices in rows:
        state, value = compiled(state, arrays, indices)
        losses.append(float(value))
        if _diverged(losses):
            break
    return _search(np.asarray(losses), low, high, steps)


def _search(losses: np.ndarray, low: float, high: float, steps: int) -> LearningRateSearch:
    losses = losses[np.isfinite(losses)]
    if not len(losses):
        raise InputError("the first loss is not finite; look at the data, the loss and the initial parameters")
    rates = low * (high / low) ** (np.arange(len(losses)) / (steps - 1))
    # What is higher than anything before the least loss belongs to divergence, and would bend the curve.
    capped = np.minimum(losses, np.max(losses[: np.argmin(losses) + 1]))
    return LearningRateSearch(rates, losses, *_local_lines(capped, _WIDTH * steps), steps)


def _local_lines(y: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """At each place the value and the slope of a line fitted with Gaussian weights around it (Cleveland 1979).

    Unlike a running mean it lags behind nowhere and is not drawn to one side at the ends.
    """
    x = np.arange(len(y), dtype=np.float64)
    weights = np.exp(-0.5 * ((x[:, None] - x) / width) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    mean_x, mean_y = weights @ x, weights @ y
    variance = weights @ x**2 - mean_x**2
    slopes = (weights @ (x * y) - mean_x * mean_y) / np.where(variance > 0, variance, 1)
    return mean_y + slopes * (x - mean_x), slopes


def _diverged(losses: list[float]) -> bool:
    """Not finite, or the mean of the last five above four times the least such mean (as far above a negative one)."""
    window = min(_RECENT, len(losses))
    means = np.convolve(losses, np.full(window, 1 / window), mode="valid")
    return not math.isfinite(losses[-1]) or bool(means[-1] > np.min(means) + 3 * abs(np.min(means)))


@dataclasses.dataclass(frozen=True)
class _Rising:
    """The schedule: the rate of step ``count``."""

    low: float
    growth: float

    def __call__(self, count: Array) -> Array:
        return self.low * jnp.exp(self.growth * count.astype(jnp.float32))


def _range(low: float, high: float, steps: int) -> tuple[float, float]:
    if not isinstance(steps, int) or steps < LEAST_STEPS:
        raise InputError(f"steps got {steps!r}, wanted an integer of at least {LEAST_STEPS}")
    if not all(isinstance(rate, Real) for rate in (low, high)) or not 0 < low < high < math.inf:
        raise InputError(f"low got {low!r} and high {high!r}, wanted rates with 0 < low < high")
    return float(low), math.log(high / low) / (steps - 1)


def _by_rate(optimizer: Any) -> Callable[[Any], optax.GradientTransformation]:
    """The optimizer as a function of ``learning_rate``, whatever its own argument is called."""
    fix = "a function of the rate: optax.adam, or lambda rate: optax.sgd(rate, momentum=0.9)"
    if hasattr(optimizer, "update"):
        raise InputError(f"optimizer got one with a rate of its own, wanted {fix}")
    if not callable(optimizer):
        raise InputError(f"optimizer got {check.describe(optimizer)}, wanted {fix}")

    def made(learning_rate: Any) -> Any:
        inner = optimizer(learning_rate)
        if not hasattr(inner, "update"):
            raise InputError(f"optimizer(rate) returned {check.describe(inner)}, wanted an optax optimizer; give {fix}")
        return inner

    return made


def _objective_of(field: Any) -> Objective | None:
    while isinstance(field, Gradient):
        field = getattr(field, "objective", getattr(field, "gradient", None))
    return field if isinstance(field, Objective) else None


def _training_data(data: Any) -> Dataset:
    data = load(data) if isinstance(data, str) else data
    return Dataset.of(data.train if isinstance(data, Splits) else data)
