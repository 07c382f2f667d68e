"""Counts, shapes and costs by abstract evaluation, against formulas and XLA's own cost analysis."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jdl import nn
from tests.nn.test_transforms import INNER, TRANSFORMS
from tests.nn.toys import KEY, Inside, Linear, Masked, Mean, Noise, normal, shapes

X = normal(4, 3)
IMAGES = normal(2, 12, 12, 3)
MULTIPLY = 2 * 4 * 3 * 3  # of X with a 3 by 3 kernel
LINEAR = MULTIPLY + 4 * 3  # and its bias


def of(spec: nn.Spec) -> list[tuple[str, int, int, int]]:
    """Path, parameters, state and FLOPs of every row."""
    return [(row.path, row.parameters, row.state, row.flops) for row in spec.rows]


@pytest.mark.slow
def test_spec_is_what_init_makes_and_apply_returns():
    model = nn.Chain(nn.Conv(4, 3), nn.BatchNorm(), jax.nn.relu, nn.MaxPool(2), nn.Flatten(), nn.Dense(10, bias=False))
    spec, variables = model.spec(IMAGES), model.init(KEY, IMAGES)
    assert shapes((spec.params, spec.state)) == shapes(tuple(variables))
    assert shapes(spec.output) == shapes(model(variables, IMAGES))
    assert spec.parameters == sum(leaf.size for leaf in jax.tree.leaves(variables.params)) == 112 + 8 + 1440
    assert spec.bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(variables)) == 4 * (112 + 8 + 8 + 1440)
    assert spec.parameters == sum(row.parameters for row in spec.rows)
    assert spec.bytes == sum(row.bytes for row in spec.rows)
    assert spec.flops == sum(row.flops for row in spec.rows)
    assert model.spec(jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype)) == spec


def test_rows_stand_in_the_order_in_which_layers_start():
    model = nn.Chain(a=nn.Residual(nn.Chain(Linear(3), jnp.tanh)), b=nn.Parallel(Linear(2), m=Mean()))
    rows = model.spec(X).rows
    assert [row.path for row in rows] == ["", "a", "a", "a/0", "a/1", "b", "b/0", "b/m"]
    assert [row.layer for row in rows[:4]] == [model, model["a"], nn.Chain(Linear(3), jnp.tanh), Linear(3)]
    assert [str(x) for x in rows[3].inputs] == ["float32[4,3]"] and str(rows[6].output) == "float32[4,2]"
    assert of(model.spec(X))[3:5] == [("a/0", 12, 0, LINEAR), ("a/1", 0, 0, 12)]
    assert of(model.spec(X))[5:] == [("b", 0, 0, 0), ("b/0", 8, 0, 56), ("b/m", 0, 3, 12)]
    assert of(model.spec(X))[1] == ("a", 0, 0, 12)  # the residual's own sum


def test_shared_parameters_count_once_and_their_work_each_time():
    class Shared(nn.Layer):
        def forward(self, net, x):
            return net.child("a", Linear(3))(net.child("a", Linear(3))(x))

    spec = Shared().spec(X)
    assert of(spec) == [("", 0, 0, 0), ("a", 12, 0, LINEAR), ("a", 0, 0, LINEAR)]
    assert spec.parameters == 12 and spec.flops == 2 * LINEAR


def test_copies_count_every_parameter_and_every_turn():
    inside = nn.Chain(u=Linear(3), b=nn.Repeat(nn.Chain(Linear(3), jnp.tanh), 3))
    for copies in (nn.Repeat(inside, 5), nn.Ensemble(inside, 5), nn.Remat(nn.Repeat(nn.Remat(inside), 5))):
        spec = nn.Chain(a=copies).spec(X)
        assert spec.parameters == 5 * 12 * 4 and spec.flops == 5 * (LINEAR + 3 * (LINEAR + 12))
        rows = {row.path: row for row in spec.rows}
        assert rows["a/u"].parameters == 60 and rows["a/u"].flops == 5 * LINEAR
        assert rows["a/b/0"].parameters == 180 and rows["a/b/0"].flops == 15 * LINEAR
        assert rows["a/b/1"].parameters == 0 and rows["a/b/1"].flops == 15 * 12
    assert [str(row.output) for row in nn.Ensemble(Linear(2), 5).spec(X).rows] == ["float32[5,4,2]", "float32[4,2]"]


TURNS = {"scan": 3, "fori_loop": 3, "checkpoint in scan": 3, "jit twice": 2}
TURNS |= dict.fromkeys(["vmap", "map", "checkpoint", "jit", "cond"], 1)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_layers_inside_a_users_transform_have_their_row(name):
    spec = Inside(INNER, TRANSFORMS[name]).spec(X)
    rows = {row.path: row for row in spec.rows}
    assert [row.path for row in spec.rows] == ["", "inner", "inner/0", "inner/1"]
    assert rows["inner/0"].parameters == 12
    if name in TURNS:
        assert rows["inner/0"].flops == TURNS[name] * LINEAR and rows["inner/1"].flops == TURNS[name] * 12
    else:
        assert rows["inner/0"].flops >= LINEAR


def test_a_conditional_costs_its_dearest_branch():
    class Either(nn.Layer):
        def forward(self, net, x):
            big, small = net.child("big", Linear(3)), net.child("small", jnp.tanh)
            return jax.lax.cond(x[0, 0] > 0, big, small, x)

    assert {row.path: row.flops for row in Either().spec(X).rows}["big"] == LINEAR
    assert Either().spec(X).flops <= LINEAR + 1  # the comparison


# What multiplies, and how often.
PRODUCTS = {
    "dense": (nn.Dense(7), X, 2 * 4 * 3 * 7 + 4 * 7),
    "dense on a sequence": (nn.Dense(7, bias=False), normal(2, 5, 3), 2 * 10 * 3 * 7),
    "conv": (nn.Conv(8, 3, padding="VALID"), IMAGES, 2 * (2 * 10 * 10 * 8) * (3 * 3 * 3) + 2 * 10 * 10 * 8),
    "stride": (nn.Conv(8, 3, stride=3, padding="VALID", bias=False), IMAGES, 2 * (2 * 4 * 4 * 8) * 27),
    "groups": (nn.Conv(6, 3, groups=3, padding="VALID", bias=False), IMAGES, 2 * (2 * 10 * 10 * 6) * 9),
    "volume": (nn.Conv(4, (3, 1, 2), padding="VALID", bias=False), normal(2, 5, 5, 5, 3), 2 * (2 * 3 * 5 * 4 * 4) * 18),
    "attend": (lambda x: jnp.einsum("bhd,thd->hbt", x, x), normal(4, 2, 3), 2 * 2 * 4 * 4 * 3),
    "batched": (lambda x: x @ x.swapaxes(1, 2), normal(4, 2, 3), 2 * 4 * 2 * 2 * 3),
    "sum": (lambda x: x.sum(), X, 12),
    "reshape": (lambda x: x.reshape(3, 4).T[:2], X, 0),
}


@pytest.mark.parametrize(("layer", "x", "flops"), PRODUCTS.values(), ids=PRODUCTS)
def test_flops_equal_the_formula(layer, x, flops):
    assert nn.Chain(layer).spec(x).flops == flops


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (nn.Chain(nn.Dense(128), jax.nn.relu, nn.Dense(64), jax.nn.relu, nn.Dense(10)), normal(32, 784)),
        (nn.Chain(nn.Conv(8, 3, padding="VALID"), jax.nn.relu, nn.MaxPool(2), nn.Flatten(), nn.Dense(10)), IMAGES),
        (nn.Chain(nn.Conv(8, 5, stride=2, padding="VALID"), nn.Conv(16, 3, padding="VALID", groups=4)), IMAGES),
    ],
    ids=["mlp", "cnn", "convs"],
)
@pytest.mark.slow
def test_flops_are_those_of_xla(model, x):
    params, state = model.init(KEY, x)
    lowered = jax.jit(lambda params, x: model.apply(params, state, x)[0]).lower(params, x)
    assert model.spec(x).flops == pytest.approx(lowered.cost_analysis()["flops"], rel=0.01)


def test_spec_never_allocates():
    huge = nn.Chain(nn.Dense(10**7), jax.nn.relu, nn.Repeat(nn.Dense(10**7), 1000), nn.Ensemble(nn.Dense(10**6), 100))
    spec = huge.spec(jax.ShapeDtypeStruct((8, 10**6), jnp.float32))
    n = 10**7
    assert spec.parameters == (10**6 * n + n) + 1000 * (n * n + n) + 100 * (n * 10**6 + 10**6)
    assert spec.bytes == 4 * spec.parameters
    assert spec.output.shape == (100, 8, 10**6)
    assert spec.flops > 2 * 8 * 1000 * n * n


def test_spec_takes_options_integers_and_half_precision():
    mask = jnp.ones(4)
    assert nn.Residual(Masked()).spec(X, mask=mask, scale=2.0).output.shape == (4, 3)
    assert nn.Dense(2).spec(X.astype(jnp.bfloat16)).output.dtype == jnp.bfloat16
    assert nn.Embedding(10, 4).spec(jnp.zeros((2, 3), jnp.int32)).output.shape == (2, 3, 4)
    assert nn.Chain(Noise(), nn.Dropout(0.5)).spec(X).rows[1].layer == Noise()
