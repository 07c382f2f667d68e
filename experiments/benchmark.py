"""What jdl costs: each workload timed beside what someone would write, or use, in its place.

A workload is timed in stretches of some steps. A round times one stretch of every contender, in changing order, so that
whatever else the machine does meets all of them alike; a ratio is that of two stretches of one round. The control is
the reference against a second instance of itself: what its ratio is away from 1 is noise.

Command   python -m experiments.benchmark
Machine   2 CPU cores, shared with other work; jax 0.10.2
Time      66 s
Result    jdl.fit takes 1.04 times as long for a step of 0.16 ms as the hand-written loop, the median of 151 rounds
          (quartiles 0.95 and 1.14); the loop against itself 1.02 (0.96 and 1.08).
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdl
from experiments.common import Record, Settings, environment, experiment
from experiments.timing import Timer, Workload, fit, loop, row_orders, time_rounds
from jdl import nn


@dataclasses.dataclass(frozen=True)
class Benchmark(Settings):
    """What is timed, and how often."""

    rounds: int = 151
    """Stretches of each contender."""
    steps: int = 300
    """Steps in a stretch, after as many to warm up."""
    only: tuple[str, ...] = ()
    """Names of workloads; all unless given."""


def small_mlp() -> dict[str, Timer]:
    """784-128-10 at batch 32 by Adam, with accuracy: a step of about 0.2 ms, in which overhead shows."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(6400, 784)).astype(np.float32)
    labels = rng.integers(0, 10, size=6400).astype(np.int32)
    model = nn.Chain(nn.Dense(128), jax.nn.relu, nn.Dense(10))
    variables = model.init(jax.random.key(0), inputs[:1])
    optimizer, data, batch_size = optax.adam(1e-3), (inputs, labels), 32

    def pick(data: tuple[jax.Array, jax.Array], rows: jax.Array) -> Iterator[jax.Array]:
        return (array.at[rows].get(mode="promise_in_bounds") for array in data)

    def losses(params: Any, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = jax.nn.relu(x @ params["0"]["kernel"] + params["0"]["bias"])
        logits = hidden @ params["2"]["kernel"] + params["2"]["bias"]
        loss = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, y))
        return loss, jnp.sum(jnp.argmax(logits, axis=-1) == y)

    def by_hand(state: Any, totals: Any, data: Any, rows: jax.Array) -> Any:
        params, opt_state = state
        (loss, right), grads = jax.value_and_grad(losses, has_aux=True)(params, *pick(data, rows))
        updates, opt_state = optimizer.update(grads, opt_state, params)
        totals = {"loss": totals["loss"] + loss, "right": totals["right"] + right, "steps": totals["steps"] + 1}
        return (optax.apply_updates(params, updates), opt_state), totals

    step = jdl.make_step(jdl.supervised(model, jdl.losses.cross_entropy, [jdl.metrics.accuracy]), optimizer)

    def by_step(state: jdl.TrainState, totals: Any, data: Any, rows: jax.Array) -> Any:
        state, metrics = step(state, dict(zip(("inputs", "targets"), pick(data, rows), strict=True)))
        return state, {name: totals[name] + metrics[name] for name in metrics}

    hand_written = (variables.params, optimizer.init(variables.params))
    first = jdl.start_state(variables, optimizer, jax.random.key(0))
    report = jax.eval_shape(step, first, {"inputs": inputs[:batch_size], "targets": labels[:batch_size]})[1]
    sums = {"loss": np.float32(0), "right": np.int32(0), "steps": np.int32(0)}
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), report)
    return {
        "hand-written loop": loop(by_hand, hand_written, sums, data, batch_size),
        "jdl.fit": fit(
            model,
            jdl.losses.cross_entropy,
            optimizer,
            data,
            metrics=[jdl.metrics.accuracy],
            batch_size=batch_size,
            variables=variables,
        ),
        "loop over jdl.make_step": loop(by_step, first, zeros, data, batch_size),
        "control: the loop again": loop(by_hand, hand_written, sums, data, batch_size),
    }


