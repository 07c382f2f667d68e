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
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
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
    predict: Callable[[np.ndarray], Any], x: Any, y: Any, path: str | Path | None = None, title: str = ""
) -> Figure:
    """What a function of two features decides over the plane, with the points ``x`` of classes ``y`` on it.

    Args:
        predict: takes ``[N, 2]``, returns ``[N]``: a score from 0 to 1, or the number of a class.
        x: points ``[N, 2]``.
        y: their classes ``[N]``, whole numbers from 0.
        path: a ``.png``, ``.svg`` or ``.pdf`` file to write.
        title: what stands above.

    Raises:
        InputError: points that are not ``[N, 2]``, classes or predictions of another number, or another suffix.
        ModuleNotFoundError: matplotlib is missing; says which extra brings it.
    """
    x, y = np.asarray(x, np.float32), np.asarray(y).reshape(-1)
    if x.ndim != 2 or x.shape[1] != 2 or len(x) != len(y):
        raise InputError(f"x got {check.describe(x)} and y got {check.describe(y)}, wanted [N, 2] and [N]")
    margin = 0.25 * (np.ptp(x, axis=0) + 1e-6)
    ends = zip(x.min(axis=0) - margin, x.max(axis=0) + margin, strict=True)
    across, up = np.meshgrid(*(np.linspace(low, high, 201, dtype=np.float32) for low, high in ends))
    scores = np.asarray(predict(np.stack([across.ravel(), up.ravel()], axis=1)))
    if scores.size != across.size:
        raise InputError(
            f"predict returned {check.describe(scores)} for {across.size} points, wanted one value for each"
        )
    figure, (axes,) = figures.new_figure(1, 1, (3.8, 3.6), path)
    figures.style(axes, title)
    top = max(1, int(y.max(initial=0)))
    regions = scores.reshape(across.shape).astype(np.float32)
    axes.pcolormesh(across, up, regions, cmap="coolwarm", vmin=0, vmax=top, alpha=0.55, rasterized=True)
    colours = ["#3b4cc0", "#b40426"] if top == 1 else list(figures.COLOURS)
    for label in range(top + 1):
        points = x[y == label]
        colour = colours[label % len(colours)]
        axes.scatter(*points.T, color=colour, edgecolors="white", linewidths=0.8, s=36, label=str(label), zorder=3)
    axes.legend(fontsize=7.5, frameon=True, title="class", title_fontsize=7.5)
    return figures.finish(figure, path)
