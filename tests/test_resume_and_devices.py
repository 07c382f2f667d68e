"""A run is its state: it goes on from a copy to the bit, and is the same run when a mesh of devices shares it."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec as P

import jdl
from jdl import nn
from jdl.data import Dataset, indices_between
from tests.networks import assert_close, batch_of, classify, mesh_of_two

DATA = Dataset.of(jax.tree.map(np.asarray, batch_of(50)))
OPTIMIZER = optax.adam(1e-2)


def network(axis_name: str | None = None) -> nn.Chain:
    return nn.Chain(nn.Dense(7, bias=False), nn.BatchNorm(axis_name=axis_name), jnp.tanh, nn.Dense(3))


def run(step, state: jdl.TrainState, start: int, stop: int) -> jdl.TrainState:
    for rows in indices_between(len(DATA), 8, 3, start, stop):
        state, _ = step(state, DATA.gather(rows))
    return state


def through_a_file(state: jdl.TrainState) -> jdl.TrainState:
    """What a checkpoint keeps: plain arrays, the key among them."""
    leaves, treedef = jax.tree.flatten(state)
    is_key = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    plain = [np.asarray(jax.random.key_data(leaf) if key else leaf) for leaf, key in zip(leaves, is_key, strict=True)]
    loaded = [jnp.asarray(leaf) for leaf in pickle.loads(pickle.dumps(plain))]
    keys = [jax.random.wrap_key_data(leaf) if key else leaf for leaf, key in zip(loaded, is_key, strict=True)]
    return jax.tree.unflatten(treedef, keys)


@pytest.mark.parametrize("cut", [1, 6, 11])  # an epoch is 6.25 steps
def test_a_run_goes_on_from_its_state_alone(cut):
    model = nn.Chain(nn.Dropout(0.3), network())
    step = jax.jit(jdl.make_step(jdl.accumulate(jdl.gradient(classify(model)), 2), OPTIMIZER))
    first = jdl.init_state(model, OPTIMIZER, DATA.gather(np.arange(8)))
    whole = run(step, first, 0, 14)
    resumed = through_a_file(run(step, first, 0, cut))
    resumed = run(step, resumed, int(resumed.step), 14)
    assert_close(resumed.params, whole.params, 0)
    assert_close(resumed.state, whole.state, 0)
    assert_close(resumed.opt_state, whole.opt_state, 0)


@pytest.mark.parametrize("how", ["shard_map", "sharded arrays"])
def test_a_step_over_a_mesh_is_the_step_of_the_whole_batch(how):
    model, batch = network(), DATA.gather(np.arange(8))
    state = jdl.init_state(model, OPTIMIZER, batch)
    expected, metrics = jax.jit(jdl.make_step(classify(model), OPTIMIZER))(state, batch)
    mesh = mesh_of_two()
    if how == "shard_map":
        gradient = jdl.mean_over_devices(jdl.gradient(classify(network("devices"))), "devices")
        step = jax.shard_map(
            jdl.make_step(gradient, OPTIMIZER), mesh=mesh, in_specs=(P(), P("devices")), out_specs=(P(), P())
        )
        new, sharded_metrics = jax.jit(step)(state, batch)
    else:
        spread = jax.device_put(batch, jax.sharding.NamedSharding(mesh, P("devices")))
        everywhere = jax.device_put(state, jax.sharding.NamedSharding(mesh, P()))
        new, sharded_metrics = jax.jit(jdl.make_step(classify(model), OPTIMIZER))(everywhere, spread)
    assert_close(new.params, expected.params, 1e-5)
    assert_close(new.state, expected.state, 1e-5)
    assert float(sharded_metrics["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-5)


@pytest.mark.slow
def test_metrics_are_exact_over_devices():
    model, batch = network(), DATA.gather(np.arange(50)) | {"mask": np.arange(50) % 3 > 0}
    variables = model.init(jax.random.key(0), batch["inputs"])
    objective = classify(model, metrics=[jdl.metrics.accuracy, jdl.metrics.confusion_matrix])
    mesh = mesh_of_two()

    def report(part):
        aux = objective(*variables, part, None, False)[1]
        return jdl.metrics.all_reduce(aux.report, "devices")

    ours = jax.jit(jax.shard_map(report, mesh=mesh, in_specs=P("devices"), out_specs=P()))(batch)
    whole = objective(*variables, batch, None, False)[1].report
    for name in whole:
        np.testing.assert_allclose(ours[name].compute(), whole[name].compute(), rtol=1e-6)
