"""Watching a run: callbacks that write, print and draw what one function measures.

```python
run = jdl.fit(..., callbacks=jdl.monitor.standard("runs/a"))
```

leaves ``config.json``, ``metrics.jsonl``, ``result.json`` and ``index.html`` in ``runs/a``, and
``python -m jdl.show runs/*`` compares the runs. Each monitor is small and stands alone; a report that cannot be written
is a :class:`MonitorWarning`, and the run goes on.
"""

from __future__ import annotations

from pathlib import Path

from jdl.monitor.boards import TensorBoard
from jdl.monitor.console import Console
from jdl.monitor.devices import Peak, peak_of
from jdl.monitor.distributions import Histograms, histograms
from jdl.monitor.ending import MonitorWarning
from jdl.monitor.files import Metrics
from jdl.monitor.measuring import explain, forward_flops, measure
from jdl.monitor.pages import Page


def standard(folder: str | Path, peak_flops: float | None = None) -> list[Metrics | Page | Console]:
    """The usual monitors of a run: its numbers as files, a page, and lines on standard error where there is no bar.

    >>> jdl.fit(..., callbacks=[*jdl.monitor.standard("runs/a"), jdl.monitor.TensorBoard("runs/a")])

    Args:
        folder: of this run alone.
        peak_flops: as in :func:`measure`.
    """
    return [Metrics(folder, peak_flops), Page(folder, peak_flops), Console(peak_flops=peak_flops)]


__all__ = [
    "Console",
    "Histograms",
    "Metrics",
    "MonitorWarning",
    "Page",
    "Peak",
    "TensorBoard",
    "explain",
    "forward_flops",
    "histograms",
    "measure",
    "peak_of",
    "standard",
]
