"""What calculus says of each activation: its range, and its derivative in closed form. Data for pictures and tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.scipy.stats import norm

from jdl.nn.functional import activation as f


@dataclass(frozen=True)
class Activation:
    """An activation with what is known of it.

    ``low`` and ``high`` bound its values (infinite where nothing does). ``derivative(x)`` has the shape of ``x`` when
    ``kind`` is ``"elementwise"``; is the Jacobian ``[..., K, K]``, entry (i, j) being ∂yᵢ/∂xⱼ, when it is ``"vector"``;
    and holds the derivatives with respect to value and gate ``[..., 2D]`` when it is ``"gated"``. At the corner
    of a piecewise function it is that of one side.
    """

    function: Callable[[jax.Array], jax.Array]
    low: float
    high: float
    derivative: Callable[[jax.Array], jax.Array]
    kind: str = "elementwise"


def _sigmoid(x):
    s = f.sigmoid(x)
    return s * (1 - s)


def _tanh(x):
    return 1 - f.tanh(x) ** 2


def _relu(x):
    return f.step(x)


def _leaky_relu(x):
    return jnp.where(x > 0, 1.0, 0.01).astype(x.dtype)


def _elu(x):
    return jnp.where(x > 0, 1.0, jnp.exp(jnp.minimum(x, 0)))


_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def _selu(x):
    return _SELU_SCALE * jnp.where(x > 0, 1.0, _SELU_ALPHA * jnp.exp(jnp.minimum(x, 0)))


def _gelu(x):
    return norm.cdf(x) + x * norm.pdf(x)


def _gelu_tanh(x):
    c, k = math.sqrt(2 / math.pi), 0.044715
    t = jnp.tanh(c * (x + k * x**3))
    return (1 + t) / 2 + x * (1 - t**2) / 2 * c * (1 + 3 * k * x**2)


def _silu(x):
    s = f.sigmoid(x)
    return s * (1 + x * (1 - s))


def _mish(x):
    t = jnp.tanh(f.softplus(x))
    return t + x * (1 - t**2) * f.sigmoid(x)


def _hard_sigmoid(x):
    return jnp.where(jnp.abs(x) < 3, 1 / 6, 0.0).astype(x.dtype)


def _hard_silu(x):
    return jnp.where(jnp.abs(x) < 3, (2 * x + 3) / 6, f.step(x))


def _hard_tanh(x):
    return jnp.where(jnp.abs(x) < 1, 1.0, 0.0).astype(x.dtype)


def _softmax(x):
    s = f.softmax(x)
    return s[..., None] * (jnp.eye(x.shape[-1], dtype=x.dtype) - s[..., None, :])


def _log_softmax(x):
    return jnp.eye(x.shape[-1], dtype=x.dtype) - f.softmax(x)[..., None, :]


def _gated(gate, gate_derivative, x):
    a, b = f.halves(x)
    return jnp.concatenate([gate(b), a * gate_derivative(b)], -1)


def _glu(x):
    return _gated(f.sigmoid, _sigmoid, x)


def _reglu(x):
    return _gated(f.relu, _relu, x)


def _geglu(x):
    return _gated(f.gelu, _gelu, x)


def _swiglu(x):
    return _gated(f.silu, _silu, x)


_INF = math.inf

# The least values of gelu, silu and mish were found by bisection on their derivatives in double precision.
ACTIVATIONS: dict[str, Activation] = {
    "step": Activation(f.step, 0, 1, jnp.zeros_like),
    "linear": Activation(f.linear, -_INF, _INF, jnp.ones_like),
    "sigmoid": Activation(f.sigmoid, 0, 1, _sigmoid),
    "tanh": Activation(f.tanh, -1, 1, _tanh),
    "relu": Activation(f.relu, 0, _INF, _relu),
    "leaky_relu": Activation(f.leaky_relu, -_INF, _INF, _leaky_relu),
    "elu": Activation(f.elu, -1, _INF, _elu),
    "selu": Activation(f.selu, -_SELU_ALPHA * _SELU_SCALE, _INF, _selu),
    "gelu": Activation(f.gelu, -0.1699712, _INF, _gelu),
    "gelu_tanh": Activation(f.gelu_tanh, -0.1700408, _INF, _gelu_tanh),
    "silu": Activation(f.silu, -0.2784645, _INF, _silu),
    "softplus": Activation(f.softplus, 0, _INF, f.sigmoid),
    "mish": Activation(f.mish, -0.3088434, _INF, _mish),
    "hard_sigmoid": Activation(f.hard_sigmoid, 0, 1, _hard_sigmoid),
    "hard_silu": Activation(f.hard_silu, -0.375, _INF, _hard_silu),
    "hard_tanh": Activation(f.hard_tanh, -1, 1, _hard_tanh),
    "softmax": Activation(f.softmax, 0, 1, _softmax, "vector"),
    "log_softmax": Activation(f.log_softmax, -_INF, 0, _log_softmax, "vector"),
    "glu": Activation(f.glu, -_INF, _INF, _glu, "gated"),
    "reglu": Activation(f.reglu, -_INF, _INF, _reglu, "gated"),
    "geglu": Activation(f.geglu, -_INF, _INF, _geglu, "gated"),
    "swiglu": Activation(f.swiglu, -_INF, _INF, _swiglu, "gated"),
}
