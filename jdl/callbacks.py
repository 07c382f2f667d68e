"""Callbacks that watch a number of the reports: stop when it no longer improves, or lower the learning rate.

What ``fit`` asks of a callback is at :class:`jdl.Run`; any callable of the run is one.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jdl.check import InputError, describe
from jdl.direction import less_is_better
from jdl.nn.settings import Variables
from jdl.optimizers import hyperparams, with_hyperparams
from jdl.runs import Run
from jdl.steps import eval_variables

Mode = Literal["min", "max"]


class _Watch:
    """The best value of a metric so far, and for how many reports there has been no better one."""

    def __init__(self, metric: str, patience: int, min_delta: float, mode: Mode | None):
        owner = type(self).__name__
        if not isinstance(metric, str):
            raise InputError(f"metric got {describe(metric)}, wanted a name such as 'validation_loss'", owner)
        if mode not in (None, "min", "max"):
            raise InputError(f"mode got {mode!r}, wanted 'min', 'max' or None, by the name of the metric", owner)
        if not isinstance(min_delta, Real) or not 0 <= min_delta < math.inf:
            raise InputError(f"min_delta got {min_delta!r}, wanted a number of at least 0", owner)
        self.metric, self.patience, self.min_delta = metric, patience, float(min_delta)
        self.less_is_better = mode == "min" if mode else less_is_better(metric)
        self._was_set = False
        self._reset()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.metric!r})"  # by which a checkpoint knows whose state it keeps

    def begin(self, run: Run) -> None:
        """Forget an earlier run, unless :meth:`set_state` has just brought this one's past."""
        if not self._was_set:
            self._reset()
        self._was_set = False

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"best": self.best, "waited": self.waited}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned, its numbers and arrays perhaps as NumPy's."""
        self.best = None if state["best"] is None else float(state["best"])
        self.waited = int(state["waited"])
        self._was_set = True

    def _reset(self) -> None:
        self.best: float | None = None
        self.waited = 0

    def _improved(self, run: Run) -> bool:
        """Read the last report; NaN is never better."""
        value = self._value(run.history[-1])
        best = (math.inf if self.less_is_better else -math.inf) if self.best is None else self.best
        better = value < best - self.min_delta if self.less_is_better else value > best + self.min_delta
        if better:
            self.best = value
        self.waited = 0 if better else self.waited + 1
        return better

    def _value(self, row: dict[str, Any]) -> float:
        where = type(self).__name__
        numbers = [name for name, value in row.items() if np.ndim(value) == 0]
        if self.metric not in row:
            needs = self.metric.startswith("validation_") and not any(name.startswith("validation_") for name in row)
            fix = "give fit validation data, or name" if needs else "name"
            raise InputError(f"the report has no {self.metric!r}; {fix} one of {', '.join(numbers)}", where)
        if self.metric not in numbers:
            got = describe(row[self.metric])
            raise InputError(f"{self.metric} is {got}, wanted a number; name one of {', '.join(numbers)}", where)
        return float(row[self.metric])


class EarlyStopping(_Watch):
    """Ends a run once a metric has not improved for ``patience`` reports in a row, and goes back to the best one.

    >>> stopping = jdl.EarlyStopping("validation_accuracy", patience=10)
    >>> run = jdl.fit(model, loss, optimizer, data, epochs=200, callbacks=[stopping])

    Args:
        metric: a number of the report.
        patience: how many reports without a better value end the run, at least 1.
        min_delta: by how much a value must be better than the best to count, at least 0.
        mode: ``"min"`` or ``"max"``, which is better; by default less of a loss or an error, more of anything else.
        restore_best: keep a copy of the best variables on the device; when the run is over, however it ends, it is
            evaluated with them. The last state stays in ``run.state``.

    ``best`` and ``best_step`` say where the best value was. Values that are NaN are not better than any.

    Raises:
        InputError: one of these cannot be used, or, at the first report, it has no such number.
    """

    def __init__(
        self,
        metric: str = "validation_loss",
        patience: int = 5,
        min_delta: float = 0.0,
        mode: Mode | None = None,
        restore_best: bool = True,
    ):
        super().__init__(metric, patience, min_delta, mode)
        _check_count("patience", patience, 1, "EarlyStopping")
        self.restore_best = restore_best

    def __call__(self, run: Run) -> None:
        if self._improved(run):
            self.best_step = int(run.history[-1]["step"])
            if self.restore_best:
                # A copy, as the next step takes the arrays of the state.
                self._variables = jax.tree.map(jnp.copy, eval_variables(run.state))
        elif self.waited >= self.patience:
            run.stop(self._reason())

    def end(self, run: Run) -> None:
        """Let the run be evaluated with the best variables."""
        if self.restore_best and self._variables is not None:
            run.chosen = self._variables

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps: also the best variables."""
        kept = None if self._variables is None else self._variables._asdict()
        return super().get_state() | {"best_step": self.best_step, "variables": kept}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned."""
        super().set_state(state)
        self.best_step = None if state["best_step"] is None else int(state["best_step"])
        if (kept := state["variables"]) is not None:
            kept = Variables(*(jax.tree.map(jnp.asarray, kept.get(name) or {}) for name in Variables._fields))
        self._variables = kept

    def _reset(self) -> None:
        super()._reset()
        self.best_step: int | None = None
        self._variables: Variables | None = None

    def _reason(self) -> str:
        if self.best is None:
            return f"{self.metric} was not finite in any of {self.waited} reports"
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        return (
            f"{self.metric} has not improved on {self.best:.6g} (step {self.best_step:,}){by} in {self.waited} reports"
        )


