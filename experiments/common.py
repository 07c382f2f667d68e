"""What every experiment does alike: settings from the command line, and what it leaves in a folder.

```python
@dataclasses.dataclass(frozen=True)
class Digits(Settings):
    epochs: int = 20

@experiment(smoke={"epochs": 1})
def main(settings: Digits, record: Record) -> None:
    for seed in settings.each_seed:
        run = jdl.fit(..., seed=seed, callbacks=[record.history(model="cnn", seed=seed)])
        record.metric("cnn/accuracy", run.evaluate(test)["accuracy"])

if __name__ == "__main__":
    main()
```
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
import os
import platform
import sys
import time
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import optax
import rich
import tyro
from rich.box import SIMPLE_HEAD
from rich.table import Table

import experiments
import jdl

Body = Callable[..., None]
Command = Callable[..., dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What can be set in every experiment. An experiment's own settings are a frozen dataclass derived from it."""

    out: Path | None = None
    """Folder for results and pictures; runs/NAME unless given."""
    seed: int = 0
    """Of the first run: initial parameters, order of the data, dropout. Never of the splits."""
    seeds: int = 1
    """How many runs, with the seeds SEED, SEED + 1, …"""
    smoke: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """A run of seconds, to see that everything works."""

    @property
    def each_seed(self) -> range:
        """The seeds of the runs."""
        return range(self.seed, self.seed + self.seeds)


class Record:
    """What an experiment leaves in its folder: config.json, metrics.jsonl, result.json, and its pictures."""

    def __init__(self, name: str, settings: Settings, command: str):
        self.name, self.settings = name, settings
        self.folder = settings.out or Path("runs") / name
        self.values: dict[str, list[float]] = {}
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "result.json").unlink(missing_ok=True)  # never an old result beside new settings
        self._log = self.folder / "metrics.jsonl"
        self._log.write_text("")
        config = {"experiment": name, "command": command, "settings": _settings(settings), **environment()}
        write_json(self.folder / "config.json", config)

    def path(self, file: str) -> Path:
        """Where a picture or another file of this experiment goes."""
        return self.folder / file

    def log(self, **row: Any) -> None:
        """Add a line to metrics.jsonl."""
        with self._log.open("a") as file:
            file.write(json.dumps(_plain(row)) + "\n")

    def history(self, **labels: Any) -> Callable[[jdl.Run], None]:
        """A callback for ``fit`` that logs each report, with these labels before it."""
        return lambda run: self.log(**labels, **run.history[-1])

    def metric(self, name: str, value: Any) -> None:
        """Add a number to the result; called once a seed with the same name, it gives a mean and a deviation.

        ``row/column`` says where it stands in the final table: ``cnn/accuracy``.
        """
        self.values.setdefault(name, []).append(float(value))

    def finish(self, seconds: float) -> dict[str, Any]:
        """Write result.json: the mean of each metric, its standard deviation over seeds (n - 1), and every value."""
        several = {name: values for name, values in self.values.items() if len(values) > 1}
        with np.errstate(invalid="ignore"):  # a metric that is not finite has no deviation
            deviations = {name: np.std(values, ddof=1) for name, values in several.items()}
        result = _plain(
            {
                "metrics": {name: np.mean(values) for name, values in self.values.items()},
                "deviations": deviations,
                "values": self.values,
                "seeds": list(self.settings.each_seed),
                "seconds": round(seconds, 2),
            }
        )
        write_json(self.folder / "result.json", result)
        return result


def experiment(smoke: Mapping[str, Any] | None = None) -> Callable[[Body], Command]:
    """Make a command of ``main(settings, record)``: its settings, annotated, come from the command line.

    With ``--smoke`` the settings named in ``smoke`` take these values. The command returns what result.json holds;
    ``main(["--smoke", "--out", folder])`` calls it from Python. Its seconds hold the imports when it is the process's
    own command.
    """

    def decorate(body: Body) -> Command:
        name = Path(inspect.getfile(body)).stem
        about = inspect.cleandoc(inspect.getmodule(body).__doc__ or name)  # pyright: ignore[reportOptionalMemberAccess]
        kind = next(iter(typing.get_type_hints(body).values()))

        @functools.wraps(body)
        def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
            begin = experiments.STARTED if arguments is None else time.perf_counter()
            given = list(sys.argv[1:] if arguments is None else arguments)
            settings = tyro.cli(kind, prog=f"python -m experiments.{name}", description=about, args=given)
            if settings.smoke:
                settings = dataclasses.replace(settings, seeds=1, **smoke or {})
            record = Record(name, settings, " ".join(["python -m", f"experiments.{name}", *given]))
            rich.print(f"[bold]{name}[/bold]: {about.splitlines()[0]}")
            body(settings, record)
            result = record.finish(time.perf_counter() - begin)
            rich.print(result_table(name, result))
            rich.print(f"{result['seconds']:.1f} s in all; results and pictures are in [bold]{record.folder}[/bold]")
            return result

        return main

    return decorate


def result_table(title: str, result: Mapping[str, Any]) -> Table:
    """The metrics as a table for the terminal."""
    rows, columns, cells = pivot(result)
    table = Table("", *(column.replace("_", " ") for column in columns), title=title, box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(row, *(cells.get((row, column), "") for column in columns))
    return table


def pivot(result: Mapping[str, Any]) -> tuple[list[str], list[str], dict[tuple[str, str], str]]:
    """Rows, columns and cells of a result: the metric ``cnn/accuracy`` stands in row ``cnn``, column ``accuracy``."""
    places = {name: name.rpartition("/")[::2] for name in result["metrics"]}
    rows, columns = (list(dict.fromkeys(names)) for names in zip(*places.values(), strict=True))
    return rows, columns, {place: format_metric(result, name) for name, place in places.items()}


def format_metric(result: Mapping[str, Any], name: str) -> str:
    """``0.9861 ± 0.0012``, or without a deviation where there was one run."""
    mean, deviation = result["metrics"][name], result["deviations"].get(name)
    if mean is None:
        return "none"  # NaN or infinite
    if deviation is None and float(mean).is_integer():
        return f"{mean:,.0f}"
    decimals = next((count for limit, count in ((1, 4), (10, 3), (1000, 1)) if abs(mean) < limit), 0)
    return f"{mean:,.{decimals}f}" + (f" ± {deviation:,.{decimals}f}" if deviation is not None else "")


def environment() -> dict[str, Any]:
    """The versions and the machine that a result was measured with."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {"python": platform.python_version(), "jdl": jdl.__version__}
    versions |= {module.__name__: module.__version__ for module in (jax, optax, np)}
    machine = {"cores": cores, "device": jax.devices()[0].device_kind, "system": platform.system()}
    return {"versions": versions, "machine": machine | {"processor": platform.machine()}}


def write_json(path: Path, value: Any) -> None:
    """Write beside, then rename: whoever reads the file finds the old one or the new one, whole."""
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(_plain(value), indent=2) + "\n")
    beside.replace(path)


def _settings(settings: Settings) -> dict[str, Any]:
    return {name: value for name, value in dataclasses.asdict(settings).items() if name != "out"}


def _plain(value: Any) -> Any:
    """As JSON knows it: arrays as lists, null for NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _plain(np.asarray(value).tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
