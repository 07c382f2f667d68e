"""What one perceptron can learn: AND and OR by its own rule, and why XOR never.

First its worked examples, in the form with a threshold and the one with a bias. Then the rule, one example after
another: w moves by (t - y) x and b by t - y, for targets t and outputs y, from 0. It is a `jdl.vector_field`, for no
loss has it as its gradient where the output is a step. XOR is refused with two reasons that anyone can check: a point
that is a mixture of inputs of either class, so that no line has the classes on two sides; and weights that come back
to what they were, so that the rule goes round for ever (it must: Minsky & Papert's cycling theorem).

Command   python -m experiments.perceptron
Machine   2 CPU cores
Time      3 s
Result    Z = -18,000 gives 0, Z = 9,000 gives 1. AND is learned after 10 mistakes in 6 epochs, OR after 4 in 4. XOR is
          refused: (½, ½) lies between (0, 0) and (1, 1) and between (0, 1) and (1, 0); epoch 3 leaves the weights as
          epoch 2 did.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table
from scipy.optimize import linprog

import jdl
from experiments.common import Record, Settings, experiment
from jdl import nn

Weights = tuple[float, float, float]  # w₁, w₂, b

INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
GATES = {"AND": np.array([0, 0, 0, 1.0]), "OR": np.array([0, 1, 1, 1.0]), "XOR": np.array([0, 1, 1, 0.0])}
WORKED = {"worked example 1": (1.0, 1.0, 1.0), "worked example 2": (3.0, 1.0, 2.0)}


@dataclasses.dataclass(frozen=True)
class Perceptron(Settings):
    """Nothing is drawn at random here, so the seed changes nothing."""

    epochs: int = 100
    """The most epochs that a gate gets."""


def rule(params: dict, state: dict, batch: dict, key: jax.Array | None) -> tuple[dict, jdl.Aux]:
    """The perceptron's learning rule as what a descent at rate 1 subtracts, averaged over the batch."""
    outputs, state = nn.Perceptron().apply(params, state, batch["inputs"])
    error = batch["targets"] - outputs
    size = float(len(error))
    grads = {"kernel": -error @ batch["inputs"] / size, "bias": -jnp.mean(error)}
    return grads, jdl.Aux(jnp.mean(jnp.abs(error)), size, state, {"mistakes": jnp.sum(jnp.abs(error))})


OPTIMIZER = optax.sgd(1.0)
STEP = jax.jit(jdl.make_step(jdl.vector_field(rule), OPTIMIZER))


def learn(targets: np.ndarray, epochs: int) -> tuple[list[Weights], list[int]]:
    """The weights before the first update and after each, four to an epoch, and the mistakes of each epoch.

    It ends with an epoch without a mistake, or where an epoch leaves the weights as an earlier one did.
    """
    zeros = jdl.Variables({"kernel": jnp.zeros(2), "bias": jnp.zeros(())}, {})
    state, path, mistakes = jdl.start_state(zeros, OPTIMIZER, jax.random.key(0)), [(0.0, 0.0, 0.0)], []
    while len(mistakes) < epochs:
        mistakes.append(0)
        for example in range(len(INPUTS)):
            state, metrics = STEP(state, {"inputs": INPUTS[[example]], "targets": np.float32(targets[[example]])})
            (w1, w2), b = state.params["kernel"], state.params["bias"]
            path.append((float(w1), float(w2), float(b)))
            mistakes[-1] += int(metrics["mistakes"])
        if mistakes[-1] == 0 or came_back(path) is not None:
            break
    return path, mistakes


def came_back(path: list[Weights]) -> int | None:
    """The earlier epoch that left the weights as the last one did."""
    ends = path[:: len(INPUTS)]
    return ends.index(ends[-1]) if ends[-1] in ends[:-1] else None


