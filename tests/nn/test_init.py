"""Initialisers: variances in closed form, orthogonality, and that they are values."""

from __future__ import annotations

import math
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.check import InputError
from jdl.nn import init

KEY = jax.random.key(1)
DENSE, CONV = (300, 200), (3, 3, 40, 100)  # fans 300 / 200 and 360 / 900

VARIANCES = {  # by fan-in and fan-out
    init.glorot_uniform: lambda i, o: 2 / (i + o),
    init.glorot_normal: lambda i, o: 2 / (i + o),
    init.he_uniform: lambda i, o: 2 / i,
    init.he_normal: lambda i, o: 2 / i,
    init.lecun_uniform: lambda i, o: 1 / i,
    init.lecun_normal: lambda i, o: 1 / i,
}


def assert_moments(values, variance, kurtosis):
    """Mean and variance within five standard errors, and the ``kurtosis``: 3 for a normal, 9/5 for a uniform."""
    values = np.asarray(values, np.float64).ravel()
    assert abs(values.mean()) < 5 * math.sqrt(variance / values.size)
    assert abs(values.var() / variance - 1) < 5 * math.sqrt((kurtosis - 1) / values.size)
    assert np.mean(values**4) / values.var() ** 2 == pytest.approx(kurtosis, rel=0.05)


@pytest.mark.parametrize(("shape", "fans"), [(DENSE, (300, 200)), (CONV, (360, 900))])
@pytest.mark.parametrize("make", VARIANCES, ids=lambda make: make.__name__)
def test_variances_follow_the_fans(make, shape, fans):
    variance = VARIANCES[make](*fans)
    values = make()(KEY, shape, jnp.float32)
    assert_moments(values, variance, 3 if "normal" in make.__name__ else 9 / 5)
    if "uniform" in make.__name__:
        assert jnp.abs(values).max() <= math.sqrt(3 * variance) * (1 + 1e-6)


def test_plain_distributions():
    assert_moments(init.normal(0.3)(KEY, DENSE), 0.09, 3)
    assert_moments(init.uniform(-2, 2)(KEY, DENSE), 16 / 12, 9 / 5)
    # a normal cut at two deviations: variance 1 - 4 φ(2) / (2 Φ(2) - 1) of the whole
    density, mass = math.exp(-2) / math.sqrt(2 * math.pi), math.erf(math.sqrt(2))
    values = np.asarray(init.truncated_normal(0.5)(KEY, DENSE))
    assert abs(values).max() <= 1
    assert values.std() == pytest.approx(0.5 * math.sqrt(1 - 4 * density / mass), rel=0.01)
    assert math.sqrt(1 - 4 * density / mass) == pytest.approx(0.8796, abs=1e-4)  # the docstring's figure
    for make, value in ((init.zeros(), 0), (init.ones(), 1), (init.constant(0.25), 0.25)):
        np.testing.assert_array_equal(make(KEY, (2, 3)), np.full((2, 3), value))


@pytest.mark.parametrize("shape", [(20, 8), (8, 20), (9, 9), (3, 3, 4, 16), (2, 3, 50)])
def test_orthogonal_has_orthonormal_columns_or_rows(shape):
    matrix = np.asarray(init.orthogonal(2.0)(KEY, shape)).reshape(-1, shape[-1])
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)


def test_orthogonal_is_uniform():
    """Over random rotations of the plane every entry has mean 0 and variance 1/2; QR without a sign rule has not."""
    keys = jax.random.split(KEY, 2000)
    matrices = np.asarray(jax.vmap(lambda key: init.orthogonal()(key, (2, 2)))(keys))
    assert np.abs(matrices.mean(0)).max() < 5 * math.sqrt(0.5 / 2000)
    assert (np.linalg.det(matrices) > 0).mean() == pytest.approx(0.5, abs=0.06)


ALL = [
    init.zeros(),
    init.ones(),
    init.constant(2.0),
    init.uniform(),
    init.normal(),
    init.truncated_normal(),
    init.orthogonal(),
    *(make() for make in VARIANCES),
]


@pytest.mark.parametrize("made", ALL, ids=repr)
def test_initialisers_are_values(made):
    assert eval(repr(made), vars(init)) == made
    assert hash(eval(repr(made), vars(init))) == hash(made)
    assert pickle.loads(pickle.dumps(made)) == made
    assert sum(made == other for other in ALL) == 1
    values = made(KEY, (6, 4), jnp.bfloat16)
    assert (values.shape, values.dtype) == ((6, 4), jnp.bfloat16)
    np.testing.assert_array_equal(values, made(KEY, (6, 4), jnp.bfloat16))


def test_settings_print_as_written():
    assert repr(init.he_normal()) == "he_normal()"
    assert repr(init.normal(0.1)) == "normal(std=0.1)"


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: init.he_normal()(KEY, (5,)), r"he_normal\(\) got shape \(5,\), wanted \[..., in, out\]"),
        (lambda: init.orthogonal()(KEY, (0, 5)), "without empty axes"),
        (lambda: init.uniform(1, 0), "wanted low < high"),
        (lambda: init.normal(-1.0), "std got -1.0, wanted at least 0"),
        (lambda: init.truncated_normal(-1.0), "std got -1.0, wanted at least 0"),
        (lambda: init.normal()(KEY, (5,), jnp.int32), "dtype got int32, wanted a floating dtype"),
        (lambda: init.orthogonal()(KEY, (5, 5), jnp.int32), "dtype got int32, wanted a floating dtype"),
    ],
)
def test_refused_in_plain_words(act, words):
    with pytest.raises(InputError, match=words):
        act()
