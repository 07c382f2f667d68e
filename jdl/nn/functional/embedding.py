"""Rows of a table by number."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdl import check


def embedding(ids: jax.Array, table: jax.Array) -> jax.Array:
    """Rows of ``table [V, D]`` for integer ``ids [...]``, each in 0 to V - 1: ``[..., D]``.

    An id outside of the table gives NaN, since an array under jit cannot be refused for its values and the nearest row
    would hide the mistake. Raises InputError for ids that are not integers.
    """
    check.integer(ids, "ids", "convert them with ids.astype(jnp.int32)")
    check.rank(table, 2, "[V, D]", "table")
    check.floating(table, "table")
    return jnp.asarray(table).at[ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
