"""Early stopping and the plateau rule, report by report; and that a resumed run goes on as if it had not stopped."""

from __future__ import annotations

import pickle
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn
from jdl.check import InputError
from tests.networks import assert_close, batch_of, mlp

NAN, MODEL = float("nan"), mlp()
ADAM = optax.inject_hyperparams(optax.adam)(learning_rate=0.05)
INJECTED = optax.inject_hyperparams(optax.sgd)(learning_rate=1.0)


def run_of(weight: float = 0.0, optimizer: optax.GradientTransformation = INJECTED) -> jdl.Run:
    variables = nn.Variables({"w": jnp.float32(weight)}, {"mean": jnp.float32(10 * weight)})
    return jdl.Run(nn.Chain(), None, jdl.start_state(variables, optimizer, jax.random.key(0)))


def report(run: jdl.Run, callback: Any, value: Any, metric: str = "validation_loss") -> None:
    """One more report, ten steps on; the weight is the number of the report."""
    step = 10 * (len(run.history) + 1)
    run.history.append({"step": step, "epoch": 1, "seconds": 0.5, "loss": 1.0, metric: value})
    run.state = jdl.TrainState(
        {"w": jnp.float32(len(run.history))}, run.state.state, run.state.opt_state, run.state.step + 10, run.state.key
    )
    callback(run)


def reports(callback: Any, values: list[float], metric: str = "validation_loss") -> jdl.Run:
    """A run of these reports, until it is stopped."""
    run = run_of()
    callback.begin(run)
    for value in values:
        report(run, callback, value, metric)
        if run.stopped:
            break
    callback.end(run) if hasattr(callback, "end") else None
    return run


# ── early stopping ────────────────────────────────────────────────────────────────────────────────────────────────

STOPPING = [  # metric, patience, min_delta, mode, values, reports until it stops, number of the best one
    ("validation_loss", 2, 0.0, None, [3, 2, 2, 2, 1], 4, 2),
    ("validation_loss", 2, 0.0, None, [3, 2, 2.5, 1, 1, 0.5, 0.6, 0.7], 8, 6),
    ("validation_loss", 1, 0.0, None, [3, 2, 1, 0], 4, 4),
    ("validation_loss", 1, 0.0, None, [3, 3], 2, 1),
    ("validation_loss", 2, 0.5, None, [3, 2.6, 2.4, 2.0, 1.95, 0], 5, 3),
    ("validation_accuracy", 2, 0.0, None, [0.1, 0.3, 0.2, 0.3, 0.9], 4, 2),
    ("validation_accuracy", 2, 0.15, None, [0.1, 0.2, 0.3, 0.4, 0.9], 5, 5),
    ("validation_accuracy", 2, 0.0, "min", [0.1, 0.3, 0.2], 3, 1),
    ("validation_loss", 2, 0.0, "max", [3, 2, 1], 3, 1),
    ("validation_mse", 1, 0.0, None, [3, 2, 4], 3, 2),
    ("loss_of_the_game", 2, 0.0, None, [NAN, 2, NAN, 1, NAN, NAN, 0], 6, 4),
    ("validation_loss", 3, 0.0, None, [NAN, float("inf"), NAN, 1], 3, None),
]


@pytest.mark.parametrize("metric, patience, min_delta, mode, values, length, best", STOPPING)
def test_stops_after_patience_reports_and_goes_back_to_the_best(
    metric, patience, min_delta, mode, values, length, best
):
    stopping = jdl.EarlyStopping(metric, patience, min_delta, mode)
    run = reports(stopping, values, metric)
    assert len(run.history) == length
    assert bool(run.stopped) is (length < len(values) or stopping.waited == patience)
    assert float(run.state.params["w"]) == length
    if best is None:
        assert getattr(run, "chosen", None) is None and stopping.best is None
    else:
        assert (stopping.best, stopping.best_step) == (values[best - 1], 10 * best)
        assert float(run.chosen.params["w"]) == best
        assert float(run.chosen.state["mean"]) == 0


def test_the_reason_says_the_numbers():
    run = reports(jdl.EarlyStopping(patience=2, min_delta=0.01), [0.5, 0.496, 0.495])
    assert run.stopped == "validation_loss has not improved on 0.5 (step 10) by more than 0.01 in 2 reports"
    assert reports(jdl.EarlyStopping(patience=1), [1, 2]).stopped.endswith("on 1 (step 10) in 1 reports")
    assert "was not finite in any of 2 reports" in reports(jdl.EarlyStopping(patience=2), [NAN, NAN]).stopped


