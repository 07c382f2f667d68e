"""Gradients that are no objective's: the perceptron's rule, and a game of two players in one step."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from experiments.perceptron import came_back, learn, refusal, shared_point
from jdl import nn
from jdl.metrics import Mean
from tests.networks import assert_close

# The perceptron's rule

INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
GATES = {
    "and": np.array([0, 0, 0, 1], np.float32),
    "or": np.array([0, 1, 1, 1], np.float32),
    "xor": np.array([0, 1, 1, 0], np.float32),
}


def perceptron_rule(params, state, batch, key):
    outputs, state = nn.Perceptron().apply(params, state, batch["inputs"], train=True)
    error = batch["targets"] - outputs
    grads = {"kernel": -error @ batch["inputs"], "bias": -jnp.sum(error)}
    return grads, jdl.Aux(jnp.sum(jnp.abs(error)), float(len(error)), state, {})


def stop_without_mistakes(run):
    if run.history[-1]["loss"] == 0:
        run.stop("no mistake in an epoch")


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("gate", GATES)
def test_the_perceptrons_rule_learns_what_a_line_separates(gate, seed):
    data = (INPUTS, GATES[gate])
    run = jdl.fit(
        nn.Perceptron(), jdl.vector_field(perceptron_rule), optax.sgd(1.0), data,
        epochs=60, batch_size=1, seed=seed, callbacks=[stop_without_mistakes],
    )  # fmt: skip
    right = run.predict(INPUTS) == GATES[gate]
    if gate == "xor":
        assert run.stopped is None and len(run.history) == 60 and not right.all()
        assert all(row["loss"] > 0 for row in run.history), "each epoch has a mistake"
    else:
        assert run.stopped is not None and right.all()
    # whole examples are added and taken away, one at a time, so that weights stay whole
    assert all(np.array_equal(leaf, np.round(leaf)) for leaf in jax.tree.leaves(run.params))


def test_a_step_of_the_rule_moves_by_the_error_times_the_input():
    optimizer = optax.sgd(1.0)
    start = {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array(0.5)}
    step = jax.jit(jdl.make_step(jdl.vector_field(perceptron_rule), optimizer))
    for inputs, target, moved in (
        ([3.0, 1.0], 0.0, -1),
        ([3.0, 1.0], 1.0, 0),
        ([1.0, 1.0], 1.0, 1),
        ([1.0, 1.0], 0.0, 0),
    ):
        state = jdl.start_state(jdl.Variables(start, {}), optimizer, jax.random.key(0))
        state, _ = step(state, {"inputs": np.float32([inputs]), "targets": np.float32([target])})
        assert state.params["kernel"].tolist() == [1 + moved * inputs[0], -2 + moved * inputs[1]]
        assert float(state.params["bias"]) == 0.5 + moved


def test_a_gate_is_refused_where_and_only_where_the_classes_share_a_point():
    assert shared_point(INPUTS, GATES["and"]) is None and shared_point(INPUTS, GATES["or"]) is None
    shares = shared_point(INPUTS, GATES["xor"])
    np.testing.assert_allclose(shares, 0.5)
    assert "(0.5, 0.5) = 1/2·(0, 0) + 1/2·(1, 1)" in refusal(shares, GATES["xor"])
    # and the rule agrees on all sixteen functions of two bits: it learns, or comes back to earlier weights
    for number in range(16):
        targets = np.array([number >> bit & 1 for bit in range(4)], np.float32)
        path, mistakes = learn(targets, epochs=100)
        separable = shared_point(INPUTS, targets) is None
        assert separable == (mistakes[-1] == 0) == (number not in (0b0110, 0b1001))
        assert separable or came_back(path) is not None


# A game of two players: a generator of numbers, and a discriminator of real from made ones


def made(generator, params, shape, key):
    noise = jax.random.normal(key, shape)
    return generator.apply(params, {}, noise, train=True)[0]


def game(generator, discriminator):
    """Both players' gradients at the same point: the discriminator's of telling apart, the generator's of passing."""

    def judged(params, state, real, fake):
        logits, state = discriminator.apply(params, state, jnp.concatenate([real, fake]), train=True)
        return *jnp.split(logits, 2), state

    def field(params, state, batch, key):
        real = batch["inputs"]

        def of_discriminator(own):
            fake = made(generator, params["generator"], real.shape, key)
            on_real, on_fake, new = judged(own, state["discriminator"], real, fake)
            loss = jnp.mean(jax.nn.softplus(-on_real)) + jnp.mean(jax.nn.softplus(on_fake))
            right = jnp.concatenate([on_real > 0, on_fake <= 0])
            return loss, (new, Mean.of(right.astype(jnp.float32)))

        def of_generator(own):
            fake = made(generator, own, real.shape, key)
            _, on_fake, _ = judged(params["discriminator"], state["discriminator"], real, fake)
            return jnp.mean(jax.nn.softplus(-on_fake)), Mean.of(fake)

        (d_loss, (d_state, right)), d_grads = jax.value_and_grad(of_discriminator, has_aux=True)(
            params["discriminator"]
        )
        (g_loss, mean), g_grads = jax.value_and_grad(of_generator, has_aux=True)(params["generator"])
        metrics = {"generator_loss": g_loss, "discriminator_loss": d_loss, "mean": mean, "accuracy": right}
        metrics |= {name: Mean.of(value[None]) for name, value in metrics.items() if name.endswith("loss")}
        new = state | {"discriminator": d_state}
        return {"generator": g_grads, "discriminator": d_grads}, jdl.Aux(
            d_loss + g_loss, float(len(real)), new, metrics
        )

    return jdl.vector_field(field)


