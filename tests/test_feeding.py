"""Data that is streamed trains the same run as the same data in memory, and goes on where its source can."""

from __future__ import annotations

import sys
import threading
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
import jdl.feeding
import jdl.looping
from jdl import nn
from tests.networks import assert_close

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 5)).astype(np.float32)
Y = RNG.integers(3, size=50).astype(np.int32)
HELD_OUT = (RNG.normal(size=(37, 5)).astype(np.float32), RNG.integers(3, size=37).astype(np.int32))
LOSS = jdl.losses.cross_entropy
MODEL = nn.Chain(nn.Dense(7), nn.BatchNorm(), jnp.tanh, nn.Dropout(0.2), nn.Dense(3))
OPTIMIZER = optax.adam(1e-2)


def examples(x=X, y=Y) -> jdl.data.Examples:
    return jdl.data.Examples([{"inputs": a, "targets": b} for a, b in zip(x, y, strict=True)])


class Loader:
    """An iterable of somebody else's: batches of unequal sizes, in its own order."""

    def __init__(self, data=(X, Y), sizes=(9, 4, 20, 17)):
        self.data, self.sizes = data, sizes
        self.passes = 0

    def __iter__(self):
        self.passes += 1
        begin = 0
        for size in self.sizes:
            yield tuple(array[begin : begin + size] for array in self.data)
            begin += size


def fit(data, **options):
    options = {"batch_size": 8, "validation": HELD_OUT, "metrics": [jdl.metrics.accuracy]} | options
    return jdl.fit(MODEL, LOSS, OPTIMIZER, data, **options)


def rows(run):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in run.history]


def same_run(a, b):
    assert_close(a.state.params, b.state.params, 0)
    assert_close(a.state.opt_state, b.state.opt_state, 0)
    assert rows(a) == rows(b)


@pytest.fixture
def stop_at(monkeypatch):
    """Make training fail before the call that begins at a step."""

    def at(step):
        advance = jdl.looping.Loop._advance

        def failing(loop, call):
            if loop.done >= step:
                raise ConnectionError
            advance(loop, call)

        monkeypatch.setattr(jdl.looping.Loop, "_advance", failing)

    yield at
    assert not [thread.name for thread in threading.enumerate() if "prefetch" in thread.name], "a thread is left"


@pytest.mark.slow
@pytest.mark.parametrize("per_call", [1, 4])
def test_a_stream_of_examples_trains_the_run_of_the_same_data_in_memory(per_call):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        streamed = fit(examples(), epochs=3, steps_per_call=per_call)
    same_run(streamed, fit((X, Y), epochs=3, steps_per_call=per_call))


def test_validation_may_be_a_stream():
    in_memory, streamed = fit((X, Y), epochs=1), fit((X, Y), epochs=1, validation=examples(*HELD_OUT))
    same_run(streamed, in_memory)
    assert streamed.evaluate(examples(*HELD_OUT)) == in_memory.evaluate(HELD_OUT)


@pytest.mark.slow
@pytest.mark.parametrize("per_call", [1, 4])
@pytest.mark.parametrize("step", [3, 8])
def test_a_stream_of_examples_goes_on_to_the_same_bits(step, per_call, tmp_path, stop_at, monkeypatch):
    checkpoint = jdl.Checkpoints(tmp_path, every=1)
    with monkeypatch.context(), pytest.raises(ConnectionError):
        stop_at(step)
        fit(examples(), epochs=2, steps_per_call=per_call, checkpoint=checkpoint)
    monkeypatch.undo()
    resumed = fit(examples(), epochs=2, steps_per_call=per_call, checkpoint=checkpoint)
    assert resumed.resumed
    same_run(resumed, fit((X, Y), epochs=2, steps_per_call=per_call))


