"""What a loss expects of a model that knows nothing, and of one that knows all: constants, and the best outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import losses
from jdl.losses import Configured
from jdl.objectives import masked
from jdl.programs import Program, cached_program

CLASSES = (losses.cross_entropy, losses.cross_entropy_on_probabilities, losses.kl_divergence, losses.focal)
BINARY = (losses.binary_cross_entropy, losses.binary_cross_entropy_on_probabilities)
ON_LOGITS = (losses.cross_entropy, losses.binary_cross_entropy, losses.focal, losses.kl_divergence)
ON_PROBABILITIES = (losses.cross_entropy_on_probabilities, losses.binary_cross_entropy_on_probabilities)
OF_MARGINS = (losses.hinge, losses.squared_hinge)
OF_VALUES = (losses.mse, losses.mae, losses.huber)
KNOWN = ON_LOGITS + ON_PROBABILITIES + OF_MARGINS + OF_VALUES


def function_of(loss: Any) -> Any:
    """The loss itself, whatever settings are fixed around it."""
    return loss.function if isinstance(loss, Configured) else loss


def expected_loss(loss: Callable[..., Any], outputs: Any, targets: Any, mask: Any) -> float:
    """The loss of a model that says the same of every example: log C for C classes, log 2 for a binary label, the
    variance of the targets for the squared error.

    Logits and margins of 0, equal probabilities, and of values the mean (the median for the absolute error).
    """
    function, shape = function_of(loss), outputs.shape
    constant = np.zeros(shape, np.float32)
    if function in ON_PROBABILITIES:
        constant += 1 / shape[-1] if function in CLASSES else 0.5
    elif function in OF_VALUES:
        centre = np.median if function is losses.mae else np.mean
        constant += centre(np.asarray(targets, np.float32), axis=0)
    return _value(loss, constant, targets, mask)


def least_loss(loss: Callable[..., Any], outputs: Any, targets: Any, mask: Any, groups: np.ndarray) -> float:
    """The least that the loss can be where rows of one group get one output: 0, but for smoothed, soft and
    contradictory targets.
    """
    function, shape = function_of(loss), outputs.shape
    if function not in KNOWN or function in (*OF_MARGINS, losses.focal):
        return 0.0
    known = np.asarray(targets)
    if function in CLASSES and known.ndim == len(shape) - 1:
        known = np.eye(shape[-1], dtype=np.float32)[np.clip(known, 0, shape[-1] - 1)]  # any, where a mask hides it
    best = _mean_by_group(known.reshape(shape).astype(np.float64), groups)
    smoothing = dict(loss.settings).get("label_smoothing", 0.0) if isinstance(loss, Configured) else 0.0
    if function in CLASSES or function in BINARY:
        count = shape[-1] if function in CLASSES else 2
        best = np.clip((1 - smoothing) * best + smoothing / count, 1e-7, 1 - 1e-7)
    if function in ON_LOGITS:
        best = np.log(best) - (np.log1p(-best) if function in BINARY else 0)
    return _value(loss, best.astype(np.float32), targets, mask)


def _mean_by_group(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    total = np.zeros_like(values)
    np.add.at(total, groups, values)
    count = np.bincount(groups, minlength=len(values)).reshape(-1, *[1] * (values.ndim - 1))
    return (total / np.maximum(count, 1))[groups]


def _value(loss: Callable[..., Any], outputs: Any, targets: Any, mask: Any) -> float:
    return float(_program(loss)(outputs, targets, mask))


@cached_program
def _program(loss: Callable[..., Any]) -> Program:
    def value(outputs: Any, targets: Any, mask: Any) -> jax.Array:
        return jnp.asarray(masked(loss, outputs, targets, mask))

    return Program(value, "diagnosis_loss")
