"""Schedules, step by step beside PyTorch's schedulers, optax's, and the formulas of the papers."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdl import schedules
from jdl.check import InputError
from tests.golden import reading

STEPS = 60
GOLDEN = reading.load("schedules")
PYTORCH = {
    "constant": schedules.constant(0.1),
    "step decay": schedules.step_decay(0.1, every=7, factor=0.3),
    "exponential decay": schedules.exponential_decay(0.1, 0.9),
    "linear decay": schedules.linear_decay(0.1, 40, final=0.02),
    "polynomial decay": schedules.polynomial_decay(0.1, 40, power=2.5),
    "cosine annealing": schedules.cosine_annealing(0.1, STEPS, final=0.01),
    "cosine annealing, warm-up": schedules.cosine_annealing(0.1, STEPS, final=0.01, warm_up=11),
    "restarts": schedules.cosine_annealing_with_restarts(0.1, period=9, final=0.01),
    "longer restarts": schedules.cosine_annealing_with_restarts(0.1, period=4, growth=3),
    "one cycle": schedules.one_cycle(0.1, STEPS),
    "one cycle, other shares": schedules.one_cycle(0.1, STEPS, rise=0.43, start=0.2, end=0.02),
    "warm-up": schedules.warm_up(schedules.step_decay(0.1, every=10), 13),
}
OPTAX = {
    "constant": (schedules.constant(0.3), optax.constant_schedule(0.3)),
    "step decay": (
        schedules.step_decay(0.3, every=7),
        optax.exponential_decay(0.3, transition_steps=7, decay_rate=0.5, staircase=True),
    ),
    "exponential decay": (
        schedules.exponential_decay(0.3, factor=0.5, every=7),
        optax.exponential_decay(0.3, transition_steps=7, decay_rate=0.5),
    ),
    "linear decay, upwards": (schedules.linear_decay(0.0, 40, final=1.0), optax.linear_schedule(0.0, 1.0, 40)),
    "polynomial decay": (
        schedules.polynomial_decay(0.3, 40, power=2, final=0.1),
        optax.polynomial_schedule(0.3, 0.1, 2, 40),
    ),
    "cosine annealing": (
        schedules.cosine_annealing(0.3, 40, final=0.1, warm_up=9),
        optax.warmup_cosine_decay_schedule(0.03, 0.3, warmup_steps=9, decay_steps=40, end_value=0.1),
    ),
    "restarts": (
        schedules.cosine_annealing_with_restarts(0.3, period=5, growth=2, decay=0.5),
        optax.sgdr_schedule(
            [
                {
                    "init_value": 0.3 * 0.5**cycle,
                    "peak_value": 0.3 * 0.5**cycle,
                    "warmup_steps": 0,
                    "decay_steps": 5 * 2**cycle,
                }
                for cycle in range(4)
            ]
        ),
    ),
    "warm-up": (
        schedules.warm_up(optax.exponential_decay(0.3, 10, 0.5), 4),
        optax.join_schedules([optax.linear_schedule(0.06, 0.3, 4), optax.exponential_decay(0.3, 10, 0.5)], [4]),
    ),
}


def table(schedule, steps=STEPS) -> np.ndarray:
    return np.asarray(jax.jit(jax.vmap(schedule))(jnp.arange(steps)))


@pytest.mark.parametrize("name", PYTORCH)
def test_every_step_equals_pytorch(name):
    np.testing.assert_allclose(table(PYTORCH[name]), GOLDEN[name], rtol=3e-6, atol=1e-8)


@pytest.mark.parametrize("name", OPTAX)
def test_every_step_equals_optax(name):
    ours, theirs = OPTAX[name]
    with jax.numpy_dtype_promotion("standard"):
        expected = table(theirs)
    np.testing.assert_allclose(table(ours), expected, rtol=3e-6, atol=1e-8)


def test_inverse_square_root_is_the_rate_of_the_paper():
    width, warm_up = 512, 40
    n = np.arange(1, 200)
    expected = width**-0.5 * np.minimum(n**-0.5, n * warm_up**-1.5)
    schedule = schedules.inverse_square_root(peak=(width * warm_up) ** -0.5, warm_up=warm_up)
    np.testing.assert_allclose(table(schedule, 199), expected, rtol=1e-6)


@pytest.mark.parametrize(("growth", "cycle"), [(1, 3), (1, 2_147_482), (2, 5), (2, 20), (10, 1), (10, 5)])
def test_restarts_fall_on_their_step_however_late(growth, cycle):
    """Exact to the last step that int32 counts, which floats of that size are not."""
    schedule = jax.jit(schedules.cosine_annealing_with_restarts(1.0, 1000, growth, final=0.25, decay=0.75))
    start, length = 1000 * sum(growth**k for k in range(min(cycle, 50))), 1000 * growth**cycle
    start = 1000 * cycle if growth == 1 else start
    before, at, middle = (float(schedule(step)) for step in (start - 1, start, start + length // 2))
    assert before == pytest.approx(0.25, abs=2e-6)
    assert at == pytest.approx(0.75**cycle, rel=1e-6, abs=1e-7)
    assert middle == pytest.approx((at + 0.25) / 2, rel=1e-6)


@pytest.mark.parametrize("schedule", [*PYTORCH.values(), schedules.inverse_square_root(0.1, 7)], ids=repr)
def test_a_schedule_is_a_value(schedule):
    again = eval(repr(schedule), vars(schedules))
    assert again == schedule and hash(again) == hash(schedule)
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    for step in (3, np.int64(3), np.uint32(3), jnp.int32(3), jnp.full((2, 2), 3)):
        value = jax.eval_shape(schedule, step)
        assert value.dtype == jnp.float32 and not value.weak_type and value.shape == np.shape(step)
    far = jax.jit(schedule)(jnp.array([2**31 - 1, 2**24 + 1]))
    assert np.all((far >= 0) & (far <= 0.100001))


def test_numbers_of_numpy_become_plain_ones():
    schedule = schedules.cosine_annealing(np.float64(0.5), np.int32(10), warm_up=np.int64(2))
    assert repr(schedule) == "cosine_annealing(initial=0.5, steps=10, final=0.0, warm_up=2)"
    assert schedule == schedules.cosine_annealing(0.5, 10, warm_up=2)


def test_a_warm_up_leads_to_a_number_or_any_function():
    np.testing.assert_allclose(table(schedules.warm_up(2, 3), 5), [0.5, 1.0, 1.5, 2.0, 2.0])
    np.testing.assert_allclose(table(schedules.warm_up(lambda step: 2, 3), 5), [0.5, 1.0, 1.5, 2.0, 2.0])


@pytest.mark.parametrize("make", [optax.sgd, optax.inject_hyperparams(optax.sgd)])
def test_an_optimizer_trains_at_the_rates_of_its_schedule(make):
    schedule = schedules.cosine_annealing(0.5, 5, final=0.1, warm_up=2)
    optimizer, grads = make(learning_rate=schedule), {"w": jnp.array([1.0, -2.0])}
    update, state = jax.jit(optimizer.update), optimizer.init(grads)
    for rate in table(schedule, 7):
        updates, state = update(grads, state, grads)
        np.testing.assert_allclose(updates["w"], -rate * np.asarray(grads["w"]), rtol=1e-6)
    assert update._cache_size() == 1


def test_a_vmap_runs_over_values():
    def at(initial, factor, step):
        return schedules.exponential_decay(initial, factor)(step)

    values = jax.vmap(at, in_axes=(0, 0, None))(jnp.array([1.0, 2.0]), jnp.array([0.5, 0.25]), 2)
    np.testing.assert_allclose(values, [0.25, 0.125])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.constant("0.1"), "value got '0.1', wanted a finite number"),
        (lambda: schedules.constant(True), "value got True, wanted a finite number"),
        (lambda: schedules.constant(float("nan")), "value got nan, wanted a finite number"),
        (lambda: schedules.constant(np.float32("inf")), "wanted a finite number"),
        (lambda: schedules.constant(jnp.zeros(2)), r"value got float32\[2\], wanted a finite number"),
        (lambda: schedules.step_decay(0.1, every=0), "every got 0, wanted a whole number of steps, at least 1"),
        (lambda: schedules.step_decay(0.1, every=10.5), "every got 10.5, .*; use 10"),
        (lambda: schedules.step_decay(0.1, every=10, factor=0.0), "factor got 0.0, wanted a number above 0"),
        (lambda: schedules.exponential_decay(0.1, -0.5), "factor got -0.5, wanted a number above 0"),
        (lambda: schedules.cosine_annealing(0.1, steps=True), "steps got True"),
        (lambda: schedules.cosine_annealing(0.1, 2**31), "steps got 2147483648"),
        (lambda: schedules.cosine_annealing(0.1, 10, warm_up=10), "warm_up got 10, wanted fewer than the 10 steps"),
        (lambda: schedules.cosine_annealing(0.1, 10, warm_up=-1), "warm_up got -1, .*at least 0"),
        (lambda: schedules.cosine_annealing_with_restarts(0.1, 10, growth=1.5), "growth got 1.5, wanted"),
        (lambda: schedules.warm_up([0.1], 3), r"schedule got \(0.1\), wanted"),
        (lambda: schedules.warm_up(0.1, None), "steps got None, wanted a whole number"),
        (lambda: schedules.one_cycle(0.1, 100, rise=1.0), "rise got 1.0, wanted a number between 0 and 1"),
        (lambda: schedules.one_cycle(0.1, 3), "rise got 0.3, wanted a share .* more than one of 3 steps"),
        (lambda: schedules.inverse_square_root(0.1, 0), "warm_up got 0, wanted at least 1 step"),
        (lambda: schedules.linear_decay(0.1, "10"), "steps got '10'"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()
