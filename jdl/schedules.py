"""Schedules: a value for each step, most often the learning rate. Give one to any optax optimizer in place of a number.

>>> optax.adamw(jdl.schedules.cosine_annealing(1e-3, steps=10_000, warm_up=500))

A schedule is called with the number of steps done, 0 before the first, or an array of them, and returns the value for
the next. What is called ``initial``, ``final`` or ``peak`` may be any finite number, so weight decay, a temperature or
the weight of a term can follow one too. Equal settings are equal values, and print as they were written. optax's own
schedules and any function of a step serve just as well.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.check import Array, InputError

__all__ = [
    "Schedule",
    "constant",
    "cosine_annealing",
    "cosine_annealing_with_restarts",
    "exponential_decay",
    "inverse_square_root",
    "linear_decay",
    "one_cycle",
    "polynomial_decay",
    "step_decay",
    "warm_up",
]

_LAST_STEP = 2**31 - 1  # steps are counted in int32


class Schedule:
    """Base of the schedules here: a function ``step -> value``, of a scalar or element by element of an array."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            checked = _CHECKS[field.name](field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, checked)

    def __call__(self, step: Any) -> Array:
        """The value for the step that comes after ``step`` steps, in the default float dtype."""
        raise NotImplementedError(f"{type(self).__name__} has no __call__(self, step)")


@dataclasses.dataclass(frozen=True)
class constant(Schedule):
    """One value for all steps: what :func:`warm_up` leads to when nothing decays afterwards."""

    value: float

    def __call__(self, step: Any) -> Array:
        return jnp.full_like(_float(step), self.value)


