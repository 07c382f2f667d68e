"""Curves of training: what a run reported, and several runs over each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jdl import check
from jdl.check import InputError
from jdl.direction import less_is_better
from jdl.show import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Sequence[Mapping[str, Any]]

_PROGRESS = ("step", "epoch", "seconds")
_VALIDATION = "validation_"
_DECADE = 10.0  # from this ratio of a loss's largest to its least value its axis is logarithmic


def plot_history(history: History, path: str | Path | None = None) -> Figure:
    """Curves of one run, a panel for each quantity with training and validation together.

    The best validation value is marked: the least of losses and errors, the largest of anything else. A loss that
    falls by more than ten has a logarithmic axis.

    Args:
        history: dicts as in ``run.history``: ``step`` and ``epoch``, ``loss``, metrics and ``validation_…``. What is
        not a number, such as a confusion matrix, is left out.
        path: a ``.png``, ``.svg`` or ``.pdf`` file to write.

    Raises:
        InputError: the history is empty or holds nothing to draw, or ``path`` has another suffix.
        ModuleNotFoundError: matplotlib is missing; says which extra brings it.
    """
    return _plot({"": history}, path)


def plot_runs(histories: Mapping[str, History], path: str | Path | None = None) -> Figure:
    """Curves of several runs by name, over each other: validation as lines, training as thin dashes.

    Arguments and errors as for :func:`plot_history`.
    """
    if not isinstance(histories, Mapping) or not histories:
        raise InputError(f"histories got {check.describe(histories)}, wanted a dict of names to histories")
    return _plot(histories, path)


def _plot(histories: Mapping[str, History], path: str | Path | None) -> Figure:
    quantities = list(dict.fromkeys(name for history in histories.values() for name in _quantities(history)))
    if not quantities:
        raise InputError("history holds no numbers but step, epoch and seconds; there is nothing to draw")
    clock = _clock(histories.values())
    figure, panels = figures.new_figure(len(quantities), 3, (4.4, 3.2), path)
    for axes, quantity in zip(panels, quantities, strict=True):
        figures.style(axes, quantity.replace("_", " "))
        axes.set_xlabel(clock, fontsize=8, color=figures.QUIET)
        axes.locator_params(axis="x", integer=True)
        if _spans_decades(quantity, histories.values()):
            axes.set_yscale("log")
        for place, (label, history) in enumerate(histories.items()):
            own = figures.COLOURS[place % len(figures.COLOURS)]
            _curves(axes, history, quantity, clock, label, (own, own) if label else (figures.BLUE, figures.ORANGE))
        if axes.get_legend_handles_labels()[0]:
            dotted = "dotted: training" if any(line.get_linestyle() == ":" for line in axes.lines) else None
            axes.legend(fontsize=7.5, frameon=False, labelcolor=figures.INK, title=dotted, title_fontsize=7.5)
    return figures.finish(figure, path)


def _quantities(history: History) -> list[str]:
    """What was reported as numbers, without the clocks; validation joins the quantity it validates."""
    if not isinstance(history, Sequence) or not all(isinstance(row, Mapping) for row in history):
        raise InputError(f"history got {check.describe(history)}, wanted a list of dicts, as run.history")
    names = [name for row in history for name, value in row.items() if name not in _PROGRESS and _is_number(value)]
    return list(dict.fromkeys(name.removeprefix(_VALIDATION) for name in names))


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) or (check.is_array(value) and np.ndim(value) == 0)


def _clock(histories: Iterable[History]) -> str:
    """The horizontal axis: epochs where every row has one and they differ, else steps."""
    epochs = [[row.get("epoch") for row in history] for history in histories]
    told_apart = all(None not in row and len(set(row)) == len(row) for row in epochs)
    return "epoch" if told_apart else "step"


def _points(history: History, name: str, clock: str) -> tuple[np.ndarray, np.ndarray]:
    rows = [(row.get(clock, index), row[name]) for index, row in enumerate(history) if _is_number(row.get(name))]
    if not rows:
        return np.empty(0), np.empty(0)
    x, y = zip(*rows, strict=True)
    return np.asarray(x, np.float64), np.asarray(y, np.float64)


def _spans_decades(quantity: str, histories: Iterable[History]) -> bool:
    if not less_is_better(quantity):
        return False
    names = (quantity, _VALIDATION + quantity)
    values = np.concatenate([_points(history, name, "step")[1] for history in histories for name in names])
    values = values[np.isfinite(values)]
    return len(values) > 0 and values.min() > 0 and values.max() > _DECADE * values.min()


def _curves(axes: Axes, history: History, quantity: str, clock: str, label: str, colours: tuple[str, str]) -> None:
    """Training and validation of one quantity; the best validation value is marked."""
    x, y = _points(history, quantity, clock)
    held_x, held_y = _points(history, _VALIDATION + quantity, clock)
    several = bool(label)
    # A single report is a point, not a line.
    marker = "o" if max(len(x), len(held_x)) == 1 else ""
    if len(x):
        dashed = several and len(held_x)
        name = None if dashed else label or "training"
        axes.plot(x, y, color=colours[0], linewidth=1.4, linestyle=":" if dashed else "-", marker=marker, label=name)
    if len(held_x):
        axes.plot(held_x, held_y, color=colours[1], linewidth=1.6, marker=marker, label=label or "validation")
        if np.isfinite(held_y).any():
            best = int(np.nanargmin(held_y) if less_is_better(quantity) else np.nanargmax(held_y))
            name = None if several else f"best {held_y[best]:.4g} at {clock} {held_x[best]:g}"
            axes.plot(
                held_x[best], held_y[best], "o", color=colours[1], markersize=5, markeredgecolor="white", label=name
            )
