"""Small networks that several tests train."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl import nn


def batch_of(size: int = 12, seed: int = 0, classes: int = 3, shape: tuple[int, ...] = (5,)) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(size, *shape)).astype(np.float32)
    return {"inputs": jnp.asarray(inputs), "targets": jnp.asarray(rng.integers(classes, size=size), jnp.int32)}


def mlp(rate: float = 0.0) -> nn.Chain:
    drop = [nn.Dropout(rate)] if rate else []
    return nn.Chain(nn.Dense(7), jnp.tanh, *drop, nn.Dense(3))


def classify(model: nn.Layer, **options) -> jdl.Objective:
    return jdl.supervised(model, jdl.losses.cross_entropy, **options)


def mesh_of_two() -> jax.sharding.Mesh:
    if jax.device_count() < 2:
        pytest.skip("needs two devices")
    return jax.make_mesh((2,), ("devices",), axis_types=(jax.sharding.AxisType.Auto,))


def assert_close(a, b, tolerance: float = 1e-6) -> None:
    """max |a - b| ≤ tolerance · max |b|, leaf by leaf."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for path, x in jax.tree_util.tree_leaves_with_path(a):
        y = np.asarray(dict(jax.tree_util.tree_leaves_with_path(b))[path])
        bound = tolerance * max(np.max(np.abs(y), initial=0), 1e-8)
        assert np.max(np.abs(np.asarray(x) - y), initial=0) <= bound, jax.tree_util.keystr(path)
