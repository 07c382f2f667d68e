"""What wraps an optimizer is the optimizer, but for one thing; and what it keeps is found wherever it stands."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib
import pytest
from jax.sharding import PartitionSpec as P

import jdl
from jdl import schedules
from jdl.check import InputError
from tests.networks import assert_close, batch_of, classify, mesh_of_two, mlp

MODEL, BATCH = mlp(), batch_of()
OBJECTIVE = classify(MODEL)
gradient_at = jax.jit(lambda params, batch: jax.grad(lambda p: OBJECTIVE(p, {}, batch, None, True)[0])(params))
PARAMS = {"a": jnp.array([1.0, -2.0, 3.0]), "b": {"c": jnp.array([[0.5, 4.0]])}}
GRADS = {"a": jnp.array([0.1, 0.2, -0.3]), "b": {"c": jnp.array([[2.0, -1.0]])}}
NAN, INF = float("nan"), float("inf")

CHAIN = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2))
OPTIMIZERS = {
    "chain": CHAIN,
    "injected": optax.inject_hyperparams(optax.adam)(learning_rate=schedules.cosine_annealing(1e-2, 5)),
    "plateau": optax.chain(optax.adam(1e-2), optax.contrib.reduce_on_plateau(patience=1)),  # holds an infinity
    "noise": optax.chain(optax.add_noise(0.1, 0.5, jax.random.key(0)), optax.sgd(0.1)),
    "average": optax.chain(optax.adam(1e-2), jdl.average_params(0.9)),
    "lbfgs": optax.lbfgs(memory_size=3),  # takes seconds to compile
}
# Around an optimizer that is wrapped: what a selector must look through.
AROUND = {
    "nothing": lambda inner: inner,
    "chain": lambda inner: optax.chain(optax.clip(10.0), inner, optax.scale(1.0)),
    "injected": lambda inner: optax.inject_hyperparams(lambda rate: optax.chain(inner, optax.scale(rate)))(rate=1.0),
    "masked": lambda inner: optax.masked(inner, jdl.select("b/*")),
    "groups": lambda inner: optax.multi_transform(
        {"one": inner, "other": optax.sgd(0.1)}, jdl.label({"a": "one", "**": "other"})
    ),
    "if finite": lambda inner: optax.apply_if_finite(inner, 3),
}


def first_state(optimizer, seed=0):
    return jdl.init_state(MODEL, optimizer, BATCH, seed)


def bad(batch, value=NAN):
    return batch | {"inputs": batch["inputs"].at[3, 1].set(value)}


def same_bits(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def updated(optimizer, grads=GRADS, **extra):
    def update(grads, **extra):
        with jax.numpy_dtype_promotion("standard"):
            return optax.with_extra_args_support(optimizer).update(grads, optimizer.init(PARAMS), PARAMS, **extra)

    return jax.jit(update)(grads, **extra)


# Skipping


SLOW = [pytest.param(name, marks=[pytest.mark.slow] * (name in ("lbfgs", "noise"))) for name in OPTIMIZERS]


@pytest.mark.parametrize("name", SLOW)
def test_a_skipped_batch_might_as_well_not_have_been_there(name):
    optimizer = jdl.skip_nonfinite(OPTIMIZERS[name])
    step = jax.jit(jdl.make_step(OBJECTIVE, optimizer))
    with_bad = without = first_state(optimizer)
    for seed, batch in enumerate([batch_of(), bad(batch_of(seed=1)), bad(batch_of(), INF), batch_of(seed=2)]):
        with_bad, _ = step(with_bad, batch)
        if seed in (0, 3):
            without, _ = step(without, batch)
    same_bits(with_bad.params, without.params)
    same_bits(with_bad.opt_state.inner, without.opt_state.inner)
    found = jdl.skipped(with_bad)
    assert (int(found.consecutive), int(found.total), int(found.limit)) == (0, 2, 10)
    assert int(with_bad.step) == 4, "the steps are counted, so that each draws its own key"


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_finite_steps_are_those_of_the_optimizer(name):
    wrapped, plain = jdl.record_norms(jdl.skip_nonfinite(OPTIMIZERS[name])), OPTIMIZERS[name]
    states = first_state(wrapped), first_state(plain)
    steps = [jax.jit(jdl.make_step(OBJECTIVE, optimizer)) for optimizer in (wrapped, plain)]
    for seed in range(4):
        states = [step(state, batch_of(seed=seed))[0] for step, state in zip(steps, states, strict=True)]
    assert_close(states[0].params, states[1].params, 1e-5)
    assert int(jdl.skipped(states[0]).total) == 0


def with_leaf(value):
    return {"a": GRADS["a"].at[1].set(value), "b": GRADS["b"]}


KEEPS = optax.GradientTransformation(
    lambda params: {"best": jnp.full(2, INF), "key": jax.random.key(0)},
    lambda updates, state, params=None: (
        updates,
        {"best": state["best"] + 1, "key": jax.random.fold_in(state["key"], 1)},
    ),
)


@pytest.mark.parametrize(
    ("inner", "grads", "value", "is_bad"),
    [
        (optax.sgd(0.1), GRADS, None, False),
        (optax.sgd(0.1), GRADS, 1.0, False),
        (optax.sgd(0.1), GRADS, NAN, True),
        (optax.sgd(0.1), GRADS, INF, True),
        (optax.sgd(0.1), with_leaf(NAN), 1.0, True),
        (optax.sgd(0.1), with_leaf(-INF), None, True),
        (optax.clip(1.0), with_leaf(INF), None, True),  # the update would be finite, and wrong
        (optax.scale(1e30), with_leaf(1e20), None, True),  # the update alone
        (optax.adam(0.1), with_leaf(1e18), None, False),
        (optax.adam(0.1), with_leaf(1e25), None, True),  # its square stays in the state as infinity, and nothing moves
        (optax.sgd(0.1), with_leaf(1e25), None, False),
        (optax.masked(optax.adam(0.1), {"a": True, "b": False}), with_leaf(1e25), None, True),
        (KEEPS, GRADS, None, False),
        (KEEPS, with_leaf(NAN), None, True),
    ],
)
def test_what_is_skipped(inner, grads, value, is_bad):
    optimizer = jdl.skip_nonfinite(inner, limit=3)
    extra = {} if value is None else {"value": jnp.float32(value)}
    updates, state = updated(optimizer, grads, **extra)
    assert (int(state.consecutive), int(state.total), int(state.limit)) == (is_bad, is_bad, 3)
    if is_bad:
        same_bits(updates, jax.tree.map(jnp.zeros_like, PARAMS))
        same_bits(state.inner, inner.init(PARAMS))
    else:
        same_bits((updates, state.inner), updated(inner, grads, **extra))


def test_it_never_gives_in():
    optimizer = jdl.skip_nonfinite(CHAIN, limit=2)
    step, state = jax.jit(jdl.make_step(OBJECTIVE, optimizer), donate_argnums=0), first_state(optimizer)
    first, rows = np.asarray(state.params["0"]["kernel"]).copy(), []
    for index in range(8):
        state, _ = step(state, BATCH if index == 4 else bad(BATCH))
        rows.append((int(jdl.skipped(state).consecutive), int(jdl.skipped(state).total)))
    assert rows == [(1, 1), (2, 2), (3, 3), (4, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))
    assert not np.array_equal(state.params["0"]["kernel"], first)
    assert step._cache_size() == 1


def test_single_array_parameters_are_looked_at_too():
    optimizer = jdl.skip_nonfinite(optax.chain(optax.adam(0.1), KEEPS))
    params = jnp.ones(3)
    state = optimizer.init(params)
    for grads, total in ((jnp.ones(3), 0), (jnp.array([1.0, NAN, 1.0]), 1), (jnp.array([1.0, 1e25, 1.0]), 2)):
        with jax.numpy_dtype_promotion("standard"):
            _, state = optimizer.update(grads, state, params)
        assert int(state.total) == total


@pytest.mark.parametrize("around", AROUND)
def test_skips_and_norms_are_found_wherever_they_stand(around):
    optimizer = AROUND[around](jdl.record_norms(jdl.skip_nonfinite(optax.adam(1e-2))))
    _, opt_state = updated(optimizer)
    state = jdl.TrainState(PARAMS, {}, opt_state, jnp.int32(1), jax.random.key(0))
    for holder in (state, opt_state):
        assert int(jdl.skipped(holder).total) == 0
        assert jdl.norms(holder).keys() == {"gradient", "update", "parameters"}
        assert all(float(value) > 0 for value in jdl.norms(holder).values())


def test_without_them_nothing_is_found():
    state = first_state(CHAIN)
    assert jdl.skipped(state) is None and jdl.norms(state) is None and jdl.hyperparams(state) == {}


@pytest.mark.slow
def test_many_runs_skip_each_for_itself():
    optimizer = jdl.record_norms(jdl.skip_nonfinite(optax.adam(1e-2)))
    step = jdl.make_step(OBJECTIVE, optimizer)
    starts = [first_state(optimizer, seed) for seed in range(3)]
    batches = [BATCH, bad(BATCH), batch_of(seed=2)]
    stack = lambda *leaves: jnp.stack(leaves)  # noqa: E731
    together, report = jax.jit(jax.vmap(step))(jax.tree.map(stack, *starts), jax.tree.map(stack, *batches))
    assert jdl.skipped(together).total.tolist() == [0, 1, 0]
    assert jdl.norms(together)["update"].shape == (3,) and float(jdl.norms(together)["update"][1]) == 0
    assert report["loss"].count.tolist() == [12, 0, 12]
    for index, (start, batch) in enumerate(zip(starts, batches, strict=True)):
        alone, _ = jax.jit(step)(start, batch)
        assert_close(jax.tree.map(lambda leaf, i=index: leaf[i], together.params), alone.params, 1e-5)


def test_a_scan_over_accumulated_gradients_skips_as_single_steps_do():
    optimizer, batches = jdl.skip_nonfinite(optax.adam(1e-2)), [batch_of(), bad(batch_of(seed=1)), batch_of(seed=2)]
    step = jdl.scan_steps(jdl.make_step(jdl.accumulate(OBJECTIVE, 2), optimizer))
    state, report = jax.jit(step)(first_state(optimizer), jax.tree.map(lambda *leaves: jnp.stack(leaves), *batches))
    plain, expected = jax.jit(jdl.make_step(OBJECTIVE, optax.adam(1e-2))), first_state(optax.adam(1e-2))
    for batch in (batches[0], batches[2]):
        expected, _ = plain(expected, batch)
    assert_close(state.params, expected.params, 1e-5)
    assert int(jdl.skipped(state).total) == 1
    assert float(report["loss"].count) == 24 and np.isfinite(float(report["loss"]))


@pytest.mark.slow
def test_devices_skip_together():
    mesh, optimizer = mesh_of_two(), jdl.record_norms(jdl.skip_nonfinite(optax.adam(1e-2)))
    gradient = jdl.mean_over_devices(OBJECTIVE, "devices")
    step = jdl.make_step(gradient, optimizer)
    step = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=(P(), P("devices")), out_specs=(P(), P())))
    alone, expected = jax.jit(jdl.make_step(OBJECTIVE, optimizer)), first_state(optimizer)
    state = first_state(optimizer)
    for batch in (batch_of(), bad(batch_of(seed=1)), batch_of(seed=2)):  # one device has the bad example
        state, _ = step(state, batch)
        expected, _ = alone(expected, batch)
    assert_close(state.params, expected.params, 1e-5)
    assert int(jdl.skipped(state).total) == 1
    assert_close(jdl.norms(state), jdl.norms(expected), 1e-5)


def test_a_group_without_parameters_has_nothing_to_skip():
    optimizer = jdl.skip_nonfinite(optax.sgd(0.1))
    _, state = optimizer.update({}, optimizer.init({}), {})
    assert int(state.total) == 0


# Norms


def test_norms_are_those_of_gradient_update_and_parameters():
    optimizer = jdl.record_norms(CHAIN)
    step, state = jax.jit(jdl.make_step(OBJECTIVE, optimizer)), first_state(optimizer)
    for seed in range(2):
        batch = batch_of(seed=seed)
        grads = gradient_at(state.params, batch)
        new, _ = step(state, batch)
        moved = jax.tree.map(lambda a, b: a - b, new.params, state.params)
        trees = {"gradient": grads, "update": moved, "parameters": state.params}
        for part, tree in trees.items():
            flat = np.concatenate([np.ravel(leaf).astype(np.float64) for leaf in jax.tree.leaves(tree)])
            assert float(jdl.norms(new)[part]) == pytest.approx(
                np.linalg.norm(flat), rel=2e-4 if part == "update" else 1e-5
            )
        state = new


def test_norms_are_measured_every_so_many_steps():
    optimizer = jdl.record_norms(optax.sgd(0.1), every=3)
    step, state = jax.jit(jdl.make_step(OBJECTIVE, optimizer)), first_state(optimizer)
    seen = []
    for seed in range(7):
        state, _ = step(state, batch_of(seed=seed))
        seen.append(float(jdl.norms(state)["gradient"]))
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5] != seen[6]


def test_norms_of_small_dtypes_and_complex_numbers_are_float32():
    grads = {"half": jnp.full(400, 300.0, jnp.float16), "complex": jnp.array([3 + 4j])}
    optimizer = jdl.record_norms(optax.identity())
    _, state = optimizer.update(grads, optimizer.init(grads), grads)
    found = jdl.norms(state)
    assert found["gradient"].dtype == jnp.float32
    assert float(found["gradient"]) == pytest.approx(np.sqrt(400 * 300.0**2 + 25), rel=1e-6)


# Learning rates by group


def test_scaled_updates_are_those_of_other_learning_rates():
    rules = {"b/**": 0.25, "a": 1.0}
    scaled = optax.chain(optax.adam(0.1), jdl.scale_updates(rules))
    groups = optax.multi_transform(
        {"slow": optax.adam(0.025), "fast": optax.adam(0.1)}, jdl.label({"b/**": "slow", "**": "fast"})
    )
    assert_close(updated(scaled)[0], updated(groups)[0], 1e-6)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({"a": 0.5, "**": 2}, {"a": 0.5, "b": {"c": 2.0}}),
        ({"**": 3.0, "**/c": 5.0}, {"a": 3.0, "b": {"c": 3.0}}),  # the first match wins
        ({"**/c": 0.0, "**": 1.0}, {"a": 1.0, "b": {"c": 0.0}}),
        ({"a": np.float32(0.5), "b/*": -1}, {"a": 0.5, "b": {"c": -1.0}}),
        ({"a": schedules.constant(0.5), "**": 1.0}, {"a": 0.5, "b": {"c": 1.0}}),
    ],
)
def test_factors(factors, expected):
    updates, _ = updated(jdl.scale_updates(factors))
    assert_close(updates, jax.tree.map(lambda factor, g: factor * g, expected, GRADS), 1e-7)


def test_a_factor_follows_its_schedule():
    optimizer = jdl.scale_updates({"a": schedules.linear_decay(1.0, 4), "**": 1.0})
    update, state = jax.jit(optimizer.update), optimizer.init(PARAMS)
    for step in range(6):
        updates, state = update(GRADS, state)
        np.testing.assert_allclose(updates["a"], max(1 - step / 4, 0) * GRADS["a"], rtol=1e-6)
        np.testing.assert_array_equal(updates["b"]["c"], GRADS["b"]["c"])
    assert update._cache_size() == 1


def test_a_factor_keeps_the_dtype():
    updates, _ = jdl.scale_updates({"**": schedules.constant(0.5)}).update(
        {"w": jnp.ones(2, jnp.bfloat16)}, jdl.scale_updates({"**": schedules.constant(0.5)}).init({"w": jnp.ones(2)})
    )
    assert updates["w"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jdl.skip_nonfinite(1e-3), r"skip_nonfinite got 0.001, wanted an optax optimizer"),
        (lambda: jdl.skip_nonfinite(optax.sgd(0.1), limit=0), "limit got 0, wanted an integer of at least 1"),
        (lambda: jdl.skip_nonfinite(optax.sgd(0.1), limit=2.0), "limit got 2.0"),
        (lambda: jdl.record_norms(OBJECTIVE), "record_norms got .* wanted an optax optimizer"),
        (lambda: jdl.record_norms(optax.sgd(0.1), every=0), "every got 0"),
        (
            lambda: jdl.record_norms(optax.sgd(0.1)).update(GRADS, jdl.record_norms(optax.sgd(0.1)).init(PARAMS)),
            "record_norms needs the parameters",
        ),
        (lambda: jdl.scale_updates(0.1), "scale_updates got 0.1, wanted a dict"),
        (lambda: jdl.scale_updates({}), "wanted a dict of path patterns"),
        (lambda: jdl.scale_updates({"**": "0.1"}), r"scale_updates got '\*\*': '0.1', wanted a number or a schedule"),
        (lambda: jdl.scale_updates({"**": NAN}), "wanted a number or a schedule"),
        (lambda: jdl.scale_updates({"d/**": 0.1, "**": 1.0}).init(PARAMS), "pattern 'd/\\*\\*' matches none"),
        (lambda: jdl.scale_updates({"a": 0.1}).init(PARAMS), "matches 'b/c'; add '\\*\\*' last"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()
