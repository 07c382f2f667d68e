"""Numbers and distributions for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jdl.extras import require
from jdl.monitor import ending
from jdl.monitor.measuring import measure
from jdl.runs import Run

CLOCKS = ("step", "epoch", "seconds")
VALIDATION = "validation_"


class TensorBoard:
    """A callback that writes what :func:`measure` returns for TensorBoard: ``tensorboard --logdir runs``.

    Training and validation of a quantity stand side by side as ``loss/training`` and ``loss/validation``; the others
    in the groups ``optimizer`` and ``machine``. After a resume, events beyond that step are purged.

    Args:
        folder: of the event files.
        peak_flops: as in :func:`measure`.

    Raises:
        ModuleNotFoundError: at the beginning of a run, where tensorboardX is missing; says which extra brings it.
    """

    def __init__(self, folder: str | Path, peak_flops: float | None = None):
        self.folder, self.peak_flops = Path(folder), peak_flops
        self.writer: Any = None

    def begin(self, run: Run) -> None:
        """Open the event file and write the settings."""
        self.writer = open_writer(self.folder, run)
        lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in run.settings.items()]
        self.writer.add_text("settings", "\n".join(["| setting | value |", "| --- | --- |", *lines]), run.resumed or 0)

    def __call__(self, run: Run) -> None:
        with ending.forgiven(self):
            for name, value in measure(run, self.peak_flops).items():
                if name not in CLOCKS and np.ndim(value) == 0:
                    self.writer.add_scalar(tag(name), float(value), run.history[-1]["step"])

    def end(self, run: Run) -> None:
        """Write out what waits and close the file."""
        if self.writer is not None:
            with ending.forgiven(self):
                self.writer.close()


def open_writer(folder: Path, run: Run) -> Any:
    """A writer of event files that goes on where a resumed run does."""
    writer = require("tensorboardX", "experiments", "TensorBoard").SummaryWriter
    purge = None if run.resumed is None else run.resumed + 1
    return writer(logdir=str(folder), purge_step=purge)


def tag(name: str) -> str:
    """Where TensorBoard shows a quantity."""
    if "/" in name:
        return name
    return f"{name.removeprefix(VALIDATION)}/{'validation' if name.startswith(VALIDATION) else 'training'}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
