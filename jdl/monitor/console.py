"""One readable line a report, where there is no progress bar."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from jdl.monitor import ending
from jdl.monitor.files import number_of_parameters
from jdl.monitor.measuring import explain, measure, prepare
from jdl.runs import Run, format_row
from jdl.show import text
from jdl.show.page import duration, quantity

# What is told after the row, with its name and unit.
_BESIDE = {
    "optimizer/learning_rate": ("learning rate", ""),
    "optimizer/gradient_norm": ("gradient norm", ""),
    "machine/examples_per_second": ("examples", "rate"),
    "machine/waiting": ("waiting", "share"),
    "machine/model_flops_utilisation": ("FLOPs utilisation", "share"),
}


class Console:
    """A callback that prints a header, a line for each report, and how the run ended, to standard error.

    The header says how many parameters train, and the formula and the peak of model FLOPs utilisation.

    Args:
        shown: by default only where standard error is no terminal, as fit shows a progress bar there.
        peak_flops: as in :func:`measure`.
    """

    def __init__(self, shown: bool | None = None, peak_flops: float | None = None):
        self.shown, self.peak_flops = shown, peak_flops
        self._ending: ending.Watch | None = None

    def begin(self, run: Run) -> None:
        """Print the header."""
        self._ending = ending.Watch()
        went_on = f", going on from step {run.resumed:,}" if run.resumed is not None else ""
        self._print(
            f"{text.cut(repr(run.model), 100)}\n{number_of_parameters(run):,} parameters, {run.steps:,} steps{went_on}"
        )
        if self._is_shown():
            prepare(run, self.peak_flops)
            self._print(explain(run, self.peak_flops))

    def __call__(self, run: Run) -> None:
        with ending.forgiven(self):  # nobody may be reading any more
            if self._is_shown():
                self._tell(run)

    def _tell(self, run: Run) -> None:
        measured = measure(run, self.peak_flops)
        row: dict[str, Any] = dict(run.history[-1])
        row.pop("seconds", None)
        beside = [
            f"{name} {quantity(measured[key], unit)}"
            for key, (name, unit) in _BESIDE.items()
            if measured.get(key) is not None and np.ndim(measured[key]) == 0
        ]
        self._print("  ".join([format_row(row), *beside]))

    def end(self, run: Run) -> None:
        """Print how the run ended."""
        if self._ending is None:
            return  # it never began
        status, reason = self._ending.status(run)
        row = run.history[-1] if run.history else {}
        told = f"{status} at step {int(run.state.step):,} after {duration(row.get('seconds', 0.0))}"
        with ending.forgiven(self):
            self._print(f"{told}: {reason}" if reason else told)

    def _is_shown(self) -> bool:
        return not sys.stderr.isatty() if self.shown is None else self.shown

    def _print(self, line: str) -> None:
        if self._is_shown():
            print(line, file=sys.stderr, flush=True)
