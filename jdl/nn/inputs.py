"""What layers ask of their settings and inputs before they declare anything."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import jax

from jdl import check


def counts(layer: Any, *names: str, minimum: int = 1) -> None:
    """These settings are whole numbers, or tuples of them, of at least ``minimum``."""
    for name in names:
        value = getattr(layer, name)
        values = value if isinstance(value, tuple) else (value,)
        if not values or any(not isinstance(v, Integral) or v < minimum for v in values):
            wanted = "a positive int" if minimum == 1 else f"an int of at least {minimum}"
            raise check.InputError(f"{type(layer).__name__}.{name} got {check.describe(value)}, wanted {wanted}")


def channels(x: jax.Array, layout: str = "[..., C]") -> int:
    """The size of the last axis of a floating array."""
    check.floating(x)
    if x.ndim == 0:
        raise check.InputError(f"input got {check.describe(x)}, wanted {layout}")
    return x.shape[-1]
