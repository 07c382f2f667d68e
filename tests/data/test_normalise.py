"""Normalisation: beside scikit-learn's, and invertible."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.preprocessing import StandardScaler

from jdl.check import InputError
from jdl.data import Normaliser

RNG = np.random.default_rng(0)


def test_columns_as_scikit_learn():
    x = RNG.normal([3, -500, 0, 7], [2, 0.1, 1e-6, 0], (200, 4)).astype(np.float32)
    normaliser = Normaliser.fit(x)
    reference = StandardScaler().fit(x.astype(np.float64))
    np.testing.assert_allclose(normaliser.mean, reference.mean_, rtol=1e-6)
    np.testing.assert_allclose(normaliser.std, reference.scale_, rtol=1e-6)  # 1 for the constant column
    assert normaliser.std[3] == 1
    y = normaliser.apply(x)
    assert y.dtype == np.float32 and np.isfinite(y).all()
    assert (np.abs(normaliser.invert(y) - x).max(0) <= 1e-6 * np.abs(x).max(0)).all()
    np.testing.assert_allclose(normaliser.apply(x[0]), y[0])  # one example


@pytest.mark.parametrize("value", [0.1, 1e-30, -1e8, 0])
def test_constant_column_becomes_zero(value):
    normaliser = Normaliser.fit(np.full((1001, 1), value, np.float64))
    assert normaliser.std == 1
    np.testing.assert_allclose(normaliser.apply(np.full((1001, 1), value, np.float32)), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("axis", "shape", "reference"),
    [
        (None, (), None),
        ((0, 1, 2), (1, 1, 3), (0, 1, 2)),
        ((0, -2, -3), (1, 1, 3), (0, 1, 2)),
        (0, (5, 4, 3), 0),
        ((0, 3), (5, 4, 1), (0, 3)),
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
def test_images(axis, shape, reference, dtype):
    x = (RNG.integers(0, 2, (50, 5, 4, 3)) if dtype is bool else RNG.integers(0, 256, (50, 5, 4, 3))).astype(dtype)
    normaliser = Normaliser.fit(x, axis)
    assert normaliser.mean.shape == normaliser.std.shape == shape
    y = normaliser.apply(x)
    assert y.dtype == np.float32 and y.shape == x.shape
    np.testing.assert_allclose(y.mean(reference, dtype=np.float64), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(reference, dtype=np.float64), 1, atol=1e-5)


def test_more_than_one_part_is_one_measure():
    x = RNG.normal(5, 2, (2100, 2100)).astype(np.float32)  # above 2²² values: measured in parts
    normaliser = Normaliser.fit(x, axis=None)
    np.testing.assert_allclose(normaliser.mean, x.mean(dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(normaliser.std, x.std(dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.uint8])
def test_under_jit(dtype):
    normaliser = Normaliser.fit(RNG.uniform(0, 200, (20, 3)))
    x = jnp.asarray(RNG.uniform(0, 200, (7, 3))).astype(dtype)
    y = jax.jit(normaliser.apply)(x)
    assert y.dtype == (jnp.float32 if dtype == jnp.uint8 else dtype)
    wanted = (np.asarray(x, np.float64) - normaliser.mean) / normaliser.std
    np.testing.assert_allclose(np.asarray(y, np.float64), wanted, atol=3e-2 if dtype == jnp.bfloat16 else 1e-5)


@pytest.mark.parametrize(
    ("inputs", "axis", "message"),
    [
        (np.ones((3, 2)), 1, r"axis got 1, wanted axes of float64\[3, 2\] with 0 among them"),
        (np.ones((3, 2)), (0, 2), "axis got"),
        (np.ones((0, 2)), 0, r"inputs got float64\[0, 2\], wanted real numbers"),
        (np.array(["a"]), 0, "wanted real numbers"),
    ],
)
def test_refused(inputs, axis, message):
    with pytest.raises(InputError, match=message):
        Normaliser.fit(inputs, axis)
