"""What a run leaves in its folder: settings, a line of numbers a report, and how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jdl import saving
from jdl.check import InputError
from jdl.checkpoints.files import circumstances
from jdl.monitor import ending
from jdl.monitor.measuring import explain, forward_flops, measure, prepare
from jdl.optimizers import hyperparams
from jdl.runs import Run

METRICS, CONFIG, RESULT = "metrics.jsonl", "config.json", "result.json"
CLOCKS = ("step", "epoch", "seconds")
_writers: weakref.WeakValueDictionary[Path, Run] = weakref.WeakValueDictionary()  # which run writes into a folder


class Metrics:
    """A callback that keeps a run's numbers in a folder, for programs and for ``python -m jdl.show``.

    ``config.json`` holds the settings, the optimizer's hyper-parameters, versions and machine, from the beginning;
    ``metrics.jsonl`` a line for each report, written out at once: what :func:`measure` returns, null for what is not
    finite, arrays as lists; ``result.json`` the last numbers and how the run ended.

    A run that goes on from a checkpoint goes on with its file, from which lines beyond its last report are cut: it
    holds what the uninterrupted run would have written. One that starts anew puts the old files aside, as
    ``metrics.1.jsonl`` and so on. A report that cannot be written is a warning, not the end of the run; a folder that
    goes away while the run lasts is made again, and reports before that are written again from ``run.history``.

    Args:
        folder: made where it does not exist.
        peak_flops: as in :func:`measure`.

    Raises:
        InputError: at the beginning of a run, where nothing can be written into the folder, or another ``Metrics`` of
            this process writes there.
    """

    def __init__(self, folder: str | Path, peak_flops: float | None = None):
        self.folder, self.peak_flops = Path(folder), peak_flops
        self._config: dict[str, Any] = {}
        self._ending: ending.Watch | None = None

    def begin(self, run: Run) -> None:
        """Write the settings, and cut or put aside what is there."""
        place = self.folder.resolve()
        if (other := _writers.get(place)) is not None and other.training:
            whose = "this run" if other is run else "another run"
            raise InputError(
                f"folder got {str(self.folder)!r}, into which {whose} writes its metrics already; "
                "give every run a folder of its own, and standard(folder) or Metrics(folder) once"
            )
        self._config = self._about(run)
        with ending.writing_into(self.folder):
            if run.resumed is None:
                put_aside(self.folder, (METRICS, CONFIG, RESULT))
            else:
                (self.folder / RESULT).unlink(missing_ok=True)
                before = _read(self.folder / CONFIG)  # the hyper-parameters that the run began with stand there
                self._config["optimizer"] = before.get("optimizer") or self._config["optimizer"]
                if before and (run.resumed >= run.steps or run.stopped is not None):
                    self._config = before  # nothing is trained under these settings
            self._write(run.history)
        prepare(run, self.peak_flops)
        self._ending, _writers[place] = ending.Watch(), run

    def __call__(self, run: Run) -> None:
        with ending.forgiven(self):
            line = json.dumps(plain(measure(run, self.peak_flops))) + "\n"
            self._make_again(run.history[:-1])
            with _whole(self.folder / METRICS) as path, path.open("a", encoding="utf-8") as file:
                file.write(line)

    def end(self, run: Run) -> None:
        """Write how the run ended."""
        if self._ending is None:
            return  # it never began
        status, reason = self._ending.status(run)
        self._ending = None
        row = run.history[-1] if run.history else {}
        metrics = {name: value for name, value in row.items() if name not in CLOCKS and np.ndim(value) == 0}
        told = {"status": status, "reason": reason, "step": row.get("step", 0), "seconds": row.get("seconds", 0.0)}
        with ending.forgiven(self):
            self._make_again(run.history)
            write_json(self.folder / RESULT, told | {"metrics": metrics})

    def _write(self, history: Sequence[Mapping[str, Any]]) -> None:
        _keep_history(self.folder / METRICS, history)
        write_json(self.folder / CONFIG, self._config)

    def _make_again(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Where the folder or its lines went away, write what is still known of them."""
        if not (self.folder / METRICS).exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._write(history)

    def _about(self, run: Run) -> dict[str, Any]:
        about = {
            "settings": run.settings,
            "optimizer": jax.device_get(hyperparams(run.state)),
            "command": " ".join(sys.argv),
            "started": time.strftime("%Y-%m-%d %H:%M:%S"),
            "resumed": run.resumed,
            "parameters": number_of_parameters(run),
            "forward_flops": forward_flops(run),
            "measured": explain(run, self.peak_flops),
        }
        return about | environment(run)


def environment(run: Run) -> dict[str, Any]:
    """The versions and the machine that a run runs with."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = sorted(run.state.step.devices(), key=lambda device: device.id)
    machine = {"device": devices[0].device_kind, "devices": len(devices), "cores": cores}
    machine |= {"system": platform.system(), "processor": platform.machine()}
    return {"versions": circumstances()["versions"], "machine": machine}


def number_of_parameters(run: Run) -> int:
    """How many numbers train."""
    return sum(leaf.size for leaf in jax.tree.leaves(run.state.params))


def plain(value: Any) -> Any:
    """As JSON knows it: arrays as lists, null for NaN and infinity, text for anything else."""
    if isinstance(value, float):
        return value if value - value == 0 else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return plain(np.asarray(value).tolist())
    return str(value)


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people, whole or not at all."""
    text = json.dumps(plain(value), indent=2, ensure_ascii=False) + "\n"
    saving.save(path, lambda beside: beside.write_text(text, encoding="utf-8"), (".json",))


def put_aside(folder: Path, names: tuple[str, ...]) -> None:
    """Rename the files of an earlier run that are there to ``NAME.1.…``, all with the same free number."""
    there = [folder / name for name in names if (folder / name).exists()]
    if not any(path.stat().st_size for path in there if path.name == METRICS):
        return  # nothing was reported, so nothing is lost

    def aside(path: Path, number: int) -> Path:
        return path.with_name(f"{path.stem}.{number}{path.suffix}")

    number = next(n for n in range(1, 1_000_000) if not any(aside(folder / name, n).exists() for name in names))
    for path in there:
        path.rename(aside(path, number))


def _read(path: Path) -> dict[str, Any]:
    """A config that an earlier process left; nothing where there is none, or none that can be read."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _keep_history(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Leave the lines of the reports that a run knows of, and add those that were lost, from its history."""
    last = history[-1]["step"] if history else 0
    lines: dict[int, str] = {}
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            step = _step(line)
            if step is not None and step <= last:
                lines[step] = line
    for row in history:
        lines.setdefault(row["step"], json.dumps(plain(row)))
    text = "".join(f"{lines[step]}\n" for step in sorted(lines))
    saving.save(path, lambda beside: beside.write_text(text, encoding="utf-8"), (".jsonl",))


def _step(line: str) -> int | None:
    """The step of a line, or None of one that was broken off."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def _whole(path: Path) -> Any:
    """What is added to a file is added whole or not at all, also on a full disk."""
    size = path.stat().st_size if path.exists() else 0
    try:
        yield path
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, size)
        raise
