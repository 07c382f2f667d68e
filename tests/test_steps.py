"""A step is the whole update: what it passes to optimizers, what it draws, what it may give up."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest

import jdl
from jdl import nn
from jdl.check import InputError
from tests.networks import assert_close, batch_of, classify, mlp

MODEL, BATCH = mlp(), batch_of()
OBJECTIVE = classify(MODEL)


def first_state(optimizer, model=MODEL, **options):
    return jdl.init_state(model, optimizer, BATCH, **options)


@pytest.mark.slow
def test_a_step_is_gradient_update_and_count():
    optimizer = optax.sgd(0.1)
    state = first_state(optimizer)
    new, metrics = jdl.make_step(OBJECTIVE, optimizer)(state, BATCH)
    grads = jax.grad(lambda p: OBJECTIVE(p, {}, BATCH, None, True)[0])(state.params)
    assert_close(new.params, jax.tree.map(lambda p, g: p - 0.1 * g, state.params, grads))
    assert int(new.step) == 1 and float(metrics["loss"]) == pytest.approx(
        float(OBJECTIVE(*state.variables, BATCH, None, True)[0])
    )


def test_an_objective_and_its_gradient_make_the_same_step():
    optimizer = optax.adam(1e-2)
    a, _ = jdl.make_step(OBJECTIVE, optimizer)(first_state(optimizer), BATCH)
    b, _ = jdl.make_step(jdl.gradient(OBJECTIVE), optimizer)(first_state(optimizer), BATCH)
    assert_close(a.params, b.params, 0)


def test_the_key_is_folded_from_the_run_and_the_step_number():
    optimizer = optax.sgd(0.0)
    step = jax.jit(jdl.make_step(classify(mlp(rate=0.5)), optimizer))
    state = first_state(optimizer, mlp(rate=0.5))
    losses = []
    for _ in range(3):
        state, metrics = step(state, BATCH)
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == 3, "each step draws another mask"
    _, metrics = step(jdl.init_state(mlp(rate=0.5), optimizer, BATCH), BATCH)
    assert float(metrics["loss"]) == losses[0], "and the same step the same one"


@pytest.mark.slow
def test_lbfgs_gets_the_value_function_and_converges():
    optimizer = optax.lbfgs()
    model = nn.Dense(1)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(50, 4)), jnp.float32)
    batch = {"inputs": x, "targets": x @ jnp.array([[1.0], [-2.0], [3.0], [0.5]]) + 1}
    step = jax.jit(jdl.make_step(jdl.supervised(model, jdl.losses.mse), optimizer))
    state = jdl.init_state(model, optimizer, batch)
    for _ in range(15):
        state, metrics = step(state, batch)
    assert float(metrics["loss"]) < 1e-8


def test_reduce_on_plateau_gets_the_loss():
    optimizer = optax.chain(optax.sgd(0.0), optax.contrib.reduce_on_plateau(factor=0.5, patience=1))
    state = first_state(optimizer)
    step = jax.jit(jdl.make_step(OBJECTIVE, optimizer))
    for _ in range(5):
        state, _ = step(state, BATCH)  # the loss stands still
    assert float(optax.tree.get(state.opt_state, "scale")) < 1


def test_average_params_is_what_is_evaluated():
    decay, optimizer = 0.9, optax.chain(optax.sgd(0.5), jdl.average_params(0.9))
    step, state = jax.jit(jdl.make_step(OBJECTIVE, optimizer)), first_state(optimizer)
    expected = state.params
    for _ in range(3):
        state, _ = step(state, BATCH)
        expected = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, expected, state.params)
    assert_close(jdl.eval_params(state), expected, 1e-5)


def test_schedule_free_evaluates_at_its_own_average():
    optimizer = optax.contrib.schedule_free(optax.sgd(0.5), learning_rate=0.5, b1=0.9)
    step, state = jax.jit(jdl.make_step(OBJECTIVE, optimizer)), first_state(optimizer)
    for _ in range(3):
        state, _ = step(state, BATCH)
    assert_close(jdl.eval_params(state), optax.contrib.schedule_free_eval_params(state.opt_state, state.params))
    plain = first_state(optax.sgd(0.1))
    assert jdl.eval_params(plain) is plain.params


def test_donation_deletes_nothing_that_the_user_holds():
    # schedule-free and the average both keep the parameters in their state
    optimizer = optax.chain(optax.contrib.schedule_free(optax.sgd(0.1), 0.1), jdl.average_params())
    variables = MODEL.init(jax.random.key(3), BATCH["inputs"])
    key = jax.random.key(7)
    state = first_state(optimizer, variables=variables)
    other = jdl.start_state(variables, optimizer, key)
    step = jax.jit(jdl.make_step(OBJECTIVE, optimizer), donate_argnums=0)
    for start in (state, other):
        jax.block_until_ready(step(start, BATCH))
        assert all(leaf.is_deleted() for leaf in jax.tree.leaves(start.params)), "the state itself was given up"
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((variables, BATCH, key)))


def test_donation_of_a_fit_leaves_the_variables_alone():
    variables = MODEL.init(jax.random.key(3), BATCH["inputs"])
    jdl.fit(MODEL, jdl.losses.cross_entropy, optax.adam(1e-3), BATCH, epochs=2, batch_size=4, variables=variables)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((variables, BATCH)))


@pytest.mark.slow
def test_scan_steps_equals_single_steps():
    optimizer = optax.adam(1e-2)
    model = mlp(rate=0.3)
    objective = classify(model, metrics=[jdl.metrics.accuracy])
    single = jax.jit(jdl.make_step(objective, optimizer))
    batches = [batch_of(seed=seed) for seed in range(5)]
    state = first_state(optimizer, model)
    counted = []
    for batch in batches:
        state, metrics = single(state, batch)
        counted.append(metrics)
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches)
    scanned, metrics = jax.jit(jdl.scan_steps(jdl.make_step(objective, optimizer)))(
        first_state(optimizer, model), stacked
    )
    assert_close(scanned.params, state.params, 1e-6)
    assert int(scanned.step) == 5
    for name in ("loss", "accuracy"):
        assert float(metrics[name]) == pytest.approx(float(sum(m[name] for m in counted)), rel=1e-6)


@pytest.mark.slow
def test_many_runs_at_once_by_vmap():
    optimizer = optax.adam(1e-2)
    step = jdl.make_step(OBJECTIVE, optimizer)
    seeds = [first_state(optimizer, seed=seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
    together, _ = jax.jit(jax.vmap(step, in_axes=(0, None)))(stacked, BATCH)
    for index, seed in enumerate(seeds):
        alone, _ = jax.jit(step)(seed, BATCH)
        assert_close(jax.tree.map(lambda leaf, i=index: leaf[i], together.params), alone.params, 1e-5)


def test_a_learning_rate_is_state_and_never_recompiles():
    optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=1e-2)
    step = jax.jit(jdl.make_step(OBJECTIVE, optimizer))
    state = first_state(optimizer)
    for rate in (1e-2, 1e-3, 0.0):
        state.opt_state.hyperparams["learning_rate"] = jnp.asarray(rate)
        before, (state, _) = state, step(state, BATCH)
    assert step._cache_size() == 1
    assert_close(state.params, before.params, 0)


def norm_model():
    return nn.Chain(nn.Dense(7, bias=False), nn.BatchNorm(), jnp.tanh, nn.Dense(3))


def spoil(batch, row=3):
    return batch | {"inputs": batch["inputs"].at[row].set(jnp.nan)}


def test_a_skipped_step_counts_for_nothing():
    model, optimizer = norm_model(), jdl.skip_nonfinite(optax.adam(1e-2))
    objective = classify(model, metrics=[jdl.metrics.accuracy, jdl.metrics.confusion_matrix])
    step, state = jax.jit(jdl.make_step(objective, optimizer)), first_state(optimizer, model)
    state, good = step(state, BATCH)
    after, report = step(state, spoil(BATCH))
    assert_close((after.params, after.state), (state.params, state.state), 0)
    total = {name: report[name] + good[name] for name in good}
    for name in good:
        np.testing.assert_array_equal(total[name].compute(), good[name].compute())
    assert float(report["loss"].count) == 0 and int(after.step) == 2


def test_only_state_that_is_not_finite_keeps_its_old_value():
    """What scales the loss of a float16 model has to learn from the step that is skipped."""

    def field(params, state, batch, key):
        loss = jnp.sum(params["w"] * batch["x"])
        state = {
            "scale": state["scale"] / 2,
            "mean": state["mean"] + loss,
            "least": state["least"] - 1,
            "count": state["count"] + 1,
        }
        return {"w": batch["x"]}, jdl.Aux(loss, 1.0, state, {})

    optimizer = jdl.skip_nonfinite(optax.sgd(0.1))
    first = {"scale": jnp.float32(8), "mean": jnp.zeros(2), "least": jnp.array([-jnp.inf, 5.0]), "count": jnp.int32(0)}
    start = jdl.start_state(jdl.Variables({"w": jnp.ones(2)}, first), optimizer, jax.random.key(0))
    new, _ = jax.jit(jdl.make_step(jdl.vector_field(field), optimizer))(start, {"x": jnp.array([1.0, jnp.inf])})
    expected = {"scale": 4, "mean": np.zeros(2), "least": [-np.inf, 4], "count": 1}
    for name, value in expected.items():
        np.testing.assert_array_equal(new.state[name], value)
    assert_close(new.params, start.params, 0)


def test_without_skipping_no_operation_is_added():
    def operations(optimizer):
        state = first_state(optimizer, norm_model())
        return (
            jax.jit(jdl.make_step(classify(norm_model()), optimizer)).lower(state, BATCH).as_text().count("is_finite")
        )

    assert operations(optax.adam(1e-2)) == 0 < operations(jdl.skip_nonfinite(optax.adam(1e-2)))


@pytest.mark.filterwarnings("ignore::jdl.PitfallWarning")  # the input is what it warns of
def test_fit_reports_the_steps_that_were_not_skipped():
    inputs = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    inputs[3] = 1e25  # finite, but its squared error is not
    data = {"inputs": inputs, "targets": np.zeros((40, 1), np.float32)}
    optimizer = jdl.skip_nonfinite(optax.sgd(0.0))
    run = jdl.fit(nn.Dense(1), jdl.losses.mse, optimizer, data, epochs=2, batch_size=8, progress=False)
    assert [0 < row["loss"] < 100 for row in run.history] == [True, True]
    assert int(jdl.skipped(run.state).total) == 2, "the batch with the bad example, once an epoch"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jdl.make_step(OBJECTIVE, 1e-3), "0.001, wanted an optax optimizer"),
        (lambda: jdl.make_step(None, optax.sgd(1.0)), "None, wanted a gradient or an objective"),
        (lambda: jdl.start_state({}, optax.sgd(1.0), jax.random.key(0)), "wanted Variables"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()
