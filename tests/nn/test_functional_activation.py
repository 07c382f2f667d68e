"""Activations: ranges, closed-form derivatives, extreme inputs, and that models holding them hash and pickle."""

from __future__ import annotations

import functools
import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.nn import functional as F
from jdl.nn.functional import activation
from tests.golden import reading

GOLDEN = reading.cases("activation")


@functools.cache
def derivatives():
    """Of every activation at the golden inputs, as one compiled program."""
    inputs = {name: case.inputs["x"] for name, case in GOLDEN.items()}
    return jax.jit(lambda inputs: {name: F.ACTIVATIONS[name].derivative(x) for name, x in inputs.items()})(inputs)


@functools.cache
def extremes(dtype):
    """Values and gradients of every activation at large inputs, as one compiled program."""
    x = jnp.array([-1e4, -100.0, -1.0, 0.0, 1.0, 100.0, 1e4, 1e4], dtype)

    @jax.jit
    def every(x):
        return {
            name: jax.value_and_grad(lambda x, a=activation: a.function(x).sum())(x)
            for name, activation in F.ACTIVATIONS.items()
        }

    return every(x)


@pytest.mark.parametrize("name", GOLDEN)
def test_closed_form_derivatives_are_the_gradients_of_pytorch(name):
    case, activation = GOLDEN[name], F.ACTIVATIONS[name]
    derivative = np.asarray(derivatives()[name])
    if activation.kind == "vector":
        gradient = np.einsum("bi,bij->bj", case.weights, derivative)
    elif activation.kind == "gated":
        gradient = np.concatenate([case.weights, case.weights], -1) * derivative
    else:
        gradient = case.weights * derivative
    np.testing.assert_allclose(gradient, case.grads["x"], atol=1e-5 * np.abs(case.grads["x"]).max())


@pytest.mark.parametrize(("name", "slope"), [("step", 0.0), ("linear", 1.0)])
def test_derivatives_that_are_constant(name, slope):
    x = jnp.array([-3.0, -0.5, 0.0, 0.5, 3.0])
    activation = F.ACTIVATIONS[name]
    np.testing.assert_array_equal(activation.derivative(x), np.full(5, slope))
    np.testing.assert_array_equal(jax.grad(lambda x: activation.function(x).sum())(x), np.full(5, slope))


def test_the_table_lists_every_activation():
    assert set(F.__all__) & set(vars(activation)) == set(F.ACTIVATIONS)


GRID = np.concatenate([np.linspace(-40, 40, 80_001), [-1e4, 1e4]]).astype(np.float32)
INPUTS = {
    "elementwise": GRID,
    "vector": np.stack([GRID, 0 * GRID], -1),
    "gated": np.concatenate([np.stack([0 * GRID + value, GRID], -1) for value in (-40, 40)]),
}


@pytest.mark.parametrize("name", F.ACTIVATIONS)
def test_ranges_hold_and_are_reached(name):
    activation = F.ACTIVATIONS[name]
    y = activation.function(INPUTS[activation.kind])
    for bound, reached, sign in ((activation.low, y.min(), -1), (activation.high, y.max(), 1)):
        if math.isfinite(bound):
            assert reached == pytest.approx(bound, abs=1e-6)
        else:
            assert sign * reached > 39


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", F.ACTIVATIONS)
def test_values_and_gradients_are_finite_at_extremes(name, dtype):
    y, gradient = extremes(dtype)[name]
    assert y.dtype == gradient.dtype == dtype
    assert jnp.isfinite(y)
    assert jnp.all(jnp.isfinite(gradient))


def test_the_step_and_the_leaky_slope_of_the_handout():
    x = jnp.array([-2.0, 0.0, 2.0])
    np.testing.assert_array_equal(F.step(x), [0, 0, 1])
    np.testing.assert_allclose(F.leaky_relu(x), [-0.02, 0, 2])


def test_log_softmax_keeps_what_softmax_rounds_away():
    x = jnp.array([0.0, 200.0])
    assert F.softmax(x)[0] == 0
    assert F.log_softmax(x)[0] == -200


@pytest.mark.parametrize("name", F.ACTIVATIONS)
def test_functions_pickle_by_name(name):
    function = F.ACTIVATIONS[name].function
    assert pickle.loads(pickle.dumps(function)) is function
    assert function.__name__ == name


def test_the_gate_is_the_second_half():
    x = jnp.array([3.0, 5.0, -1.0, 2.0])
    np.testing.assert_allclose(F.reglu(x), [0, 10])