def test_without_restoring_nothing_is_kept():
    stopping = jdl.EarlyStopping(patience=1, restore_best=False)
    run = reports(stopping, [1, 2])
    assert run.stopped and getattr(run, "chosen", None) is None
    assert stopping.get_state()["variables"] is None


def test_the_best_variables_outlive_the_state_that_the_next_step_takes():
    stopping, run = jdl.EarlyStopping(), run_of()
    stopping.begin(run)
    report(run, stopping, 1.0)
    for leaf in jax.tree.leaves(run.state.variables):
        leaf.delete()
    stopping.end(run)
    assert float(run.chosen.params["w"]) == 1


def test_the_average_is_kept_where_the_optimizer_has_one():
    run = run_of(3.0, optax.chain(optax.sgd(1.0), jdl.average_params(0.5)))
    stopping = jdl.EarlyStopping()
    stopping.begin(run)
    report(run, stopping, 1.0)  # sets the weight, not its average
    stopping.end(run)
    assert float(run.chosen.params["w"]) == 3


def test_an_instance_begins_anew_with_each_run():
    stopping = jdl.EarlyStopping(patience=2)
    assert len(reports(stopping, [1, 2, 3]).history) == 3
    again = reports(stopping, [5, 4, 6, 6])
    assert len(again.history) == 4 and float(again.chosen.params["w"]) == 2


# ── the plateau rule ──────────────────────────────────────────────────────────────────────────────────────────────

VALUES = [1.2, 0.66, 0.88, 0.69, 0.62, NAN, 0.3, 0.39, 0.25, 0.58, 0.19, 0.05, -0.03, -0.07, -0.11, -0.04, 0.05, NAN,
          0.1, -0.02, 0.0, 0.15, 0.05, -0.05, -0.02, 0.05, 0.19, -0.03, -0.02, 0.1]  # fmt: skip
# By torch.optim.lr_scheduler.ReduceLROnPlateau of PyTorch 2.13 with factor 0.5 and threshold_mode="abs": mode, sign of
# the values, patience, threshold, cooldown, min_lr; how often the rate was reduced at each report (0…9a…z), the last.
TORCH = [
    ("min", 1, 2, 0.0, 0, 0, "000000000000000001112223334445", 0.03125),
    ("max", -1, 2, 0.0, 0, 0, "000000000000000001112223334445", 0.03125),
    ("max", 1, 2, 0.0, 0, 0, "000111222333444555666777888999", 0.001953125),
    ("min", 1, 0, 0.0, 0, 0, "0012233445555556789abcdefghijk", 9.5367431640625e-07),
    ("min", 1, 1, 0.2, 0, 0, "00011222334445566778899aabbccd", 0.0001220703125),
    ("max", -1, 3, 0.1, 0, 0, "000001111111111112222333344445", 0.03125),
    ("min", 1, 2, 0.0, 3, 0, "000000000000000001111112222223", 0.125),
    ("max", -1, 0, 0.0, 2, 0, "001112222333333444555666777888", 0.00390625),
    ("min", 1, 1, 0.0, 0, 0.1, "000111111111111122334444444444", 0.1),
    ("max", 1, 1, 0.05, 1, 0.3, "001112222222222222222222222222", 0.3),
]


def rate_of(run: jdl.Run) -> float:
    return float(jdl.hyperparams(run.state)["learning_rate"])


@pytest.mark.parametrize("mode, sign, patience, min_delta, cooldown, minimum, reductions, last", TORCH)
def test_the_rate_follows_the_rule_of_pytorch(mode, sign, patience, min_delta, cooldown, minimum, reductions, last):
    plateau = jdl.ReduceOnPlateau("loss", 0.5, patience, min_delta, cooldown, minimum, mode)
    run, rates = run_of(), []
    plateau.begin(run)
    for value in VALUES:
        report(run, plateau, sign * value, "loss")
        rates.append(rate_of(run))
    fell = np.cumsum(np.diff([1.0, *rates]) < 0)
    assert "".join(np.base_repr(n, 36).lower() for n in fell) == reductions
    assert rates[-1] == pytest.approx(last, rel=1e-6)
    assert run.stopped is None


