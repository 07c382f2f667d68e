"""Random omission."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdl import check


def dropout(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Each entry of ``x`` becomes 0 with probability ``rate`` and is divided by 1 - rate otherwise: the mean stays.

    Srivastava et al., 2014, inverted. The rate is what is dropped, in [0, 1). Raises InputError outside of that range,
    for a non-floating ``x`` and for a key that is no key.
    """
    check.floating(x)
    if not 0 <= rate < 1:
        raise check.InputError(f"rate got {rate}, wanted at least 0 and less than 1; it is the share that is dropped")
    check.array(key, "key", "pass jax.random.key(seed)")
    if rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), 0)
