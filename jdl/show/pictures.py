"""Pictures of data and decisions: images in a grid, a confusion matrix, regions of a plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jdl import check
from jdl.check import InputError
from jdl.show import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GRID = 300  # points a side
_MARKERS = "osD^vPX*"


def plot_images(
    images: Any, titles: Sequence[str] | None = None, path: str | Path | None = None, columns: int = 8
) -> Figure:
    """Images in a grid, each scaled from its darkest to its brightest entry.

    Args:
        images: ``[N, H, W]``, ``[N, H, W, 1]`` or, in colour, ``[N, H, W, 3]``.
        titles: one for each image.
        path: a ``.png``, ``.svg`` or ``.pdf`` file to write.
        columns: images in a row.

    Raises:
        InputError: images of another shape, titles of another number, or ``path`` has another suffix.
        ModuleNotFoundError: matplotlib is missing; says which extra brings it.
    """
    images = np.asarray(images, np.float32)
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] not in (1, 3)) or not len(images):
        raise InputError(f"images got {check.describe(images)}, wanted [N, H, W], [N, H, W, 1] or [N, H, W, 3]")
    if titles is not None and len(titles) != len(images):
        raise InputError(f"titles got {len(titles)}, wanted one for each of {len(images)} images")
    figure, panels = figures.new_figure(len(images), columns, (1.1, 1.2 if titles is None else 1.4), path)
    for index, axes in enumerate(panels):
        image = images[index]
        low, high = image.min(), image.max()
        image = (image - low) / (high - low if high > low else 1)
        axes.imshow(image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image, cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
        if titles is not None:
            axes.set_title(titles[index], fontsize=8, color=figures.INK)
    return figures.finish(figure, path)


def plot_confusion(matrix: Any, classes: Sequence[str] | None = None, path: str | Path | None = None) -> Figure:
    """A confusion matrix ``[C, C]`` of counts: rows are what it was, columns what it was taken for.

    Raises:
        InputError: a matrix that is not square, class names of another number, or ``path`` has another suffix.
        ModuleNotFoundError: matplotlib is missing; says which extra brings it.
    """
    matrix = np.asarray(matrix)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not len(matrix):
        raise InputError(f"matrix got {check.describe(matrix)}, wanted counts [C, C]")
    names = [str(name) for name in (range(len(matrix)) if classes is None else classes)]
    if len(names) != len(matrix):
        raise InputError(f"classes got {len(names)} names, wanted {len(matrix)}")
    side = 1.6 + 0.42 * len(matrix)
    figure, (axes,) = figures.new_figure(1, 1, (side, side), path)
    axes.imshow(np.log1p(matrix), cmap="Blues")
    dark = np.log1p(matrix) > np.log1p(matrix.max()) / 2
    for row, column in np.ndindex(*matrix.shape):
        if matrix[row, column]:
            colour = "white" if dark[row, column] else figures.INK
            axes.text(column, row, f"{matrix[row, column]:g}", ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set_xlabel("taken for", fontsize=9, color=figures.QUIET)
    axes.set_ylabel("class", fontsize=9, color=figures.QUIET)
    return figures.finish(figure, path)


def plot_decision(
    predict: Callable[[np.ndarray], Any],
    x: Any,
    y: Any,
    path: str | Path | None = None,
    *,
    threshold: float = 0.0,
    names: tuple[str, str] = ("x₁", "x₂"),
) -> Figure:
    """The regions of the plane that a classifier gives to each class, and the examples in them.

    Args:
        predict: from points ``[N, 2]`` (float32) to labels (integers or booleans ``[N]``), one score a point
            (``[N]`` or ``[N, 1]``, class 1 above ``threshold``), or a score for each class ``[N, C]``.
        x: examples ``[N, 2]``.
        y: their classes ``[N]``, integers.
        path: a ``.png``, ``.svg`` or ``.pdf`` file to write.
        threshold: between the classes of one score: 0 for logits, 0.5 for probabilities.
        names: of the two axes.

    Raises:
        InputError: ``x``, ``y`` or what ``predict`` returns has another shape, or ``path`` another suffix.
        ModuleNotFoundError: matplotlib is missing; says which extra brings it.
    """
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim != 2 or x.shape[1] != 2 or not len(x):
        raise InputError(f"x got {check.describe(x)}, wanted points [N, 2]; choose two features")
    if y.shape != x.shape[:1] or y.dtype.kind not in "biu" or y.min() < 0:
        raise InputError(
            f"y got {check.describe(y)}, wanted classes [{len(x)}] counted from 0; use y.ravel().astype(int)"
        )
    y = y.astype(int)
    figure, [axes] = figures.new_figure(1, 1, (4.6, 4.2), path)
    reach = 0.15 * np.maximum(np.ptp(x, axis=0), 1e-6)
    sides = [np.linspace(*ends, _GRID) for ends in zip(x.min(0) - reach, x.max(0) + reach, strict=True)]
    points = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2).astype(np.float32)
    label, score = _decisions(np.asarray(predict(points)), len(points), threshold)
    classes = max(int(label.max()), int(y.max())) + 1
    colours = [figures.COLOURS[c % len(figures.COLOURS)] for c in range(classes)]
    regions = label.reshape(_GRID, _GRID)
    axes.contourf(*sides, regions, np.arange(classes + 1) - 0.5, colors=colours, alpha=0.18)
    borders = [(regions == c) - 0.5 for c in np.unique(regions)] if score is None else [score.reshape(_GRID, _GRID)]
    if regions.min() < regions.max():
        for border in borders:
            axes.contour(*sides, border, [0.0], colors=figures.INK, linewidths=1.2)
    for c in np.unique(y):
        look = {"color": colours[c], "marker": _MARKERS[c % len(_MARKERS)], "edgecolor": "white", "linewidth": 0.8}
        axes.scatter(*x[y == c].T, s=60 if len(x) < 50 else 22, label=f"class {c}", zorder=3, **look)
    figures.style(axes)
    axes.grid(False)
    axes.set_xlabel(names[0], color=figures.QUIET)
    axes.set_ylabel(names[1], color=figures.QUIET)
    figure.legend(loc="outside lower center", ncols=min(classes, 5), fontsize=8, frameon=False)
    return figures.finish(figure, path)


def _decisions(answer: np.ndarray, points: int, threshold: float) -> tuple[np.ndarray, np.ndarray | None]:
    """The class of each point, and how far its one score is above the threshold where it has one."""
    if answer.shape == (points, 1):
        answer = answer[:, 0]
    if answer.shape == (points,):
        if answer.dtype.kind in "biu":
            return answer.astype(int), None
        return (answer > threshold).astype(int), answer - threshold
    if answer.ndim == 2 and len(answer) == points:
        return answer.argmax(axis=1), None
    raise InputError(f"predict returned {check.describe(answer)}, wanted [{points}] labels or scores, or [{points}, C]")
