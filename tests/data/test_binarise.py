"""Binarise draws ones with the probabilities it is given, anew for every example and key."""

from __future__ import annotations

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl.check import InputError
from jdl.data import Binarise

GREY = np.linspace(0, 1, 5, dtype=np.float32)


def test_values_become_one_with_their_own_probability():
    batch = {"inputs": np.tile(GREY, (20_000, 1)), "targets": np.arange(20_000)}
    binarise = jax.jit(Binarise())
    out = binarise(jax.random.key(0), batch)
    drawn = np.asarray(out["inputs"])
    assert out["inputs"].dtype == jnp.float32 and set(np.unique(drawn)) == {0, 1}
    assert np.all(drawn[:, 0] == 0) and np.all(drawn[:, -1] == 1)
    np.testing.assert_allclose(drawn.mean(0), GREY, atol=0.015)
    assert np.array_equal(out["targets"], batch["targets"])
    assert abs(np.corrcoef(drawn[:, 2], drawn[:, 3])[0, 1]) < 0.03
    assert abs(np.corrcoef(drawn[:-1, 2], drawn[1:, 2])[0, 1]) < 0.03
    assert np.any(drawn != binarise(jax.random.key(1), batch)["inputs"])


def test_it_is_a_value_and_keeps_the_dtype():
    assert pickle.loads(pickle.dumps(Binarise())) == Binarise()
    half = {"inputs": jnp.full((2, 3), 0.5, jnp.bfloat16)}
    assert jax.eval_shape(Binarise(), jax.random.key(0), half)["inputs"].dtype == jnp.bfloat16


def test_pixels_of_integers_are_refused():
    with pytest.raises(InputError, match=r"in Binarise: inputs got uint8\[2, 3\], wanted a floating dtype.*/ 255"):
        Binarise()(jax.random.key(0), {"inputs": np.zeros((2, 3), np.uint8)})
