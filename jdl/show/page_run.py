"""The page of one run: where it stands, its curves, what was noticed, and what it was set to."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jdl.show import figures as looks
from jdl.show import page
from jdl.show import page_series as series
from jdl.show.page import duration, escape, quantity

REFRESH_SECONDS = 5.0
# Quantities that share a panel, with their names in it.
_TOGETHER = {
    "norms": {
        "optimizer/gradient_norm": "gradient",
        "optimizer/update_norm": "update",
        "optimizer/parameter_norm": "parameters",
    },
    "memory": {
        "machine/device_memory": "device",
        "machine/device_memory_peak": "device, peak",
        "machine/process_memory": "process",
    },
}
_NOT_DRAWN = ("machine/steps_per_second",)  # the examples per second over a constant
_TILES = {
    "machine/examples_per_second": "examples",
    "machine/waiting": "waiting for data",
    "machine/model_flops_utilisation": "FLOPs utilisation",
    "machine/device_memory": "device memory",
    "machine/process_memory": "process memory",
}
_COLOURS = (looks.BLUE, looks.ORANGE, looks.COLOURS[2])
_GROUPS = {"learning": "Learning", "optimizer": "Optimizer", "machine": "Machine"}


@dataclasses.dataclass(frozen=True)
class Report:
    """What the page of a run tells.

    Attributes:
        name: of the run.
        rows: what was measured at each report, as :func:`jdl.monitor.measure` returns it.
        status: ``running``, ``finished``, ``stopped`` or ``failed``, and ``reason``, why.
        steps: planned.
        facts: tables by their titles: settings, versions, compilations.
        findings: of the diagnosis, as texts; the first line is the title.
        notes: how numbers were measured.
        updated: seconds since 1970; ``patience``: seconds without news after which the page says so.
    """

    name: str
    rows: Sequence[Mapping[str, Any]] = ()
    status: str = "running"
    reason: str = ""
    steps: int | None = None
    facts: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    findings: Sequence[str] = ()
    notes: Sequence[str] = ()
    updated: float = 0.0
    patience: float = 120.0


def write_run(path: str | Path, report: Report) -> None:
    """Write the page of a run; while it is running, browsers load the page again every five seconds."""
    running = report.status == "running"
    run = {"name": report.name, "clocks": series.clocks(report.rows), "colour": looks.BLUE, "dash": ""}
    timing = {"running": running, "updated": report.updated, "patience": report.patience, "several": False}
    data = page.drawing([run], _panels(report.rows), **timing)
    body = "\n".join([_head(report), _tiles(report.rows), _findings(report), _charts(data["panels"]), _facts(report)])
    page.write(path, f"{report.name}: {report.status}", body, data, REFRESH_SECONDS if running else None)


def _panels(rows: series.Rows) -> list[dict[str, Any] | None]:
    """A panel a quantity, or several quantities that belong together."""
    constant, panels = _constant(rows), {}
    for name in series.quantities(rows):
        if name in _NOT_DRAWN or name in constant:
            continue
        if series.is_learned(name):
            panels[name] = {name: "training", series.VALIDATION + name: "validation"}
        else:
            title = next((title for title, names in _TOGETHER.items() if name in names), name)
            panels[title] = _TOGETHER.get(title, {name: series.title(name)})
    return [_panel(rows, title, names) for title, names in panels.items()]


def _panel(rows: series.Rows, title: str, names: Mapping[str, str]) -> dict[str, Any] | None:
    first = next(iter(names))
    group = "learning" if series.is_learned(first) else first.partition("/")[0]
    curves = [
        series.curve(rows, name, run=0, label=label, colour=colour)
        for (name, label), colour in zip(names.items(), _COLOURS, strict=False)
    ]
    return series.panel(title, curves, group=group, unit=series.UNITS.get(first, ""))


def _constant(rows: series.Rows) -> dict[str, Any]:
    """Hyper-parameters and counts that never changed: their value says it all, and a panel would say no more."""
    drawn = ("optimizer/learning_rate", "optimizer/update_ratio", *_TOGETHER["norms"])
    names = [name for name in series.quantities(rows) if name.startswith("optimizer/") and name not in drawn]
    values = {name: {row[name] for row in rows if name in row} for name in names}
    return {name: next(iter(several)) for name, several in values.items() if len(several) == 1}


def _head(report: Report) -> str:
    last = report.rows[-1] if report.rows else {}
    done, steps = last.get("step", 0), report.steps
    parts = [f"step {done:,}" + (f" of {steps:,}" if steps else "")]
    if "epoch" in last:
        parts.append(f"epoch {last['epoch']:,}")
    if "seconds" in last:
        parts.append(duration(last["seconds"]))
    speed = last.get("machine/steps_per_second")
    if report.status == "running" and steps and speed:
        parts.append(f"about {duration(max(1, round((steps - done) / speed)))} left")
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(report.updated))
    parts.append(f'updated {stamp} (<span id="ago">at that time</span>)')
    share = 100 * min(1.0, done / steps) if steps else 0
    reason = f'<div class="reason">{escape(report.reason)}</div>' if report.reason else ""
    return (
        f'<header class="{report.status}"><div class="name"><h1>{escape(report.name)}</h1>'
        f'<span class="pill {report.status}">{report.status}</span></div>'
        f'<div class="bar" title="{share:.0f} %"><div style="width: {share:.2f}%"></div></div>'
        f'<div class="quiet number">{" · ".join(parts)}</div>{reason}</header>'
    )


def _tiles(rows: series.Rows) -> str:
    tiles = []
    for name in series.quantities(rows):
        if not series.is_learned(name):
            continue
        last, _ = series.extremes(rows, name)
        held_out, best = series.extremes(rows, series.VALIDATION + name)
        shown, column = (held_out, series.VALIDATION + name) if held_out else (last, name)
        if shown is None:
            continue
        notes = [f"training {quantity(last[name])}"] if held_out and last else []
        if held_out and best:
            notes.append(f"best {quantity(best[column])} at {series.where(best)}")
        label = ("validation " if held_out else "") + series.title(name)
        tiles.append(_tile(label, quantity(shown[column]), "<br>".join(notes)))
    if rows:
        tiles += [
            _tile(label, quantity(rows[-1][name], series.UNITS[name]), "")
            for name, label in _TILES.items()
            if rows[-1].get(name) is not None
        ]
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else '<p class="quiet">No report yet.</p>'


def _tile(label: str, value: str, note: str) -> str:
    lost = " lost" if value == "not finite" else ""
    return (
        f'<div class="tile"><div class="label">{escape(label)}</div><div class="value{lost}">{escape(value)}</div>'
        f'<div class="note">{note}</div></div>'
    )


def _findings(report: Report) -> str:
    if not report.findings:
        return ""
    told = []
    for finding in report.findings:
        first, _, rest = finding.strip().partition("\n")
        told.append(f'<div class="finding"><b>{escape(first)}</b>{escape(rest)}</div>')
    return f"<h2>What was noticed</h2>{''.join(told)}"


def _charts(panels: Sequence[Mapping[str, Any]]) -> str:
    groups = [name for name in _GROUPS if any(panel["group"] == name for panel in panels)]
    clocks = '<div class="tools"><span class="choice" id="clocks"></span></div>' if groups else ""
    sizes = [(name, "" if name == "learning" else "small") for name in groups]
    return clocks + "".join(f"<h2>{_GROUPS[name]}</h2>{page.figures(panels, name, size)}" for name, size in sizes)


def _facts(report: Report) -> str:
    constant = {series.title(name): value for name, value in _constant(report.rows).items()}
    tables = [
        f"<div><h2>{escape(title)}</h2>{page.facts(page.flat(rows))}</div>"
        for title, rows in {**report.facts, "Constant in the optimizer": constant}.items()
        if rows
    ]
    notes = "".join(f"<p>{escape(note)}</p>" for note in report.notes)
    return f'<div class="two">{"".join(tables)}</div><footer class="quiet">{notes}</footer>'
