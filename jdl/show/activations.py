"""Pictures of activations: value, derivative, and where the gradient vanishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def plot_activations(names: Sequence[str] | None = None, path: str | Path | None = None) -> Figure:
    """Activations with their derivatives by automatic differentiation, over -6 to 6.

    The region where the derivative of a function with bounds on both sides, such as sigmoid and tanh, is under 0.05,
    where units are saturated and hardly learn, is shaded. Of softmax and its logarithm the first entry is drawn for
    inputs ``[x, 0]``, of the gated family the output for the value 1 and the gate x.

    Args:
        names: keys of :data:`jdl.nn.functional.ACTIVATIONS`; by default all.
        path: a ``.png``, ``.svg`` or ``.pdf`` file to write.

    Raises:
        InputError: an unknown activation, or none, or ``path`` has another suffix.
        ModuleNotFoundError: matplotlib is missing; says which extra brings it.
    """
    names = list(ACTIVATIONS) if names is None else list(names)
    if (unknown := [name for name in names if name not in ACTIVATIONS]) or not names:
        raise InputError(f"names got {unknown or names}, wanted some of {', '.join(ACTIVATIONS)}")
    figure, panels = figures.new_figure(len(names), 4, (3.1, 2.5), path)
    for axes, name in zip(panels, names, strict=True):
        _curves(axes, name, ACTIVATIONS[name])
    labelled = {
        label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(labelled.values(), labelled, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
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
    slope = _slope(ACTIVATIONS["sigmoid"].function, x)
    left.plot(x, slope, color=figures.ORANGE, linewidth=1.8)
    _shade(left, x, slope)
    left.set_xlabel("input", fontsize=8, color=figures.QUIET)
    figures.style(right, "the most that is left of a gradient")
    depth = np.arange(layers + 1)
    for name, colour in zip(("sigmoid", "tanh", "relu"), figures.COLOURS, strict=False):
        steepest = float(_slope(ACTIVATIONS[name].function, x).max())
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
    function, meaning = _of_one_number(name, activation)
    y, slope = _value(function, x), _slope(function, x)
    figures.style(axes, f"{meaning}, {_range(activation)}")
    axes.axhline(0, color=figures.QUIET, linewidth=0.6)
    axes.plot(x, y, color=figures.BLUE, linewidth=1.8, label="value")
    axes.plot(x, slope, color=figures.ORANGE, linewidth=1.4, linestyle=(0, (4, 2)), label="derivative")
    if np.isfinite([activation.low, activation.high]).all():
        _shade(axes, x, slope)
    axes.set_ylim(-2.1, 3.2)


def _of_one_number(name: str, activation: Activation) -> tuple[Callable[[jax.Array], jax.Array], str]:
    """The activation as a function of one number, and what that function is."""
    if activation.kind == "vector":
        return (lambda x: activation.function(jnp.stack([x, jnp.zeros_like(x)]))[0]), f"{name}([x, 0])[0]"
    if activation.kind == "gated":
        return (lambda x: activation.function(jnp.stack([jnp.ones_like(x), x]))[0]), f"{name}([1, x])"
    return activation.function, name


def _shade(axes: Axes, x: np.ndarray, slope: np.ndarray) -> None:
    ends, low = axes.get_xaxis_transform(), np.abs(slope) < VANISHING
    text = f"derivative under {VANISHING}"
    axes.fill_between(x, 0, 1, where=low, color=figures.RED, alpha=0.12, lw=0, transform=ends, label=text)


def _value(function: Callable[[jax.Array], jax.Array], x: np.ndarray) -> np.ndarray:
    return np.asarray(jax.vmap(function)(jnp.asarray(x)))


def _slope(function: Callable[[jax.Array], jax.Array], x: np.ndarray) -> np.ndarray:
    return _value(jax.grad(function), x)


def _range(activation: Activation) -> str:
    low, high = (
        "−∞" if end == -np.inf else "∞" if end == np.inf else f"{end:.3g}".replace("-", "−")
        for end in (activation.low, activation.high)
    )
    return f"{low} to {high}"
