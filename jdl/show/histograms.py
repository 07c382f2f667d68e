"""Histograms of parameters and activations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jdl import check
from jdl.check import InputError
from jdl.show import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BINS = 64


class Histogram(NamedTuple):
    """How often values fall between ``edges`` ``[bins + 1]``: ``counts`` ``[bins]``, and how many are not finite.

    ``mean`` and ``deviation`` are those of the finite values.
    """

    counts: np.ndarray
    edges: np.ndarray
    not_finite: int
    mean: float
    deviation: float


def histogram(values: Any, bins: int | None = None) -> Histogram:
    """The histogram of an array of any shape, its bins of one width from the least to the largest finite value.

    By default at most 64 bins, and fewer for few values: twice the square root of their number.
    """
    check.array(values, "values")
    flat = np.ravel(np.asarray(values))
    flat = flat.astype(np.int8 if flat.dtype == bool else np.float64)
    finite = flat[np.isfinite(flat)]
    counts, edges = np.histogram(finite, bins or max(4, min(BINS, round(2 * len(finite) ** 0.5))))
    mean, deviation = (float(finite.mean()), float(finite.std())) if len(finite) else (np.nan, np.nan)
    return Histogram(counts, edges, len(flat) - len(finite), mean, deviation)


def plot_histograms(values: Mapping[str, Any], path: str | Path | None = None) -> Figure:
    """Histograms by name, a panel each, with mean and standard deviation.

    Args:
        values: arrays of any shape, or what :func:`histogram` made of them.
        path: a ``.png``, ``.svg`` or ``.pdf`` file to write.

    Raises:
        InputError: there is nothing to draw, or ``path`` has another suffix.
        ModuleNotFoundError: matplotlib is missing; says which extra brings it.
    """
    if not isinstance(values, Mapping) or not values:
        raise InputError(f"values got {check.describe(values)}, wanted a dict of names to arrays")
    found = {name: one if isinstance(one, Histogram) else histogram(one) for name, one in values.items()}
    figure, panels = figures.new_figure(len(found), 4, (3.1, 2.2), path)
    for axes, (name, one) in zip(panels, found.items(), strict=True):
        _panel(axes, name, one)
    return figures.finish(figure, path)


def _panel(axes: Axes, name: str, one: Histogram) -> None:
    figures.style(axes, name)
    axes.stairs(one.counts, one.edges, fill=True, color=figures.BLUE, alpha=0.85)
    told = f"{one.mean:.3g} ± {one.deviation:.3g}"
    if one.not_finite:
        told += f"\n{one.not_finite:,} not finite"
    colour = figures.RED if one.not_finite else figures.QUIET
    axes.text(0.98, 0.95, told, transform=axes.transAxes, ha="right", va="top", fontsize=7.5, color=colour)
    axes.set_ylim(0, 1.3 * max(1, one.counts.max()))  # room for the text
    axes.set_yticks([])
    axes.locator_params(axis="x", nbins=5)
