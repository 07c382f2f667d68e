"""What the tests of augmentations share."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

KEY = jax.random.key(0)

# Not optimised: most of the time goes into compiling.
quickly = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@partial(quickly, static_argnums=0)
def apply(augmentation, key, batch):
    return augmentation(key, batch)


def image_batch(size: int = 6, shape: tuple[int, ...] = (8, 9, 3), dtype=jnp.float32) -> dict[str, jax.Array]:
    rng = np.random.default_rng(1)
    scale = 255 if dtype == jnp.uint8 else 1
    inputs = jnp.asarray(rng.random((size, *shape)) * scale, jnp.float32).astype(dtype)
    return {"inputs": inputs, "targets": jnp.arange(size, dtype=jnp.int32) % 10, "weight": jnp.ones(size)}


def ramps(size: int, rows: int, columns: int) -> dict[str, jax.Array]:
    """Images that hold each pixel's row and column, so that one sees where its content comes from."""
    places = np.stack(np.mgrid[:rows, :columns], -1).astype(np.float32)
    return {"inputs": jnp.asarray(np.broadcast_to(places, (size, rows, columns, 2)))}


def draws(augmentation, batch, key=KEY) -> np.ndarray:
    return np.asarray(apply(augmentation, key, batch)["inputs"])


def assert_uniform(values, low: float, high: float) -> None:
    assert scipy.stats.kstest(values, scipy.stats.uniform(low, high - low).cdf).pvalue > 0.01


def assert_evenly_placed(starts, free, rng) -> None:
    """Whole places 0..free are equally likely: with a uniform fraction added they fill [0, 1] evenly."""
    assert (starts >= 0).all() and (starts <= free).all()
    assert_uniform((starts + rng.random(len(starts))) / (free + 1), 0, 1)
