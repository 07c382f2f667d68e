"""XOR by a 2-2-1 sigmoid network: 10,000 epochs of plain gradient descent, 20 runs as one compiled program.

The network, its first weights (uniform in 0 to 1, from NumPy's seeds 1, 2, …), its loss ½ Σ (y - ŷ)² over the four
examples and its learning rate of 1 are those of the classic NumPy program with backpropagation written out by hand.
That program stands here too: from the same weights the first 100 updates are the same to 1e-6, in float32. A run has
learned XOR when every output is within 0.05 of 0, 1, 1, 0; what holds the others is looked up in their gradient, the
eigenvalues of their Hessian, their hidden layer, and 490,000 epochs more.

Command   python -m experiments.xor
Machine   2 CPU cores
Time      5 s; the 20 runs of 10,000 epochs take 0.03 s once compiled
Result    17 of 20 learn XOR, their outputs 0.01, 0.99, 0.99, 0.01. Seeds 11 and 14 saturate both hidden units on two
          examples of different classes, answer ½ to both, and creep along a trough whose end is at infinite weights:
          not there after 500,000 epochs. Seed 17 does so on three, at a saddle that it leaves after 192,000 epochs.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
from jax.flatten_util import ravel_pytree
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from rich.table import Table

import jdl
from experiments.common import Record, Settings, experiment
from jdl import nn, zoo
from jdl.nn.settings import Tree

INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
TARGETS = np.array([[0], [1], [1], [0]], np.float32)
BATCH = {"inputs": INPUTS, "targets": TARGETS}
SOLVED = 0.05  # every output this near its target

MODEL = zoo.XORNet()
OBJECTIVE = 0.5 * jdl.supervised(MODEL, jdl.losses.configured(jdl.losses.mse, reduction="sum"))
OPTIMIZER = optax.sgd(1.0)
STEP = jdl.make_step(OBJECTIVE, OPTIMIZER)


@dataclasses.dataclass(frozen=True)
class Xor(Settings):
    """The 2-2-1 network on XOR."""

    seed: int = 1
    seeds: int = 20
    epochs: int = 10_000
    """Full-batch updates of each run."""
    longer: int = 490_000
    """Further updates for the runs that have not learned XOR by then, to see what holds them."""


def first_params(seed: int) -> Tree:
    """Uniform in 0 to 1, drawn in the order of the classic program: hidden weights and biases, then the output's."""
    draw = np.random.RandomState(seed).uniform
    layers = {}
    for name, shape in (("hidden", (2, 2)), ("output", (2, 1))):
        layers[name] = {"kernel": draw(size=shape), "bias": draw(size=shape[1])}
    return layers


def backpropagation(params: Tree, updates: int) -> list[Tree]:
    """The parameters after each update in float64, with the derivatives written out by hand, layer by layer."""

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))

    w_hidden, b_hidden = params["hidden"]["kernel"], params["hidden"]["bias"]
    w_output, b_output = params["output"]["kernel"], params["output"]["bias"]
    path = []
    for _ in range(updates):
        hidden = sigmoid(INPUTS @ w_hidden + b_hidden)
        output = sigmoid(hidden @ w_output + b_output)
        delta_output = (TARGETS - output) * output * (1 - output)
        delta_hidden = delta_output @ w_output.T * hidden * (1 - hidden)
        w_output, b_output = w_output + hidden.T @ delta_output, b_output + delta_output.sum(axis=0)
        w_hidden, b_hidden = w_hidden + INPUTS.T @ delta_hidden, b_hidden + delta_hidden.sum(axis=0)
        layers = {"hidden": {"kernel": w_hidden, "bias": b_hidden}, "output": {"kernel": w_output, "bias": b_output}}
        path.append(layers)
    return path


@functools.partial(jax.jit, static_argnames="updates")
def automatic(state: jdl.TrainState, updates: int) -> Tree:
    """The parameters after each update, by `jdl.make_step`, stacked."""

    def update(state: jdl.TrainState, _: None) -> tuple[jdl.TrainState, Tree]:
        state = STEP(state, BATCH)[0]
        return state, state.params

    return jax.lax.scan(update, state, length=updates)[1]


def difference(params: Tree, updates: int = 100) -> float:
    """How far automatic and hand-written differ over the first updates: max |a - b| / max |b|."""
    by_hand = jax.tree.map(lambda *leaves: np.stack(leaves), *backpropagation(params, updates))
    by_jdl = automatic(start(params), updates)
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (by_jdl, by_hand))
    return float(np.max(np.abs(a - b)) / np.max(np.abs(b)))


def start(params: Tree) -> jdl.TrainState:
    """The state before the first update, in float32."""
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)
    return jdl.start_state(jdl.Variables(params, {}), OPTIMIZER, jax.random.key(0))


