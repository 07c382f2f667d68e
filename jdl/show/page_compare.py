"""One page for many runs: their curves over each other, the settings that differ, and a table of results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdl.check import InputError
from jdl.show import figures as looks
from jdl.show import page
from jdl.show import page_series as series
from jdl.show.page import escape
from jdl.show.page_folders import Kept, read_folders
from jdl.show.page_results import result, results, shared

_DASHES = ("", "7 3", "2 3", "9 3 2 3")  # with eight colours: runs to tell apart
_BESIDE = (
    "optimizer/learning_rate",
    "optimizer/gradient_norm",
    "optimizer/update_ratio",
    "machine/examples_per_second",
)
_TROUBLES = 3  # shown at once; more are folded away


def compare(folders: Iterable[str | Path], path: str | Path = "comparison.html") -> list[str]:
    """Write one self-contained page that compares the runs in ``folders``.

    It draws their curves over each other, and tables what they reached beside the settings that differ. A folder may
    come from :mod:`jdl.monitor` or from an experiment, whose file holds several runs told apart by labels. The last
    line of a run that was killed may be broken off.

    Args:
        folders: each holding ``metrics.jsonl`` or ``result.json``, and ``config.json``.
        path: the ``.html`` file to write.

    Returns:
        What could not be read, a line each, such as a folder without metrics; the page says the same.

    Raises:
        InputError: no folder holds anything to compare, or ``path`` has another suffix.
    """
    read = read_folders([folders] if isinstance(folders, (str, Path)) else folders)
    troubles = [trouble for folder in read for trouble in folder.troubles]
    runs = [run for folder in read for run in folder.runs]
    told = [folder for folder in read if folder.result]
    if not runs and not told:
        why = "; ".join(troubles) or "no folders were given"
        raise InputError(f"there is nothing to compare: {why}. A run leaves metrics with jdl.monitor.Metrics(folder)")
    data = page.drawing(_lines(runs), _panels(runs), several=True, running=False)
    counts = {"run": len(runs), "result": len(told)}
    title = " and ".join(f"{count} {name}{'s' * (count > 1)}" for name, count in counts.items() if count)
    parts = [f"<header><h1>Comparison of {title}</h1></header>", _troubles(troubles)]
    if runs:
        parts += [_curves(data["panels"]), results(runs, Path(path)), shared(runs)]
    page.write(path, f"Comparison of {title}", "\n".join([*parts, *map(result, told)]), data)
    return troubles


def _lines(runs: Sequence[Kept]) -> list[dict[str, Any]]:
    return [{"name": run.name, "clocks": series.clocks(run.rows), **_look(index)} for index, run in enumerate(runs)]


def _look(index: int) -> dict[str, str]:
    dash, colour = divmod(index, len(looks.COLOURS))
    return {"colour": looks.COLOURS[colour], "dash": _DASHES[dash % len(_DASHES)]}


def _panels(runs: Sequence[Kept]) -> list[dict[str, Any] | None]:
    """A panel a quantity: validation, or training where there is none, with training thin behind validation."""
    names = series.quantities(row for run in runs for row in run.rows)
    learning = [name for name in names if series.is_learned(name)]
    panels = []
    for name in [*learning, *(name for name in _BESIDE if name in names)]:
        curves = []
        for index, run in enumerate(runs):
            look: dict[str, Any] = {"run": index, "label": run.name, **_look(index)}
            held_out = series.curve(run.rows, series.VALIDATION + name, **look)
            training = series.curve(run.rows, name, **look, **({"training": True} if held_out else {}))
            curves += [training, held_out]
        panels.append(series.panel(name, curves, group="learning" if name in learning else "beside"))
    return panels


def _curves(panels: Sequence[Mapping[str, Any]]) -> str:
    parts = [
        '<div class="tools sticky"><div class="chips" id="chips"></div><span class="choice" id="clocks"></span></div>',
        "<h2>Learning<small>point at a run to bring it out; press it to hide it</small></h2>",
        page.figures(panels, "learning"),
    ]
    if any(panel["group"] == "beside" for panel in panels):
        parts += ["<h2>Optimizer and speed</h2>", page.figures(panels, "beside", "small")]
    return "\n".join(parts)


def _troubles(troubles: Sequence[str]) -> str:
    lines = "".join(f"<div>{escape(trouble)}</div>" for trouble in troubles)
    if len(troubles) <= _TROUBLES:
        return f'<div class="finding">{lines}</div>' if troubles else ""
    title = f"<summary>{len(troubles)} things could not be read</summary>"
    return f'<details class="finding">{title}{lines}</details>'
