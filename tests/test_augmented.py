"""Augmentation as part of an objective: what the model sees in training, and with which keys."""

from __future__ import annotations

import dataclasses
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
from jdl import nn
from jdl.data import Compose, Crop, Flip, Mixup, Noise
from jdl.objectives import supervised_terms
from tests.networks import assert_close, batch_of, classify, mesh_of_two, mlp

KEY = jax.random.key(0)

# Not optimised: most of the time goes into compiling.
quickly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def images(size: int = 8, classes: int = 3) -> dict[str, jax.Array]:
    return batch_of(size, classes=classes, shape=(4, 4, 1))


def network(rate: float = 0.0) -> nn.Chain:
    return nn.Chain(nn.Flatten(), *mlp(rate))


@dataclasses.dataclass(frozen=True)
class Observed(jdl.Objective):
    """What an objective is given: the sum of its inputs as the loss, and a number drawn from its key."""

    name: str = "drawn"

    def __call__(self, params, state, batch, key, train):
        drawn = jnp.zeros(()) if key is None else jax.random.uniform(key)
        return jnp.sum(batch["inputs"]), jdl.Aux(drawn, None, state, {self.name: jdl.metrics.Mean(drawn, jnp.ones(()))})


def add_one(key, batch):
    return batch | {"inputs": batch["inputs"] + 1}


def double(key, batch):
    return batch | {"inputs": 2 * batch["inputs"]}


def drawn(key, batch):
    return batch | {"inputs": jax.random.uniform(key, (1,))}


def test_training_sees_changed_batches_and_evaluation_does_not():
    objective = jdl.augmented(Observed(), add_one, double)
    batch = {"inputs": jnp.arange(3.0)}
    assert objective({}, {}, batch, KEY, True)[0] == 12
    assert objective({}, {}, batch, None, False)[0] == 3
    np.testing.assert_array_equal(batch["inputs"], [0, 1, 2])


def test_the_loss_is_that_of_the_augmented_batch():
    model, batch = network(), images()
    params, state = model.init(KEY, batch["inputs"])
    seen = []

    def spy(key, batch):
        batch = Compose(Flip())(key, batch)
        seen.append(batch)
        return batch

    loss, aux = jdl.augmented(classify(model), spy)(params, state, batch, KEY, True)
    wanted, _ = classify(model)(params, state, seen[0], KEY, True)
    assert loss == wanted and aux.weight == 8
    assert not np.array_equal(seen[0]["inputs"], batch["inputs"])


def test_equal_objectives_are_one_program():
    first, second = (jdl.augmented(classify(network()), Crop(1), Mixup(classes=3)) for _ in range(2))
    assert first == second and hash(first) == hash(second)
    assert first != jdl.augmented(classify(network()), Crop(2), Mixup(classes=3))
    assert pickle.loads(pickle.dumps(first)) == first


def test_no_key_is_used_twice():
    def all_draws(objective):
        loss, aux = objective({}, {}, {"inputs": jnp.zeros(1)}, KEY, True)
        return {float(loss), *(float(metric.total) for metric in aux.metrics.values())}

    a, b, c = (Observed(name) for name in "abc")
    assert len(all_draws(jdl.augmented(a, drawn))) == 2  # its own draw, and the augmentation's
    several = jdl.augmented(a, drawn) + jdl.augmented(b + 0.1 * c, drawn)
    assert len(all_draws(several) | {float(jax.random.uniform(KEY))}) == 5  # c, whose draw is reported, is not the sum
    nested = jdl.augmented(
        jdl.augmented(a, drawn), lambda key, batch: batch | {"inputs": jax.random.uniform(key, (1,))}
    )
    inner = all_draws(nested)
    outer = float(nested.augmentation(jax.random.fold_in(KEY, 0x41554701), {})["inputs"][0])
    assert len(inner | {outer}) == 3
    terms = (0.5 * (a + b)) + c  # a factor hides no terms
    assert len(all_draws(terms) - {0.0}) == 3


def test_terms_are_seen_through():
    inner = classify(network())
    terms = supervised_terms(0.5 * jdl.augmented(inner + jdl.l2("**/kernel"), Flip()) + jdl.augmented(inner, Flip()))
    assert terms == [inner, inner]


@pytest.mark.slow
def test_it_scales_adds_and_accumulates():
    model, batch = network(), images()
    params, state = model.init(KEY, batch["inputs"])
    objective = jdl.augmented(classify(model), Crop(1))
    penalty = 0.1 * jdl.l2("**/kernel")
    alone = quickly(jdl.gradient(objective))
    loss = alone(params, state, batch, KEY)[1].loss
    both = quickly(jdl.gradient(2.0 * objective + penalty))(params, state, batch, KEY)[1].loss
    assert float(both) == pytest.approx(float(2 * loss + penalty(params, state, batch, None, True)[0]), rel=1e-6)

    grads, aux = quickly(jdl.accumulate(objective, 2))(params, state, batch, KEY)
    parts = [
        alone(params, state, jax.tree.map(lambda x, i=i: x[4 * i :][:4], batch), key)
        for i, key in enumerate(jax.random.fold_in(KEY, i) for i in range(2))
    ]
    assert_close(grads, jax.tree.map(lambda a, b: (a + b) / 2, parts[0][0], parts[1][0]), 1e-5)
    assert float(aux.loss) == pytest.approx(float(parts[0][1].loss + parts[1][1].loss) / 2, rel=1e-5)


