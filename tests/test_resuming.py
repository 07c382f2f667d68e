"""A run stopped at any place goes on to the same bits, says what changed, and leaves quietly when a signal comes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import jdl
import jdl.checkpoints.store
import jdl.looping
from jdl import nn
from tests.networks import assert_close

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 5)).astype(np.float32)
Y = RNG.integers(3, size=50).astype(np.int32)
HELD_OUT = (X[:20] + 0.1, Y[:20])
LOSS = jdl.losses.cross_entropy
ROOT = Path(__file__).parents[1]


def network(rate: float = 0.3) -> nn.Chain:
    return nn.Chain(nn.Dense(7, bias=False), nn.BatchNorm(), jax.nn.relu, nn.Dropout(rate), nn.Dense(3))


OPTIMIZER = optax.chain(optax.adam(optax.warmup_cosine_decay_schedule(0.0, 1e-2, 5, 40)), jdl.average_params(decay=0.9))


def fit(folder, callbacks=(), every=None, data=(X, Y), **options):
    options = {"epochs": 4, "batch_size": 8, "validation": HELD_OUT, "metrics": [jdl.metrics.accuracy]} | options
    checkpoint = None if folder is None else jdl.Checkpoints(folder, every=every)
    model = options.pop("model", network())
    return jdl.fit(model, LOSS, OPTIMIZER, data, callbacks=callbacks, checkpoint=checkpoint, **options)


class Count:
    """A callback with a memory."""

    def __init__(self):
        self.losses: list[float] = []
        self.kernel = np.zeros(())
        self.events: list[str] = []

    def begin(self, run):
        self.events.append(f"begin {len(run.history)}")

    def end(self, run):
        self.events.append(f"end {len(run.history)}")

    def __call__(self, run):
        self.losses.append(run.history[-1]["loss"])
        self.kernel = np.asarray(run.params["0"]["kernel"]) * len(self.losses)

    def get_state(self):
        return {"losses": self.losses, "kernel": self.kernel}

    def set_state(self, state):
        self.losses, self.kernel = list(state["losses"]), state["kernel"]


class Stop(Exception):
    pass


class StopAt:
    """Fails in training, from within a step's bar, so between any two calls."""

    def __init__(self, step, monkeypatch):
        advance = jdl.looping.Loop._advance

        def failing(loop, call):
            if loop.done >= step:
                raise Stop
            advance(loop, call)

        monkeypatch.setattr(jdl.looping.Loop, "_advance", failing)


def same_run(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y), plain(a.state), plain(b.state))
    without_time = [[{k: v for k, v in row.items() if k != "seconds"} for row in run.history] for run in (a, b)]
    assert without_time[0] == without_time[1]


def plain(state):
    return state.params, state.state, state.opt_state, state.step, jax.random.key_data(state.key)


@pytest.mark.slow
@pytest.mark.parametrize("per_call", [1, 4])
@pytest.mark.parametrize("stop", [1, 3, 6, 7, 18, 24])  # an epoch is 6.25 steps
def test_a_run_stopped_at_any_step_goes_on_to_the_same_bits(stop, per_call, tmp_path, monkeypatch):
    whole, counted = Count(), Count()
    expected = fit(None, [whole], steps_per_call=per_call)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        StopAt(stop, patch)
        fit(tmp_path, [Count()], every=2, steps_per_call=per_call)
    resumed = fit(tmp_path, [counted], every=2, steps_per_call=per_call)
    assert resumed.resumed is None if stop + per_call < 3 else 0 < resumed.resumed < stop + per_call
    same_run(resumed, expected)
    assert counted.losses == whole.losses
    np.testing.assert_array_equal(counted.kernel, whole.kernel)
    assert counted.events[0].startswith("begin") and counted.events[-1] == "end 4"


def test_a_finished_run_does_nothing_more(tmp_path):
    first = fit(tmp_path)
    again = fit(tmp_path)
    same_run(again, first)
    assert again.compilations == {} and again.resumed == 25