def watched() -> dict[str, Timer]:
    """784-1024-10 at batch 256 by Adam, a step of about 5 ms: bare, and with monitors and checkpoints at every report.

    A stretch is two epochs of MNIST's 55,000 digits, and ends with a report: a line in metrics.jsonl, a page, and a
    checkpoint of the 9.8 MB of weights and moments, written in the background. The norms of gradients and updates,
    which the step itself must measure, come on top.
    """
    rng = np.random.default_rng(0)
    data = (rng.normal(size=(12800, 784)).astype(np.float32), rng.integers(0, 10, size=12800).astype(np.int32))
    model = nn.Chain(nn.Dense(1024), jax.nn.relu, nn.Dense(10))
    bare, recorded = optax.adam(1e-3), jdl.record_norms(optax.adam(1e-3), every=10)

    def plain(steps: int) -> float:
        return fit(model, jdl.losses.cross_entropy, bare, data, batch_size=256)(steps)

    def with_all(steps: int, optimizer: optax.GradientTransformation = bare) -> float:
        folder = Path(tempfile.mkdtemp(prefix="watched-"))
        try:
            monitors = jdl.monitor.standard(folder / "monitor", peak_flops=1e11)
            options: dict[str, Any] = {"callbacks": monitors, "checkpoint": folder / "checkpoints", "batch_size": 256}
            with contextlib.redirect_stderr(io.StringIO()):
                return fit(model, jdl.losses.cross_entropy, optimizer, data, **options)(steps)
        finally:
            shutil.rmtree(folder)

    return {
        "jdl.fit": plain,
        "watched and saved": with_all,
        "watched and saved, with norms": lambda steps: with_all(steps, recorded),
        "control: jdl.fit again": plain,
    }


def loading() -> dict[str, Timer]:
    """Batches of 128 rows of 784 bytes from an array that stays on the device, and by NumPy, in the same order."""
    pixels = np.random.default_rng(0).integers(0, 256, size=(55_000, 784)).astype(np.uint8)
    kept, gather = jnp.asarray(pixels), jax.jit(lambda data, rows: data.at[rows].get(mode="promise_in_bounds"))

    def timer(serve: Callable[[np.ndarray], Any], per_call: int = 1) -> Timer:
        rows = row_orders(len(pixels), 128)

        def timed(steps: int) -> float:
            calls = [np.stack([next(rows) for _ in range(per_call)]) for _ in range(steps // per_call)]
            begin = time.perf_counter()
            for own in calls:
                batch = serve(own if per_call > 1 else own[0])
            jax.block_until_ready(batch)
            return (time.perf_counter() - begin) / (len(calls) * per_call)

        return timed

    def together(steps: int) -> float:
        return timer(lambda rows: gather(kept, rows), 8)(steps)

    return {
        "NumPy indexing": timer(lambda rows: pixels[rows]),
        "gathered on the device, 8 steps a call": together,
        "gathered on the device, a step a call": timer(lambda rows: gather(kept, rows)),
        "NumPy indexing, then moved to the device": timer(lambda rows: jax.device_put(pixels[rows])),
        "control: NumPy indexing again": timer(lambda rows: pixels[rows]),
    }


WORKLOADS = {
    "784-128-10": Workload(small_mlp, reference="hand-written loop", contender="jdl.fit", at_most=1.05),
    "watching": Workload(watched, "jdl.fit", "watched and saved", at_most=1.05, rounds=9, steps=430),
    "loading": Workload(loading, "NumPy indexing", "gathered on the device, 8 steps a call", at_most=1.0),
}


@experiment(smoke={"rounds": 2, "steps": 20})
def main(settings: Benchmark, record: Record) -> None:
    """Time every workload's contenders in turn."""
    unknown = set(settings.only) - WORKLOADS.keys()
    if unknown:
        raise jdl.InputError(f"only got {sorted(unknown)}, wanted some of {list(WORKLOADS)}")
    config = environment()
    print(", ".join(f"{name} {value}" for part in config.values() for name, value in part.items()))
    for name in settings.only or WORKLOADS:
        work = WORKLOADS[name]
        rounds = min(settings.rounds, work.rounds or settings.rounds)
        steps = settings.steps if settings.smoke else work.steps or settings.steps
        seconds = time_rounds(work.contenders(), rounds, steps)
        for contender, times in seconds.items():
            ratios = times / seconds[work.reference]
            lower, middle, upper = np.percentile(ratios, [25, 50, 75])
            record.log(workload=name, contender=contender, seconds_per_step=times)
            row = f"{name}, {contender}"
            record.metric(f"{row}/ms per step", np.median(times) * 1e3)
            if contender != work.reference:
                record.metric(f"{row}/ratio", middle)
                record.metric(f"{row}/lower quartile", lower)
                record.metric(f"{row}/upper quartile", upper)
        ratio = np.median(seconds[work.contender] / seconds[work.reference])
        verdict = "holds" if ratio <= work.at_most else "does not hold"
        about = f"{work.contender} takes {ratio:.3f} times as long for a step as the {work.reference}"
        print(f"{name}: {about}, of {rounds} rounds; at most {work.at_most} {verdict}")


if __name__ == "__main__":
    main()
