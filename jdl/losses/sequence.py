"""Losses of whole sequences without a given alignment."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jdl import check
from jdl.check import Array
from jdl.losses import inputs
from jdl.losses.reduction import check_mask, reduce

# What stands for log 0 in optax. Its own -1e5 is cheaper than six labels at logits of ±1e4, which it would then skip.
LOG_ZERO = -1e30


def ctc(
    outputs: Array | tuple[Array, Array],
    targets: Array | tuple[Array, Array],
    mask: Array | None = None,
    reduction: str = "mean",
    *,
    blank: int = 0,
) -> Array:
    """Connectionist temporal classification: minus the log-likelihood of the labels, summed over all alignments.

    ``outputs`` are logits ``[B, T, C]``, or (logits, lengths ``[B]``); ``targets`` are integer labels ``[B, N]``, or
    (labels, lengths ``[B]``): without lengths all T frames count, and labels end where only ``blank`` follows. One loss
    an example, not divided by its number of labels; ``mask`` is ``[B]``. Labels that cannot fit their frames have loss
    infinity and gradient 0; a label out of range, or a blank before the end, gives NaN. Graves et al. 2006.
    """
    import optax

    logits, frames = outputs if isinstance(outputs, (tuple, list)) else (outputs, None)
    labels, length = targets if isinstance(targets, (tuple, list)) else (targets, None)
    logits = inputs.predictions(logits, "logits")
    check.rank(logits, 3, "[B, T, C]", "logits")
    check.rank(labels, 2, "[B, N]", "labels")
    check.integer(labels, "labels", "labels are class numbers: use labels.astype(jnp.int32)")
    check.same_batch(logits, labels, ("logits", "labels"), "one row of labels for each sequence of logits")
    classes = logits.shape[-1]
    if not 0 <= blank < classes:
        raise check.InputError(f"blank got {blank}, wanted 0 to {classes - 1} for {check.describe(logits)}")
    if mask is not None:
        check_mask(mask, logits.shape[:1])
    labels = jnp.asarray(labels).astype(jnp.int32)
    frame_padding = _padding(frames, logits, "lengths of logits")
    if length is None:
        label_padding = jnp.flip(jnp.cumprod(jnp.flip(labels == blank, 1).astype(jnp.int32), 1), 1) == 1
    else:
        label_padding = _padding(length, labels, "lengths of labels")
    wrong = ~label_padding & ((labels < 0) | (labels >= classes) | (labels == blank))
    _check_known(wrong if mask is None else wrong & jnp.asarray(mask).astype(bool)[:, None], labels, classes, blank)

    with jax.default_matmul_precision("highest"):  # optax picks log-probabilities out by a matmul
        losses = optax.ctc_loss(
            logits,
            frame_padding.astype(logits.dtype),
            jnp.where(label_padding, blank, labels),
            label_padding.astype(logits.dtype),
            blank_id=blank,
            log_epsilon=LOG_ZERO,
        )
    repeats = jnp.sum((labels[:, 1:] == labels[:, :-1]) & ~label_padding[:, 1:], 1)
    fits = jnp.sum(~label_padding, 1) + repeats <= jnp.sum(~frame_padding, 1)
    losses = jnp.where(wrong.any(1), jnp.nan, jnp.where(fits, losses, jnp.inf))
    return reduce(losses, mask, reduction)


def _padding(lengths: Any, x: Array, name: str) -> Array:
    """``[B, T]``, True behind each length; ``x`` is ``[B, T, ...]``."""
    if lengths is None:
        return jnp.zeros(x.shape[:2], bool)
    check.integer(lengths, name)
    check.rank(lengths, 1, "[B]", name)
    check.same_batch(x, lengths, ("the array", name))
    return jnp.arange(x.shape[1]) >= jnp.asarray(lengths).astype(jnp.int32)[:, None]


def _check_known(wrong: Array, labels: Array, classes: int, blank: int) -> None:
    if not isinstance(wrong, Tracer) and bool(jnp.any(wrong)):
        found = sorted({int(label) for label in np.asarray(labels)[np.asarray(wrong)]})
        raise check.InputError(
            f"labels got {found[:5]} before their end, wanted 0 to {classes - 1} without the blank {blank}"
        )