def test_a_rate_below_the_minimum_is_not_raised():
    run = reports(jdl.ReduceOnPlateau(patience=0, minimum=2.0), [1, 2, 3])
    assert rate_of(run) == 1.0


def test_another_hyperparameter_is_lowered_by_name_and_steps_use_it():
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=1.0, momentum=0.5)
    run = run_of(0.0, optimizer)
    plateau = jdl.ReduceOnPlateau(patience=0, factor=0.1, name="momentum")
    plateau.begin(run)
    for value in (1, 2):
        report(run, plateau, value)
    assert float(jdl.hyperparams(run.state)["momentum"]) == pytest.approx(0.05)
    assert rate_of(run) == 1.0
    first = run_of()
    shapes = [jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.weak_type), r.state.opt_state) for r in (
        first, reports(jdl.ReduceOnPlateau(patience=0), [1, 2]))]  # fmt: skip
    assert shapes[0] == shapes[1], "the step compiles once"


# ── resuming ──────────────────────────────────────────────────────────────────────────────────────────────────────

KEPT = {
    "EarlyStopping": lambda: jdl.EarlyStopping("loss", patience=7, min_delta=0.05),
    "EarlyStopping of nothing": lambda: jdl.EarlyStopping("loss", patience=9, restore_best=False),
    "ReduceOnPlateau": lambda: jdl.ReduceOnPlateau("loss", 0.5, patience=1, cooldown=2),
}


def stored(state: Any) -> Any:
    """As a checkpoint gives it back: NumPy arrays, nested dicts, and no empty ones."""
    if isinstance(state, dict):
        return {name: stored(value) for name, value in state.items() if not (isinstance(value, dict) and not value)}
    return np.asarray(state) if isinstance(state, jax.Array) else pickle.loads(pickle.dumps(state))


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("history_is_kept", [True, False])
def test_a_resumed_run_goes_on_as_if_it_had_not_stopped(name, history_is_kept):
    whole = KEPT[name]()
    run = reports(whole, VALUES, "loss")
    for cut in range(len(run.history)):
        first = KEPT[name]()
        before = run_of()
        first.begin(before)
        for value in VALUES[:cut]:
            report(before, first, value, "loss")
        second, after = KEPT[name](), run_of()
        second.set_state(stored(first.get_state()))
        after.state, after.history = before.state, [dict(row) for row in before.history]
        if not history_is_kept:
            after.history = [{}] * cut
        second.begin(after)
        for value in VALUES[cut:]:
            report(after, second, value, "loss")
            if after.stopped:
                break
        second.end(after) if hasattr(second, "end") else None
        assert after.stopped == run.stopped
        assert_close(after.state.opt_state, run.state.opt_state, 0)
        a, b = stored(second.get_state()), stored(whole.get_state())
        assert jax.tree.map(lambda x, y: np.asarray(x).tobytes() == np.asarray(y).tobytes(), a, b) == jax.tree.map(
            lambda _: True, b
        )


class Crash:
    """Ends the process, as far as the run can tell, at a report."""

    def __init__(self, report: int):
        self.report = report

    def __call__(self, run: jdl.Run) -> None:
        if len(run.history) == self.report:
            raise KeyError("crash")


def noisy(size: int, seed: int) -> dict[str, np.ndarray]:
    """Which of the first three inputs is largest, or, of two examples in five, a label at random."""
    batch = jax.tree.map(np.array, batch_of(size, seed))
    right = np.arange(size) % 5 > 1
    return batch | {"targets": np.where(right, batch["inputs"][:, :3].argmax(1), batch["targets"]).astype(np.int32)}


def trained(folder: Any, crash_at: int | None = None) -> tuple[jdl.Run, jdl.EarlyStopping, jdl.ReduceOnPlateau]:
    """What can be learnt is learnt first, then the noise by heart: validation gets worse, the rate falls, it stops."""
    stopping, plateau = jdl.EarlyStopping(patience=6), jdl.ReduceOnPlateau(factor=0.5, patience=1)
    crash = [] if crash_at is None else [Crash(crash_at)]
    run = jdl.fit(
        MODEL, jdl.losses.cross_entropy, ADAM, noisy(40, 0), validation=noisy(60, 1), epochs=40, batch_size=20,
        callbacks=[stopping, plateau, *crash], checkpoint=folder, progress=False,
    )  # fmt: skip
    return run, stopping, plateau


