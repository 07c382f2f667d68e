"""The matrix product that most of a network is made of."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jdl import check


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """``x [..., D] @ kernel [D, F] + bias [F]`` as ``[..., F]``, computed in the dtype of ``x``.

    Raises InputError when ``x`` is not floating or its last axis is not the kernel's first.
    """
    check.floating(x)
    check.rank(kernel, 2, "[D, F]", "kernel")
    if x.ndim == 0:
        raise check.InputError(f"input got {check.describe(x)}, wanted [..., D]; a single number is x[None]")
    features_in, features = kernel.shape
    check.axis(x, -1, features_in, fix=f"the kernel is {check.describe(kernel)}")
    # One long leading axis: the gradient of the kernel, a contraction over rows, is then one plain matrix product.
    # Over [B, T, D] it took twice as long on CPU.
    rows = x if x.ndim <= 2 else x.reshape(math.prod(x.shape[:-1]), features_in)
    y = jnp.matmul(rows, kernel.astype(x.dtype)).reshape(*x.shape[:-1], features)
    if bias is None:
        return y
    check.rank(bias, 1, "[F]", "bias")
    check.axis(bias, 0, features, "bias", f"the kernel is {check.describe(kernel)}")
    return y + bias.astype(x.dtype)
