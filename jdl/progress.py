"""A progress bar where a person watches, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

REFRESH_SECONDS = 0.2


class Progress:
    """A bar over ``total`` steps with numbers beside it; quiet unless ``shown``, by default where stderr is a terminal.

    Use it in a ``with`` statement: ``progress(done, numbers)`` draws at most five times a second, and asks for the
    numbers, a function, only then.
    """

    def __init__(self, title: str, total: int, shown: bool | None = None):
        self.title, self.total = title, total
        self.shown = sys.stderr.isatty() if shown is None else shown
        self._bar: Any = None
        self._next = 0.0

    def __enter__(self) -> Progress:
        if self.shown:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                "[progress.description]{task.description}",
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            text = TextColumn("{task.fields[numbers]}")
            self._bar = Bar(*columns, text, console=Console(stderr=True), refresh_per_second=5)
            self._bar.start()
            self._task = self._bar.add_task(self.title, total=self.total, numbers="compiling …")
        return self

    def __call__(self, done: int, numbers: Callable[[], str]) -> None:
        if self._bar is None or ((now := time.perf_counter()) < self._next and done < self.total):
            return
        self._next = now + REFRESH_SECONDS
        self._bar.update(self._task, completed=done, numbers=numbers())

    def say(self, message: str) -> None:
        """A line above the bar, and on standard error also where there is no bar."""
        if self._bar is not None:
            self._bar.console.print(message, highlight=False, markup=False)
        else:
            print(message, file=sys.stderr)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
