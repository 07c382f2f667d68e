"""What watching a run costs, and what serves its batches: monitors, checkpoints, and data that stays on the device.

Timed as in `experiments.benchmark`: contenders in turn, ratios within a round, the reference against itself as control.

Command   python -m experiments.overheads
Machine   2 CPU cores, jax 0.10.2
Time      4 minutes
Result    A run that is watched and saved takes 1.02 times as long for a step of 6 ms (quartiles 0.98 and 1.05; the
          control 1.01), and 1.06 times with the norms of every tenth step. Batches gathered on the device take 0.87
          times as long as NumPy's, 8 steps a call, and 1.6 times one by one: a call has its price.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdl
from experiments.common import Record, experiment
from experiments.timing import Timer, Timing, Workload, compare, fit, row_orders
from jdl import nn


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
    "watching": Workload(watched, "jdl.fit", "watched and saved", at_most=1.05, rounds=9, steps=430),
    "loading": Workload(loading, "NumPy indexing", "gathered on the device, 8 steps a call", at_most=1.0),
}


@experiment(smoke={"rounds": 2, "steps": 20})
def main(settings: Timing, record: Record) -> None:
    """Time every workload's contenders in turn."""
    compare(WORKLOADS, settings, record)


if __name__ == "__main__":
    main()