@dataclasses.dataclass(frozen=True)
class step_decay(Schedule):
    """``initial`` times ``factor`` once for every ``every`` steps done. PyTorch's StepLR."""

    initial: float
    every: int
    factor: float = 0.5

    def __call__(self, step: Any) -> Array:
        return self.initial * self.factor ** _float(jnp.asarray(step) // self.every)


@dataclasses.dataclass(frozen=True)
class exponential_decay(Schedule):
    """``initial`` times ``factor`` over every ``every`` steps, a little at each. PyTorch's ExponentialLR."""

    initial: float
    factor: float
    every: int = 1

    def __call__(self, step: Any) -> Array:
        return self.initial * self.factor ** (_float(step) / self.every)


@dataclasses.dataclass(frozen=True)
class polynomial_decay(Schedule):
    """From ``initial`` to ``final`` in ``steps`` steps, as (1 - step/steps)^power; ``final`` from there on."""

    initial: float
    steps: int
    power: float = 1.0
    final: float = 0.0

    def __call__(self, step: Any) -> Array:
        left = 1 - jnp.clip(_float(step) / self.steps, 0, 1)
        return self.final + (self.initial - self.final) * left**self.power


def linear_decay(initial: float, steps: int, final: float = 0.0) -> polynomial_decay:
    """From ``initial`` to ``final`` in ``steps`` steps along a straight line; ``final`` from there on."""
    return polynomial_decay(initial, steps, final=final)


@dataclasses.dataclass(frozen=True)
class cosine_annealing(Schedule):
    """From ``initial`` to ``final`` in ``steps`` steps along half a cosine; ``final`` from there on.

    The first ``warm_up`` of these steps lead up to ``initial``, as in :func:`warm_up`.
    Loshchilov & Hutter 2017, arXiv:1608.03983.
    """

    initial: float
    steps: int
    final: float = 0.0
    warm_up: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warm_up >= self.steps:
            raise InputError(f"warm_up got {self.warm_up}, wanted fewer than the {self.steps} steps of the whole")

    def __call__(self, step: Any) -> Array:
        decay = _float(step) - self.warm_up
        value = _half_cosine(self.initial, self.final, decay / (self.steps - self.warm_up))
        return _warm(value, step, self.warm_up, self.initial)


@dataclasses.dataclass(frozen=True)
class cosine_annealing_with_restarts(Schedule):
    """Half a cosine from ``initial`` to ``final``, again and again (SGDR).

    The first takes ``period`` steps and each other ``growth`` times as many as the one before. Each starts from
    ``decay`` times the value that the one before started from. PyTorch's CosineAnnealingWarmRestarts, which calls
    period and growth T_0 and T_mult. Loshchilov & Hutter 2017, arXiv:1608.03983.
    """

    initial: float
    period: int
    growth: int = 1
    final: float = 0.0
    decay: float = 1.0

    def __call__(self, step: Any) -> Array:
        step = jnp.asarray(step)
        cycle, done, length = self._place(step)
        initial = self.initial * self.decay ** _float(cycle)
        return _half_cosine(initial, self.final, _float(done) / _float(length))

    def _place(self, step: Array) -> tuple[Array, Array, Any]:
        """In which cycle a step is, how many of its steps are done, and how many it has."""
        if self.growth == 1:
            return step // self.period, step % self.period, self.period
        starts, length = [0], self.period
        while starts[-1] + length <= _LAST_STEP:  # 31 of them at most, and exact where logarithms are not
            starts.append(starts[-1] + length)
            length *= self.growth
        lengths = self.period * self.growth ** np.arange(len(starts), dtype=object)
        table = jnp.asarray(np.asarray(starts, np.int32))
        cycle = jnp.searchsorted(table, step.astype(table.dtype), side="right") - 1
        return cycle, step - table[cycle].astype(step.dtype), jnp.asarray(lengths.astype(np.float32))[cycle]


@dataclasses.dataclass(frozen=True)
class warm_up(Schedule):
    """A straight line up to the first value of ``schedule`` for ``steps`` steps, and then ``schedule`` from its start.

    Step k of n trains at (k + 1)/(n + 1) of that value, so the first does not train at 0. ``schedule`` may be any
    function of a step, or a number to stay at. Goyal et al. 2017, arXiv:1706.02677.
    """

    schedule: Callable[[Any], Any] | float
    steps: int

    def __call__(self, step: Any) -> Array:
        schedule: Any = self.schedule
        step = jnp.asarray(step)
        value, first = schedule(jnp.maximum(step - self.steps, 0)), schedule(jnp.zeros_like(step))
        return _warm(_float(value), step, self.steps, _float(first))


@dataclasses.dataclass(frozen=True)
class one_cycle(Schedule):
    """Up from ``start`` times ``peak`` and down to ``end`` times ``peak``, each along half a cosine.

    The last of ``steps`` steps trains at the end value; ``rise`` is the share of steps on the way up. The defaults are
    those of PyTorch's OneCycleLR (pct_start 0.3, div_factor 25, final_div_factor 10,000). Smith & Topin 2018,
    arXiv:1708.07120.
    """

    peak: float
    steps: int
    rise: float = 0.3
    start: float = 1 / 25
    end: float = 1 / 250_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 < self.rise * self.steps < self.steps:
            raise InputError(
                f"rise got {self.rise}, wanted a share under 1 that is more than one of {self.steps} steps"
            )

    def __call__(self, step: Any) -> Array:
        top, last = self.rise * self.steps - 1, self.steps - 1
        up = _half_cosine(self.start * self.peak, self.peak, _float(step) / top)
        down = _half_cosine(self.peak, self.end * self.peak, (_float(step) - top) / (last - top))
        return jnp.where(_float(step) <= top, up, down)


@dataclasses.dataclass(frozen=True)
class inverse_square_root(Schedule):
    """A straight line up to ``peak`` at step ``warm_up``, and from there on peak √(warm_up / n), n counted from 1.

    The rate of the first Transformers, whose ``peak`` is (width · warm_up)^-½. Vaswani et al. 2017, arXiv:1706.03762.
    """

    peak: float
    warm_up: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warm_up < 1:
            raise InputError(f"warm_up got {self.warm_up}, wanted at least 1 step")

    def __call__(self, step: Any) -> Array:
        n = _float(step) + 1
        return self.peak * jnp.minimum(n / self.warm_up, jnp.sqrt(self.warm_up / n))


def _float(x: Any) -> Array:
    """Steps as floats of the default dtype, so that nothing depends on how they are counted."""
    return jnp.asarray(x).astype(jnp.result_type(float))


def _half_cosine(start: Any, end: Any, share: Array) -> Array:
    """From ``start``, at a share of 0 or less, to ``end``, at 1 or more."""
    return end + (start - end) * (1 + jnp.cos(math.pi * jnp.clip(share, 0, 1))) / 2


def _warm(value: Array, step: Any, steps: int, peak: Any) -> Array:
    """``value``, but for the first steps the line that leads to ``peak``."""
    line = peak * (_float(step) + 1) / (steps + 1)
    return jnp.where(jnp.asarray(step) < steps, line, value) if steps else value


def _is_finite(x: Any) -> bool:
    return isinstance(x, Real) and not isinstance(x, bool) and math.isfinite(x)


def _value(name: str, x: Any) -> Any:
    """A number, or a scalar array, whose value may be traced: a vmap can run over it."""
    if _is_finite(x):
        return x if isinstance(x, int) else float(x)
    if isinstance(x, Real) or not check.is_array(x) or x.shape != () or not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(f"{name} got {check.describe(x)}, wanted a finite number")
    return x


def _factor(name: str, x: Any) -> Any:
    x = _value(name, x)
    if not check.is_array(x) and x <= 0:
        raise InputError(f"{name} got {x}, wanted a number above 0")
    return x


def _share(name: str, x: Any) -> float:
    if not _is_finite(x) or not 0 < x < 1:
        raise InputError(f"{name} got {check.describe(x)}, wanted a number between 0 and 1")
    return float(x)


def _steps(name: str, x: Any, least: int = 1) -> int:
    if not _is_finite(x) or not isinstance(x, Integral) or not least <= int(x) <= _LAST_STEP:
        fix = f"; use {round(x)}" if isinstance(x, float) and 1 <= x <= _LAST_STEP else ""
        raise InputError(f"{name} got {check.describe(x)}, wanted a whole number of steps, at least {least}{fix}")
    return int(x)


def _schedule(name: str, x: Any) -> Callable[[Any], Any]:
    return x if callable(x) else constant(_value(name, x))


_CHECKS: dict[str, Callable[[str, Any], Any]] = {  # what each setting must be, in whichever schedule it stands
    **dict.fromkeys(("value", "initial", "final", "peak", "start", "end"), _value),
    **dict.fromkeys(("factor", "power", "decay"), _factor),
    **dict.fromkeys(("steps", "every", "period", "growth"), _steps),
    "warm_up": functools.partial(_steps, least=0),
    "rise": _share,
    "schedule": _schedule,
}
