"""How a run ended, and what may go wrong before it begins, and later without ending it."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jdl.check import InputError
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
            if isinstance(error, SystemExit) and run.stopped is not None:  # jdl.Interrupted, by a signal
                return "stopped", f"{run.stopped}; the same command goes on from its checkpoint"
            kind = "stopped" if isinstance(error, KeyboardInterrupt) else "failed"
            return kind, f"{name}: {error}" if str(error) else name
        if run.stopped is not None:
            return "stopped", run.stopped
        return "finished", ""


@contextlib.contextmanager
def forgiven(monitor: Any) -> Iterator[None]:
    """Turn whatever is raised while a run is watched into a warning, once for each monitor.

    A full disk and a lost folder are what happens; but a training of days is worth more than any error of its monitors.
    """
    try:
        yield
    except Exception as error:
        if not getattr(monitor, "_warned", False):
            monitor._warned = True
            told = str(error) if isinstance(error, (OSError, InputError)) else f"{type(error).__name__}: {error}"
            warnings.warn(f"{type(monitor).__name__} could not write: {told}; the run goes on", MonitorWarning, 4)


@contextlib.contextmanager
def writing_into(folder: Path) -> Iterator[None]:
    """Make a folder before the first step, and refuse one in which nothing can be written.

    Raises:
        InputError: names the folder, what is wrong with it, and the fix.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except (FileExistsError, NotADirectoryError) as error:
        message = f"folder got {str(folder)!r}, where a file stands in the way; give a folder, as runs/a"
        raise InputError(message) from error
    except OSError as error:
        why = error.strerror or str(error)
        message = f"folder got {str(folder)!r}, where nothing can be written: {why}; give one that you may write into"
        raise InputError(message) from error