def test_batches_of_any_size_become_full_ones_and_a_resumed_run_says_what_it_cannot(tmp_path, stop_at, monkeypatch):
    checkpoint = jdl.Checkpoints(tmp_path, every=2)
    whole = fit(Loader(), steps=10)
    with pytest.raises(ConnectionError):
        stop_at(5)
        fit(Loader(), steps=10, checkpoint=checkpoint)
    monkeypatch.undo()
    with pytest.warns(jdl.ResumeWarning, match="step 6 starts a new pass"):
        resumed = fit(Loader(), steps=10, checkpoint=checkpoint)
    assert [row["step"] for row in whole.history] == list(range(1, 11)), "a tenth of the steps, without an epoch"
    assert int(resumed.state.step) == 10 and "epoch" not in whole.history[0]


@pytest.mark.slow
def test_the_size_of_its_own_batches_is_taken():
    run = jdl.fit(MODEL, LOSS, OPTIMIZER, Loader(sizes=(10,) * 5), steps=2)
    assert run.batch["inputs"].shape == (10, 5)
    assert jdl.fit(MODEL, LOSS, OPTIMIZER, examples(), steps=1).batch["inputs"].shape == (32, 5)


def test_a_source_that_fails_fails_the_run_and_leaves_no_thread(stop_at):
    class Breaks(Loader):
        def __iter__(self):
            yield from list(super().__iter__())[:2]
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        fit(Breaks(), steps=10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fit(Loader(), epochs=1), "does not say how many examples.*give steps"),
        (lambda: fit(iter(Loader()), steps=1), "iterator|generator"),
        (lambda: fit(examples(), epochs=1, batch_size=51), "batch_size|50"),
        (lambda: fit((X, Y), epochs=1, validation=3), "in validation"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(jdl.InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0, "epochs": 1}, "batch_size got 0, wanted an integer of at least 1"),
        ({"batch_size": 2.5, "epochs": 1}, r"batch_size got 2\.5"),
        ({"batch_size": True, "steps": 1}, "batch_size got True"),
        ({"batch_size": 8, "epochs": "3"}, "epochs got '3', wanted a number"),
        ({"batch_size": 8, "epochs": True}, "epochs got True"),
        ({"batch_size": 8, "epochs": float("nan")}, "epochs got nan"),
        ({"batch_size": 8, "epochs": 0}, "epochs got 0, which is no full batch: 50 examples in batches of 8"),
        ({"batch_size": 8, "epochs": 0.01}, r"epochs got 0\.01, which is no full batch"),
        ({"batch_size": 8, "steps": 0}, "steps got 0"),
    ],
)
def test_a_plan_has_steps(options, message):
    with pytest.raises(jdl.InputError, match=message):
        jdl.feeding.Plan(50, **options)


@pytest.mark.parametrize("epochs", [2, 0.5, np.int64(2), np.float32(0.5)])
def test_epochs_are_any_number(epochs):
    assert jdl.feeding.Plan(50, 8, epochs=epochs).steps == int(epochs * 50 / 8)


def test_closing_leaves_a_read_that_hangs_to_itself(monkeypatch):
    monkeypatch.setattr(sys.modules["jdl.data.prefetch"], "PATIENCE", 0.2)
    go_on, begun = threading.Event(), threading.Event()

    def hangs():
        yield X[:8], Y[:8]
        begun.set()
        go_on.wait(30)
        yield X[:8], Y[:8]

    feed = jdl.feeding.Streamed(jdl.data.Batches(hangs), jdl.feeding.Plan(None, 8, steps=9), seed=0)
    calls = feed.calls(0)
    assert next(calls).stop == 1
    assert begun.wait(10)
    before = time.perf_counter()
    feed.close()
    feed.close()
    assert time.perf_counter() - before < 2
    (thread,) = [thread for thread in threading.enumerate() if "prefetch" in thread.name]
    go_on.set()
    thread.join(10)
    assert not thread.is_alive()


def test_waiting_is_measured():
    def slowly():
        for batch in Loader():
            time.sleep(0.05)
            yield batch

    run = fit(slowly, steps=8, validation=None)
    assert 0 < run.speed["waiting"] <= 1 and run.speed["examples_per_second"] > 0
    assert fit((X, Y), steps=8, validation=None).speed["steps_per_second"] > 0
    assert all(not leaf.is_deleted() for leaf in jax.tree.leaves(run.state))
