"""What jdl costs: each workload timed beside what someone would write, or use, in its place.

A workload is timed in stretches of some steps. A round times one stretch of every contender, in changing order, so that
whatever else the machine does meets all of them alike; a ratio is that of two stretches of one round. The control is
the reference against a second instance of itself: what its ratio is away from 1 is noise.

Command   python -m experiments.benchmark
Machine   2 CPU cores, shared with other work; jax 0.10.2
Time      66 s
Result    jdl.fit takes 1.04 times as long for a step of 0.16 ms as the hand-written loop, the median of 151 rounds
          (quartiles 0.95 and 1.14); the loop against itself 1.02 (0.96 and 1.08). Measured again since on a slower,
          busier machine, at 0.26 ms a step: 1.09 (1.04 and 1.20), and 1.08 for the loop over jdl.make_step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jdl
from experiments.common import Record, experiment
from experiments.timing import Timer, Timing, Workload, compare, fit, loop
from jdl import nn


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


WORKLOADS = {"784-128-10": Workload(small_mlp, reference="hand-written loop", contender="jdl.fit", at_most=1.05)}


@experiment(smoke={"rounds": 2, "steps": 20})
def main(settings: Timing, record: Record) -> None:
    """Time every workload's contenders in turn."""
    compare(WORKLOADS, settings, record)


if __name__ == "__main__":
    main()
