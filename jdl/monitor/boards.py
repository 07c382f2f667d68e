"""Numbers and distributions for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jdl.extras import require
from jdl.monitor import ending
from jdl.monitor.measuring import measure, prepare
from jdl.runs import Run

CLOCKS = ("step", "epoch", "seconds")
VALIDATION = "validation_"
SCALARS = ".scalars"


class TensorBoard:
    """A callback that writes what :func:`measure` returns for TensorBoard: ``tensorboard --logdir runs``.

    Training and validation of a quantity stand side by side as ``loss/training`` and ``loss/validation``; the others
    in the groups ``optimizer`` and ``machine``. After a resume, events beyond that step are purged.

    Args:
        folder: of the event files.
        peak_flops: as in :func:`measure`.

    Raises:
        InputError: at the beginning of a run, where nothing can be written into the folder.
        ModuleNotFoundError: at the beginning of a run, where tensorboardX is missing; says which extra brings it.
    """

    def __init__(self, folder: str | Path, peak_flops: float | None = None):
        self.folder, self.peak_flops = Path(folder), peak_flops
        self.writer: Any = None

    def begin(self, run: Run) -> None:
        """Open the event file and write the settings."""
        prepare(run, self.peak_flops)
        self.writer = open_writer(self.folder, run, SCALARS)
        lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in run.settings.items()]
        self.writer.add_text("settings", "\n".join(["| setting | value |", "| --- | --- |", *lines]), run.resumed or 0)

    def __call__(self, run: Run) -> None:
        with ending.forgiven(self):
            self.writer = writer_of(self.writer, self.folder, run, SCALARS)
            for name, value in measure(run, self.peak_flops).items():
                if name not in CLOCKS and np.ndim(value) == 0:
                    self.writer.add_scalar(tag(name), float(value), run.history[-1]["step"])

    def end(self, run: Run) -> None:
        """Write out what waits and close the file."""
        if self.writer is not None:
            with ending.forgiven(self):
                self.writer.close()


def open_writer(folder: Path, run: Run, suffix: str) -> Any:
    """A writer of an event file that goes on where a resumed run does.

    Each monitor has a suffix of its own, as tensorboardX names the files of one second alike.
    """
    writer = require("tensorboardX", "experiments", "TensorBoard").SummaryWriter
    purge = None if run.resumed is None else run.resumed + 1
    with ending.writing_into(folder):
        return writer(logdir=str(folder), purge_step=purge, filename_suffix=suffix)


def writer_of(writer: Any, folder: Path, run: Run, suffix: str) -> Any:
    """This writer, or another one where its file went away, as what it writes would be nowhere."""
    if any(folder.glob(f"events.out.tfevents.*{suffix}")):
        return writer
    writer.close()
    return open_writer(folder, run, suffix)


def tag(name: str) -> str:
    """Where TensorBoard shows a quantity."""
    if "/" in name:
        return name
    return f"{name.removeprefix(VALIDATION)}/{'validation' if name.startswith(VALIDATION) else 'training'}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