@functools.partial(jax.jit, static_argnames=("blocks", "epochs"))
def train(states: jdl.TrainState, blocks: int, epochs: int) -> tuple[jdl.TrainState, jax.Array]:
    """All runs at once, ``blocks`` times ``epochs`` updates; the outputs after each block, [runs, blocks, 4]."""

    def block(state: jdl.TrainState, _: None) -> tuple[jdl.TrainState, jax.Array]:
        state, _ = jax.lax.scan(lambda state, _: (STEP(state, BATCH)[0], None), state, length=epochs)
        return state, MODEL(state.variables, INPUTS)[:, 0]

    return jax.vmap(lambda state: jax.lax.scan(block, state, length=blocks))(states)


@jax.jit
def diagnose(params: Tree) -> dict[str, jax.Array]:
    """What a point of the loss surface looks like: outputs, loss, gradient, curvature, and what the hidden layer tells
    apart.
    """
    flat, unravel = ravel_pytree(params)

    def loss(flat: jax.Array) -> jax.Array:
        return OBJECTIVE(unravel(flat), {}, BATCH, None, True)[0]

    hidden = nn.sigmoid(INPUTS @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return {
        "outputs": MODEL(jdl.Variables(params, {}), INPUTS)[:, 0],
        "loss": loss(flat),
        "gradient": jnp.linalg.norm(jax.grad(loss)(flat)),
        "curvatures": jnp.linalg.eigvalsh(jax.hessian(loss)(flat)),
        "distances": jnp.linalg.norm(hidden[:, None] - hidden[None], axis=-1),
        "weights": jnp.linalg.norm(flat),
    }


def errors(outputs: np.ndarray) -> np.ndarray:
    """The largest distance of the four outputs [..., 4] from their targets."""
    return np.max(np.abs(outputs - TARGETS[:, 0]), axis=-1)


def solved_after(outputs: np.ndarray, epochs: int) -> int | None:
    """How many epochs a run needed, from its outputs [blocks, 4] after every so many ``epochs``."""
    wrong = np.flatnonzero(errors(outputs) > SOLVED)
    blocks = wrong[-1] + 2 if len(wrong) else 1
    return int(blocks * epochs) if blocks <= len(outputs) else None


def one_code(distances: np.ndarray, limit: float = 0.01) -> list[list[int]]:
    """Groups of examples of both classes that the hidden layer maps to nearly one point."""
    groups = {tuple(np.flatnonzero(row < limit).tolist()) for row in distances}
    return [list(group) for group in sorted(groups) if len({float(TARGETS[i, 0]) for i in group}) == 2]


def reason(found: dict[str, np.ndarray], later: dict[str, np.ndarray], epochs: int, left_after: int | None) -> str:
    """Why a run stands still, in words, from `diagnose` after ``epochs`` and after the longer run."""
    words = []
    for group in one_code(found["distances"]):
        names = [f"({INPUTS[i, 0]:.0f}, {INPUTS[i, 1]:.0f})" for i in group]
        spread, mean = np.max(found["distances"][np.ix_(group, group)]), np.mean(TARGETS[group])
        apart = f"saturated hidden units put {' and '.join(names)} {spread:.1g} apart"
        words.append(f"{apart}, so the output gives all of them the mean of their targets, {mean:.2f}")
    lowest = found["curvatures"][0]
    if lowest < 0:
        words.append(f"a saddle: the lowest curvature is {lowest:.1e}")
    else:
        words.append(f"a trough: no curvature is negative (lowest {lowest:.1e})")
    if left_after is not None:
        words.append(f"left after {left_after:,} epochs")
    else:
        change = f"the gradient went from {found['gradient']:.1e} to {later['gradient']:.1e}"
        size = f"the norm of the weights from {found['weights']:.1f} to {later['weights']:.1f}"
        words.append(f"{change}, {size} by epoch {epochs:,}")
    return "; ".join(words)


def draw_curves(losses: np.ndarray, seeds: range, epochs: int) -> Figure:
    """Losses [runs, blocks] over the epochs, one line for each run."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    x = np.linspace(epochs / losses.shape[1], epochs, losses.shape[1])
    for seed, loss in zip(seeds, losses, strict=True):
        stuck = loss[-1] > 0.1
        label = f"seed {seed}" if stuck else None
        axes.plot(x, loss, color=None if stuck else "0.6", lw=1.8 if stuck else 0.8, label=label)
    axes.set(xscale="log", yscale="log", xlabel="epochs", ylabel="loss, ½ Σ (y - ŷ)²", title="XOR by a 2-2-1 network")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure


def draw_regions(params: Tree, chosen: list[int], seeds: range) -> Figure:
    """What the network answers over the plane, for the chosen runs."""
    grid = np.stack(np.meshgrid(*[np.linspace(-0.5, 1.5, 101, dtype=np.float32)] * 2), axis=-1)
    figure = Figure(figsize=(3 * len(chosen) + 0.8, 3), layout="constrained")
    panels = figure.subplots(1, len(chosen), squeeze=False)[0]
    for axes, index in zip(panels, chosen, strict=True):
        one = jax.tree.map(lambda leaf, i=index: leaf[i], params)
        answer = MODEL(jdl.Variables(one, {}), grid)[..., 0]
        axes.contourf(grid[..., 0], grid[..., 1], answer, np.linspace(0, 1, 21), cmap="RdBu_r")
        axes.contour(grid[..., 0], grid[..., 1], answer, [0.5], colors="k", linewidths=1)
        axes.scatter(*INPUTS.T, c=TARGETS[:, 0], cmap="RdBu_r", edgecolors="k", s=70, zorder=2)
        axes.set(title=f"seed {seeds[index]}", xticks=(0, 1), yticks=(0, 1), aspect="equal")
    figure.colorbar(ScalarMappable(cmap="RdBu_r"), ax=panels, label="output", ticks=(0, 0.5, 1))
    return figure


@experiment(smoke={"epochs": 200, "longer": 100})
def main(settings: Xor, record: Record) -> None:
    """Train all runs, then look into those that have not learned XOR."""
    seeds, epochs = settings.each_seed, settings.epochs
    firsts = [first_params(seed) for seed in seeds]
    by_hand = max(difference(params) for params in firsts)
    print(f"first 100 updates: automatic and hand-written differ by {by_hand:.1e} at most over {len(seeds)} seeds")

    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(start, firsts))
    every = max(1, epochs // 1000)
    states, outputs = jax.device_get(train(states, epochs // every, every))
    losses = 0.5 * np.sum((outputs - TARGETS[:, 0]) ** 2, axis=-1)
    after = [solved_after(run, every) for run in outputs]
    found = jax.device_get(jax.vmap(diagnose)(states.params))
    stuck = [index for index, number in enumerate(after) if number is None]
    for index, seed in enumerate(seeds):
        values = {name: value[index] for name, value in found.items() if name != "distances"}
        record.log(seed=seed, epochs=epochs, solved_after=after[index], **values)

    draw_curves(losses, seeds, epochs).savefig(record.path("curves.png"), dpi=120)
    shown = [index for index in range(len(seeds)) if index not in stuck][:1] + stuck[:4]
    draw_regions(states.params, shown, seeds).savefig(record.path("regions.png"), dpi=120)

    solved = [index for index in range(len(seeds)) if index not in stuck]
    row = f"{epochs:,} epochs"
    record.metric(f"{row}/runs", len(seeds))
    record.metric(f"{row}/solved", len(solved))
    if solved:
        record.metric(f"{row}/largest error of these", np.max(errors(outputs[solved, -1])))
        record.metric(f"{row}/epochs needed (median)", np.median([number for number in after if number is not None]))
    if stuck:
        ends = report_stuck(settings, record, jax.tree.map(lambda leaf: leaf[np.array(stuck)], (states, found)), stuck)
        record.metric(f"{epochs + settings.longer:,} epochs/runs", len(seeds))
        record.metric(f"{epochs + settings.longer:,} epochs/solved", len(solved) + ends)
    record.metric("first 100 updates/difference · 1e6", by_hand * 1e6)


def report_stuck(settings: Xor, record: Record, point: tuple[jdl.TrainState, dict], stuck: list[int]) -> int:
    """Go on with the runs that stand still, and say of each what holds it. How many learn XOR after all."""
    states, found = point
    every = max(1, settings.longer // 490)
    states, outputs = jax.device_get(train(states, settings.longer // every, every))
    later = jax.device_get(jax.vmap(diagnose)(states.params))
    table = Table("seed", "outputs", "loss", "|gradient|", "why", title=f"not learned after {settings.epochs:,} epochs")
    left = 0
    for row, index in enumerate(stuck):
        before, behind = ({name: value[row] for name, value in point.items()} for point in (found, later))
        more = solved_after(outputs[row], every)
        left += more is not None
        total = settings.epochs + settings.longer
        why = reason(before, behind, total, None if more is None else settings.epochs + more)
        text = " ".join(f"{output:.2f}" for output in before["outputs"])
        table.add_row(str(settings.each_seed[index]), text, f"{before['loss']:.4f}", f"{before['gradient']:.1e}", why)
        values = {name: value for name, value in behind.items() if name != "distances"}
        record.log(seed=settings.each_seed[index], epochs=total, why=why, **values)
    rich.print(table)
    return left


if __name__ == "__main__":
    main()