def optimizer_of(generator: optax.GradientTransformation, discriminator: optax.GradientTransformation):
    rules = jdl.label({"generator/**": "generator", "discriminator/**": "discriminator"})
    return optax.multi_transform({"generator": generator, "discriminator": discriminator}, rules)


def test_one_step_moves_each_player_by_its_own_gradient_at_its_own_rate():
    a, b, w, c = 0.7, -0.4, 1.3, 0.2  # x = a z + b is made, σ(w x + c) is how real it looks
    params = {
        "generator": {"kernel": jnp.array([[a]]), "bias": jnp.array([b])},
        "discriminator": {"kernel": jnp.array([[w]]), "bias": jnp.array([c])},
    }
    real = np.linspace(2, 4, 6)[:, None]
    optimizer = optimizer_of(optax.sgd(0.5), optax.sgd(0.1))
    variables = jdl.Variables(params, {"discriminator": {}})
    state = jdl.start_state(variables, optimizer, jax.random.key(3))
    step = jax.jit(jdl.make_step(game(nn.Dense(1), nn.Dense(1)), optimizer))
    new, metrics = step(state, {"inputs": jnp.asarray(real, jnp.float32)})

    # by hand, in float64: the derivative of softplus is the sigmoid
    z = np.asarray(jax.random.normal(jax.random.fold_in(state.key, 0), real.shape), np.float64)
    x = a * z + b
    looks_real, looks_fake = 1 / (1 + np.exp(-(w * x + c))), 1 / (1 + np.exp(w * real + c))
    expected = {
        "generator": {
            "kernel": a + 0.5 * np.mean((1 - looks_real) * w * z),
            "bias": b + 0.5 * np.mean((1 - looks_real) * w),
        },
        "discriminator": {
            "kernel": w - 0.1 * (np.mean(looks_real * x) - np.mean(looks_fake * real)),
            "bias": c - 0.1 * (np.mean(looks_real) - np.mean(looks_fake)),
        },
    }
    assert_close(new.params, jax.tree.map(lambda leaf, like: np.reshape(leaf, like.shape), expected, params), 1e-6)
    losses = {
        "generator_loss": np.mean(np.log1p(np.exp(-(w * x + c)))),
        "discriminator_loss": np.mean(np.log1p(np.exp(-(w * real + c)))) + np.mean(np.log1p(np.exp(w * x + c))),
    }
    for name, value in (losses | {"loss": sum(losses.values()), "mean": np.mean(x)}).items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-6)


GENERATOR = nn.Dense(1, kernel_init=nn.init.ones())
DISCRIMINATOR = nn.Chain(hidden=nn.Dense(8), norm=nn.BatchNorm(), act=nn.tanh, out=nn.Dense(1))
REAL = np.random.default_rng(0).normal(3.0, 1.0, size=(512, 1)).astype(np.float32)


class Game(nn.Layer):
    """Both players' arrays in one model, for init: their names are the first segments of the paths."""

    def forward(self, net, real):
        return net.child("discriminator", DISCRIMINATOR)(net.child("generator", GENERATOR)(real))


@pytest.mark.slow
def test_a_players_batch_statistics_are_those_of_real_and_made_together():
    optimizer, batch = optimizer_of(optax.sgd(0.0), optax.sgd(0.0)), {"inputs": jnp.asarray(REAL[:32])}
    state = jdl.init_state(Game(), optimizer, batch)
    new, _ = jax.jit(jdl.make_step(game(GENERATOR, DISCRIMINATOR), optimizer))(state, batch)
    fake = made(GENERATOR, state.params["generator"], (32, 1), jax.random.fold_in(state.key, 0))
    hidden = np.concatenate([REAL[:32], fake]) @ np.float64(state.params["discriminator"]["hidden"]["kernel"])
    expected = {"mean": 0.1 * hidden.mean(axis=0), "var": 0.9 + 0.1 * hidden.var(axis=0)}
    assert_close(new.state, {"discriminator": {"norm": expected}}, 1e-6)


@pytest.mark.slow
def test_a_game_trains_until_what_is_made_is_where_the_data_is():
    optimizer = optimizer_of(optax.adam(2e-2, b1=0.5), optax.adam(5e-3, b1=0.5))
    run = jdl.fit(Game(), game(GENERATOR, DISCRIMINATOR), optimizer, {"inputs": REAL}, epochs=60, batch_size=64)
    assert run.compilations == {"train": 1} and run.objective is None
    assert abs(run.history[0]["mean"]) < 0.5
    last = {name: np.mean([row[name] for row in run.history[-15:]]) for name in run.history[-1]}
    assert last["mean"] == pytest.approx(3.0, abs=0.2)
    assert last["accuracy"] == pytest.approx(0.5, abs=0.06), "the discriminator is at a loss"
    assert last["loss"] == pytest.approx(last["generator_loss"] + last["discriminator_loss"], rel=1e-5)
    assert last["loss"] == pytest.approx(3 * np.log(2), rel=0.1), "each player's loss at the equilibrium"
