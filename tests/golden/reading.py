"""Reads the files that `make_functional.py` writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Case(NamedTuple):
    """One call of a function of `jdl.nn.functional`, with PyTorch's output and gradients of sum(weights * output)."""

    function: str
    options: dict[str, Any]
    inputs: dict[str, np.ndarray]
    out: np.ndarray
    weights: np.ndarray
    grads: dict[str, np.ndarray]


def load(subject: str) -> dict[str, np.ndarray]:
    """Every array of ``subject``.npz by its name."""
    with np.load(Path(__file__).parent / f"{subject}.npz") as file:
        return dict(file)


def cases(subject: str) -> dict[str, Case]:
    """The cases of ``subject``.npz by name."""
    arrays = load(subject)

    def below(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

    found = {}
    for name in (key.removesuffix("/call") for key in arrays if key.endswith("/call")):
        function, options = json.loads(str(arrays[f"{name}/call"]))
        out, weights = arrays[f"{name}/out"], arrays[f"{name}/weights"]
        found[name] = Case(function, options, below(f"{name}/in/"), out, weights, below(f"{name}/grad/"))
    return found