class ReduceOnPlateau(_Watch):
    """Lowers the learning rate by a factor when a metric has not improved for more than ``patience`` reports.

    The rule of PyTorch's ReduceLROnPlateau with ``threshold_mode="abs"``. The rate must stand in the optimizer's state:

    >>> optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)
    >>> run = jdl.fit(model, loss, optimizer, data, epochs=100, callbacks=[jdl.ReduceOnPlateau(patience=5)])

    For a rule that looks at the loss of every step, inside of the program, chain
    ``optax.contrib.reduce_on_plateau`` after the optimizer.

    Args:
        metric: a number of the report.
        factor: what the rate is multiplied by, between 0 and 1.
        patience: how many reports without a better value are borne with, at least 0.
        min_delta: by how much a value must be better than the best to count, at least 0.
        cooldown: for how many reports after a reduction nothing is counted.
        minimum: the rate does not fall below it.
        mode: ``"min"`` or ``"max"``, which is better; by default less of a loss or an error, more of anything else.
        name: of the rate among :func:`jdl.hyperparams`.

    Raises:
        InputError: one of these cannot be used, or, at the first report, it has no such number or the optimizer's
            state no such rate.
    """

    def __init__(
        self,
        metric: str = "validation_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        minimum: float = 0.0,
        mode: Mode | None = None,
        name: str = "learning_rate",
    ):
        super().__init__(metric, patience, min_delta, mode)
        _check_count("patience", patience, 0, "ReduceOnPlateau")
        _check_count("cooldown", cooldown, 0, "ReduceOnPlateau")
        if not isinstance(factor, Real) or not 0 < factor < 1:
            raise InputError(f"factor got {factor!r}, wanted a number between 0 and 1", "ReduceOnPlateau")
        if not isinstance(minimum, Real) or not 0 <= minimum < math.inf:
            raise InputError(f"minimum got {minimum!r}, wanted a rate of at least 0", "ReduceOnPlateau")
        self.factor, self.cooldown, self.minimum, self.name = factor, cooldown, minimum, name

    def begin(self, run: Run) -> None:
        """Refuse a rate that cannot be set, one that follows a schedule say, before the first step."""
        super().begin(run)
        with_hyperparams(run.state, **{self.name: self._rate(run)})

    def __call__(self, run: Run) -> None:
        rate = self._rate(run)
        self._improved(run)
        if self.cooling:
            self.cooling -= 1
            self.waited = 0
        if self.waited > self.patience:
            self.cooling, self.waited = self.cooldown, 0
            run.state = with_hyperparams(run.state, **{self.name: min(rate, max(self.factor * rate, self.minimum))})

    def get_state(self) -> dict[str, Any]:
        """What a checkpoint keeps; the rate itself stands in the optimizer's state."""
        return super().get_state() | {"cooling": self.cooling}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`get_state` returned."""
        super().set_state(state)
        self.cooling = int(state["cooling"])

    def _reset(self) -> None:
        super()._reset()
        self.cooling = 0

    def _rate(self, run: Run) -> float:
        rates = hyperparams(run.state)
        if self.name not in rates:
            raise InputError(
                f"the optimizer's state has no {self.name!r} (it has {', '.join(rates) or 'no hyper-parameters'}); "
                "make it by optax.inject_hyperparams(optax.adam)(learning_rate=1e-3)",
                "ReduceOnPlateau",
            )
        return float(rates[self.name])


def _check_count(name: str, value: Any, least: int, owner: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} got {value!r}, wanted a number of reports, at least {least}", owner)
