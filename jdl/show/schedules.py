"""Pictures of schedules: the value that each step trains at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.check import InputError
from jdl.show import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_schedules(schedules: Mapping[str, Callable[[Any], Any]], steps: int, path: str | Path | None = None) -> Figure:
    """Schedules by name over each other, at each of the first ``steps`` steps.

    Args:
        schedules: names to schedules, of :mod:`jdl.schedules` or any function of a step.
        steps: how many steps to show.
        path: a ``.png``, ``.svg`` or ``.pdf`` file to write.

    Raises:
        InputError: there are no schedules or no steps, or ``path`` has another suffix.
        ModuleNotFoundError: matplotlib is missing; says which extra brings it.
    """
    if not isinstance(schedules, Mapping) or not schedules or not all(map(callable, schedules.values())):
        raise InputError(f"schedules got {check.describe(schedules)}, wanted a dict of names to schedules")
    if not isinstance(steps, (int, np.integer)) or steps < 1:
        raise InputError(f"steps got {steps!r}, wanted an integer of at least 1")
    figure, (axes,) = figures.new_figure(1, 1, (5.6, 3.2), path)
    figures.style(axes)
    axes.set_xlabel("step", fontsize=8, color=figures.QUIET)
    x = np.arange(steps)
    for place, (name, schedule) in enumerate(schedules.items()):
        colour = figures.COLOURS[place % len(figures.COLOURS)]
        marker = "o" if steps == 1 else ""  # a single value is a point, not a line
        axes.plot(x, _values(schedule, x), color=colour, linewidth=1.6, marker=marker, label=name)
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    axes.legend(fontsize=7.5, frameon=False, labelcolor=figures.INK)
    return figures.finish(figure, path)


def _values(schedule: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    with jax.numpy_dtype_promotion("standard"):  # optax raises floats to integer powers
        return np.asarray(jax.vmap(schedule)(jnp.asarray(x, jnp.int32)))