@pytest.mark.slow
def test_per_example_and_many_runs_and_devices():
    model, batch = network(), images()
    params, state = model.init(KEY, batch["inputs"])
    objective = jdl.augmented(classify(model), Crop(1))
    grads, _ = quickly(jdl.clip_per_example(objective, 1.0))(params, state, batch, KEY)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))
    losses, _ = quickly(jax.vmap(lambda key: objective(params, state, batch, key, True)))(jax.random.split(KEY, 5))
    assert len(set(np.asarray(losses).tolist())) == 5  # each its own crops
    mixing = jdl.augmented(classify(model), Mixup(classes=3))
    with pytest.raises(jdl.InputError, match="in Mixup: got a batch of one example, wanted others to mix it with"):
        jdl.clip_per_example(mixing, 1.0)(params, state, batch, KEY)


@pytest.mark.slow
def test_under_shard_map():
    model, batch = network(), images()
    params, state = model.init(KEY, batch["inputs"])
    mesh, spec = mesh_of_two(), jax.sharding.PartitionSpec
    objective = jdl.augmented(classify(model), Crop(1), Mixup(1.0, classes=3))
    field = jdl.mean_over_devices(objective, "devices")
    parallel = jax.shard_map(field, mesh=mesh, in_specs=(spec(), spec(), spec("devices"), spec()), out_specs=spec())
    grads, _ = quickly(parallel)(params, state, batch, KEY)
    halves = [jax.tree.map(lambda x, i=i: x[4 * i :][:4], batch) for i in range(2)]
    alone = quickly(jdl.gradient(objective))
    each = [alone(params, state, half, jax.random.fold_in(KEY, i)) for i, half in enumerate(halves)]
    assert_close(grads, jax.tree.map(lambda a, b: (a + b) / 2, each[0][0], each[1][0]), 1e-5)


def test_a_mixture_of_labels_costs_the_mixture_of_losses():
    model, batch = network(), images() | {"mask": jnp.asarray([1.0, 1, 0, 1, 0.5, 1, 1, 2])}
    params, state = model.init(KEY, batch["inputs"])
    mixed = quickly(Mixup(1.0, 3))(KEY, batch)
    loss, aux = quickly(classify(model), static_argnums=4)(params, state, mixed, None, True)
    log_probability = jax.nn.log_softmax(model.apply(params, state, mixed["inputs"])[0])
    wanted = -np.sum(mixed["mask"][:, None] * mixed["targets"] * log_probability) / np.sum(mixed["mask"])
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
    assert float(aux.weight) == pytest.approx(float(np.sum(mixed["mask"])))


@pytest.mark.slow
def test_fit_trains_on_augmented_batches_and_evaluates_plain_ones():
    rng = np.random.default_rng(0)
    targets = rng.integers(2, size=96).astype(np.int32)
    inputs = rng.normal(size=(96, 4, 4, 1)).astype(np.float32) * 0.3
    inputs[:, 1:3] += np.where(targets == 1, 1, -1).reshape(-1, 1, 1, 1).astype(np.float32)
    model = nn.Chain(nn.Flatten(), nn.Dense(2))
    metrics = [jdl.metrics.accuracy, jdl.metrics.f1]
    plain = jdl.supervised(model, jdl.losses.cross_entropy, metrics)
    objective = jdl.augmented(plain, Crop(1), Flip(), Mixup(1.0, 2))
    run = jdl.fit(
        model,
        objective,
        optax.adam(0.02),
        (inputs[:64], targets[:64]),
        validation=(inputs[64:], targets[64:]),
        epochs=12,
        batch_size=16,
        steps_per_call=2,
    )
    row = run.history[-1]
    assert row["validation_accuracy"] == 1.0 and 0.5 < row["accuracy"] <= 1  # of mixed ones, the larger share is right
    wanted = jdl.evaluate(plain, run.variables, (inputs[64:], targets[64:]))
    assert run.evaluate((inputs[64:], targets[64:])) == pytest.approx(wanted)
    assert set(run.compilations.values()) == {1}


def test_fit_still_holds_targets_against_outputs():
    model = nn.Chain(nn.Flatten(), nn.Dense(2))
    objective = jdl.augmented(jdl.supervised(model, jdl.losses.cross_entropy), Crop(1))
    data = (np.zeros((8, 4, 4, 1), np.float32), np.full(8, 5))
    with pytest.raises(jdl.InputError, match="in data: targets got labels from 5 to 5, wanted 0 to 1 for 2 classes"):
        jdl.fit(model, objective, optax.sgd(0.1), data, epochs=1, batch_size=4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jdl.augmented(jdl.losses.cross_entropy, Flip()), "augmented got .*, wanted an objective"),
        (lambda: jdl.augmented(Observed(), Noise), "wanted an augmentation such as .*; give its settings"),
        (
            lambda: jdl.augmented(Observed(), Flip())({}, {}, images(), None, True),
            r"augmented got no key to draw from in training; give one: key=jax.random.key\(0\)",
        ),
    ],
)
def test_what_is_refused(make, message):
    with pytest.raises(jdl.InputError, match=message):
        make()