@pytest.mark.slow
def test_in_fit_over_a_crash(tmp_path):
    """The best variables, the reduced rate and the end are those of a run without a crash, to the bit."""
    run, stopping, plateau = trained(tmp_path / "whole")
    assert run.stopped and 7 < len(run.history) < 40
    losses = [row["validation_loss"] for row in run.history]
    best = int(np.argmin(losses))
    assert best == len(losses) - 7 and stopping.best_step == run.history[best]["step"]
    assert rate_of(run) < 0.05
    assert run.evaluate(noisy(60, 1))["loss"] == pytest.approx(losses[best], rel=1e-6)
    assert_close(run.variables, run.chosen, 0)
    assert run.compilations == {"train": 1, "evaluation": 1}
    for crash_at in (1, best + 1, best + 5):
        folder = tmp_path / str(crash_at)
        with pytest.raises(KeyError, match="crash"):
            trained(folder, crash_at)
        again, stopped_again, plateau_again = trained(folder)
        assert again.stopped == run.stopped
        assert [row["validation_loss"] for row in again.history] == losses
        ours, whole = (
            (r.variables, r.state.params, r.state.opt_state, s.get_state(), p.get_state())
            for r, s, p in ((again, stopped_again, plateau_again), (run, stopping, plateau))
        )
        assert_close(ours, whole, 0)


# ── errors ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [jdl.EarlyStopping, jdl.ReduceOnPlateau])
def test_a_metric_that_was_not_reported(make):
    callback = make("validation_acuracy")
    with pytest.raises(
        InputError, match=r"in \w+: the report has no 'validation_acuracy'; name one of step.*validation_loss"
    ):
        report(run_of(), callback, 1.0)
    with pytest.raises(InputError, match=r"no 'validation_acuracy'; give fit validation data, or name one of .*loss$"):
        report(run_of(), callback, 1.0, "loss")
    with pytest.raises(InputError, match=r"validation_acuracy is float64\[2, 2\], wanted a number; name one of step"):
        report(run_of(), callback, np.eye(2), "validation_acuracy")


def test_a_rate_that_is_not_in_the_state():
    for optimizer, has in ((optax.sgd(1.0), "no hyper-parameters"), (INJECTED, "learning_rate")):
        with pytest.raises(InputError, match=rf"no 'rate' \(it has {has}\); make it by optax.inject_hyperparams"):
            report(run_of(0.0, optimizer), jdl.ReduceOnPlateau(name="rate"), 1.0)


@pytest.mark.parametrize("make, options, message", [
    (jdl.EarlyStopping, {"patience": 0}, "patience got 0, wanted a number of reports, at least 1"),
    (jdl.EarlyStopping, {"patience": 2.0}, "patience got 2.0"),
    (jdl.EarlyStopping, {"patience": True}, "patience got True"),
    (jdl.EarlyStopping, {"metric": jdl.metrics.accuracy}, "metric got .*wanted a name such as 'validation_loss'"),
    (jdl.EarlyStopping, {"min_delta": -0.1}, "min_delta got -0.1, wanted a number of at least 0"),
    (jdl.EarlyStopping, {"min_delta": NAN}, "min_delta got nan"),
    (jdl.EarlyStopping, {"mode": "less"}, "mode got 'less', wanted 'min', 'max' or None"),
    (jdl.ReduceOnPlateau, {"patience": -1}, "in ReduceOnPlateau: patience got -1, .* at least 0"),
    (jdl.ReduceOnPlateau, {"cooldown": 0.5}, "cooldown got 0.5"),
    (jdl.ReduceOnPlateau, {"factor": 1.0}, "factor got 1.0, wanted a number between 0 and 1"),
    (jdl.ReduceOnPlateau, {"minimum": -1e-3}, "minimum got -0.001"),
    (jdl.ReduceOnPlateau, {"mode": "less"}, "in ReduceOnPlateau: mode got 'less'"),
])  # fmt: skip
def test_arguments(make, options, message):
    with pytest.raises(InputError, match=message):
        make(**options)