def test_a_report_that_was_pending_belongs_to_the_next_checkpoint(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(jdl.looping.Loop, "_evaluation", lambda loop, data: fail)
        fit(tmp_path, every=1)
    resumed = fit(tmp_path, every=1, epochs=1)
    assert resumed.resumed == 5 and [row["step"] for row in resumed.history] == [6]
    again = fit(tmp_path, every=1, epochs=1)
    assert again.resumed == 6 and [row["step"] for row in again.history] == [6]


def fail():
    raise Stop


def test_training_longer_goes_on_without_a_warning(tmp_path):
    fit(tmp_path, epochs=2)
    longer = fit(tmp_path, epochs=4)
    assert longer.resumed == 12
    same_run(longer, fit(None, epochs=4))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 10}, r"batch_size: 8 became 10"),
        ({"seed": 3}, r"seed: 0 became 3"),
        ({"steps_per_call": 2}, "steps_per_call: 1 became 2"),
        ({"model": network(0.2)}, r"model: .*Dropout\(0\.3\).* became .*Dropout\(0\.2\)"),
        ({"data": (X + 1, Y)}, "data: .*checksum"),
        ({"validation": (X[:10] + 0.1, Y[:10])}, "validation: .*"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_that_changed_are_named(change, message, tmp_path):
    fit(tmp_path, epochs=1)
    with pytest.warns(jdl.ResumeWarning, match=message):
        fit(tmp_path, epochs=2, **change)


def test_another_learning_rate_is_another_program(tmp_path):
    def train(rate):
        jdl.fit(network(), LOSS, optax.sgd(rate), (X, Y), steps=2, batch_size=8, checkpoint=tmp_path)

    train(0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(0.1)
    with pytest.warns(jdl.ResumeWarning, match="compiled step: a learning rate"):
        train(0.2)


def test_another_model_is_refused_with_every_difference(tmp_path):
    fit(tmp_path, epochs=1)
    other = nn.Chain(nn.Dense(9, bias=False), nn.BatchNorm(), jax.nn.relu, nn.Dense(3))
    different = r"(?s)state/params/0/kernel: float32\[5, 7\] .* float32\[5, 9\] .*state/params/4/"
    with pytest.raises(jdl.InputError, match=different):
        fit(tmp_path, epochs=2, model=other)


def test_a_stopped_run_stays_stopped_and_says_so(tmp_path):
    def stop(run):
        run.stop("enough")

    fit(tmp_path, [stop])
    with pytest.warns(jdl.ResumeWarning, match="the run ended there: enough; to train anew, name another folder"):
        again = fit(tmp_path)
    assert again.stopped == "enough" and len(again.history) == 1


def test_fewer_steps_than_are_done_are_named(tmp_path):
    fit(tmp_path, epochs=2)
    with pytest.warns(jdl.ResumeWarning, match="more than the 6 steps asked for, so nothing is trained"):
        fit(tmp_path, epochs=1)


def test_callbacks_get_their_own_state_in_any_order(tmp_path):
    losses, accuracies = (jdl.EarlyStopping(f"validation_{name}", patience=9) for name in ("loss", "accuracy"))
    fit(tmp_path, [Count(), losses, accuracies], epochs=1)
    best = losses.best, accuracies.best
    losses, accuracies = (jdl.EarlyStopping(f"validation_{name}", patience=9) for name in ("loss", "accuracy"))
    with pytest.warns(jdl.ResumeWarning) as caught:
        fit(tmp_path, [accuracies, losses, jdl.EarlyStopping("loss", patience=9)], epochs=1)
    assert (losses.best, accuracies.best) == best
    (message,) = [str(warning.message) for warning in caught]
    assert "nothing is kept of EarlyStopping('loss'), which starts anew" in message
    assert "Count object> is not there any more" in message


def test_every_callback_hears_of_the_end(tmp_path):
    class Bad(Count):
        def end(self, run):
            raise ValueError("bad end")

    good = [Count(), Count()]
    with pytest.raises(ValueError, match="bad end"):
        fit(None, [good[0], Bad(), good[1]], epochs=1)
    assert [counted.events for counted in good] == [["begin 0", "end 1"]] * 2


def test_a_signal_during_the_last_save_is_heard(tmp_path, monkeypatch):
    wait = jdl.checkpoints.store.Store.wait

    def asked(store):
        monkeypatch.undo()
        wait(store)
        os.kill(os.getpid(), signal.SIGTERM)

    def at_the_end(run):
        monkeypatch.setattr(jdl.checkpoints.store.Store, "wait", asked)

    with pytest.raises(jdl.Interrupted):
        fit(tmp_path, [at_the_end], epochs=1)


@pytest.mark.slow
def test_a_signal_ends_the_waiting_for_data_that_never_comes(tmp_path):
    asleep = threading.Event()

    def stuck():
        yield X[:8], Y[:8]
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        asleep.wait(60)

    begin = time.perf_counter()
    with pytest.raises(jdl.Interrupted):
        fit(tmp_path, data=stuck, steps=9, epochs=None, batch_size=4, validation=None)
    assert time.perf_counter() - begin < 50
    assert jdl.Checkpoints(tmp_path).steps()
    asleep.set()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_writes_a_checkpoint_and_leaves(name, tmp_path):
    def ask(run):
        if len(run.history) == 2:
            os.kill(os.getpid(), getattr(signal, name))

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(jdl.Interrupted) as caught:
        fit(tmp_path, [ask])
    assert caught.value.code == 128 + getattr(signal, name)
    assert caught.value.run.stopped == name and not caught.value.run.training
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    same_run(fit(tmp_path), fit(None))


def test_a_second_interrupt_stops_at_once(tmp_path):
    def ask_twice(run):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, [ask_twice])


def test_without_a_checkpoint_signals_are_left_alone():
    seen = []
    fit(None, [lambda run: seen.append(signal.getsignal(signal.SIGTERM))], epochs=1)
    assert seen == [signal.SIG_DFL]


def test_other_threads_train_without_handlers(tmp_path):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(fit(tmp_path, epochs=1)))
    thread.start()
    thread.join()
    assert runs[0].history


SCRIPT = """
import sys, time, jax, numpy as np, optax, jdl
from jdl import nn
def slow(run):
    print("report", flush=True)
    time.sleep(0.2)
x = np.random.default_rng(0).normal(size=(50, 5)).astype(np.float32)
jdl.fit(nn.Chain(nn.Dense(3)), jdl.losses.cross_entropy, optax.adam(1e-2), (x, np.arange(50) % 3), epochs=50,
        callbacks=[slow], checkpoint=sys.argv[1])
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_script_ends_quietly_with_the_code_that_shells_expect(name, code, tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "report\n"
    process.send_signal(getattr(signal, name))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in errors
    assert jdl.Checkpoints(tmp_path).steps()


def test_the_state_of_a_restored_run_is_its_own(tmp_path):
    fit(tmp_path, epochs=1)
    run = fit(tmp_path, epochs=2)
    assert_close(run.params, fit(None, epochs=2).params, 0)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(run.state))
