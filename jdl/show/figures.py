"""Figures of matplotlib without its global state: made, styled and saved the same way everywhere."""

from __future__ import annotations

import functools
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jdl import saving
from jdl.extras import require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
DPI = 150

INK, QUIET, GRID = "#1f2933", "#5f6b7a", "#d9dee5"
BLUE, ORANGE, RED = "#2b6cb0", "#d9730d", "#c53030"
# Told apart by the colour-blind too (Okabe & Ito, 2008).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333", "#8c6d31")


def new_figure(
    panels: int, columns: int, size: tuple[float, float], path: str | Path | None = None, **options: Any
) -> tuple[Figure, list[Axes]]:
    """A figure with this many panels of ``size`` inches in at most so many columns, and the panels in order.

    The suffix of ``path``, where the figure is to go, is looked at before anything is drawn. ``options`` are those of
    ``Figure.subplots``.

    Raises:
        InputError: ``path`` has another suffix than those of :data:`SUFFIXES`.
        ModuleNotFoundError: matplotlib is missing; says which extra brings it.
    """
    if path is not None:
        saving.check_suffix(path, SUFFIXES)
    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = _picture()(figsize=(size[0] * columns, size[1] * rows), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False, **options).flat)
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def style(axes: Axes, title: str = "") -> None:
    """A quiet frame and grid."""
    axes.set_title(title, fontsize=10, color=INK, loc="left")
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(which="both", color=QUIET, labelcolor=QUIET, labelsize=8)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(QUIET)


def finish(figure: Figure, path: str | Path | None) -> Figure:
    """Write the figure to ``path`` where one is given, whole or not at all, and return it."""
    if path is not None:
        saving.save(path, figure.savefig, SUFFIXES)
    return figure


@functools.cache
def _picture() -> type[Figure]:
    figure = require("matplotlib.figure", "experiments", "plotting").Figure

    class Picture(figure):
        """A figure that notebooks show by itself; one of pyplot needs pyplot for that."""

        def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
            buffer = io.BytesIO()
            self.savefig(buffer, format="png")
            width, height = (round(96 * inches) for inches in self.get_size_inches())
            return buffer.getvalue(), {"width": width, "height": height}

    return Picture
