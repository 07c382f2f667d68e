"""RadialBasis: PyTorch's closed form, its own finite differences, and where floating point is at its worst; k-means
and widths, and putting both into a model.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl import nn
from jdl.nn import functional as F
from tests.golden.feedforward import assert_as_pytorch
from tests.nn.toys import KEY, apply_jitted, assert_close, assert_equal, normal, refused


def test_values_and_gradients_are_those_of_pytorch():
    assert_as_pytorch("RadialBasis", nn.RadialBasis(4))


basis = jax.jit(F.radial_basis)


def by_hand(x: np.ndarray, centres: np.ndarray, log_widths: np.ndarray) -> np.ndarray:
    """In float64, distance by distance."""
    x, centres, log_widths = (np.asarray(array, np.float64) for array in (x, centres, log_widths))
    squares = np.sum((x[..., None, :] - centres) ** 2, axis=-1)
    return np.exp(-squares / (2 * np.exp(log_widths) ** 2))


def test_gradients_are_finite_differences():
    arrays = [np.asarray(normal(*shape, seed=k), np.float64) for k, shape in enumerate([(3, 2), (4, 2), (4,)])]
    weights = np.asarray(normal(3, 4, seed=3))

    def total(*arrays):
        return jnp.sum(weights * F.radial_basis(*arrays))

    gradients = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*map(np.float32, arrays))
    step = 1e-6
    for which, gradient in enumerate(gradients):
        differences = np.zeros_like(arrays[which])
        for place in np.ndindex(differences.shape):
            ends = []
            for sign in (1, -1):
                moved = [array.copy() for array in arrays]
                moved[which][place] += sign * step
                ends.append(np.sum(weights * by_hand(*moved)))
            differences[place] = (ends[0] - ends[1]) / (2 * step)
        assert_close(gradient, differences, 1e-5)


def test_at_a_centre_the_output_is_1_and_gradients_are_finite():
    x = normal(4, 3)
    differentiate = jax.jit(jax.grad(lambda *arrays: jnp.sum(F.radial_basis(*arrays)), argnums=(0, 1, 2)))
    for log_width in (0.0, -200.0, 200.0):
        gradient = differentiate(x, x, np.full(4, log_width, np.float32))
        assert all(np.all(np.isfinite(leaf)) for leaf in gradient)
    assert_close(np.diag(basis(x, x, np.zeros(4, np.float32))), np.ones(4))
    # alone with its centre nothing moves
    assert_equal(differentiate(x[:1], x[:1], np.zeros(1, np.float32))[:2], (np.zeros((1, 3)), np.zeros((1, 3))))


def test_far_from_the_origin_distances_are_as_exact_as_near_it():
    """||x||² - 2 x · c + ||c||² as it stands loses everything here: 10⁸ is known to 8."""
    x, centres = (np.asarray(normal(n, 3, seed=n)) + np.float32(1e4) for n in (6, 4))
    wanted = np.sum((np.float64(x)[:, None] - np.float64(centres)) ** 2, axis=-1)
    assert_close(F.squared_distances(x, centres), wanted, 1e-5)
    assert_close(basis(x, centres, np.zeros(4, np.float32)), by_hand(x, centres, np.zeros(4)), 1e-5)
    many = normal(100, 2)
    assert np.min(F.squared_distances(many, many)) >= 0  # where rounding alone would give some below


def test_any_leading_axes_and_half_precision():
    variables = nn.RadialBasis(4).init(KEY, x := normal(2, 5, 3))
    y = apply_jitted(nn.RadialBasis(4), variables, x)[0]
    assert_close(y, by_hand(x, **variables.params), 1e-5)
    assert_close(apply_jitted(nn.RadialBasis(4), variables, x[1, 2])[0], y[1, 2])
    # one rounding of the input and one of the output, though the points lie far from 0
    half = (x + 100).astype(jnp.bfloat16)
    moved = variables.params | {"centres": half[0, :4].astype(jnp.float32) + 0.1}  # which half precision cannot hold
    for model in (nn.RadialBasis(4), nn.Precision(nn.RadialBasis(4))):
        got = apply_jitted(model, nn.Variables(moved, {}), half)[0].astype(jnp.float32)
        assert_close(got, by_hand(half.astype(jnp.float32), **moved), 0.004)


def test_by_default_units_answer_to_normalised_inputs_of_any_size():
    for size in (2, 784):
        x = normal(20, size)
        y = apply_jitted(nn.RadialBasis(30), nn.RadialBasis(30).init(KEY, x), x)[0]
        assert 0.1 < np.median(y) < 0.7


# ── k-means ───────────────────────────────────────────────────────────────────────────────────────────────────────


def blobs(count: int = 5, members: int = 20) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    means = 10 * np.stack(np.meshgrid(np.arange(count), [0, 1]), -1).reshape(-1, 2)[:count]
    return means, (means[:, None] + 0.1 * rng.normal(size=(count, members, 2))).reshape(-1, 2).astype(np.float32)


def spread(x: np.ndarray, centres: jax.Array) -> float:
    return float(np.sum(np.min(np.sum((x[:, None] - np.asarray(centres)) ** 2, axis=-1), axis=-1)))


def test_kmeans_finds_blobs_from_any_key():
    means, x = blobs()
    for seed in range(5):
        centres = F.kmeans(jax.random.key(seed), x, 5)
        distances = np.linalg.norm(means[:, None] - np.asarray(centres), axis=-1)
        assert np.all(distances.min(1) < 0.1) and np.all(distances.min(0) < 0.1)


def test_over_devices_each_finds_the_centres_of_its_own_points():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("devices",))
    split = jax.sharding.PartitionSpec("devices")
    x = normal(4, 3)
    run = jax.shard_map(lambda x: F.kmeans(KEY, x, 2), mesh=mesh, in_specs=split, out_specs=split)
    for half, centres in zip(np.split(np.asarray(x), 2), np.split(np.asarray(jax.jit(run)(x)), 2), strict=True):
        assert_close(np.sort(centres, axis=0), np.sort(half, axis=0))  # two points, two centres
    run = jax.shard_map(lambda keys: F.kmeans(keys[0], x, 2), mesh=mesh, in_specs=split, out_specs=split)
    assert jax.eval_shape(run, jax.random.split(KEY)).shape == (4, 3)  # only the keys differ


def test_kmeans_ends_where_every_centre_is_the_mean_of_its_points_and_is_as_good_as_that_of_scikit_learn():
    x = np.asarray(normal(100, 2))  # the shape of the blobs, for one compiled program
    found = [np.asarray(F.kmeans(jax.random.key(seed), x, 5)) for seed in range(10)]
    nearest = np.argmin(np.sum((x[:, None] - found[0]) ** 2, axis=-1), axis=-1)
    assert_close(found[0], np.stack([x[nearest == k].mean(0) for k in range(5)]), 1e-5)
    assert_equal(F.kmeans(jax.random.key(0), x, 5), found[0])
    cluster = pytest.importorskip("sklearn.cluster")
    theirs = [cluster.KMeans(5, n_init=1, random_state=seed).fit(x).inertia_ for seed in range(10)]
    assert np.mean([spread(x, centres) for centres in found]) < 1.03 * np.mean(theirs)


def test_more_clusters_than_distinct_points():
    x = np.asarray(normal(3, 2))[np.arange(100) % 3]
    centres = F.kmeans(KEY, x, 5)
    assert np.all(np.isfinite(centres)) and len(np.unique(np.asarray(centres), axis=0)) == 3
    widths = F.neighbour_widths(centres)
    assert np.all(np.isfinite(widths)) and np.all(widths > 0)
    assert np.all(F.neighbour_widths(jnp.ones((4, 2))) > 0)


def test_widths_are_distances_to_the_nearest_centres():
    centres = jnp.array([[0.0], [3.0], [4.0], [10.0]])
    assert_close(F.neighbour_widths(centres), np.sqrt([(9 + 16) / 2, (9 + 1) / 2, (1 + 16) / 2, (49 + 36) / 2]))
    assert_close(F.neighbour_widths(centres, 1), np.array([3.0, 1.0, 1.0, 6.0]))


# ── into a model ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.slow
def test_with_centres_looks_at_what_each_layer_gets():
    _, x = blobs()
    model = nn.Chain(nn.Dense(2), z=nn.RadialBasis(5), a=nn.RadialBasis(5))
    variables = model.init(KEY, x)
    placed = nn.with_centres(model, variables, x, key=KEY)
    fold = functools.partial(jax.random.fold_in, KEY)
    first = F.kmeans(fold(0), x @ variables.params["0"]["kernel"], 5)
    assert_close(placed.params["z"]["centres"], first, 1e-5)
    assert_close(placed.params["z"]["log_widths"], np.log(F.neighbour_widths(first)), 1e-5)
    # the second gets what the first, its centres in place, makes of x
    between = basis(x @ variables.params["0"]["kernel"], **placed.params["z"])
    assert_close(placed.params["a"]["centres"], F.kmeans(fold(1), between, 5), 1e-5)
    assert_equal(placed.params["0"], variables.params["0"])
    assert jax.tree.structure(placed) == jax.tree.structure(variables)


def test_one_layer_used_twice_gets_centres_among_all_that_it_gets():
    class Twice(nn.Layer):
        def forward(self, net, x):
            basis = net.child("basis", nn.RadialBasis(5))
            return basis(x[:50]) + basis(x[50:])

    _, x = blobs()
    placed = nn.with_centres(Twice(), Twice().init(KEY, x), x, key=KEY)
    assert_close(placed.params["basis"]["centres"], F.kmeans(jax.random.fold_in(KEY, 0), x, 5))


def test_with_centres_where_they_are_frozen_for_a_layer_alone_and_rematerialised():
    _, x = blobs()
    layer = nn.RadialBasis(5)
    placed = nn.with_centres(layer, layer.init(KEY, x), x, key=KEY)
    frozen = jdl.freeze(layer.init(KEY, x), "centres")
    again = nn.with_centres(nn.Remat(nn.Remat(layer)), frozen, x, key=KEY)
    assert jdl.paths(again.params) == ("log_widths",) and jdl.paths(again.state) == ("centres",)
    assert_equal(again.params | again.state, placed.params)


@pytest.mark.slow
def test_what_cannot_be_used_is_refused():
    x = np.asarray(normal(4, 3))
    with refused("RadialBasis.units got 0"):
        nn.RadialBasis(0)
    with refused("input got int32[4], wanted a floating dtype"):
        nn.RadialBasis(2).init(KEY, jnp.arange(4))
    with refused("float32[2, 2], wanted 3 entries on axis -1", "the centres are float32[4, 3]"):
        F.squared_distances(x[:2, :2], x)
    with refused("log_widths got float32[3], wanted 4 entries"):
        F.radial_basis(x, x, jnp.zeros(3))
    with refused("clusters got 5, wanted 1 to 4"):
        F.kmeans(KEY, x, 5)
    with refused("input got float32[4], wanted [N, D]"):
        F.kmeans(KEY, x[:, 0], 2)
    with refused("neighbours got 2 for 2 centres"):
        F.neighbour_widths(x[:2])
    model = nn.Dense(2)
    with refused("with_centres got Dense, which runs no nn.RadialBasis layer"):
        nn.with_centres(model, model.init(KEY, x), x, key=KEY)
    layer = nn.RadialBasis(5)
    with refused("with_centres got 4 examples for RadialBasis(5), wanted 3 to 4 units", "more examples"):
        nn.with_centres(layer, layer.init(KEY, x), x, key=KEY)
    model = nn.Chain(basis=nn.RadialBasis(2))
    with refused("in basis: with_centres got 4 examples for RadialBasis(2)", "two other centres"):
        nn.with_centres(model, model.init(KEY, x), x, key=KEY)
    for copies in (nn.Repeat(nn.RadialBasis(3), 2), nn.Ensemble(nn.RadialBasis(3), 2)):
        model = nn.Chain(basis=copies)
        with refused("in basis: with_centres got RadialBasis(3) in nn.Repeat, nn.Ensemble", "cannot be set at once"):
            nn.with_centres(model, model.init(KEY, x), x, key=KEY)
    with refused("variables got {}, wanted Variables(params, state)"):
        nn.with_centres(layer, {}, x, key=KEY)  # pyright: ignore[reportArgumentType]
