"""Pages for a browser: a file each that holds its style, script and numbers, and asks nothing of a network."""

from __future__ import annotations

import functools
import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdl import saving
from jdl.show import page_series as series
from jdl.show import text

SUFFIXES = (".html",)


def write(path: str | Path, title: str, body: str, data: Mapping[str, Any], refresh: float | None = None) -> None:
    """Write a page whole or not at all: whoever opens it finds the old one or the new one.

    Args:
        path: a ``.html`` file in a folder that exists.
        title: what the browser's tab says.
        body: markup, its texts escaped.
        data: what ``page.js`` draws; see :func:`drawing`.
        refresh: seconds after which a browser loads the page again; ``None`` for a page that stays.

    Raises:
        InputError: the suffix is another, or the folder does not exist.
    """
    again = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh:g}">\n'
    page = (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n{again}'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_part('page.css')}</style>\n</head>\n<body>\n{body}\n"
        f"<noscript><p>The curves are drawn by JavaScript, which is turned off here.</p></noscript>\n"
        f'<script type="application/json" id="data">{as_json(data)}</script>\n<script>\n{_part("page.js")}</script>\n'
        "</body>\n</html>\n"
    )
    saving.save(path, lambda beside: beside.write_text(page, encoding="utf-8"), SUFFIXES)


@functools.cache
def _part(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def escape(value: Any) -> str:
    """Any text as markup that shows it."""
    return html.escape(str(value))


def as_json(value: Any) -> str:
    """JSON that can stand inside a script element: no ``<`` can end it early."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def drawing(
    runs: Sequence[Mapping[str, Any]], panels: Iterable[dict[str, Any] | None], **options: Any
) -> dict[str, Any]:
    """What ``page.js`` draws: runs (``name``, ``clocks``, ``colour``), the panels that have curves, and the clock."""
    places = [run["clocks"] for run in runs if run["clocks"]]
    shared = [clock for clock in series.CLOCKS if places and all(clock in one for one in places)]
    drawn = [panel for panel in panels if panel is not None]
    return {"runs": list(runs), "panels": drawn, "clocks": shared, "clock": series.first_clock(places), **options}


def figures(panels: Sequence[Mapping[str, Any]], group: str, size: str = "") -> str:
    """The places of a group's panels; of ``size`` "small", more of them stand in a line."""
    numbers = [index for index, panel in enumerate(panels) if panel["group"] == group]
    places = "".join(f'<figure id="panel-{index}"></figure>' for index in numbers)
    return f'<div class="panels {size}">{places}</div>'


def facts(rows: Mapping[str, Any]) -> str:
    """A table of names and values."""
    cells = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(readable(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f'<div class="wide"><table class="facts"><tbody>{cells}</tbody></table></div>'


def flat(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by their path: ``{"optimizer": {"name": ...}}`` is ``optimizer.name``."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found


def readable(value: Any) -> str:
    """A setting as a person writes it."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(readable, value)) + "]"
    return "none" if value is None else str(value)


def quantity(value: Any, unit: str = "") -> str:
    """A measured number in four digits, with its unit: ``0.9861``, ``12.5 %``, ``1.2 GB``, ``31 k/s``."""
    if value is None or not math.isfinite(value):
        return "not finite"
    if unit == "share":
        return f"{100 * value:.3g} %"
    if unit == "bytes":
        return text.number(value, "B")
    if unit == "rate":
        return (text.number(value) if value >= 100 else f"{value:.3g}") + "/s"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 1000):
        return f"{int(value):,}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """``12.3 s``, ``4 min 10 s``, ``3 h 5 min``, ``2 days 4 h``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 2 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} days {whole % 86400 // 3600} h"
