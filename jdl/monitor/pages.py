"""A page for the browser that follows a run, and pictures of its curves."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdl.check import InputError
from jdl.monitor import ending
from jdl.monitor.files import METRICS, environment, number_of_parameters, plain
from jdl.monitor.measuring import BACKWARD, explain, forward_flops, measure, prepare
from jdl.runs import Run
from jdl.show import text
from jdl.show.page import duration
from jdl.show.page_folders import read_rows
from jdl.show.page_run import Report, write_run

_SHORTEST = 1.0  # seconds between two writings
_SHARE = 0.01  # of the time, at most, that goes into writing
_PATIENCE = 120.0  # seconds without a report, at least, before the page wonders


class Page:
    """A callback that keeps ``index.html`` in a folder: a page that shows a run and loads itself again while it lasts.

    It needs no network: status, curves of every quantity with the best value marked, speed, settings, findings and
    compilations are in the one file, which is replaced whole at most once a second, and less often where that takes
    long. At the end it stops loading itself, and ``curves.png`` is drawn where matplotlib is there.

    Args:
        folder: made where it does not exist; its name is the name of the run.
        peak_flops: as in :func:`measure`.

    Raises:
        InputError: at the beginning of a run, where nothing can be written into the folder.
    """

    def __init__(self, folder: str | Path, peak_flops: float | None = None):
        self.folder, self.peak_flops = Path(folder), peak_flops
        self._rows: list[dict[str, Any]] = []
        self._next, self._began = 0.0, 0.0
        self._ending: ending.Watch | None = None

    def begin(self, run: Run) -> None:
        """Write the page of a run that has not reported yet; after a resume with the reports before."""
        self._began = time.perf_counter()
        prepare(run, self.peak_flops)
        with ending.writing_into(self.folder):
            self._rows = [] if run.resumed is None else self._before(run)
            self._write(run)
        self._ending = ending.Watch()

    def __call__(self, run: Run) -> None:
        with ending.forgiven(self):
            self._rows.append(_numbers(measure(run, self.peak_flops)))
            if time.perf_counter() >= self._next:
                self._write(run)

    def end(self, run: Run) -> None:
        """Write the page of a run that is over, and draw its curves."""
        if self._ending is None:
            return  # it never began
        with ending.forgiven(self):
            self._write(run, *self._ending.status(run))
            with contextlib.suppress(ModuleNotFoundError, InputError):  # no matplotlib, or nothing was reported
                run.plot(self.folder / "curves.png")

    def _before(self, run: Run) -> list[dict[str, Any]]:
        """What was reported before: as it was measured where :class:`Metrics` kept it, else the history."""
        kept = self.folder / METRICS
        measured = {row.get("step"): row for row in (read_rows(kept)[0] if kept.is_file() else [])}
        return [_numbers(measured.get(row["step"], row)) for row in run.history]

    def _write(self, run: Run, status: str = "running", reason: str = "") -> None:
        begin = time.perf_counter()
        reports = max(1, len(run.history))
        report = Report(
            name=self.folder.resolve().name,
            rows=self._rows,
            status=status,
            reason=reason,
            steps=run.steps,
            facts=self._facts(run),
            findings=[_told(finding) for finding in run.findings],
            notes=[explain(run, self.peak_flops)],
            updated=time.time(),
            patience=max(_PATIENCE, 10 * (begin - self._began) / reports),
        )
        self.folder.mkdir(parents=True, exist_ok=True)  # it may have gone away
        write_run(self.folder / "index.html", report)
        end = time.perf_counter()
        self._next = end + max(_SHORTEST, (end - begin) / _SHARE)

    def _facts(self, run: Run) -> dict[str, dict[str, Any]]:
        about = environment(run)
        model: dict[str, Any] = {"parameters": f"{number_of_parameters(run):,}"}
        if (flops := forward_flops(run)) is not None:
            model["FLOPs of a step"] = f"{BACKWARD} × {text.number(flops)}"
        return {
            "Settings": plain(run.settings),
            "Model": model,
            "Compilations": {name: _times(run, name) for name in run.compilations},
            "Machine": about["machine"] | about["versions"],
        }


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    """What a page draws: no confusion matrices, which would add up."""
    return {name: value for name, value in row.items() if not isinstance(value, (str, list)) and not _is_array(value)}


def _is_array(value: Any) -> bool:
    return getattr(value, "ndim", 0) > 0


def _times(run: Run, name: str) -> str:
    count = run.compilations[name]
    seconds = sum(run.compile_seconds.get(name, {}).values())
    return f"{count} {'time' if count == 1 else 'times'}" + (f", {duration(seconds)}" if seconds else "")


def _told(finding: Any) -> str:
    """A finding of the diagnosis: its name, what was measured, why it matters, and what to try."""
    where = f" ({finding.path})" if finding.path else ""
    return f"{finding.name}{where}\n{finding.measured}\n{finding.why}\nTry: {finding.try_}"
