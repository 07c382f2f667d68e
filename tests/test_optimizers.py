"""Ten steps of each optimizer: the update rules of the handouts in NumPy, PyTorch's, and rates that are state.

The handouts write out gradient descent, stochastic gradient descent, AdaGrad and RMSProp, both with ε inside the root,
√(G + ε). They name momentum, Nesterov's method, Adam and AdamW: those rules are here as their papers have them.
Epsilons are large, so that their place in a formula shows:

================  ======================  ==========================================================================
rule              ε                       in optax
================  ======================  ==========================================================================
AdaGrad           inside the root         ``adagrad`` always; ``initial_accumulator_value=0`` (its default is 0.1)
AdaGrad, PyTorch  outside                 cannot be had: ``eps=0`` in both, and the same initial accumulator
RMSProp           inside                  ``rmsprop(eps_in_sqrt=True)``, the default
RMSProp, PyTorch  outside                 ``rmsprop(eps_in_sqrt=False)``
Adam, AdamW       outside, as PyTorch     ``adam(eps=)``; ``eps_root`` would be inside
================  ======================  ==========================================================================
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn
from tests.golden import reading

STEPS = 10
GOLDEN = reading.load("optimizers")
X, Y = GOLDEN["inputs"], GOLDEN["targets"]
MODEL = nn.Chain(layer=nn.Dense(1), squash=nn.sigmoid)
VARIABLES = jdl.Variables({"layer": {"kernel": jnp.asarray(GOLDEN["kernel"]), "bias": jnp.asarray(GOLDEN["bias"])}}, {})
OBJECTIVE = jdl.supervised(MODEL, jdl.losses.mse)

Vector = np.ndarray
Rule = Iterator[Vector]


# The rules, in float64: each is given the first parameters θ [D + 1] and the gradient ∇J(θ, k) of step k.


def gradient(theta: Vector, rows: np.ndarray) -> Vector:
    """∇J of J = mean (y - σ(x·w + b))² over some rows of the data, by the chain rule; θ = (w, b)."""
    x, y = np.c_[X, np.ones(len(X))][rows].astype(np.float64), Y[rows, 0].astype(np.float64)
    s = 1 / (1 + np.exp(-x @ theta))
    return x.T @ (2 * (s - y) * s * (1 - s)) / len(x)


def gradient_descent(theta: Vector, slope: Callable[[Vector, int], Vector]) -> Rule:
    for k in range(STEPS):
        theta = theta - 0.5 * slope(theta, k)
        yield theta


def momentum(theta: Vector, slope: Callable[[Vector, int], Vector]) -> Rule:
    """v = β v + ∇J, θ = θ - α v (Polyak 1964)."""
    v = np.zeros_like(theta)
    for k in range(STEPS):
        v = 0.9 * v + slope(theta, k)
        theta = theta - 0.5 * v
        yield theta


def nesterov(theta: Vector, slope: Callable[[Vector, int], Vector]) -> Rule:
    """v = β v - α ∇J(θ + β v), θ = θ + v (Sutskever et al. 2013). The points looked at, θ + β v, are what trains."""
    v = np.zeros_like(theta)
    for k in range(STEPS):
        v = 0.9 * v - 0.5 * slope(theta + 0.9 * v, k)
        theta = theta + v
        yield theta + 0.9 * v


def adagrad(theta: Vector, slope: Callable[[Vector, int], Vector]) -> Rule:
    total = np.zeros_like(theta)
    for k in range(STEPS):
        g = slope(theta, k)
        total = total + g**2
        theta = theta - 0.5 / np.sqrt(total + 1e-2) * g
        yield theta


def rmsprop(theta: Vector, slope: Callable[[Vector, int], Vector]) -> Rule:
    average = np.zeros_like(theta)
    for k in range(STEPS):
        g = slope(theta, k)
        average = 0.9 * average + (1 - 0.9) * g**2
        theta = theta - 0.1 / np.sqrt(average + 1e-2) * g
        yield theta


def adam(theta: Vector, slope: Callable[[Vector, int], Vector], decay: float = 0.0) -> Rule:
    """Algorithm 1 of Kingma & Ba 2015; with ``decay``, Algorithm 2 of Loshchilov & Hutter 2019 with λ α for λ."""
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for k in range(STEPS):
        g = slope(theta, k)
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
        m_hat, v_hat = m / (1 - 0.9 ** (k + 1)), v / (1 - 0.99 ** (k + 1))
        theta = theta - 0.1 * (m_hat / (np.sqrt(v_hat) + 1e-2) + decay * theta)
        yield theta


def rows_of(size: int) -> np.ndarray:
    """What each step sees, [STEPS, size]: the next examples of the data, from the start again at its end."""
    return np.arange(STEPS * size).reshape(STEPS, size) % len(X)


FULL = len(X)
ADAM = {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "eps": 1e-2}
RULES = {
    "gradient descent": (optax.sgd(0.5), gradient_descent, FULL),
    "stochastic": (optax.sgd(0.5), gradient_descent, 1),
    "mini-batch": (optax.sgd(0.5), gradient_descent, 4),
    "momentum": (optax.sgd(0.5, momentum=0.9), momentum, FULL),
    "nesterov": (optax.sgd(0.5, momentum=0.9, nesterov=True), nesterov, FULL),
    "adagrad": (optax.adagrad(0.5, initial_accumulator_value=0.0, eps=1e-2), adagrad, FULL),
    "rmsprop": (optax.rmsprop(0.1, decay=0.9, eps=1e-2), rmsprop, FULL),
    "adam": (optax.adam(**ADAM), adam, FULL),
    "adamw": (optax.adamw(**ADAM, weight_decay=0.2), functools.partial(adam, decay=0.2), FULL),
}
PYTORCH = {name: RULES[name][0] for name in ("gradient descent", "momentum", "nesterov", "adam", "adamw")} | {
    "adagrad": optax.adagrad(0.5, initial_accumulator_value=0.1, eps=0.0),
    "rmsprop": optax.rmsprop(0.1, decay=0.9, eps=1e-2, eps_in_sqrt=False),
}


def train(optimizer: optax.GradientTransformation, size: int = FULL) -> dict[str, np.ndarray]:
    """The parameters after each of ten steps of `jdl.make_step`."""
    step = jax.jit(jdl.make_step(OBJECTIVE, optimizer))
    state, path = jdl.start_state(VARIABLES, optimizer, jax.random.key(0)), []
    for rows in rows_of(size):
        state, _ = step(state, {"inputs": X[rows], "targets": Y[rows]})
        path.append(state.params["layer"])
    return {name: np.stack([point[name] for point in path]) for name in ("kernel", "bias")}


def assert_close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-5) -> None:
    assert a.shape == b.shape and np.max(np.abs(a - b)) <= tolerance * np.max(np.abs(b))


@pytest.mark.parametrize("name", RULES)
def test_ten_steps_equal_the_rule_written_out(name):
    optimizer, rule, size = RULES[name]
    rows = rows_of(size)
    theta = np.concatenate([GOLDEN["kernel"][:, 0], GOLDEN["bias"]]).astype(np.float64)
    expected = np.stack(list(rule(theta, lambda theta, k: gradient(theta, rows[k]))))
    path = train(optimizer, size)
    assert_close(np.c_[path["kernel"][..., 0], path["bias"]], expected)


@pytest.mark.parametrize("name", PYTORCH)
def test_ten_steps_equal_pytorch(name):
    path = train(PYTORCH[name])
    for array in path:
        assert_close(path[array], GOLDEN[f"{name}/{array}"])


# Rates as state: the optimizers with their learning rate in opt_state, where it can change and be mapped over.

FACTORIES = {
    "gradient descent": optax.sgd,
    "momentum": functools.partial(optax.sgd, momentum=0.9),
    "nesterov": functools.partial(optax.sgd, momentum=0.9, nesterov=True),
    "adagrad": optax.adagrad,
    "rmsprop": optax.rmsprop,
    "adam": optax.adam,
    "adamw": optax.adamw,
}
RATES = (0.3, 0.1, 0.02)
BATCH = {"inputs": jnp.asarray(X), "targets": jnp.asarray(Y)}


def with_rate(state: jdl.TrainState, rate: jax.Array) -> jdl.TrainState:
    return dataclasses.replace(state, opt_state=optax.tree.set(state.opt_state, learning_rate=rate))


def steps(step: Callable, state: jdl.TrainState, count: int) -> tuple[jdl.TrainState, dict]:
    metrics = {}
    for _ in range(count):
        state, metrics = step(state, BATCH)
    return state, metrics


@pytest.mark.parametrize("name", FACTORIES)
def test_a_rate_changed_between_steps_counts_and_compiles_nothing(name):
    optimizer, traces = optax.inject_hyperparams(FACTORIES[name])(learning_rate=RATES[0]), []

    def step(state, batch):
        traces.append(name)  # runs while tracing
        return jdl.make_step(OBJECTIVE, optimizer)(state, batch)

    step = jax.jit(step, donate_argnums=0)
    state = jdl.start_state(VARIABLES, optimizer, jax.random.key(0))
    for rate in RATES:
        state, _ = steps(step, with_rate(state, jnp.float32(rate)), 3)  # asarray(0.1) would be weakly typed
    assert len(traces) == 1

    # the same rates as a schedule, which is looked up by optax's own count of the steps
    schedule = jnp.repeat(jnp.asarray(RATES), 3)
    scheduled = FACTORIES[name](learning_rate=lambda count: schedule[count])
    other = jdl.start_state(VARIABLES, scheduled, jax.random.key(0))
    other, _ = steps(jax.jit(jdl.make_step(OBJECTIVE, scheduled)), other, len(schedule))
    jax.tree.map(assert_close, state.params, other.params)


@pytest.mark.parametrize("name", FACTORIES)
def test_a_vmap_over_rates_gives_each_run_its_own(name):
    optimizer = optax.inject_hyperparams(FACTORIES[name])(learning_rate=0.0)
    step = jdl.make_step(OBJECTIVE, optimizer)
    first = jdl.start_state(VARIABLES, optimizer, jax.random.key(0))
    many = jax.vmap(with_rate, in_axes=(None, 0))(first, jnp.asarray(RATES))
    many, metrics = steps(jax.jit(jax.vmap(step, in_axes=(0, None))), many, 3)

    alone = jax.jit(step)
    for index, rate in enumerate(RATES):
        one, report = steps(alone, with_rate(first, jnp.float32(rate)), 3)
        jax.tree.map(lambda a, b, i=index: assert_close(a[i], b), many.params, one.params)
        assert float(metrics["loss"].compute()[index]) == pytest.approx(float(report["loss"]), rel=1e-5)
    kernels = np.asarray(many.params["layer"]["kernel"])
    assert not np.allclose(kernels[0], kernels[2], rtol=1e-2), "three rates are three runs"
