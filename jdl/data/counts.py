"""Whole numbers as callers give them: sizes, counts and places."""

from __future__ import annotations

import operator
from typing import Any

from jdl.check import InputError, describe


def whole(name: str, value: Any, low: int, high: int | None = None) -> int:
    """``value`` as an int in ``low``..``high - 1``; integers of NumPy are whole numbers, booleans and 2.0 are not.

    Raises:
        InputError: it is none, or outside; the message calls it ``name``.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise InputError(f"{name} got {describe(value)}, wanted a whole number")
    if number < low or (high is not None and number >= high):
        bounds = f"at least {low}" if high is None else f"{low} to {high - 1}"
        raise InputError(f"{name} got {number}, wanted {bounds}")
    return number
