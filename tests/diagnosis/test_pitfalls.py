"""Each pitfall planted in turn is found by its name, and nothing else with it; healthy setups yield none."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn
from jdl.diagnosis import findings as name

relu, mse = jax.nn.relu, jdl.losses.mse
ADAM = optax.adam(1e-3)
cross_entropy, binary = jdl.losses.cross_entropy, jdl.losses.binary_cross_entropy

TRUTH = np.random.default_rng(0).normal(size=(8, 3))


def classes(size: int, seed: int) -> dict[str, np.ndarray]:
    """Three classes, a linear function of eight features; held-out examples are others."""
    inputs = np.random.default_rng(seed).normal(size=(size, 8)).astype(np.float32)
    return {"inputs": inputs, "targets": np.argmax(inputs @ TRUTH, axis=1).astype(np.int32)}


def values(size: int, seed: int) -> dict[str, np.ndarray]:
    """A target of mean 0 and standard deviation 1, [B, 1]."""
    batch = classes(size, seed)
    return batch | {"targets": (batch["inputs"] @ TRUTH[:, :1] / np.linalg.norm(TRUTH[:, 0])).astype(np.float32)}


def signs(size: int, seed: int) -> dict[str, np.ndarray]:
    """0 or 1 by the sign of that."""
    batch = values(size, seed)
    return batch | {"targets": (batch["targets"][:, 0] > 0).astype(np.int32)}


def exclusive(size: int, seed: int) -> dict[str, np.ndarray]:
    """Whether two features have one sign."""
    inputs = np.random.default_rng(seed).normal(size=(size, 2)).astype(np.float32)
    return {"inputs": inputs, "targets": (inputs[:, 0] * inputs[:, 1] > 0).astype(np.int32)}


@dataclasses.dataclass(frozen=True)
class Setup:
    """What diagnose is given; ``change`` is done to all data, ``weights`` to (path, first weights); ``objective`` makes
    one of the model.
    """

    model: nn.Layer
    loss: Any = cross_entropy
    optimizer: Any = ADAM
    data: Any = classes
    change: Any = None
    validation: Any = True
    objective: Any = None
    weights: Any = None

    def diagnosis(self, seed: int = 0) -> jdl.Diagnosis:
        batch, held_out = self.data(32, 1), self.data(64, 2)
        if self.change is not None:
            batch, held_out = self.change(batch), self.change(held_out)
        held_out = None if self.validation is None else batch if self.validation == "batch" else held_out
        loss = self.loss if self.objective is None else self.objective(self.model)
        variables = None
        if self.weights is not None:
            params, state = self.model.init(jax.random.key(seed), batch["inputs"])
            changed = [self.weights(*pair) for pair in zip(jdl.paths(params), jax.tree.leaves(params), strict=True)]
            variables = jdl.Variables(jax.tree.unflatten(jax.tree.structure(params), changed), state)
        given = {"validation": held_out, "variables": variables, "seed": seed}
        return jdl.diagnose(self.model, loss, self.optimizer, batch, **given)


def times(factor: float, *only: str) -> Any:
    """Kernels, of these layers or of all, times a factor; of fixed shapes, so that little is compiled."""
    return lambda path, leaf: leaf * factor if path.endswith("kernel") and (not only or path[0] in only) else leaf


def deep(activation: Any, layers: int) -> nn.Chain:
    return nn.Chain(*[part for _ in range(layers) for part in (nn.Dense(32), activation)], nn.Dense(3))


def normed(momentum: float = 0.9) -> nn.Chain:
    return nn.Chain(nn.Dense(32), nn.BatchNorm(momentum=momentum), relu, nn.Dense(3))


def changed(entry: str, function: Any) -> Any:
    return lambda batch: batch | {entry: function(batch[entry])}


NET = nn.Chain(nn.Dense(32), relu, nn.Dense(3))
ONE = nn.Chain(nn.Dense(32), relu, nn.Dense(1))
DROPPED = nn.Chain(nn.Dense(32), relu, nn.Dropout(0.3), nn.Dense(3))


def stopped(x: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(x)


class Noisy(nn.Layer):
    """A dropout of one's own that has forgotten `if net.train`."""

    def forward(self, net: nn.Net, x: jax.Array) -> jax.Array:
        return x * jax.random.bernoulli(net.key(), 0.5, x.shape).astype(x.dtype)


@dataclasses.dataclass(frozen=True)
class Always(jdl.Objective):
    """An objective of one's own that passes the wrong flag on."""

    inner: jdl.Objective
    flag: bool

    def __call__(self, params: Any, state: Any, batch: Any, key: Any, train: bool) -> Any:
        return self.inner(params, state, batch, jax.random.key(0), self.flag)


@dataclasses.dataclass(frozen=True)
class Forgets(jdl.Objective):
    """An objective of one's own that returns the state it was given."""

    inner: jdl.Objective

    def __call__(self, params: Any, state: Any, batch: Any, key: Any, train: bool) -> Any:
        loss, aux = self.inner(params, state, batch, key, train)
        return loss, dataclasses.replace(aux, state=state)


