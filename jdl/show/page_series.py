"""From rows of numbers to what a page draws: curves, few enough points, and which panel each belongs to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from jdl.direction import less_is_better

Rows = Sequence[Mapping[str, Any]]

CLOCKS = ("epoch", "step", "seconds")
VALIDATION = "validation_"
MOST_POINTS = 600  # of a curve; more cannot be told apart on a screen
_DECADE = 10.0
# An update of 0, where a schedule ends at 0, has no place on a logarithmic axis and needs none.
_ZERO_IS_NOTHING = ("norms", "optimizer/gradient_norm", "optimizer/update_norm", "optimizer/update_ratio")

# The units of quantities that jdl.monitor measures; everything else is a plain number.
UNITS = {
    "machine/examples_per_second": "rate",
    "machine/steps_per_second": "rate",
    "machine/waiting": "share",
    "machine/model_flops_utilisation": "share",
    "machine/device_memory": "bytes",
    "machine/device_memory_peak": "bytes",
    "machine/process_memory": "bytes",
}


def quantities(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of what was reported as numbers, in order, without clocks; validation joins the quantity it validates."""
    names: dict[str, None] = {}
    for row in rows:
        for name, value in row.items():
            if name not in CLOCKS and (value is None or is_number(value)):
                names[name.removeprefix(VALIDATION)] = None
    return list(names)


def is_number(value: Any) -> bool:
    """Whether this is one number: no text, truth value or array of several."""
    return (isinstance(value, Real) and not isinstance(value, bool)) or (
        hasattr(value, "dtype") and np.ndim(value) == 0
    )


def is_learned(name: str) -> bool:
    """Whether this is a loss or a metric, and not what the optimizer or the machine did."""
    return not name.startswith(("optimizer/", "machine/"))


def where(row: Mapping[str, Any]) -> str:
    """``epoch 3``, or ``step 300`` of a row without epochs."""
    return f"epoch {row['epoch']:,}" if "epoch" in row else f"step {row.get('step', 0):,}"


def title(name: str) -> str:
    """A quantity's name for people: ``machine/examples_per_second`` is "examples per second"."""
    return name.removeprefix("machine/").removeprefix("optimizer/").replace("_", " ").replace("flops", "FLOPs")


def clocks(rows: Rows) -> dict[str, list[float | None]]:
    """Where each report stands on each clock that every row has."""
    found = {clock: [_rounded(row.get(clock)) for row in rows] for clock in CLOCKS}
    return {clock: places for clock, places in found.items() if rows and None not in places}


def first_clock(places: Iterable[Mapping[str, Sequence[float | None]]]) -> str:
    """The clock to begin with: epochs where they tell the reports of every run apart, else steps."""
    several = [run for run in places if run]
    told_apart = all("epoch" in run and len(set(run["epoch"])) == len(run["epoch"]) for run in several)
    names = [clock for clock in CLOCKS if all(clock in run for run in several)]
    return "epoch" if told_apart else "step" if "step" in names else next(iter(names), "step")


def curve(rows: Rows, name: str, **look: Any) -> dict[str, Any] | None:
    """One quantity of a run as ``i``, which reports, and ``y``, the values (None where not finite), and the ``best``.

    A long curve keeps the least and the largest value of each stretch, so that no spike is lost. ``None`` where the
    quantity was never reported.
    """
    reports = [index for index, row in enumerate(rows) if name in row and (row[name] is None or is_number(row[name]))]
    if not reports:
        return None
    values = np.asarray([math.nan if rows[index][name] is None else rows[index][name] for index in reports], np.float64)
    values[~np.isfinite(values)] = math.nan
    best = _best(name, values)
    kept = _thinned(values, best)
    lost = np.flatnonzero(np.isnan(values))
    return {
        "i": [reports[place] for place in kept],
        "y": [_rounded(values[place]) for place in kept],
        "best": None if best is None else kept.index(best),
        "lost": len(lost),
        "first_lost": reports[lost[0]] if len(lost) else None,
        **look,
    }


def panel(name: str, curves: Iterable[dict[str, Any] | None], **options: Any) -> dict[str, Any] | None:
    """A panel of the curves that exist, its axis logarithmic where a loss or a norm spans decades."""
    found = [one for one in curves if one is not None]
    if not found:
        return None
    values = [y for one in found for y in one["y"] if y is not None]
    if name in _ZERO_IS_NOTHING:
        values = [y for y in values if y > 0]
    falls = less_is_better(name) or name.startswith("optimizer/") or name in _ZERO_IS_NOTHING
    log = falls and bool(values) and min(values) > 0 and max(values) > _DECADE * min(values)
    return {"title": title(name), "unit": UNITS.get(name, ""), "log": log, "curves": found, **options}


def extremes(rows: Rows, name: str) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """The last row that reports this quantity, and the row where its finite value is best."""
    with_it = [row for row in rows if name in row and (row[name] is None or is_number(row[name]))]
    finite = [row for row in with_it if row[name] is not None and math.isfinite(row[name])]
    choose = min if less_is_better(name) else max
    return with_it[-1] if with_it else None, choose(finite, key=lambda row: row[name]) if finite else None


def _best(name: str, values: np.ndarray) -> int | None:
    """The place of the best validation value; nothing else has one."""
    if not name.startswith(VALIDATION) or np.isnan(values).all():
        return None
    return int(np.nanargmin(values) if less_is_better(name) else np.nanargmax(values))


def _thinned(values: np.ndarray, best: int | None) -> list[int]:
    """Places to keep: the ends, the best, the least and largest of each stretch, and a gap where it has one."""
    if len(values) <= MOST_POINTS:
        return list(range(len(values)))
    keep = {0, len(values) - 1} | ({best} if best is not None else set())
    for stretch in np.array_split(np.arange(len(values)), MOST_POINTS // 2):
        gaps = np.isnan(part := values[stretch])
        if gaps.any():
            keep.add(int(stretch[gaps.argmax()]))
        if not gaps.all():
            keep |= {int(stretch[np.nanargmin(part)]), int(stretch[np.nanargmax(part)])}
    return sorted(keep)


def _rounded(value: Any) -> float | int | None:
    if value is None or not math.isfinite(value):
        return None
    return int(value) if isinstance(value, int | np.integer) else float(f"{float(value):.6g}")