def shared_point(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray | None:
    """Shares [N], adding up to 1 within each class, that mix both classes' inputs to one point; None if there are none.

    There are none exactly where a line (a hyperplane) has the classes on two sides: finite convex hulls that do not
    meet can be separated, and one side of a line holds the whole hull of what it holds.
    """
    own = np.stack([targets == 0, targets == 1]).astype(float)
    difference = np.where(targets == 0, 1.0, -1.0) * inputs.T
    found = linprog(
        np.zeros(len(inputs)),
        A_eq=np.concatenate([own, difference]),
        b_eq=[1, 1] + [0] * inputs.shape[1],
        bounds=(0, 1),
    )
    return found.x if found.status == 0 else None


def refusal(shares: np.ndarray, targets: np.ndarray) -> str:
    """Why no line separates the classes, in words."""
    sides = []
    for label in (0, 1):
        chosen = [index for index in range(len(targets)) if targets[index] == label and shares[index] > 1e-9]
        parts = [
            f"{Fraction(shares[i]).limit_denominator(1000)}·({INPUTS[i, 0]:.0f}, {INPUTS[i, 1]:.0f})" for i in chosen
        ]
        sides.append(" + ".join(parts))
    x, y = (shares * (targets == 0)) @ INPUTS
    return f"no line separates the classes: ({x:g}, {y:g}) = {sides[0]} lies among the 0s and = {sides[1]} among the 1s"


def draw(axes: Axes, name: str, lines: list[Weights], shares: np.ndarray | None) -> None:
    """The inputs of a gate, the lines w · x + b = 0, and where the classes' hulls meet."""
    targets, x = GATES[name], np.linspace(-0.5, 1.5, 201)
    grid = np.stack(np.meshgrid(x, x), axis=-1)
    for index, (w1, w2, b) in enumerate(lines):
        z = grid @ np.array([w1, w2]) + b
        if np.ptp(z) > 0:
            axes.contour(*np.moveaxis(grid, -1, 0), z, [0], colors="k", alpha=(index + 1) / len(lines))
        if len(lines) == 1:
            axes.contourf(*np.moveaxis(grid, -1, 0), z, [-np.inf, 0, np.inf], colors=["C0", "C3"], alpha=0.15)
    if shares is not None:
        for label, color in ((0, "C0"), (1, "C3")):
            axes.plot(*INPUTS[targets == label].T, color=color, ls=":", lw=1.5)
        axes.plot(*(shares * (targets == 0)) @ INPUTS, "kx", ms=9)
    axes.scatter(*INPUTS.T, c=["C3" if target else "C0" for target in targets], edgecolors="k", s=70, zorder=3)
    title = f"{name}: learned" if shares is None else f"{name}: no line can"
    axes.set(title=title, xlim=(-0.5, 1.5), ylim=(-0.5, 1.5), xticks=(0, 1), yticks=(0, 1), aspect="equal")


def worked_examples(record: Record) -> None:
    """Three inputs, a threshold of 50,000 or a bias of -50,000, and two choices of weights."""
    x = jnp.array([10000.0, 15000.0, 7000.0])
    table = Table("weights", "w · x", "Z = w · x + b", "output", "with a threshold", title="x = (10000, 15000, 7000)")
    for name, weights in WORKED.items():
        biased = jdl.Variables({"kernel": jnp.array(weights), "bias": jnp.array(-50000.0)}, {})
        barred = jdl.Variables({"kernel": jnp.array(weights), "threshold": jnp.array(50000.0)}, {})
        z, output = nn.Neuron(nn.linear)(biased, x), nn.Perceptron()(biased, x)
        same = nn.Perceptron(form="threshold")(barred, x)
        table.add_row(str(weights), *(f"{float(value):,.0f}" for value in (z + 50000, z, output, same)))
        record.metric(f"{name}/Z", z)
        record.metric(f"{name}/output", output)
    rich.print(table)


@experiment()
def main(settings: Perceptron, record: Record) -> None:
    """Work the examples, teach the gates, draw the lines."""
    worked_examples(record)
    figure = Figure(figsize=(3.4 * len(GATES), 3.8), layout="constrained")
    panels = figure.subplots(1, len(GATES))
    for axes, (name, targets) in zip(panels, GATES.items(), strict=True):
        path, mistakes = learn(targets, settings.epochs)
        for epoch, wrong in enumerate(mistakes, start=1):
            record.log(gate=name, epoch=epoch, weights=list(path[len(INPUTS) * epoch]), mistakes=wrong)
        learned, shares = mistakes[-1] == 0, shared_point(INPUTS, targets)
        record.metric(f"{name}/learned", learned)
        record.metric(f"{name}/epochs", len(mistakes))
        record.metric(f"{name}/mistakes", sum(mistakes))
        w1, w2, b = path[-1]
        if learned:
            print(f"{name}: learned after {sum(mistakes)} mistakes: 1 where {w1:g} x₁ {w2:+g} x₂ {b:+g} > 0")
        else:
            print(f"{name}: refused; {'the epochs ran out' if shares is None else refusal(shares, targets)}")
        if not learned and (before := came_back(path)) is not None:
            print(
                f"{name}: epoch {len(mistakes)} leaves w = ({w1:g}, {w2:g}), b = {b:g}, as epoch {before} did: for ever"
            )
        draw(axes, name, path[-1:] if learned else path[-len(INPUTS) :], shares)
    figure.savefig(record.path("lines.png"), dpi=120)


if __name__ == "__main__":
    main()
