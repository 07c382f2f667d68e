"""Worked examples that come with a first course: a neuron, a perceptron, shapes, derivatives, backpropagation by hand.

Everything of jdl's runs in float32; what it is compared with is arithmetic by hand or NumPy in float64.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from experiments import xor
from jdl import nn

# The neuron and the perceptron


@pytest.mark.parametrize(
    ("activation", "expected"),
    [(nn.linear, 1.1), (nn.sigmoid, 1 / (1 + np.exp(-1.1))), (nn.relu, 1.1), (nn.tanh, np.tanh(1.1)), (nn.step, 1.0)],
)
def test_a_neuron_is_a_weighted_sum_a_bias_and_an_activation(activation, expected):
    variables = jdl.Variables({"kernel": jnp.array([0.5, -1.0, 0.8]), "bias": jnp.array(0.2)}, {})
    output = nn.Neuron(activation)(variables, jnp.array([1.0, 2.0, 3.0]))
    assert output.shape == () and float(output) == pytest.approx(expected, rel=1e-6)
    assert activation is not nn.sigmoid or round(float(output), 2) == 0.75


@pytest.mark.parametrize(
    ("weights", "z", "fires"),
    [((1.0, 1.0, 1.0), -18000.0, 0.0), ((3.0, 1.0, 2.0), 9000.0, 1.0), ((2.0, 2.0, 0.0), 0.0, 0.0)],
)
def test_a_perceptron_fires_above_its_threshold_and_not_at_it(weights, z, fires):
    x, kernel = jnp.array([10000.0, 15000.0, 7000.0]), jnp.array(weights)
    with_bias = jdl.Variables({"kernel": kernel, "bias": jnp.array(-50000.0)}, {})
    assert float(nn.Neuron(nn.linear)(with_bias, x)) == z
    assert float(nn.Perceptron()(with_bias, x)) == fires
    with_threshold = jdl.Variables({"kernel": kernel, "threshold": jnp.array(50000.0)}, {})
    assert float(nn.Perceptron(form="threshold")(with_threshold, x)) == fires


# Layers


def test_a_layer_is_a_matrix_product_of_examples_and_weights():
    x = jnp.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    variables = jdl.Variables({"kernel": jnp.array([[0.1], [0.2]])}, {})
    output = nn.Dense(1, bias=False)(variables, x)
    assert output.shape == (3, 1)
    np.testing.assert_allclose(output, [[0.5], [1.1], [1.7]], rtol=1e-6)


def test_only_the_first_layer_is_told_the_width_of_the_input():
    people = jnp.array([[65.0, 1.75, 22.0], [70.0, 1.80, 24.0], [60.0, 1.65, 20.0]])
    params, _ = nn.Chain(nn.Dense(8), nn.relu, nn.Dense(5), nn.relu, nn.Dense(1)).init(jax.random.key(0), people)
    shapes = {path: leaf.shape for path, leaf in zip(jdl.paths(params), jax.tree.leaves(params), strict=True)}
    assert shapes == {
        "0/kernel": (3, 8), "0/bias": (8,), "2/kernel": (8, 5), "2/bias": (5,), "4/kernel": (5, 1), "4/bias": (1,),
    }  # fmt: skip
    assert not any(
        np.any(leaf) for path, leaf in zip(jdl.paths(params), jax.tree.leaves(params), strict=True) if "bias" in path
    )


# Derivatives: function, derivative, and the points where both are looked at

EVERYWHERE = np.linspace(-2.05, 2.05, 18)
POSITIVE = np.linspace(0.2, 3.1, 15)
TABLE = {
    "5": (lambda x: 5 + 0 * x, lambda x: 0 * x, EVERYWHERE),
    "x": (lambda x: x, lambda x: 1 + 0 * x, EVERYWHERE),
    "x⁵": (lambda x: x**5, lambda x: 5 * x**4, EVERYWHERE),
    "1/x²": (lambda x: x**-2, lambda x: -2 * x**-3.0, POSITIVE),
    "√x": (lambda x: x**0.5, lambda x: 0.5 * x**-0.5, POSITIVE),
    "3x⁴": (lambda x: 3 * x**4, lambda x: 3 * 4 * x**3, EVERYWHERE),
    "x² + sin x": (lambda x: x**2 + jnp.sin(x), lambda x: 2 * x + np.cos(x), EVERYWHERE),
    "x eˣ": (lambda x: x * jnp.exp(x), lambda x: np.exp(x) + x * np.exp(x), EVERYWHERE),
    "sin x / x": (lambda x: jnp.sin(x) / x, lambda x: (np.cos(x) * x - np.sin(x)) / x**2, POSITIVE),
    "sin x²": (lambda x: jnp.sin(x**2), lambda x: np.cos(x**2) * 2 * x, EVERYWHERE),
    "eˣ": (jnp.exp, np.exp, EVERYWHERE),
    "3ˣ": (lambda x: 3.0**x, lambda x: 3**x * np.log(3), EVERYWHERE),
    "ln x": (jnp.log, lambda x: 1 / x, POSITIVE),
    "log₁₀ x": (jnp.log10, lambda x: 1 / (x * np.log(10)), POSITIVE),
    "log₂ x": (jnp.log2, lambda x: 1 / (x * np.log(2)), POSITIVE),
    "sin": (jnp.sin, np.cos, EVERYWHERE),
    "cos": (jnp.cos, lambda x: -np.sin(x), EVERYWHERE),
    "tan": (jnp.tan, lambda x: 1 / np.cos(x) ** 2, EVERYWHERE),
    "cot": (lambda x: 1 / jnp.tan(x), lambda x: -1 / np.sin(x) ** 2, EVERYWHERE),
    "sec": (lambda x: 1 / jnp.cos(x), lambda x: np.tan(x) / np.cos(x), EVERYWHERE),
    "csc": (lambda x: 1 / jnp.sin(x), lambda x: -1 / (np.sin(x) * np.tan(x)), EVERYWHERE),
    "sinh": (jnp.sinh, np.cosh, EVERYWHERE),
    "cosh": (jnp.cosh, np.sinh, EVERYWHERE),
    "tanh": (jnp.tanh, lambda x: 1 / np.cosh(x) ** 2, EVERYWHERE),
    "coth": (lambda x: 1 / jnp.tanh(x), lambda x: -1 / np.sinh(x) ** 2, EVERYWHERE),
    "sech": (lambda x: 1 / jnp.cosh(x), lambda x: -np.tanh(x) / np.cosh(x), EVERYWHERE),
    "csch": (lambda x: 1 / jnp.sinh(x), lambda x: -1 / (np.sinh(x) * np.tanh(x)), EVERYWHERE),
    "nn.sigmoid": (nn.sigmoid, lambda x: np.exp(-x) / (1 + np.exp(-x)) ** 2, 5 * EVERYWHERE),
    "nn.tanh": (nn.tanh, lambda x: 1 - np.tanh(x) ** 2, EVERYWHERE),
    "2 σ(2x) - 1": (lambda x: 2 * nn.sigmoid(2 * x) - 1, lambda x: 1 - np.tanh(x) ** 2, EVERYWHERE),
    "nn.relu": (nn.relu, lambda x: np.where(x > 0, 1.0, 0.0), EVERYWHERE),
    "nn.leaky_relu": (nn.leaky_relu, lambda x: np.where(x > 0, 1.0, 0.01), EVERYWHERE),
}


@pytest.fixture(scope="module")
def slopes() -> dict[str, jax.Array]:
    """jax.grad of every function at its points, by one program."""
    points = {name: jnp.asarray(where, jnp.float32) for name, (_, _, where) in TABLE.items()}
    return jax.jit(lambda points: {name: jax.vmap(jax.grad(TABLE[name][0]))(x) for name, x in points.items()})(points)


@pytest.mark.parametrize("name", TABLE)
def test_grad_is_the_derivative_of_the_table(name, slopes):
    _, derivative, where = TABLE[name]
    expected = derivative(where.astype(np.float32).astype(np.float64))
    assert np.max(np.abs(slopes[name] - expected)) <= 1e-5 * max(np.max(np.abs(expected)), 1e-8)


# Backpropagation: the XOR network's derivatives as they are written out by hand in `experiments.xor`


@pytest.mark.parametrize("seed", [1, 12, 17])  # of these the last does not learn XOR
def test_a_hundred_updates_equal_backpropagation_by_hand(seed):
    params = xor.first_params(seed)
    assert xor.difference(params, updates=100) <= 1e-6


@pytest.mark.slow
def test_each_gradient_on_the_way_equals_backpropagation_by_hand_in_double_precision():
    path = [xor.first_params(1), *xor.backpropagation(xor.first_params(1), 100)]
    with jax.enable_x64(True):
        batch = {name: jnp.asarray(array, jnp.float64) for name, array in xor.BATCH.items()}
        field = jax.jit(jdl.gradient(xor.OBJECTIVE))
        for before, after in itertools.pairwise(path):
            grads, _ = field(jax.tree.map(jnp.asarray, before), {}, batch, None)
            by_hand = jax.tree.map(lambda a, b: a - b, before, after)  # a step at a learning rate of 1
            assert all(leaf.dtype == jnp.float64 for leaf in jax.tree.leaves(grads))
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-14), grads, by_hand)
