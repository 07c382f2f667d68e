"""Activation functions: `step` to `mish`, softmax, and the gated family.

Named module-level functions, so models holding them hash, pickle and print. Each keeps shape and dtype unless it says
otherwise, takes any floating array (an integer one is an InputError), and has finite values and gradients at ±1e4.
What is known of each in closed form (range, derivative) is in `jdl.nn.functional.ACTIVATIONS`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdl import check
from jdl.nn.functional.precision import wide


def step(x: jax.Array) -> jax.Array:
    """``1`` where ``x > 0``, else ``0``: the perceptron's decision. Its derivative is 0 everywhere."""
    check.floating(x)
    return (x > 0).astype(x.dtype)


def linear(x: jax.Array) -> jax.Array:
    """``x`` itself."""
    check.floating(x)
    return x


def sigmoid(x: jax.Array) -> jax.Array:
    """``1 / (1 + e⁻ˣ)``, between 0 and 1."""
    check.floating(x)
    return jax.nn.sigmoid(x)


def tanh(x: jax.Array) -> jax.Array:
    """``(eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)``, between -1 and 1."""
    check.floating(x)
    return jnp.tanh(x)


def relu(x: jax.Array) -> jax.Array:
    """``max(x, 0)``, with derivative 0 at 0."""
    check.floating(x)
    return jax.nn.relu(x)


def leaky_relu(x: jax.Array, slope: float = 0.01) -> jax.Array:
    """``x`` where ``x > 0``, else ``slope · x``."""
    check.floating(x)
    return jnp.where(x > 0, x, slope * x)


def elu(x: jax.Array, alpha: float = 1.0) -> jax.Array:
    """``x`` where ``x > 0``, else ``alpha (eˣ - 1)`` (Clevert et al., 2016)."""
    check.floating(x)
    return jax.nn.elu(x, alpha)


def selu(x: jax.Array) -> jax.Array:
    """`elu` with the scale and alpha that keep zero mean and unit variance (Klambauer et al., 2017)."""
    check.floating(x)
    return jax.nn.selu(x)


def gelu(x: jax.Array) -> jax.Array:
    """``x Φ(x)`` with the exact normal distribution function Φ, by erf (Hendrycks & Gimpel, 2016)."""
    check.floating(x)
    return jax.nn.gelu(x, approximate=False)


def gelu_tanh(x: jax.Array) -> jax.Array:
    """`gelu` with ``Φ(x)`` approximated by ``(1 + tanh(√(2/π) (x + 0.044715 x³))) / 2``, as GPT-2 has it."""
    check.floating(x)
    return jax.nn.gelu(x, approximate=True)


def silu(x: jax.Array) -> jax.Array:
    """``x · sigmoid(x)``, also called swish."""
    check.floating(x)
    return jax.nn.silu(x)


def softplus(x: jax.Array) -> jax.Array:
    """``log(1 + eˣ)``, a smooth ReLU."""
    check.floating(x)
    return jax.nn.softplus(x)


def mish(x: jax.Array) -> jax.Array:
    """``x · tanh(softplus(x))`` (Misra, 2019)."""
    check.floating(x)
    return jax.nn.mish(x)


def hard_sigmoid(x: jax.Array) -> jax.Array:
    """``min(max(x + 3, 0), 6) / 6``, a piecewise linear sigmoid."""
    check.floating(x)
    return jax.nn.hard_sigmoid(x)


def hard_silu(x: jax.Array) -> jax.Array:
    """``x · hard_sigmoid(x)``, also called hard swish (Howard et al., 2019)."""
    check.floating(x)
    return jax.nn.hard_silu(x)


def hard_tanh(x: jax.Array) -> jax.Array:
    """``min(max(x, -1), 1)``."""
    check.floating(x)
    return jax.nn.hard_tanh(x)


def softmax(x: jax.Array, axis: int = -1) -> jax.Array:
    """``eˣ`` over its sum along ``axis``: positive, summing to 1. Computed in float32 at least."""
    return jax.nn.softmax(wide(x), axis).astype(x.dtype)


def log_softmax(x: jax.Array, axis: int = -1) -> jax.Array:
    """The logarithm of `softmax`, without taking it: ``x - log Σ eˣ``. Computed in float32 at least."""
    return jax.nn.log_softmax(wide(x), axis).astype(x.dtype)


def glu(x: jax.Array) -> jax.Array:
    """``a · sigmoid(b)`` where ``a`` and ``b`` are the halves of the last axis: ``[..., 2D]`` to ``[..., D]``.

    The gate is the second half in the whole family, as in PyTorch's (Dauphin et al., 2017; Shazeer, 2020).
    Raises InputError when the last axis is odd.
    """
    a, b = halves(x)
    return a * sigmoid(b)


def reglu(x: jax.Array) -> jax.Array:
    """``a · relu(b)``, the halves as in `glu`: ``[..., 2D]`` to ``[..., D]``."""
    a, b = halves(x)
    return a * relu(b)


def geglu(x: jax.Array) -> jax.Array:
    """``a · gelu(b)``, the halves as in `glu`: ``[..., 2D]`` to ``[..., D]``."""
    a, b = halves(x)
    return a * gelu(b)


def swiglu(x: jax.Array) -> jax.Array:
    """``a · silu(b)``, the halves as in `glu`: ``[..., 2D]`` to ``[..., D]``."""
    a, b = halves(x)
    return a * silu(b)


def halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two halves ``[..., D]`` of ``x [..., 2D]``. Raises InputError when the last axis is odd."""
    check.floating(x)
    if x.ndim == 0 or x.shape[-1] % 2:
        raise check.InputError(
            f"input got {check.describe(x)}, wanted an even last axis; it is split into value and gate"
        )
    width = x.shape[-1] // 2
    return x[..., :width], x[..., width:]
