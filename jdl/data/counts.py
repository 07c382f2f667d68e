"""Whole numbers as callers give them: sizes, counts and places."""

from __future__ import annotations

from typing import Any

from jdl.check import InputError, describe, integral


def whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """``value`` as an int in ``low``..``high - 1``; what a whole number is says :func:`jdl.check.integral`.

    Raises:
        InputError: it is none, or outside; the message calls it ``name``.
    """
    number = integral(value)
    if number is None:
        raise InputError(f"{name} got {describe(value)}, wanted a whole number")
    if number < low or (high is not None and number >= high):
        bounds = f"at least {low}" if high is None else f"{low} to {high - 1}"
        raise InputError(f"{name} got {number}, wanted {bounds}")
    return number
