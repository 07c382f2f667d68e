"""What runs reached, as tables: beside the settings that differ, and as experiments wrote it."""

from __future__ import annotations

import itertools
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jdl.direction import less_is_better
from jdl.show import page
from jdl.show import page_series as series
from jdl.show.page import escape, quantity
from jdl.show.page_folders import Folder, Kept
from jdl.show.page_table import Cell, Column, table

_LONGEST = 44  # characters of a setting that stand in the table whole
_NONE = Cell("–")


def results(runs: Sequence[Kept], path: Path) -> str:
    """The table of runs: the settings that differ, and the last and best value of each quantity."""
    settings = differing(runs)
    columns = [Column("run", [_named(run, path) for run in runs])]
    columns += [_setting_column(runs, name) for name in settings]
    columns += [_quantity_column(runs, name, part) for name in _reached(runs) for part in ("last", "best")]
    columns += [
        Column("time", [_number(_last(run, "seconds"), page.duration) for run in runs], True),
        Column("examples/s", [_number(_speed(run), lambda x: quantity(x, "rate")[:-2]) for run in runs], True),
        Column("steps", [_number(_last(run, "step"), "{:,}".format) for run in runs], True),
    ]
    if any(run.status for run in runs):
        columns.append(Column("status", [Cell(escape(run.status), run.status) for run in runs]))
    count = "no setting differs" if not settings else f"{len(settings)} of the settings differ"
    if len(settings) == 1:
        count = "one setting differs"
    return f"<h2>Results<small>{count}; press a heading to sort; bold is best</small></h2>{table(columns, True)}"


def differing(runs: Sequence[Kept]) -> list[str]:
    """Names of the settings that are not alike in all runs."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [name for name in names if len({_setting(run, name) for run in runs}) > 1]


def shared(runs: Sequence[Kept]) -> str:
    """The settings that are alike, out of the way."""
    apart = differing(runs)
    alike = {name: value for name, value in runs[0].settings.items() if name not in apart}
    return f"<details><summary>Settings that are the same</summary>{page.facts(alike)}</details>" if alike else ""


def result(folder: Folder) -> str:
    """The result of an experiment as it wrote it: ``cnn/accuracy`` stands in row cnn, column accuracy."""
    metrics: Mapping[str, Any] = folder.result["metrics"]
    deviations: Mapping[str, Any] = folder.result.get("deviations") or {}
    places = {name.rpartition("/")[::2]: name for name in metrics}
    rows, columns = (list(dict.fromkeys(place[part] for place in places)) for part in (0, 1))

    def cell(row: str, column: str) -> Cell:
        name = places.get((row, column))
        if name is None:
            return Cell("")
        spread = deviations.get(name)
        return Cell(quantity(metrics[name]) + (f" ± {quantity(spread)}" if spread is not None else ""), metrics[name])

    cells = [Column("", [Cell(escape(row), row) for row in rows])]
    cells += [Column(series.title(column), [cell(row, column) for row in rows], True) for column in columns]
    file = escape(folder.path / "result.json")
    return f"<h2>{escape(folder.name)}<small>{file}</small></h2>{table(cells)}"


def _named(run: Kept, path: Path) -> Cell:
    """A run's name, leading to its own page where it has one."""
    name, own = escape(run.name), run.folder / "index.html"
    if own.is_file():
        relative = Path(os.path.relpath(own.resolve(), path.resolve().parent)).as_posix()
        name = f'<a href="{escape(quote(relative))}">{name}</a>'
    return Cell(f'<span class="swatch"></span> {name}', run.name, title=run.name)


def _setting(run: Kept, name: str) -> str:
    return page.readable(run.settings[name]) if name in run.settings else "–"


def _setting_column(runs: Sequence[Kept], name: str) -> Column:
    values = [_setting(run, name) for run in runs]
    short = _told_apart(values)
    classes = "setting long" if max(map(len, short)) > 16 else "setting"
    cells = [Cell(escape(text), value, classes, value) for text, value in zip(short, values, strict=True)]
    return Column(name, cells)


def _told_apart(values: Sequence[str]) -> list[str]:
    """Long texts without the words at their beginning and end that all of them share."""
    if max(map(len, values)) <= _LONGEST:
        return list(values)
    words = [value.split(" ") for value in values]
    start = _alike(words)
    end = _alike([own[start:][::-1] for own in words])
    # A word joiner keeps the ellipsis at its word.
    middle = [" ".join(own[start : len(own) - end]) for own in words]
    return [("…\u2060" if start else "") + text + ("\u2060…" if end else "") for text in middle]


def _alike(rows: Sequence[Sequence[str]]) -> int:
    """How many first items all rows share."""
    together = zip(*rows, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda items: len(set(items)) == 1, together))


def _reached(runs: Sequence[Kept]) -> list[str]:
    """The quantities that were learned: of validation where any run has it, else of training."""
    names = filter(series.is_learned, series.quantities(row for run in runs for row in run.rows))
    reported = {name for run in runs for row in run.rows for name in row}
    return [series.VALIDATION + name if series.VALIDATION + name in reported else name for name in names]


def _quantity_column(runs: Sequence[Kept], name: str, part: str) -> Column:
    rows = [series.extremes(run.rows, name)[part == "best"] for run in runs]
    values = [None if row is None else row[name] for row in rows]
    known = [value for value in values if value is not None]
    best = (min if less_is_better(name) else max)(known) if len(known) > 1 else None
    cells = []
    for row, value in zip(rows, values, strict=True):
        where = f"<br><small>{series.where(row)}</small>" if row is not None and part == "best" else ""
        classes = "best" if value is not None and value == best else ""
        cells.append(_NONE if row is None else Cell(quantity(value) + where, value, classes))
    return Column(part, cells, True, series.title(name))


def _last(run: Kept, name: str) -> Any:
    return run.rows[-1].get(name) if run.rows else None


def _speed(run: Kept) -> float | None:
    """The median: the first report holds the compilation."""
    speeds = [speed for row in run.rows if (speed := row.get("machine/examples_per_second"))]
    return statistics.median(speeds) if speeds else None


def _number(value: Any, show: Any) -> Cell:
    return _NONE if value is None else Cell(show(value), value)
