"""Gradient transformations equal what they stand for: the whole batch, a loop over examples, every device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import jdl
from jdl import nn
from jdl.check import InputError
from tests.networks import assert_close, batch_of, classify, mesh_of_two, mlp

MODEL, BATCH, KEY = mlp(), batch_of(), jax.random.key(1)
VARIABLES = MODEL.init(jax.random.key(0), BATCH["inputs"])
OBJECTIVE = classify(MODEL, metrics=[jdl.metrics.accuracy])
MASKS = {
    "none": None,
    "unequal": np.array([1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 0], np.float32),
    "empty microbatch": np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0.5], np.float32),
    "all empty": np.zeros(12, np.float32),
}


def with_mask(name: str) -> dict:
    return BATCH if MASKS[name] is None else BATCH | {"mask": jnp.asarray(MASKS[name])}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("penalty", [False, True], ids=["plain", "with l2"])
def test_accumulate_equals_the_whole_batch(mask, penalty):
    objective = OBJECTIVE + 1e-2 * jdl.l2("**/kernel") if penalty else OBJECTIVE
    whole, aux = jdl.gradient(objective)(*VARIABLES, with_mask(mask), KEY)
    parts, parts_aux = jdl.accumulate(jdl.gradient(objective), microbatches=4)(*VARIABLES, with_mask(mask), KEY)
    assert_close(parts, whole, 2e-6)
    assert float(parts_aux.loss) == pytest.approx(float(aux.loss), rel=1e-6)
    assert float(parts_aux.weight) == pytest.approx(float(aux.weight), abs=1e-9)
    for name in aux.metrics:
        assert float(parts_aux.metrics[name]) == pytest.approx(float(aux.metrics[name]), rel=1e-6, nan_ok=True)


@pytest.mark.slow
def test_accumulate_over_tokens_with_ragged_masks():
    model, rng = nn.Dense(4), np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(6, 5, 3)), jnp.float32)
    mask = jnp.asarray(np.arange(5)[None] < np.array([5, 1, 0, 0, 3, 2])[:, None], jnp.float32)
    batch = {"inputs": x, "targets": jnp.asarray(rng.integers(4, size=(6, 5)), jnp.int32), "mask": mask}
    variables = model.init(KEY, x)
    gradient = jdl.gradient(classify(model))
    assert_close(jdl.accumulate(gradient, 3)(*variables, batch, KEY)[0], gradient(*variables, batch, KEY)[0], 2e-6)


def test_accumulate_draws_another_key_for_each_microbatch():
    model = nn.Chain(nn.Dropout(0.5))

    def field(params, state, batch, key):
        y, _ = model.apply({}, {}, batch["inputs"], key=key, train=True)
        return jax.tree.map(jnp.zeros_like, params), jdl.Aux(jnp.sum(y), 1.0, state, {"sum": jdl.metrics.Mean(y, y)})

    batch = {"inputs": jnp.ones((2, 50))}
    aux = jdl.accumulate(field, 2)({}, {}, batch, KEY)[1]
    kept = np.asarray(aux.metrics["sum"].total) / 2
    assert len(np.unique(kept)) == 3, "both kept, one kept, none kept"


@pytest.mark.slow
def test_sum_of_terms_with_their_own_masks_is_refused():
    half = jnp.arange(12) < 6
    batch = BATCH | {"mask": half, "other": ~half}
    objective = classify(MODEL) + classify(MODEL, mask="other", metrics=[])
    with pytest.raises(InputError, match=r"terms of a sum.*weights of their own.*average by one mask"):
        jdl.accumulate(jdl.gradient(objective), 2)(*VARIABLES, batch, KEY)
    with pytest.raises(InputError, match="weights of their own"):
        jdl.clip_per_example(objective, 1.0)(*VARIABLES, batch, None)
    same = classify(MODEL) + classify(MODEL)  # both average over the same 12 examples
    whole = jdl.gradient(same)(*VARIABLES, BATCH, KEY)[0]
    assert_close(jdl.accumulate(jdl.gradient(same), 2)(*VARIABLES, BATCH, KEY)[0], whole, 2e-6)
    assert jax.eval_shape(jdl.gradient(same), *VARIABLES, batch, KEY)[1].weight.shape == (), "and so by one mask"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: jdl.accumulate(jdl.gradient(OBJECTIVE), 5)(*VARIABLES, BATCH, KEY),
            r"float32\[12, 5\].*5 microbatches",
        ),
        (lambda: jdl.accumulate(jdl.gradient(OBJECTIVE), 0), "microbatches got 0"),
        (lambda: jdl.gradient(jdl.losses.mse), "wanted an objective"),
        (lambda: jdl.clip_per_example(OBJECTIVE, float("inf")), "max_norm got inf"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises(InputError, match=message):
        make()


def one_by_one() -> list:
    gradient = jdl.gradient(classify(MODEL))
    rows = [{name: value[i : i + 1] for name, value in BATCH.items()} for i in range(12)]
    return [gradient(*VARIABLES, row, None)[0] for row in rows]


@pytest.mark.slow
def test_per_example_gradients_equal_a_loop():
    grads, aux = jdl.per_example_gradients(jdl.gradient(classify(MODEL)))(*VARIABLES, BATCH, None)
    assert_close(grads, jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one()), 2e-6)
    assert aux.loss.shape == aux.weight.shape == (12,)


@pytest.mark.slow
@pytest.mark.parametrize("max_norm", [0.5, 1e9])
def test_clip_per_example_equals_a_loop(max_norm):
    norms = [np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(grads))) for grads in one_by_one()]
    assert min(norms) < max(norms) and max(norms) > 0.5, "some are clipped"
    scaled = [
        jax.tree.map(lambda g, n=norm: g * min(1.0, max_norm / n) / 12, grads)
        for grads, norm in zip(one_by_one(), norms, strict=True)
    ]
    clipped, aux = jdl.clip_per_example(jdl.gradient(OBJECTIVE), max_norm)(*VARIABLES, BATCH, None)
    assert_close(clipped, jax.tree.map(lambda *leaves: sum(leaves), *scaled), 2e-6)
    assert float(aux.loss) == pytest.approx(float(OBJECTIVE(*VARIABLES, BATCH, None, True)[0]), rel=1e-6)


@pytest.mark.slow
def test_clip_per_example_leaves_masked_examples_out():
    mask = jnp.arange(12) < 7
    few = {name: value[:7] for name, value in BATCH.items()}
    clip = jdl.clip_per_example(jdl.gradient(OBJECTIVE), 0.5)
    assert_close(clip(*VARIABLES, BATCH | {"mask": mask}, None)[0], clip(*VARIABLES, few, None)[0], 2e-6)


def test_per_example_gradients_refuse_batch_statistics():
    model = nn.Chain(nn.Dense(7), nn.BatchNorm(), nn.Dense(3))
    variables = model.init(KEY, BATCH["inputs"])
    with pytest.raises(InputError, match=r"one|single|state"):
        jdl.per_example_gradients(jdl.gradient(classify(model)))(*variables, BATCH, None)


def test_sharpness_aware_on_a_quadratic():
    # loss = |w|²/2 has gradient w; radius r uphill it is w · (1 + r/|w|)
    def field(params, state, batch, key):
        return params, jdl.Aux(0.5 * jnp.sum(params["w"] ** 2), 1.0, state, {})

    w = jnp.array([3.0, 4.0])
    grads, aux = jdl.sharpness_aware(field, radius=0.5)({"w": w}, {}, {}, None)
    assert_close(grads, {"w": w * (1 + 0.5 / 5)})
    assert float(aux.loss) == 12.5


def test_accumulate_inside_a_mesh():
    mesh, batch = mesh_of_two(), with_mask("unequal")
    gradient = jdl.mean_over_devices(jdl.accumulate(OBJECTIVE, 3), "devices")
    step = jax.shard_map(lambda b: gradient(*VARIABLES, b, KEY)[0], mesh=mesh, in_specs=P("devices"), out_specs=P())
    assert_close(jax.jit(step)(batch), jdl.gradient(OBJECTIVE)(*VARIABLES, batch, KEY)[0], 2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["vmap", "shard_map"])
def test_mean_over_devices_equals_the_whole_batch(how):
    batch = with_mask("unequal")
    gradient = jdl.gradient(OBJECTIVE)
    whole, aux = gradient(*VARIABLES, batch, None)
    field = jdl.mean_over_devices(gradient, "devices")

    def step(part):
        grads, aux = field(*VARIABLES, part, None)
        return grads, aux.loss, aux.metrics["accuracy"].compute()

    if how == "vmap":
        split = jax.tree.map(lambda x: x.reshape(2, 6, *x.shape[1:]), batch)
        grads, loss, accuracy = jax.tree.map(lambda x: x[0], jax.vmap(step, axis_name="devices")(split))
    else:
        mesh = mesh_of_two()
        grads, loss, accuracy = jax.jit(jax.shard_map(step, mesh=mesh, in_specs=P("devices"), out_specs=P()))(batch)
    assert_close(grads, whole, 2e-6)
    assert float(loss) == pytest.approx(float(aux.loss), rel=1e-6)
    assert float(accuracy) == pytest.approx(float(aux.metrics["accuracy"]), rel=1e-6)


@pytest.mark.parametrize(
    "transform",
    [lambda g: jdl.accumulate(g, 2), lambda g: jdl.clip_per_example(g, 0.5), jdl.sharpness_aware],
    ids=["accumulate", "clip", "sharpness"],
)
def test_an_objective_stands_for_its_gradient(transform):
    ours = transform(OBJECTIVE)(*VARIABLES, BATCH, KEY)[0]
    assert_close(ours, transform(jdl.gradient(OBJECTIVE))(*VARIABLES, BATCH, KEY)[0], 0)


def test_gradients_compose_and_are_values():
    make = lambda: jdl.sharpness_aware(jdl.accumulate(jdl.gradient(classify(mlp())), 2), 0.1)  # noqa: E731
    assert make() == make() and hash(make()) == hash(make())
    grads, _ = jax.jit(make())(*VARIABLES, BATCH, KEY)
    assert jax.tree.structure(grads) == jax.tree.structure(VARIABLES.params)
