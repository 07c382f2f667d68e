"""Initialisers: frozen dataclasses called as ``init(key, shape, dtype)``.

Equal settings make equal, hashable values that print as they are written, so a model holding one is itself hashable:
``nn.init.he_normal()``, ``nn.init.normal(std=0.02)``. Any hashable callable of that signature will do in their place.

Those that look at fans read the last axis of the shape as outputs and the one before as inputs: a dense kernel
``[in, out]``, a convolution's ``[*window, in / groups, out]``. With the window of r cells, fan-in is r · in / groups
and fan-out r · out. Nothing is truncated unless the name says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import jax
import jax.numpy as jnp

from jdl import check


class Initializer(Protocol):
    """Makes an array of a shape and dtype from a key."""

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array: ...


@dataclass(frozen=True)
class zeros:
    """All 0."""

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return jnp.zeros(shape, dtype)


@dataclass(frozen=True)
class ones:
    """All 1."""

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return jnp.ones(shape, dtype)


@dataclass(frozen=True)
class constant:
    """All ``value``."""

    value: float

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return jnp.full(shape, self.value, dtype)


@dataclass(frozen=True)
class uniform:
    """Uniform in [low, high)."""

    low: float = -0.05
    high: float = 0.05

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise check.InputError(f"uniform got low {self.low} and high {self.high}, wanted low < high")

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, _floating(dtype), self.low, self.high)


@dataclass(frozen=True)
class normal:
    """Normal with mean 0 and standard deviation ``std``."""

    std: float = 0.02

    def __post_init__(self) -> None:
        _check_std(self.std)

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return self.std * jax.random.normal(key, shape, _floating(dtype))


@dataclass(frozen=True)
class truncated_normal:
    """Normal with standard deviation ``std``, redrawn beyond 2 ``std``; what comes out deviates by 0.8796 ``std``."""

    std: float = 0.02

    def __post_init__(self) -> None:
        _check_std(self.std)

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        return self.std * jax.random.truncated_normal(key, -2.0, 2.0, shape, _floating(dtype))


@dataclass(frozen=True)
class orthogonal:
    """``scale`` times a random matrix with orthonormal columns, or rows where those are fewer (Saxe et al., 2014).

    Uniform over all such matrices. The last axis of the shape is the columns, the others together are the rows.
    """

    scale: float = 1.0

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        _fans(self, shape)
        rows, columns = math.prod(shape[:-1]), shape[-1]
        tall = jax.random.normal(key, (max(rows, columns), min(rows, columns)), jnp.float32)
        q, r = jnp.linalg.qr(tall)
        q = q * jnp.sign(jnp.diagonal(r))  # QR alone favours some signs
        return (self.scale * (q if rows >= columns else q.T)).reshape(shape).astype(_floating(dtype))


@dataclass(frozen=True)
class _Scaled:
    """Zero mean and variance ``gain / fan``, where the fan is fan-in or the mean of both."""

    gain: ClassVar[float]
    fan: ClassVar[Literal["in", "mean"]]
    distribution: ClassVar[Literal["uniform", "normal"]]

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        fan_in, fan_out = _fans(self, shape)
        std = math.sqrt(self.gain / (fan_in if self.fan == "in" else (fan_in + fan_out) / 2))
        if self.distribution == "normal":
            return normal(std)(key, shape, dtype)
        bound = math.sqrt(3) * std
        return uniform(-bound, bound)(key, shape, dtype)


@dataclass(frozen=True)
class glorot_uniform(_Scaled):
    """Uniform within ±√(6 / (fan-in + fan-out)), also called Xavier (Glorot & Bengio, 2010)."""

    gain, fan, distribution = 1.0, "mean", "uniform"


@dataclass(frozen=True)
class glorot_normal(_Scaled):
    """Normal with standard deviation √(2 / (fan-in + fan-out)), also called Xavier (Glorot & Bengio, 2010)."""

    gain, fan, distribution = 1.0, "mean", "normal"


@dataclass(frozen=True)
class he_uniform(_Scaled):
    """Uniform within ±√(6 / fan-in) (He et al., 2015)."""

    gain, fan, distribution = 2.0, "in", "uniform"


@dataclass(frozen=True)
class he_normal(_Scaled):
    """Normal with standard deviation √(2 / fan-in), for layers before ReLU (He et al., 2015); no truncation."""

    gain, fan, distribution = 2.0, "in", "normal"


@dataclass(frozen=True)
class lecun_uniform(_Scaled):
    """Uniform within ±√(3 / fan-in) (LeCun et al., 1998)."""

    gain, fan, distribution = 1.0, "in", "uniform"


@dataclass(frozen=True)
class lecun_normal(_Scaled):
    """Normal with standard deviation √(1 / fan-in) (LeCun et al., 1998)."""

    gain, fan, distribution = 1.0, "in", "normal"


def _fans(init: Any, shape: Sequence[int]) -> tuple[int, int]:
    if len(shape) < 2 or 0 in shape:
        raise check.InputError(
            f"{init!r} got shape {tuple(shape)}, wanted [..., in, out] without empty axes; "
            "a vector has no fans: use zeros(), normal(std) or uniform(low, high)"
        )
    window = math.prod(shape[:-2])
    return window * shape[-2], window * shape[-1]


def _check_std(std: float) -> None:
    if not std >= 0:
        raise check.InputError(f"std got {std}, wanted at least 0")


def _floating(dtype: Any) -> Any:
    if not jnp.issubdtype(dtype, jnp.floating):
        raise check.InputError(f"dtype got {jnp.dtype(dtype)}, wanted a floating dtype for random values")
    return dtype
