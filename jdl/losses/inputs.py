"""What a loss accepts: shapes and dtypes always, values where they are known."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jdl import check
from jdl.check import Array
from jdl.losses.reduction import spread


def predictions(outputs: Array, name: str = "outputs") -> Array:
    """``outputs`` in float32 at least."""
    check.floating(outputs, name, "give the model's logits or predictions, not class numbers")
    outputs = jnp.asarray(outputs)
    return outputs.astype(jnp.float32) if jnp.finfo(outputs.dtype).bits < 32 else outputs


def values(outputs: Array, targets: Array, mask: Array | None) -> tuple[Array, Array]:
    """Predictions and targets of one shape, both floating; targets are 0 where the mask is."""
    outputs = predictions(outputs)
    check.array(targets, "targets")
    if outputs.ndim and targets.ndim:
        check.same_batch(outputs, targets, ("outputs", "targets"), "one target for each output")
    fix = "reshape one of them: they would broadcast to a larger array"
    if outputs.shape == (*targets.shape, 1):
        fix = "use targets[..., None], or outputs[..., 0]"
    elif targets.shape == (*outputs.shape, 1):
        fix = "use targets[..., 0]"
    check.same_shape(outputs, targets, ("outputs", "targets"), fix)
    return outputs, looked_at(jnp.asarray(targets).astype(outputs.dtype), mask)


def binary(outputs: Array, targets: Array, mask: Array | None) -> tuple[Array, Array]:
    """As ``values``, but a trailing axis of one that only one of them has is dropped: ``[B, 1]`` meets ``[B]``."""
    check.array(outputs, "outputs")
    check.array(targets, "targets")
    if outputs.shape == (*targets.shape, 1):
        outputs = outputs[..., 0]
    elif targets.shape == (*outputs.shape, 1):
        targets = targets[..., 0]
    elif is_labels(outputs, targets) and outputs.shape[:-1] == targets.shape:
        raise check.InputError(
            f"outputs got {check.describe(outputs)} and targets got {check.describe(targets)}, wanted equal shapes; "
            f"for one of {outputs.shape[-1]} classes use cross_entropy, for several labels at once give each its target"
        )
    return values(outputs, targets, mask)


def is_labels(outputs: Array, targets: Array) -> bool:
    """Whether ``targets`` has one axis fewer than ``outputs``: class numbers rather than a value for each output."""
    check.array(outputs, "outputs")
    check.array(targets, "targets")
    return targets.ndim == outputs.ndim - 1


def class_targets(outputs: Array, targets: Array, mask: Array | None) -> tuple[Array, Array, bool]:
    """``outputs [..., C]`` with labels ``[...]`` (``int32``, True) or class probabilities ``[..., C]`` (False)."""
    outputs = predictions(outputs)
    if outputs.ndim == 0 or outputs.shape[-1] < 2:
        fix = "for one logit an example use binary_cross_entropy"
        raise check.InputError(f"outputs got {check.describe(outputs)}, wanted [..., C] with C at least 2; {fix}")
    labels = is_labels(outputs, targets)
    if outputs.ndim > 1 and targets.ndim > 0:
        check.same_batch(outputs, targets, ("outputs", "targets"), "one target for each output")
    if labels and targets.shape == outputs.shape[:-1]:
        check_labels(targets, outputs.shape[-1], mask)
        targets = jnp.asarray(targets).astype(jnp.int32)
        # A negative label would count from the last class; out of range it gives NaN and no gradient.
        return outputs, looked_at(jnp.where(targets < 0, outputs.shape[-1], targets), mask), True
    if targets.shape == outputs.shape:
        return outputs, looked_at(jnp.asarray(targets).astype(outputs.dtype), mask), False
    trailing_one = targets.shape == (*outputs.shape[:-1], 1)
    fix = "use targets[..., 0]" if trailing_one else "the last axis of outputs is the classes"
    wanted = f"labels {list(outputs.shape[:-1])} or one-hot {list(outputs.shape)}"
    raise check.InputError(
        f"targets got {check.describe(targets)} with outputs {check.describe(outputs)}, wanted {wanted}; {fix}"
    )


def check_labels(targets: Any, classes: int, mask: Any = None) -> None:
    """``targets`` are class numbers 0 to ``classes - 1``, wherever ``mask`` (its leading axes) is not 0.

    Raises ``InputError`` for a dtype that is not integer and, where the values are known (NumPy arrays, JAX arrays
    outside ``jax.jit``), for a label out of range.
    """
    check.integer(targets, "targets", "labels are class numbers: use targets.astype(jnp.int32)")
    labels = _known(targets, mask)
    if labels is None or labels.size == 0:
        return
    wrong = (labels < 0) | (labels >= classes)
    if wrong.any():
        low, high = labels.min(), labels.max()
        fix = "; they count from 1: use targets - 1" if (low, high) == (1, classes) else ""
        raise check.InputError(
            f"targets got labels from {low} to {high}, wanted 0 to {classes - 1} for {classes} classes "
            f"({int(wrong.sum())} of {labels.size} out of range){fix}"
        )


def check_range(targets: Array, mask: Array | None, low: float, high: float, fix: str) -> None:
    """Known targets lie within ``[low, high]``. Give them as they came: what is made of them in a trace is unknown."""
    known = _known(targets, mask)
    if known is not None and not ((known >= low) & (known <= high)).all():
        raise check.InputError(f"targets got values from {known.min()} to {known.max()}, wanted {low} to {high}; {fix}")


def check_shares(targets: Array, mask: Array | None) -> None:
    """Known targets ``[..., C]`` are one-hot, or shares of one label: each row adds up to 1."""
    sums = _row_sums(targets, mask)
    if sums is not None and not np.allclose(sums, 1, atol=1e-2):
        fix = "where an example has any number of labels, decide on each: metrics.accuracy(outputs[..., None], targets)"
        raise check.InputError(
            f"targets got {check.describe(targets)}, whose rows add up to {sums.min():g} to {sums.max():g}, wanted "
            f"one-hot rows, which add up to 1; {fix}"
        )


def check_region(targets: Array, mask: Array | None) -> None:
    """Known targets ``[B, ..., C]`` of one region are not rows that all add up to 1, which classes do."""
    if targets.ndim < 3 or targets.shape[-1] < 2:
        return
    sums = _row_sums(targets, mask)
    if sums is not None and np.allclose(sums, 1, atol=1e-2):
        fix = "give labels: targets.argmax(-1); or, if they are pixels of one region, flatten both to [B, -1]"
        raise check.InputError(
            f"targets got {check.describe(targets)}, whose rows all add up to 1, as one-hot classes do, wanted one "
            f"region of that shape; {fix}"
        )


def check_signs(targets: Array, mask: Array | None) -> None:
    """Known targets are -1 or 1."""
    known = _known(targets, mask)
    if known is not None and not (np.abs(known) == 1).all():
        raise check.InputError(
            f"targets got values from {known.min()} to {known.max()}, wanted -1 and 1; use 2 * targets - 1"
        )


def check_setting(name: str, value: Any, low: float, high: float = float("inf")) -> None:
    """A setting given as a Python number lies in ``[low, high)``; an array (a swept setting) is taken as it is."""
    if isinstance(value, (int, float)) and not low <= value < high:
        below = f" and below {high}" if high < float("inf") else ""
        raise check.InputError(f"{name} got {value}, wanted at least {low}{below}")


def check_positive(name: str, value: Any) -> None:
    """As ``check_setting``, for one that must be above 0."""
    if isinstance(value, (int, float)) and not value > 0:
        raise check.InputError(f"{name} got {value}, wanted more than 0")


def is_zero(value: Any) -> bool:
    """A setting that is off: a Python 0, so that nothing is computed for it."""
    return isinstance(value, (int, float)) and value == 0


def _known(x: Any, mask: Any) -> np.ndarray | None:
    """The values of ``x`` where ``mask`` is not 0, or None while they are being traced or lie on other machines."""
    if any(isinstance(a, Tracer) or not getattr(a, "is_fully_addressable", True) for a in (x, mask)):
        return None
    x = np.asarray(x)
    if mask is not None and np.shape(mask) == x.shape[: np.ndim(mask)]:
        x = x[np.asarray(mask) != 0]
    return x


def looked_at(targets: Array, mask: Array | None) -> Array:
    """0 in place of what the mask hides: 0 times the derivative of a NaN would be NaN."""
    return targets if mask is None else jnp.where(spread(mask, targets.shape).astype(bool), targets, 0)


def _row_sums(targets: Any, mask: Any) -> np.ndarray | None:
    """What each row ``[..., C]`` of the known targets adds up to; None where nothing is known."""
    known = _known(targets, mask)
    return None if known is None or known.size == 0 else known.astype(np.float32).sum(-1)
