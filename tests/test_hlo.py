"""The program that fit compiles is the one a user would write with plain functions (design contract 3)."""

from __future__ import annotations

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.nn import relu

import jdl
from jdl import nn
from jdl.feeding import train_program
from jdl.metrics import Mean
from jdl.nn import functional as F

OPTIMIZER = optax.inject_hyperparams(optax.adamw)(learning_rate=1e-3, weight_decay=1e-4)


def dropout_key(key, path):
    """What a layer at ``path`` draws first: the step's key folded with its path and count."""
    return jax.random.fold_in(key, np.uint32(zlib.crc32(f"{path}:1".encode())))


def mlp(rate):
    return nn.Chain(nn.Flatten(), nn.Dense(16), relu, *[nn.Dropout(rate)] * bool(rate), nn.Dense(3))


def mlp_by_hand(params, state, x, key, rate):
    x = x.reshape(x.shape[0], -1)
    x = relu(F.dense(x, params["1"]["kernel"], params["1"]["bias"]))
    if rate:
        x = F.dropout(x, rate, dropout_key(key, "3"))
    head = params["4" if rate else "3"]
    return F.dense(x, head["kernel"], head["bias"]), state


def cnn(rate):
    drop = [nn.Dropout(rate)] * bool(rate)
    return nn.Chain(nn.Conv(4, 3), nn.BatchNorm(), relu, nn.MaxPool(2), nn.Flatten(), *drop, nn.Dense(3))


def cnn_by_hand(params, state, x, key, rate):
    x = F.conv(x, params["0"]["kernel"], params["0"]["bias"], padding="SAME")
    norm, kept = params["1"], state["1"]
    x, mean, var = F.batch_norm_in_training(x, norm["scale"], norm["bias"])
    state = {"1": {"mean": 0.9 * kept["mean"] + 0.1 * mean, "var": 0.9 * kept["var"] + 0.1 * var}}
    x = F.max_pool(relu(x), 2)
    x = x.reshape(x.shape[0], -1)
    if rate:
        x = F.dropout(x, rate, dropout_key(key, "5"))
    head = params["6" if rate else "5"]
    return F.dense(x, head["kernel"], head["bias"]), state


def program_by_hand(forward, rate):
    """Gather a batch, take a gradient step with traced hyper-parameters, and add up the metrics."""

    def train(state, totals, data, indices):
        batch = {name: value.at[indices].get(mode="promise_in_bounds") for name, value in data.items()}
        key = jax.random.fold_in(state.key, state.step)

        def loss_fn(params):
            logits, new_state = forward(params, state.state, batch["inputs"], key, rate)
            loss = jdl.losses.cross_entropy(logits, batch["targets"], mask=batch["mask"])
            weight = jnp.sum(batch["mask"].astype(jnp.float32))
            return loss, (new_state, weight, jdl.metrics.accuracy(logits, batch["targets"], mask=batch["mask"]))

        (loss, (new_state, weight, accuracy)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        with jax.numpy_dtype_promotion("standard"):
            updates, opt_state = OPTIMIZER.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        state = jdl.TrainState(params, new_state, opt_state, state.step + 1, state.key)
        metrics = {"loss": Mean(loss * weight, weight), "accuracy": accuracy}
        totals = {name: totals[name] + metrics[name] for name in totals}
        return state, totals

    return train


@pytest.mark.parametrize("rate", [0.0, 0.5], ids=["plain", "dropout"])
@pytest.mark.parametrize(("model", "forward"), [(mlp, mlp_by_hand), (cnn, cnn_by_hand)], ids=["mlp", "batch norm cnn"])
def test_the_compiled_program_is_the_one_written_by_hand(model, forward, rate):
    model = model(rate)
    rng = np.random.default_rng(0)
    data = {
        "inputs": jnp.asarray(rng.normal(size=(20, 8, 8, 1)), jnp.float32),
        "targets": jnp.asarray(rng.integers(3, size=20), jnp.int32),
        "mask": jnp.ones(20),
    }
    objective = jdl.supervised(model, jdl.losses.cross_entropy, metrics=[jdl.metrics.accuracy])
    step = jdl.make_step(jdl.gradient(objective), OPTIMIZER)
    state = jdl.init_state(model, OPTIMIZER, data)
    report = jax.eval_shape(step, state, data)[1]
    totals = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), report)
    arguments = (state, totals, data, jnp.arange(6))
    ours = train_program(step).jitted.lower(*arguments)
    theirs = jax.jit(program_by_hand(forward, rate), donate_argnums=(0, 1)).lower(*arguments)
    assert ours.as_text() == theirs.as_text()
