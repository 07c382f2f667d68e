"""Pictures of activations: value, derivative, and where the gradient vanishes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from jdl.check import InputError
from jdl.nn.functional import ACTIVATIONS, Activation
from jdl.show import figures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

VANISHING = 0.05  # a derivative below this counts as vanished
_SQUASHING = ("sigmoid", "tanh")


def plot_activations(names: Sequence[str] | None = None, path: str | Path | None = None) -> Figure:
    """Activations with their derivatives by automatic differentiation, over -6 to 6.

    The region where the derivative of sigmoid and tanh is under 0.05, where units are saturated and hardly learn, is
    shaded.

    Args:
        names: keys of :data:`jdl.nn.functional.ACTIVATIONS`; by default all that act on one number.
        path: a ``.png``, ``.svg`` or ``.pdf`` file to write.

    Raises:
        InputError: an unknown activation, or one of several inputs (softmax, gated), or ``path`` has another suffix.
        ModuleNotFoundError: matplotlib is missing; says which extra brings it.
    """
    elementwise = [name for name, known in ACTIVATIONS.items() if known.kind == "elementwise"]
    names = elementwise if names is None else list(names)
    if unknown := [name for name in names if name not in elementwise]:
        raise InputError(f"names got {unknown}, wanted some of {', '.join(elementwise)}")
    figure, panels = figures.new_figure(len(names), 4, (3.1, 2.5), path)
    for axes, name in zip(panels, names, strict=True):
        _curves(axes, name, ACTIVATIONS[name])
    panels[0].legend(fontsize=7.5, frameon=False, labelcolor=figures.INK, loc="upper left")
    return figures.finish(figure, path)


def plot_vanishing_gradient(layers: int = 10, path: str | Path | None = None) -> Figure:
    """Why deep stacks of sigmoids do not learn: the derivative of sigmoid, and what is left of a gradient behind
    layers.

    Left the sigmoid's derivative s(1 - s), at most ¼, with the region shaded where it is under 0.05. Right the product
    of the derivatives of ``layers`` layers, each at the input where its slope is largest: the best case.

    Raises:
        InputError: ``layers`` is less than 1, or ``path`` has another suffix.
        ModuleNotFoundError: matplotlib is missing; says which extra brings it.
    """
    if layers < 1:
        raise InputError(f"layers got {layers}, wanted at least 1")
    figure, (left, right) = figures.new_figure(2, 2, (4.6, 3.2), path)
    x = np.linspace(-8, 8, 401, dtype=np.float32)
    figures.style(left, "the derivative of sigmoid")
    left.plot(x, _slope("sigmoid", x), color=figures.ORANGE, linewidth=1.8)
    _shade(left, x, _slope("sigmoid", x), label=f"slope under {VANISHING}")
    left.set_xlabel("input", fontsize=8, color=figures.QUIET)
    figures.style(right, "the most that is left of a gradient")
    depth = np.arange(layers + 1)
    for name, colour in zip(("sigmoid", "tanh", "relu"), figures.COLOURS, strict=False):
        steepest = float(_slope(name, x).max())
        # Curves of slope 1 lie on each other: the dashes let the one below be seen.
        dashes = (0, (4, 3)) if name == "relu" else "solid"
        right.plot(depth, steepest**depth, color=colour, linestyle=dashes, marker="o", markersize=3, label=name)
    right.set_yscale("log")
    right.set_xlabel("layers", fontsize=8, color=figures.QUIET)
    for axes in (left, right):
        axes.legend(fontsize=7.5, frameon=False, labelcolor=figures.INK)
    return figures.finish(figure, path)


def _curves(axes: Axes, name: str, activation: Activation) -> None:
    x = np.linspace(-6, 6, 481, dtype=np.float32)
    slope = _slope(name, x)
    figures.style(axes, f"{name}, {_range(activation)}")
    axes.axhline(0, color=figures.QUIET, linewidth=0.6)
    axes.plot(x, np.asarray(activation.function(jnp.asarray(x))), color=figures.BLUE, linewidth=1.8, label="value")
    axes.plot(x, slope, color=figures.ORANGE, linewidth=1.4, linestyle=(0, (4, 2)), label="derivative")
    if name in _SQUASHING:
        _shade(axes, x, slope)
    axes.set_ylim(-1.6, 3.2)


def _shade(axes: Axes, x: np.ndarray, slope: np.ndarray, label: str | None = None) -> None:
    ends = axes.get_xaxis_transform()
    axes.fill_between(
        x, 0, 1, where=slope < VANISHING, color=figures.RED, alpha=0.12, lw=0, transform=ends, label=label
    )


def _slope(name: str, x: np.ndarray) -> np.ndarray:
    function = ACTIVATIONS[name].function
    return np.asarray(jax.vmap(jax.grad(function))(jnp.asarray(x)))


def _range(activation: Activation) -> str:
    low, high = (
        "−∞" if end == -np.inf else "∞" if end == np.inf else f"{end:.3g}".replace("-", "−")
        for end in (activation.low, activation.high)
    )
    return f"{low} to {high}"
