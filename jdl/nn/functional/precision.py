"""Where half precision is not enough."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdl import check


def wide(x: jax.Array) -> jax.Array:
    """``x`` in float32 where its dtype is narrower, as it is otherwise. Raises InputError when it is not floating."""
    check.floating(x)
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x
