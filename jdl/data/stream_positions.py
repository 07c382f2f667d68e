"""An iterator's state as a JSON value and back: the same numbers, text, bytes, arrays, lists, tuples and dicts."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from jdl.check import InputError, describe


def encode(state: Any) -> Any:
    """A state as a JSON value that shares nothing with it.

    Raises:
        InputError: it holds something else; the message says what.
    """
    if state is None or isinstance(state, (bool, int, float, str)):
        return state
    if isinstance(state, list):
        return [encode(part) for part in state]
    if isinstance(state, tuple):
        return {"tuple": [encode(part) for part in state]}
    if isinstance(state, dict):
        return {"dict": [[encode(key), encode(value)] for key, value in state.items()]}
    if isinstance(state, bytes):
        return {"bytes": base64.b64encode(state).decode()}
    if isinstance(state, (np.ndarray, np.generic)) and not state.dtype.hasobject:
        return {"array": state.tolist(), "dtype": str(state.dtype)}
    wanted = "numbers, text, bytes, arrays, lists and dicts, which can be stored"
    raise InputError(f"get_state() gave {type(state).__name__} {describe(state)}, wanted {wanted}")


def decode(value: Any) -> Any:
    """The state that `encode` made this of."""
    if isinstance(value, list):
        return [decode(part) for part in value]
    if not isinstance(value, dict):
        return value
    if "dtype" in value:
        return np.array(value["array"], value["dtype"])
    ((kind, content),) = value.items()
    if kind == "bytes":
        return base64.b64decode(content)
    if kind == "tuple":
        return tuple(map(decode, content))
    return {decode(key): decode(part) for key, part in content}
