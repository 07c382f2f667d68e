"""What is read from an optimizer's state and set in it: hyper-parameters by name, and averages of the parameters."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jdl
from jdl import schedules
from jdl.check import InputError
from tests.networks import assert_close, batch_of, classify, mesh_of_two, mlp

MODEL, BATCH = mlp(), batch_of()
OBJECTIVE = classify(MODEL)
gradient_at = jax.jit(lambda params, batch: jax.grad(lambda p: OBJECTIVE(p, {}, batch, None, True)[0])(params))


def first_state(optimizer):
    return jdl.init_state(MODEL, optimizer, BATCH)


def same_bits(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


INJECTED = optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3, weight_decay=1e-2)


def two_groups():
    def rate(value):
        return optax.inject_hyperparams(optax.sgd)(learning_rate=value)

    return optax.multi_transform({"slow": rate(0.1), "fast": rate(0.2)}, jdl.label({"0/**": "slow", "**": "fast"}))


NESTED = optax.inject_hyperparams(
    lambda scale: optax.chain(optax.inject_hyperparams(optax.sgd)(learning_rate=0.1), optax.scale(scale))
)(scale=0.5)


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (INJECTED, {"learning_rate": 1e-3, "weight_decay": 1e-2}),
        (jdl.skip_nonfinite(optax.chain(optax.clip(1.0), INJECTED)), {"learning_rate": 1e-3, "weight_decay": 1e-2}),
        (two_groups(), {"slow/learning_rate": 0.1, "fast/learning_rate": 0.2}),
        (optax.chain(two_groups(), INJECTED), {"0/slow/learning_rate": 0.1, "1/learning_rate": 1e-3}),
        (NESTED, {"scale": 0.5, "learning_rate": 0.1}),
        (
            optax.inject_hyperparams(lambda learning_rate: optax.inject_hyperparams(optax.sgd)(learning_rate=0.5))(0.1),
            {"hyperparams/learning_rate": 0.1, "inner_state/hyperparams/learning_rate": 0.5},
        ),
    ],
)
def test_hyperparams_are_read_and_set_by_name(optimizer, expected):
    state = first_state(optimizer)
    found = jdl.hyperparams(state)
    assert expected.items() <= {name: round(float(value), 6) for name, value in found.items()}.items()
    assert jdl.hyperparams(state.opt_state).keys() == found.keys()
    for name in expected:
        other = jdl.with_hyperparams(state, **{name: 0.25})
        changed = {name for name, value in jdl.hyperparams(other).items() if value is not found[name]}
        assert changed == {name} and float(jdl.hyperparams(other)[name]) == 0.25
        bare = jdl.with_hyperparams(state.opt_state, **{name: 0.25})
        same_bits(bare, other.opt_state)
        assert jax.tree.structure(other) == jax.tree.structure(state)


def test_a_rate_that_is_set_trains_and_compiles_nothing():
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    step, state = jax.jit(jdl.make_step(OBJECTIVE, optimizer), donate_argnums=0), first_state(optimizer)
    for rate in (0.5, 0.1, np.float64(0.2), jnp.float32(0.3), jnp.asarray(0.4), 0):
        state = jdl.with_hyperparams(state, learning_rate=rate)
        grads = gradient_at(state.params, BATCH)
        expected = jax.tree.map(lambda p, g, rate=rate: p - float(rate) * g, state.params, grads)
        state, _ = step(state, BATCH)
        assert_close(state.params, expected, 1e-5)
        if check := getattr(rate, "is_deleted", None):
            assert not check(), "donation took the caller's array"
    assert step._cache_size() == 1


def test_rates_may_be_set_under_vmap_and_jit():
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    state, rates = first_state(optimizer), jnp.array([0.1, 0.2, 0.4])
    many = jax.jit(jax.vmap(lambda rate: jdl.with_hyperparams(state, learning_rate=rate)))(rates)
    outside = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), state)
    same_bits(many.opt_state, jdl.with_hyperparams(outside, learning_rate=rates).opt_state)
    assert jdl.hyperparams(jdl.with_hyperparams(outside, learning_rate=1))["learning_rate"].tolist() == [1, 1, 1]


def test_a_rate_that_is_set_on_a_mesh_stays_there():
    optimizer = optax.inject_hyperparams(optax.sgd)(learning_rate=0.5)
    state = first_state(optimizer)
    assert not jdl.hyperparams(jdl.with_hyperparams(state, learning_rate=0.1))["learning_rate"].committed
    everywhere = jax.device_put(state, NamedSharding(mesh_of_two(), P()))
    other = jdl.with_hyperparams(everywhere, learning_rate=0.1)
    for before, after in zip(jax.tree.leaves(everywhere), jax.tree.leaves(other), strict=True):
        assert after.sharding == before.sharding and after.committed


@pytest.mark.parametrize(
    "make",
    [
        lambda average: optax.masked(average, jdl.select("**/kernel")),
        lambda average: optax.masked(
            average, {"0": {"kernel": True, "bias": False}, "2": {"kernel": True, "bias": False}}
        ),
        lambda average: optax.multi_transform(
            {"kept": average, "not": optax.identity()}, jdl.label({"**/kernel": "kept", "**": "not"})
        ),
    ],
)
def test_parameters_without_an_average_are_evaluated_as_they_are(make):
    optimizer = optax.chain(optax.sgd(0.5), make(jdl.average_params(0.9)))
    step, state = jax.jit(jdl.make_step(OBJECTIVE, optimizer)), first_state(optimizer)
    average = state.params
    for _ in range(3):
        state, _ = step(state, BATCH)
        average = jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, average, state.params)
    for layer in ("0", "2"):
        found = jdl.eval_params(state)[layer]
        np.testing.assert_allclose(found["kernel"], average[layer]["kernel"], rtol=1e-5)
        np.testing.assert_array_equal(found["bias"], state.params[layer]["bias"])


def test_each_group_may_have_an_average_of_its_own():
    groups = {name: optax.chain(optax.sgd(0.5), jdl.average_params(decay)) for name, decay in (("x", 0.9), ("y", 0.5))}
    optimizer = optax.multi_transform(groups, jdl.label({"0/**": "x", "**": "y"}))
    step, first = jax.jit(jdl.make_step(OBJECTIVE, optimizer)), first_state(optimizer)
    state, _ = step(first, BATCH)
    found = jdl.eval_params(state)
    for layer, decay in (("0", 0.9), ("2", 0.5)):
        expected = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, first.params[layer], state.params[layer])
        assert_close(found[layer], expected, 1e-6)


@pytest.mark.parametrize(
    "inner",
    [
        optax.chain(optax.sgd(0.5), jdl.average_params(0.9)),
        pytest.param(optax.contrib.schedule_free(optax.sgd(0.5), learning_rate=0.5), marks=pytest.mark.slow),
    ],
    ids=["average", "schedule-free"],
)
def test_a_whole_branch_may_be_masked_out(inner):
    optimizer = optax.masked(inner, {"0": True, "2": False})
    step, state = jax.jit(jdl.make_step(OBJECTIVE, optimizer)), first_state(optimizer)
    whole = inner.init({"0": state.params["0"]})
    for _ in range(2):
        before = state
        state, _ = step(state, BATCH)
        grads = gradient_at(before.params, BATCH)
        with jax.numpy_dtype_promotion("standard"):
            _, whole = inner.update({"0": grads["0"]}, whole, {"0": before.params["0"]})
    alone = dataclasses.replace(state, params={"0": state.params["0"]}, opt_state=whole)
    assert_close(jdl.eval_params(state)["0"], jdl.eval_params(alone)["0"], 1e-5)
    same_bits(jdl.eval_params(state)["2"], state.params["2"])


def test_the_first_average_counts():
    optimizer = optax.chain(optax.sgd(0.5), jdl.average_params(0.9), jdl.average_params(0.5))
    state, _ = jdl.make_step(OBJECTIVE, optimizer)(first_state(optimizer), BATCH)
    assert_close(jdl.eval_params(state), state.opt_state[1].average, 0)


RATE = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
SCHEDULED = optax.inject_hyperparams(optax.sgd)(learning_rate=schedules.constant(0.1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jdl.average_params().update({}, jdl.average_params().init({})), "average_params needs"),
        (lambda: jdl.average_params(1.0), "decay got 1.0, wanted a number from 0 to less than 1"),
        (
            lambda: jdl.with_hyperparams(first_state(RATE), rate=0.1),
            "no hyper-parameter 'rate' in the optimizer's state, which has learning_rate; .*inject_hyperparams",
        ),
        (lambda: jdl.with_hyperparams(first_state(optax.sgd(0.1)), learning_rate=0.1), "which has none; make"),
        (
            lambda: jdl.with_hyperparams(first_state(two_groups()), learning_rate=0.1),
            "which has fast/learning_rate, slow/learning_rate",
        ),
        (lambda: jdl.with_hyperparams(first_state(SCHEDULED), learning_rate=0.1), "learning_rate follows a schedule"),
        (
            lambda: jdl.with_hyperparams(first_state(RATE), learning_rate=[0.1, 0.2]),
            r"learning_rate got \(0.1, 0.2\), wanted a number like the float32\[\] there",
        ),
        (lambda: jdl.with_hyperparams(first_state(RATE), learning_rate="0.1"), "learning_rate got '0.1'"),
        (lambda: jdl.with_hyperparams(first_state(RATE), learning_rate=None), "learning_rate got None"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()
