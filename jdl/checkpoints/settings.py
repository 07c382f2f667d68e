"""What a user says about checkpoints, and reading them without a run."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jdl.check import InputError
from jdl.checkpoints import files, reading
from jdl.checkpoints.reading import Saved, place_of, steps_in
from jdl.checkpoints.store import Store
from jdl.direction import less_is_better

_REMOTE = re.compile(r".*://|[A-Za-z][\w+.-]+:/")  # a Path has one slash left of "gs://…"


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """A folder of checkpoints, when they are made and which ones stay: ``fit(..., checkpoint=Checkpoints("runs/a"))``.

    A checkpoint is made at every report and holds all that a run needs to go on. It is written in the background, and
    stands in the folder as ``step_00000120`` once all of it is on the disk. Each file's SHA-256 stands in its
    ``manifest.json``. One process at a time may have the folder open; runs over several hosts are not supported.

    >>> run = jdl.fit(..., checkpoint=jdl.Checkpoints("runs/a", every=500, best="validation_loss"))

    Args:
        folder: on this machine or mounted here, made where it does not exist; ``~`` is expanded.
        every: steps between checkpoints beside those at reports; none by default.
        keep: the newest ``keep`` stay, at least 1.
        best: a number of the report, ``"validation_loss"``; the checkpoint of its best value stays as well.
        mode: ``"min"`` or ``"max"``, which ``best`` is better; by default less of a loss or an error, and more of
            anything else.

    Raises:
        InputError: one of these cannot be used.
    """

    folder: str | Path
    every: int | None = None
    keep: int = 3
    best: str | None = None
    mode: Literal["min", "max"] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.folder, (str, Path)):
            raise InputError(f"folder got {self.folder!r}, wanted a path", "Checkpoints")
        for name, value in (("every", self.every), ("keep", self.keep)):
            optional = name == "every" and value is None
            if not optional and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} got {value!r}, wanted an integer of at least 1", "Checkpoints")
        if self.best is not None and not isinstance(self.best, str):
            raise InputError(f"best got {self.best!r}, wanted a name such as 'validation_loss'", "Checkpoints")
        if self.mode not in (None, "min", "max") or (self.mode is not None and self.best is None):
            raise InputError(f"mode got {self.mode!r}, wanted 'min' or 'max', beside best=...", "Checkpoints")
        if _REMOTE.match(str(self.folder)):
            raise InputError(
                f"folder got {str(self.folder)!r}, wanted one on this machine; mount the remote one, or copy "
                "checkpoints there once they are written",
                "Checkpoints",
            )
        place = files.local(self.folder)
        if os.path.exists(place) and not os.path.isdir(place):
            raise InputError(f"folder got {str(self.folder)!r}, which is a file; name a folder", "Checkpoints")

    def open(self) -> Store:
        """The folder for one run; a loop of your own does with it what ``fit`` does.

        >>> with checkpoints.open() as store:
        ...     saved = store.restore(like)  # None, or what stands in saved.step, saved.state, saved.extra
        ...     store.save(step, state, extra, metrics)  # in the background; the state may be donated at once
        ...     store.wait()

        A save that fails, as on a full disk, is told by the next call in a :class:`jdl.CheckpointWarning`; the
        checkpoints that stand stay as they are.

        Raises:
            InputError: another process, or this one, has it open; or it cannot be made or written to.
        """
        return Store(self)

    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, in order."""
        return steps_in(files.local(self.folder))

    def best_step(self) -> int | None:
        """The step whose report had the best value of ``best``; ``None`` where no checkpoint has one."""
        folder = files.local(self.folder)
        scores = {}
        for step in self.steps():
            try:
                scores[step] = self.score(files.read_manifest(place_of(folder, step))["metrics"])
            except files.Damaged:
                continue
        return self.best_of({step: score for step, score in scores.items() if score is not None})

    def restore(self, like: Any, step: int | None = None, at: str = "") -> Saved:
        """What a checkpoint holds, with ``state`` in the structure of ``like``; the folder is left as it is.

        >>> like = jdl.init_state(model, optimizer, batch)
        >>> state = jdl.Checkpoints("runs/a").restore(like, at="state").state

        Args:
            like: a tree of arrays, or of ``jax.ShapeDtypeStruct``.
            step: by default the newest whose files are as they were written; a newer one that is damaged is named in
                a :class:`jdl.CheckpointWarning`.
            at: the path of the part of the saved state that ``like`` stands for; by default it is all of it.

        Raises:
            InputError: there is no such checkpoint, or it is damaged, or its names, shapes or dtypes differ.
        """
        folder = files.local(self.folder)
        if step is not None:
            if step not in self.steps():
                raise InputError(f"step got {step}, wanted one of {self.steps()}, the checkpoints in {str(folder)!r}")
            try:
                manifest = files.verify(place_of(folder, step))
            except files.Damaged as damage:
                raise InputError(f"checkpoint {place_of(folder, step)} is damaged: {'; '.join(damage.args)}") from None
            return reading.load(folder, step, manifest, like, at)
        if (found := reading.newest_good(folder)) is None:
            raise InputError(f"there is no checkpoint in {str(folder)!r}")
        good, manifest, damaged = found
        reading.warn_of_damage(folder, damaged, good, "")
        return reading.load(folder, good, manifest, like, at)

    def score(self, metrics: Mapping[str, float]) -> float | None:
        """How good a report is by ``best``, more being better; ``None`` where it does not tell."""
        if self.best is None or self.best not in metrics or math.isnan(metrics[self.best]):
            return None
        less = self.mode == "min" if self.mode else less_is_better(self.best)
        return -metrics[self.best] if less else metrics[self.best]

    def best_of(self, scores: Mapping[int, float]) -> int | None:
        """The step of the best score, of equal ones the first."""
        return max(sorted(scores), key=scores.__getitem__, default=None)
