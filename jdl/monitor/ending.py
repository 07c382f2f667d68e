"""How a run ended, and what may go wrong without ending it."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from jdl.runs import Run


class MonitorWarning(UserWarning):
    """Something that watches a run could not write; the run goes on."""


class Watch:
    """Made at the beginning of a run, it can tell at its end how that came."""

    def __init__(self) -> None:
        self._before = sys.exception()  # of code around fit, none of its business

    def status(self, run: Run) -> tuple[str, str]:
        """``finished``, ``stopped`` or ``failed``, and why."""
        error = sys.exception()
        if error is not None and error is not self._before:
            name = type(error).__name__
            kind = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            return kind, f"{name}: {error}" if str(error) else name
        if run.stopped is not None:
            return "stopped", run.stopped
        return "finished", ""


@contextlib.contextmanager
def forgiven(monitor: Any) -> Iterator[None]:
    """Turn what a full disk or a lost folder raises into a warning, once for each monitor."""
    try:
        yield
    except OSError as error:
        if not getattr(monitor, "_warned", False):
            monitor._warned = True
            warnings.warn(f"{type(monitor).__name__} could not write: {error}; the run goes on", MonitorWarning, 4)