def squares(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    return jnp.mean((outputs - targets) ** 2)


def supervised(model: nn.Layer) -> jdl.Objective:
    return jdl.supervised(model, cross_entropy)


HEALTHY = {
    "classes": Setup(NET),
    "values": Setup(ONE, mse, data=values),
    "signs": Setup(ONE, binary, data=signs),
    "dropout": Setup(DROPPED),
    "batch statistics": Setup(normed()),
    "plain descent": Setup(NET, optimizer=optax.sgd(0.1)),
    "warm-up": Setup(NET, optimizer=optax.adam(optax.linear_schedule(0, 1e-3, 10_000))),
    "deep": Setup(deep(relu, 5)),
    "tanh": Setup(deep(jnp.tanh, 4)),
    "a sigmoid": Setup(deep(nn.sigmoid, 1), optimizer=optax.adam(1e-2)),
    "linear": Setup(nn.Dense(3), optimizer=optax.adam(1e-2)),
    "smoothed": Setup(NET, jdl.losses.configured(cross_entropy, label_smoothing=0.1)),
    "a head of zeros": Setup(NET, weights=times(0, "2")),
    "microbatches and a penalty": Setup(
        NET, objective=lambda model: jdl.accumulate(supervised(model) + 1e-4 * jdl.l2("**/kernel"), 4)
    ),
}

PLANTED = {
    "raw inputs": (name.INPUTS, Setup(NET, change=changed("inputs", lambda x: 100 * x + 50))),
    "empty inputs": (name.INPUTS, Setup(NET, change=changed("inputs", np.zeros_like))),
    "raw targets": (name.TARGETS, Setup(ONE, mse, data=values, change=changed("targets", lambda y: 150 + 77 * y))),
    "labels from 1": (name.LABELS, Setup(NET, change=changed("targets", lambda y: y + 1))),
    "labels as floats": (name.LABELS, Setup(NET, change=changed("targets", lambda y: y.astype(np.float32)))),
    "one-hot of 4": (name.LABELS, Setup(NET, change=changed("targets", lambda y: np.eye(4, dtype=np.float32)[y]))),
    "labels -1 and 1": (name.LABELS, Setup(ONE, binary, data=signs, change=changed("targets", lambda y: 2 * y - 1))),
    "labels 0 and 1 for a margin": (name.LABELS, Setup(ONE, jdl.losses.hinge, data=signs)),
    "one class": (name.LABELS, Setup(NET, change=changed("targets", np.zeros_like))),
    "classes as numbers": (name.LABELS, Setup(ONE, mse, change=changed("targets", lambda y: y[:, None]))),
    "pairs by broadcasting": (name.LABELS, Setup(ONE, squares, data=values, change=changed("targets", np.ravel))),
    "softmax twice": (name.LABELS, Setup(nn.Chain(*NET, jax.nn.softmax))),
    "sigmoid twice": (name.LABELS, Setup(nn.Chain(*ONE, nn.sigmoid), binary, data=signs)),
    "no softmax": (name.LABELS, Setup(NET, jdl.losses.cross_entropy_on_probabilities)),
    "a loud head": (name.FIRST_LOSS, Setup(NET, weights=times(20, "2"))),
    "bias -20": (name.DEAD, Setup(NET, weights=lambda path, leaf: leaf - 20 * (path == "0/bias"))),
    "wide tanh": (name.SATURATED, Setup(deep(jnp.tanh, 4), weights=times(15, "0"))),
    "wide sigmoid": (name.SATURATED, Setup(deep(nn.sigmoid, 1), weights=times(20, "0"))),
    "eight sigmoids": (name.VANISHING, Setup(deep(nn.sigmoid, 8))),
    "tiny weights": (name.VANISHING, Setup(deep(jnp.tanh, 4), weights=times(0.03))),
    "stop_gradient": (name.NO_GRADIENT, Setup(nn.Chain(nn.Dense(32), stopped, relu, nn.Dense(3)))),
    "zeros everywhere": (name.NO_GRADIENT, Setup(deep(jnp.tanh, 4), weights=times(0))),
    "a step": (name.NO_GRADIENT, Setup(nn.Chain(nn.Dense(32), nn.step, nn.Dense(3)))),
    "adam at 1": (name.RATE_TOO_HIGH, Setup(NET, optimizer=optax.adam(1.0))),
    "descent at 100": (name.RATE_TOO_HIGH, Setup(NET, optimizer=optax.sgd(100.0))),
    "adam at 1e-7": (name.RATE_TOO_LOW, Setup(NET, optimizer=optax.adam(1e-7))),
    "descent at 1e-6": (name.RATE_TOO_LOW, Setup(NET, optimizer=optax.sgd(1e-6))),
    "nothing held out": (name.NO_VALIDATION, Setup(NET, validation=None)),
    "the batch held out": (name.OVERLAP, Setup(NET, validation="batch")),
    "a line for XOR": (name.NOT_OVERFITTED, Setup(nn.Dense(2), data=exclusive)),
    "a heavy penalty": (
        name.NOT_OVERFITTED,
        Setup(NET, objective=lambda model: supervised(model) + jdl.l2("**/kernel")),
    ),
    "chance in evaluation": (name.EVALUATION, Setup(nn.Chain(nn.Dense(32), relu, Noisy(), nn.Dense(3)))),
    "training in evaluation": (
        name.EVALUATION,
        Setup(normed(), objective=lambda model: Always(supervised(model), True)),
    ),
    "evaluation in training": (
        name.EVALUATION,
        Setup(DROPPED, objective=lambda model: Always(supervised(model), False)),
    ),
    "state that is dropped": (name.EVALUATION, Setup(normed(), objective=lambda model: Forgets(supervised(model)))),
    "statistics that stay": (name.EVALUATION, Setup(normed(1.0))),
    "statistics that lag": (
        name.EVALUATION,
        Setup(
            nn.Chain(nn.Dense(32), nn.BatchNorm(momentum=0.9999), nn.Dense(1)),
            mse,
            data=values,
            weights=lambda path, leaf: 30 * leaf + 90 * (path == "0/bias") if path[0] == "0" else leaf,
        ),
    ),
}


# Alike enough to others that every change need not wait for them.
SLOW = {"signs", "tanh", "a sigmoid", "linear", "smoothed", "wide sigmoid", "eight sigmoids", "a step", "sigmoid twice"}
SLOW |= {"a line for XOR", "chance in evaluation", "a heavy penalty", "statistics that lag", "training in evaluation"}
SLOW |= {"wide tanh", "softmax twice"}
SLOW |= {"descent at 1e-6", "descent at 100", "no softmax", "statistics that stay", "evaluation in training"}


def cases(table: dict[str, Any]) -> list[Any]:
    return [pytest.param(case, marks=pytest.mark.slow if case in SLOW else ()) for case in table]


@pytest.mark.slow
@pytest.mark.parametrize("case", cases(HEALTHY))
def test_a_healthy_setup_yields_none(case: str):
    diagnosis = HEALTHY[case].diagnosis()
    assert list(diagnosis) == [], diagnosis
    assert str(diagnosis).startswith("no pitfalls found\n\nchecked:\n")


@pytest.mark.slow
@pytest.mark.parametrize("case", HEALTHY)
def test_a_healthy_setup_yields_none_from_any_seed(case: str):
    assert {seed: HEALTHY[case].diagnosis(seed).names for seed in range(1, 10)} == dict.fromkeys(range(1, 10), ())


@pytest.mark.parametrize("case", cases(PLANTED))
def test_a_planted_pitfall_is_found_and_nothing_else(case: str):
    wanted, setup = PLANTED[case]
    diagnosis = setup.diagnosis()
    assert diagnosis.names == (wanted,), diagnosis
    for finding in diagnosis:
        assert finding.measured and finding.why.endswith(".") and finding.try_


def momentum(rate: float) -> optax.GradientTransformation:
    return optax.sgd(rate, momentum=0.9)


ZERO_HEAD, ZEROS = Setup(NET, weights=times(0, "2")), Setup(nn.Dense(3), weights=times(0))
RATES = [
    *((Setup(NET), momentum, rate) for rate in (1e2, 1e6, 1e9, 1e15, 1e30, np.inf)),
    *((Setup(NET), optax.adam, rate) for rate in (1e6, 1e15, 1e38)),
    *((setup, maker, 1e25) for setup in (ZERO_HEAD, ZEROS) for maker in (momentum, optax.adam)),
]


@pytest.mark.slow
@pytest.mark.parametrize(("setup", "maker", "rate"), RATES)
def test_no_rate_is_too_high_to_be_found(setup: Setup, maker: Any, rate: float):
    diagnosis = dataclasses.replace(setup, optimizer=maker(rate)).diagnosis()
    assert diagnosis.names == (name.RATE_TOO_HIGH,), diagnosis
    assert not any("the learning rate" in line for line in diagnosis.checked)
    assert "updates are 0.0e+00" not in diagnosis[0].measured and "nan of" not in diagnosis[0].measured


@pytest.mark.parametrize(("rate", "said"), [(1e-3, " steps"), (1e15, ", by Adam at 1e-2, not by the optimizer given")])
def test_what_learned_the_batch_is_said(rate: float, said: str):
    maker = optax.adam if rate < 1 else momentum
    (line,) = (line for line in Setup(NET, optimizer=maker(rate)).diagnosis().checked if "by heart" in line)
    assert line.endswith(said)


def test_every_name_is_planted():
    shown = {wanted for wanted, _ in PLANTED.values()} | {name.EXPLODING}  # with its direct consequence, below
    assert shown == set(name.NAMES)


@pytest.mark.slow
def test_exploding_gradients_come_with_the_loss_they_explode():
    diagnosis = Setup(deep(relu, 5), weights=times(8)).diagnosis()
    assert diagnosis.names == (name.FIRST_LOSS, name.EXPLODING)
