"""How the benchmark times: contenders in turn, in stretches of some steps, so that what else runs meets all alike."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jdl
from experiments.common import Record, Settings, environment

Timer = Callable[[int], float]  # trains on for some steps and returns the seconds of each


@dataclasses.dataclass(frozen=True)
class Workload:
    """One job: ``contenders()`` makes a timer of each by name. Ratios are to the ``reference``."""

    contenders: Callable[[], dict[str, Timer]]
    reference: str
    contender: str
    """What is ours."""
    at_most: float
    """What the median of its ratio may be."""
    rounds: int | None = None
    """Stretches of each contender, where the settings' own number does not suit."""
    steps: int | None = None
    """Steps in a stretch, likewise."""


def row_orders(n: int, batch_size: int) -> Iterator[np.ndarray]:
    """Batches of a new permutation each epoch, as a user would draw them."""
    rng = np.random.default_rng(0)
    while True:
        order = rng.permutation(n).astype(np.int32)
        for start in range(0, n - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def loop(train: Callable[..., Any], state: Any, zeros: Any, data: tuple[np.ndarray, ...], batch_size: int) -> Timer:
    """The loop that a user writes, as fast as it gets: ``train(state, totals, data, rows) -> (state, totals)`` in one
    program with donated arrays, data on the device, and the gather and the sums of the metrics inside.
    """
    program, rows = jax.jit(train, donate_argnums=(0, 1)), row_orders(len(data[0]), batch_size)
    state, arrays = jax.tree.map(jnp.copy, state), tuple(map(jnp.asarray, data))

    def stretch(steps: int) -> None:
        nonlocal state
        totals = jax.device_put(zeros)
        for _ in range(steps):
            state, totals = program(state, totals, arrays, next(rows))
        jax.device_get(totals)

    def timer(steps: int) -> float:
        stretch(steps)
        begin = time.perf_counter()
        stretch(steps)
        return (time.perf_counter() - begin) / steps

    return timer


def fit(*arguments: Any, **options: Any) -> Timer:
    """`jdl.fit` with these arguments, between its first report and its second."""

    def timer(steps: int) -> float:
        reports: list[float] = []
        callbacks = [lambda run: reports.append(time.perf_counter()), *options.get("callbacks", ())]
        own: dict[str, Any] = {"validate_every": steps, "callbacks": callbacks, "progress": False}
        jdl.fit(*arguments, **options | own, steps=2 * steps)
        return (reports[1] - reports[0]) / steps

    return timer


def time_rounds(timers: dict[str, Timer], rounds: int, steps: int) -> dict[str, np.ndarray]:
    """Seconds for a step, [rounds], of each contender; the order turns by one from round to round."""
    for timer in timers.values():
        timer(steps)  # compiles
    names, seconds = list(timers), {name: [] for name in timers}
    for index in range(rounds):
        turn = index % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(timers[name](steps))
    return {name: np.array(values) for name, values in seconds.items()}


@dataclasses.dataclass(frozen=True)
class Timing(Settings):
    """What is timed, and how often."""

    rounds: int = 151
    """Stretches of each contender."""
    steps: int = 300
    """Steps in a stretch, after as many to warm up."""
    only: tuple[str, ...] = ()
    """Names of workloads; all unless given."""


def compare(workloads: dict[str, Workload], settings: Timing, record: Record) -> None:
    """Time every workload's contenders in turn."""
    unknown = set(settings.only) - workloads.keys()
    if unknown:
        raise jdl.InputError(f"only got {sorted(unknown)}, wanted some of {list(workloads)}")
    config = environment()
    print(", ".join(f"{name} {value}" for part in config.values() for name, value in part.items()))
    for name in settings.only or workloads:
        work = workloads[name]
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
