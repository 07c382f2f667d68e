"""A folder of checkpoints that a run has open: restores, saves in the background, keeps some and deletes others."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import shutil
import threading
import warnings
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from jdl import check
from jdl.check import InputError
from jdl.checkpoints import files, reading
from jdl.checkpoints.locks import FolderLock
from jdl.checkpoints.reading import CheckpointWarning, Saved, place_of, steps_in

if TYPE_CHECKING:
    from jdl.checkpoints.settings import Checkpoints

_PASSING = re.compile(r"\.(unfinished|replaced|removed)_step_(\d+)")


class Store:
    """A folder that one process holds to read and write checkpoints; made by :meth:`jdl.Checkpoints.open`.

    A context manager: leaving it waits for the last checkpoint and gives the folder free.
    """

    def __init__(self, settings: Checkpoints):
        import orbax.checkpoint  # noqa: F401  here, so that the first save need not wait for it

        self.settings, self._folder = settings, files.local(settings.folder)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self._folder)
        except InputError:
            raise
        except (OSError, ValueError) as error:  # the latter of a name that no file can have
            raise InputError(
                f"{str(self._folder)!r} cannot be made or written to: {error}; name a folder that you may write to",
                "checkpoint",
            ) from None
        self._writer: threading.Thread | None = None
        self._failure: str | None = None
        try:
            self._tidy()
            scores = {step: self._score_of(step) for step in steps_in(self._folder)}
        except BaseException:
            self._lock.release()
            raise
        self._scores = {step: score for step, score in scores.items() if score is not None}
        atexit.register(self.close)  # a store that nobody closes loses its last checkpoint, but not silently

    @property
    def folder(self) -> Path:
        """The folder's absolute path, whatever directory the process is in by now."""
        return self._folder

    def restore(self, like: Any) -> Saved | None:
        """The newest good checkpoint with the structure of ``like``; ``None`` where the folder holds none.

        A damaged one is named in a :class:`jdl.CheckpointWarning` and set aside as ``damaged_step_…``. Arrays lie
        where those of ``like`` do; abstract ones will do.

        Raises:
            InputError: all checkpoints are damaged, or the newest good one has other names, shapes or dtypes.
        """
        self.wait()
        if (found := reading.newest_good(self._folder)) is None:
            return None
        step, manifest, damaged = found
        for other in damaged:
            self._set_aside(other)
        reading.warn_of_damage(self._folder, damaged, step, "set aside as damaged_step_…; ")
        return reading.load(self._folder, step, manifest, like)

    def save(self, step: int, state: Any, extra: Any = None, metrics: Mapping[str, Any] | None = None) -> None:
        """Copy the arrays and return; the writing goes on in the background.

        ``state`` may be donated at once. A checkpoint that is still being written is waited for, so that no more than
        two are in memory. Where it failed, a :class:`jdl.CheckpointWarning` says so here.

        Args:
            step: how many steps ``state`` has behind it; a checkpoint of the same step is replaced.
            state: any tree of arrays.
            extra: nested dicts and lists of numbers, strings, bools, ``None`` and arrays.
            metrics: numbers of the report, among which the best is looked for; ``None`` between reports.
        """
        if not self._lock.held:
            raise InputError(f"{str(self._folder)!r} is closed; open it again, in the process that saves", "checkpoint")
        self.wait()
        arrays, text, described = reading.pack(state, extra)
        numbers = {name: float(value) for name, value in (metrics or {}).items() if _is_number(value)}
        score = self._score(numbers) if metrics else None
        about = {"step": int(step), "metrics": numbers, **files.circumstances(), "arrays": described}
        arguments = (int(step), arrays, text, about, score)
        self._writer = threading.Thread(target=self._write, args=arguments, name=f"checkpoint of step {step}")
        self._writer.start()

    def wait(self) -> None:
        """Until the last checkpoint is on the disk; a :class:`jdl.CheckpointWarning` where it could not be written."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        failure, self._failure = self._failure, None
        if failure is not None:
            warnings.warn(CheckpointWarning(failure), stacklevel=3)

    def close(self) -> None:
        """Wait, and give the folder free."""
        atexit.unregister(self.close)
        try:
            self.wait()
        finally:
            self._lock.release()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # in the background

    def _write(
        self, step: int, arrays: Mapping[str, np.ndarray], text: str, about: Mapping[str, Any], score: float | None
    ) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)  # someone may have deleted it
            self._lock.renew()
            self._write_whole(step, arrays, text, about)
        except Exception as error:  # training goes on; `wait` says what happened
            self._failure = self._say(step, error)
            return
        if score is None:
            self._scores.pop(step, None)
        else:
            self._scores[step] = score
        self._retain(step)

    def _write_whole(self, step: int, arrays: Mapping[str, np.ndarray], text: str, about: Mapping[str, Any]) -> None:
        """Write a checkpoint and give it its name, or leave nothing of it."""
        try:
            files.write(place_of(self._folder, step, ".unfinished_"), arrays, text, about)
            self._publish(step)
        except BaseException:
            with contextlib.suppress(OSError):
                self._tidy()
            raise

    def _publish(self, step: int) -> None:
        """Give a complete folder its name; one that has it already goes only then."""
        place, replaced = place_of(self._folder, step), place_of(self._folder, step, ".replaced_")
        if place.exists():
            os.rename(place, replaced)
        os.rename(place_of(self._folder, step, ".unfinished_"), place)
        files.sync(self._folder)
        files.remove(replaced)

    def _retain(self, newest: int) -> None:
        """Delete what is neither among the newest nor the best; first out of sight, as deleting takes many calls."""
        steps = steps_in(self._folder)
        self._scores = {step: score for step, score in self._scores.items() if step in steps}
        kept = {newest, *steps[-self.settings.keep :]}
        if (best := self.settings.best_of(self._scores)) is not None:
            kept.add(best)
        for step in set(steps) - kept:
            self._scores.pop(step, None)
            removed = place_of(self._folder, step, ".removed_")
            try:
                os.rename(place_of(self._folder, step), removed)
            except OSError:
                continue  # it is tried again after the next checkpoint
            files.remove(removed)

    def _say(self, step: int, error: Exception) -> str:
        steps, free = [], ""
        with contextlib.suppress(OSError):  # the folder may be gone
            steps = steps_in(self._folder)
            free = f" ({shutil.disk_usage(self._folder).free / 1e6:,.1f} MB free)"
        newest = f"the newest checkpoint is still that of step {steps[-1]}" if steps else "there is no checkpoint"
        reason = str(error) if len(str(error)) <= 300 else f"{str(error)[:297]}..."
        return (
            f"the checkpoint of step {step} was not written to {str(self._folder)!r}{free}: "
            f"{type(error).__name__}: {reason}; {newest}, and training goes on"
        )

    # at rest

    def _tidy(self) -> None:
        """Clear away what a process that was killed, or a save that failed, left between two states."""
        for path in self._folder.iterdir() if self._folder.is_dir() else ():
            if not (match := _PASSING.fullmatch(path.name)):
                continue
            place = place_of(self._folder, int(match[2]))
            if match[1] == "replaced" and not place.exists():
                os.rename(path, place)
            else:
                files.remove(path)

    def _set_aside(self, step: int) -> None:
        """Rename a damaged checkpoint: nothing is deleted that a person might rescue."""
        place, aside, count = place_of(self._folder, step), place_of(self._folder, step, "damaged_"), 1
        while aside.exists():
            count += 1
            aside = aside.with_name(f"damaged_{place.name}_{count}")
        os.rename(place, aside)
        self._scores.pop(step, None)

    def _score_of(self, step: int) -> float | None:
        try:
            return self.settings.score(files.read_manifest(place_of(self._folder, step))["metrics"])
        except (files.Damaged, InputError):  # `restore` says so
            return None

    def _score(self, metrics: Mapping[str, float]) -> float | None:
        best = self.settings.best
        if best is not None and best not in metrics:
            raise InputError(f"best got {best!r}, wanted one of the report's numbers: {', '.join(sorted(metrics))}")
        return self.settings.score(metrics)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) or (check.is_array(value) and np.ndim(value) == 0)
