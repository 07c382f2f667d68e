"""fit is the loop a user would write: same numbers, known compilations, validation that never trains."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn
from jdl.check import InputError
from jdl.data import Dataset, batches, indices_between
from jdl.feeding import Plan, Resident
from tests.networks import assert_close, classify, mlp

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 5)).astype(np.float32)
Y = RNG.integers(3, size=50).astype(np.int32)
HELD_OUT = (RNG.normal(size=(37, 5)).astype(np.float32), RNG.integers(3, size=37).astype(np.int32))
OPTIMIZER = optax.adam(1e-2)
LOSS = jdl.losses.cross_entropy


def fit(model=None, loss=LOSS, data=(X, Y), **options):
    options = {"epochs": 3, "batch_size": 8} | options
    return jdl.fit(mlp(rate=0.3) if model is None else model, loss, OPTIMIZER, data, **options)


@pytest.mark.slow
def test_fit_is_the_loop_by_hand_to_the_bit():
    run = fit(seed=5, metrics=[jdl.metrics.accuracy])
    model, data = mlp(rate=0.3), Dataset.of((X, Y))
    step = jax.jit(jdl.make_step(classify(model), OPTIMIZER))
    state, count = None, 0
    for batch in batches(data, 8, seed=5, epochs=3):
        state = jdl.init_state(model, OPTIMIZER, batch, seed=5) if state is None else state
        state, _ = step(state, batch)
        count += 1
    assert count == int(run.state.step) == 3 * 50 // 8
    assert_close(run.state.params, state.params, 0)
    assert_close(run.state.opt_state, state.opt_state, 0)


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_call", [4, 5])
def test_several_steps_in_a_call_give_the_same_result(steps_per_call):
    single, several = fit(validation=HELD_OUT), fit(validation=HELD_OUT, steps_per_call=steps_per_call)
    assert_close(several.params, single.params, 1e-6)
    for a, b in zip(single.history, several.history, strict=True):
        assert (a["step"], a["epoch"]) == (b["step"], b["epoch"])
        for name in ("loss", "validation_loss"):
            assert a[name] == pytest.approx(b[name], rel=1e-5)
    # one program of several steps; what is left before a report runs the program of the single steps again
    assert several.compilations.get("train_several", 0) <= 1  # none where an equal program was compiled before


def test_validation_never_trains():
    model = nn.Chain(nn.Dense(7), nn.BatchNorm(), jnp.tanh, nn.Dropout(0.2), nn.Dense(3))
    with_validation, without = fit(model, validation=HELD_OUT), fit(model)
    assert_close(with_validation.state.params, without.state.params, 0)
    assert_close(with_validation.state.state, without.state.state, 0)


def test_history_reports_means_over_the_examples_of_an_epoch():
    run = fit(mlp(), epochs=2, batch_size=10, metrics=[jdl.metrics.accuracy], validation=HELD_OUT)
    assert [row["epoch"] for row in run.history] == [1, 2]
    assert [row["step"] for row in run.history] == [5, 10]
    assert set(run.history[0]) == {
        *("step", "epoch", "seconds", "loss", "accuracy", "validation_loss", "validation_accuracy"),
    }
    step = jax.jit(jdl.make_step(classify(mlp()), OPTIMIZER))
    losses, state = [], None
    for batch in batches(Dataset.of((X, Y)), 10, seed=0, epochs=1):
        state = jdl.init_state(mlp(), OPTIMIZER, batch) if state is None else state
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert run.history[0]["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 7, 36, 37, 256])
def test_evaluation_is_exact_for_any_batch_size(batch_size):
    run = fit(mlp(), metrics=[jdl.metrics.accuracy, jdl.metrics.confusion_matrix])
    scores = run.evaluate(HELD_OUT, batch_size=batch_size)
    logits = np.asarray(run.model(run.variables, HELD_OUT[0]), np.float64)
    log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    assert scores["loss"] == pytest.approx(-log_softmax[np.arange(37), HELD_OUT[1]].mean(), rel=1e-5)
    assert scores["accuracy"] == pytest.approx((logits.argmax(-1) == HELD_OUT[1]).mean(), rel=1e-6)
    assert scores["confusion_matrix"].shape == (3, 3) and scores["confusion_matrix"].sum() == 37
    assert_close(run.predict(HELD_OUT[0], batch_size=batch_size), logits.astype(np.float32), 1e-5)


def test_evaluation_of_a_ragged_last_batch_never_retraces():
    from jdl.runs import evaluation_program

    run = fit(mlp())
    run.evaluate(HELD_OUT, batch_size=8)
    traces = len(evaluation_program(run.objective).traces)
    run.evaluate((X, Y), batch_size=8)
    assert len(evaluation_program(run.objective).traces) == traces


def test_a_run_compiles_a_known_number_of_programs():
    run = fit(mlp(rate=0.21), validation=HELD_OUT)
    assert run.compilations == {"train": 1, "evaluation": 1}
    assert list(run.history[0])[:4] == ["step", "epoch", "seconds", "loss"]
    again = fit(mlp(rate=0.21), validation=HELD_OUT)
    assert again.compilations == {}, "an equal model, loss and optimizer compile nothing anew"


def test_one_compilation_more_is_reported_with_what_changed():
    def widen(updates, state, params=None):
        return updates, jax.tree.map(lambda s: s.astype(jnp.float32), state)

    def start(params):
        return {"count": jnp.zeros((), jnp.int32)}

    drifts = optax.chain(optax.sgd(0.1), optax.GradientTransformation(start, widen))
    with pytest.warns(jdl.CompilationWarning, match=r"train was compiled again: .*count: int32\[\] became float32\[\]"):
        jdl.fit(mlp(), LOSS, drifts, (X, Y), epochs=1, batch_size=8)


def test_callbacks_see_the_run_and_may_stop_it():
    seen = []

    def stop_after_two(run: jdl.Run) -> None:
        seen.append((len(run.history), run.variables))
        if len(run.history) == 2:
            run.stop("enough")

    run = fit(epochs=9, callbacks=[stop_after_two])
    assert run.stopped == "enough" and len(run.history) == 2
    kept = [variables.params["0"]["kernel"] for _, variables in seen]
    assert not any(kernel.is_deleted() for kernel in kept), "what a callback keeps stays alive"
    assert np.any(np.asarray(kept[0]) != np.asarray(kept[1]))


@pytest.mark.parametrize(
    "data",
    [
        (X, Y),
        {"inputs": X, "targets": Y},
        Dataset.of((X, Y)),
        (X.tolist(), Y.tolist()),
        (X.astype(float), Y.astype(int)),
    ],
    ids=["tuple", "dict", "dataset", "lists", "64 bit"],
)
def test_data_comes_in_many_forms(data):
    assert_close(fit(mlp(), data=data).params, fit(mlp()).params, 0)


@pytest.mark.slow
def test_a_data_set_by_name_brings_its_validation():
    run = jdl.fit(nn.Chain(nn.Flatten(), nn.Dense(10)), LOSS, optax.adam(1e-2), "digits", epochs=1)
    assert {"loss", "validation_loss"} <= set(run.history[-1])


@pytest.mark.slow
def test_fit_takes_objectives_and_gradients():
    objective = classify(mlp()) + 1e-3 * jdl.l2("**/kernel")
    a = fit(mlp(), objective, validation=HELD_OUT)
    b = fit(mlp(), jdl.gradient(objective), validation=HELD_OUT)
    c = fit(mlp(), jdl.accumulate(jdl.gradient(objective), 2), validation=HELD_OUT)
    assert_close(a.params, b.params, 0)
    assert_close(c.params, a.params, 1e-3)
    assert {"validation_loss", "validation_l2"} <= set(c.history[-1])


def test_steps_count_instead_of_epochs():
    run = fit(epochs=None, steps=20, validate_every=6)
    assert [row["step"] for row in run.history] == [6, 12, 18, 20]
    every_two = fit(epochs=5, validate_every=2)
    assert [row["epoch"] for row in every_two.history] == [2, 4, 5]


@pytest.mark.parametrize(
    ("n", "batch", "per_call", "epochs"), [(50, 8, 1, 3), (50, 8, 4, 3), (50, 50, 8, 2), (7, 3, 2, 1), (999, 2, 3, 1)]
)
def test_a_plan_takes_every_step_once(n, batch, per_call, epochs):
    plan = Plan(n, batch, per_call, epochs)
    feed = Resident(Dataset.of(np.zeros((n, 1), np.float32)), plan, seed=1)
    taken, done = [], 0
    for call in feed.calls(0):
        rows = call.arguments[1]
        assert rows.shape == ((per_call, batch) if call.several else (batch,))
        done += len(rows) if call.several else 1
        assert done == call.stop
        taken.append(rows.reshape(-1, batch))
    assert done == epochs * n // batch
    np.testing.assert_array_equal(np.concatenate(taken), indices_between(n, batch, 1, 0, done))
    assert set(plan.reports) <= {call.stop for call in feed.calls(0)}


@pytest.mark.parametrize("per_call", [1, 4])
def test_calls_from_any_call_are_those_that_were_left(per_call):
    feed = Resident(Dataset.of(np.zeros((50, 1), np.float32)), Plan(50, 8, per_call, 3), seed=1)
    whole = [(call.stop, call.arguments[1].tolist()) for call in feed.calls(0)]
    for place, (stop, _) in enumerate(whole):
        assert [(call.stop, call.arguments[1].tolist()) for call in feed.calls(stop)] == whole[place + 1 :]


def test_no_bar_without_a_terminal(capfd):
    fit(mlp())
    assert capfd.readouterr() == ("", "")


def test_a_bar_where_asked(capfd):
    fit(mlp(), progress=True)
    assert "training" in capfd.readouterr().err


def test_warnings_stay_off_in_a_plain_run():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(validation=HELD_OUT, steps_per_call=4)


def each(outputs, targets):
    return outputs.max(-1)


def test_fit_reads_what_its_objective_selects():
    objective = classify(mlp(), inputs="x", targets=lambda batch: batch["y"])
    run = fit(mlp(), objective, {"x": X, "y": Y}, validation={"x": HELD_OUT[0], "y": HELD_OUT[1]})
    assert_close(run.params, fit(mlp()).params, 0)


def ensemble_loss(outputs, targets, mask=None):
    return sum(LOSS(output, targets, mask=mask) for output in outputs) / len(outputs)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 5])
def test_an_ensemble_trains_and_says_that_it_cannot_be_cut_into_batches(n):
    run = fit(nn.Ensemble(mlp(), n), ensemble_loss, validation=HELD_OUT)
    assert np.isfinite(run.history[-1]["validation_loss"])
    with pytest.raises(InputError, match="wanted the batch on axis 0"):
        run.predict(HELD_OUT[0])


def test_settings_of_other_types_are_other_models():
    assert nn.Dropout(0) != nn.Dropout(False) and nn.Chain(nn.Dropout(0)) != nn.Chain(nn.Dropout(0.0))


def test_an_interrupted_run_that_a_callback_kept_is_usable():
    kept = []

    def interrupt(run: jdl.Run) -> None:
        kept.append(run)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(callbacks=[interrupt])
    assert not kept[0].training and np.isfinite(kept[0].evaluate(HELD_OUT)["loss"])


@pytest.mark.slow
def test_lbfgs_compiles_once():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = jdl.fit(mlp(), LOSS, optax.lbfgs(), (X, Y), epochs=2, batch_size=50)
    assert run.compilations == {"train": 1}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fit(data=(X[:0], Y[:0])), "no examples|empty|0 examples"),
        (lambda: fit(data=(np.where(X > 2, np.nan, X), Y)), "inputs.*NaN|nan"),
        (lambda: fit(data=(X, Y[:20])), "different numbers of examples"),
        (lambda: fit(data=(X, Y + 1)), "3"),
        (lambda: fit(data=(X, Y.astype(np.float32))), "float32"),
        (lambda: fit(data=(X.astype(np.int32), Y)), "floating"),
        (lambda: fit(data=(X, Y), batch_size=51), "batch_size"),
        (lambda: fit(data="digitz"), "digits"),
        (lambda: fit(validation=(X, Y + 1)), r"in validation: .*1 to 3, wanted 0 to 2"),
        (lambda: fit(mlp(), classify(mlp()) + jdl.l2(), (X, Y + 1)), r"in data: .*1 to 3, wanted 0 to 2"),
        (lambda: fit(mlp()).evaluate((X, Y + 1)), r"in data: .*1 to 3, wanted 0 to 2"),
        (lambda: fit(validation=0.2), "in validation: .*0.2, wanted"),
        (lambda: fit(metrics=jdl.metrics.accuracy), "metrics got .*wanted a list"),
        (lambda: fit(callbacks=[3]), "callbacks got .*wanted a list of functions"),
        (lambda: fit(metrics=[each]), r"a metric returned float32\[8\]"),
        (lambda: fit(nn.Chain(nn.Flatten())), "nothing to train"),
        (lambda: fit(epochs=None), "epochs=None and steps=None"),
        (lambda: fit(steps=3), "one of the two"),
        (lambda: fit(steps_per_call=0), "steps_per_call got 0"),
        (lambda: fit(validate_every=1.5), "validate_every got 1.5"),
        (lambda: jdl.fit(jnp.tanh, LOSS, OPTIMIZER, (X, Y), epochs=1), "model got"),
        (lambda: fit(mlp(), classify(mlp()), metrics=[jdl.metrics.accuracy]), "give them to supervised"),
        (lambda: fit(mlp(), jdl.vector_field(lambda p, s, b, k: None), validation=HELD_OUT), "no objective"),
        (lambda: jdl.fit(mlp(), LOSS, 1e-3, (X, Y), epochs=1), "optax"),
        (lambda: jdl.fit(mlp(), LOSS, {"**": OPTIMIZER}, (X, Y), epochs=1), r"a dict of .*multi_transform.*label"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()
