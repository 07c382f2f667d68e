"""Metrics of classes. Binary ones decide at a logit of 0; several classes by the largest logit; NaN is never right."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl import check
from jdl.check import Array
from jdl.losses import cross_entropy, inputs
from jdl.losses.reduction import weights
from jdl.metrics.state import Mean, State, namespace, ratio


def accuracy(outputs: Array, targets: Array, mask: Array | None = None) -> Mean:
    """Share of right decisions.

    ``outputs`` are logits ``[..., C]`` with labels ``[...]`` or one-hot ``[..., C]``; or, binary, logits ``[B]`` or
    ``[..., 1]`` with 0/1 ``[B]`` or ``[...]``. Where each of ``[B, K]`` is a decision of its own, give it
    ``outputs[..., None]``.
    """
    decided, truth, _ = _decisions(outputs, targets, mask)
    return Mean.of(decided == truth, mask)


@dataclass(frozen=True)
class TopK:
    """Share of examples whose class is among the ``k`` largest logits; of equal ones the first counts as larger.

    Logits ``[..., C]``, integer labels ``[...]`` or one-hot ``[..., C]``.
    """

    k: int

    @property
    def name(self) -> str:
        return f"top_{self.k}"

    def __call__(self, outputs: Array, targets: Array, mask: Array | None = None) -> Mean:
        logits, labels = _labels(outputs, targets, mask)
        if not 1 <= self.k <= logits.shape[-1]:
            raise check.InputError(f"top_k got k = {self.k} for {logits.shape[-1]} classes, wanted 1 to that many")
        own = jnp.take_along_axis(logits, labels[..., None], -1, mode="fill")
        classes = jnp.arange(logits.shape[-1], dtype=labels.dtype)
        # Written as "not below", so that a NaN counts as ahead: a diverged model scores 0, not 1.
        ahead = jnp.where(classes < labels[..., None], ~(logits < own), ~(logits <= own)) & (
            classes != labels[..., None]
        )
        return Mean.of(jnp.sum(ahead, -1) < self.k, mask)


top_k = TopK


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Counts(State):
    """True positives, predicted and actual positives: of one class, or ``[C]`` of several."""

    hits: Array
    predicted: Array
    actual: Array
    statistic: str = field(metadata={"static": True})
    average: str | None = field(metadata={"static": True})

    def compute(self) -> Array:
        xp, hits, predicted, actual = namespace(self.hits), self.hits, self.predicted, self.actual
        if hits.ndim and self.average == "micro":
            hits, predicted, actual = (xp.sum(x, -1) for x in (hits, predicted, actual))
        if self.statistic == "f1":
            value = ratio(2 * hits, predicted + actual, 0.0)
        else:
            value = ratio(hits, predicted if self.statistic == "precision" else actual, 0.0)
        if hits.ndim and self.average == "macro":
            seen = predicted + actual > 0
            return ratio(xp.sum(xp.where(seen, value, 0), -1), xp.sum(seen, -1).astype(value.dtype))
        return value


def precision(outputs: Array, targets: Array, mask: Array | None = None, *, average: str | None = "macro") -> Counts:
    """True positives among predicted positives, of 1s for binary logits ``[B]`` or ``[B, 1]`` with 0/1 ``[B]``.

    For logits ``[..., C]`` with labels ``[...]``, of each class, and ``average`` is: "macro", the mean over classes
    that were predicted or present; "micro", from the sums over classes; None, all of them, ``[C]``. 0 where undefined.
    """
    return _counts("precision", average, outputs, targets, mask)


def recall(outputs: Array, targets: Array, mask: Array | None = None, *, average: str | None = "macro") -> Counts:
    """True positives among actual positives; arguments as for ``precision``."""
    return _counts("recall", average, outputs, targets, mask)


def f1(outputs: Array, targets: Array, mask: Array | None = None, *, average: str | None = "macro") -> Counts:
    """Harmonic mean of precision and recall; arguments as for ``precision``, averaged after taking each class's."""
    return _counts("f1", average, outputs, targets, mask)


def _counts(statistic: str, average: str | None, outputs: Array, targets: Array, mask: Array | None) -> Counts:
    if average not in ("macro", "micro", None):
        raise check.InputError(f"{statistic} got average={average!r}, wanted 'macro', 'micro' or None")
    decided, truth, classes = _decisions(outputs, targets, mask)
    weight = weights(mask, jnp.zeros(decided.shape, jnp.float32))
    hits = jnp.where(decided == truth, weight, 0)
    if classes == 2 and decided.dtype == bool:
        sums = (jnp.sum(jnp.where(chosen, w, 0)) for chosen, w in ((truth, hits), (decided, weight), (truth, weight)))
    else:
        sums = (_by_class(chosen, w, classes) for chosen, w in ((truth, hits), (decided, weight), (truth, weight)))
    return Counts(*sums, statistic=statistic, average=average)


def _by_class(labels: Array, weight: Array, classes: int) -> Array:
    return jnp.zeros(classes, weight.dtype).at[labels.reshape(-1)].add(weight.reshape(-1), mode="drop")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Confusion(State):
    """Counts ``[C, C]`` of true class (rows) and decided class (columns)."""

    counts: Array

    def compute(self) -> Array:
        return self.counts


def confusion_matrix(outputs: Array, targets: Array, mask: Array | None = None) -> Confusion:
    """How often each class (row) was taken for each (column), ``[C, C]``, 2 by 2 for binary; inputs as ``accuracy``."""
    decided, truth, classes = _decisions(outputs, targets, mask)
    weight = weights(mask, jnp.zeros(decided.shape, jnp.float32))
    rows, columns = (x.reshape(-1).astype(jnp.int32) for x in (truth, decided))
    return Confusion(jnp.zeros((classes, classes), jnp.float32).at[rows, columns].add(weight.reshape(-1), mode="drop"))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Perplexity(Mean):
    """The exponential of a mean cross-entropy."""

    def compute(self) -> Array:
        mean = super().compute()
        with np.errstate(over="ignore"):
            return namespace(mean).exp(mean)


def perplexity(outputs: Array, targets: Array, mask: Array | None = None) -> Perplexity:
    """exp of the mean cross-entropy of a token; logits ``[B, T, C]``, labels ``[B, T]``, mask ``[B, T]`` or ``[B]``."""
    return Perplexity.of_weighted(cross_entropy(outputs, targets, mask, "none"), mask)


def _labels(outputs: Array, targets: Array, mask: Array | None) -> tuple[Array, Array]:
    """Logits and integer labels, one-hot ones turned to numbers."""
    logits, looked_at, labels = inputs.class_targets(outputs, targets, mask)
    if labels:
        return logits, looked_at
    inputs.check_shares(targets, mask)
    return logits, jnp.argmax(looked_at, -1).astype(jnp.int32)


def _decisions(outputs: Array, targets: Array, mask: Array | None) -> tuple[Array, Array, int]:
    """Decided and true classes (bool for binary) and the number of classes; a NaN decides for the next to the true."""
    if _is_binary(outputs, targets):
        logits, truth = inputs.binary(outputs, targets, mask)
        truth = truth > 0.5
        return jnp.where(jnp.isnan(logits), ~truth, logits > 0), truth, 2
    logits, labels = _labels(outputs, targets, mask)
    classes, decided = logits.shape[-1], jnp.argmax(logits, -1).astype(labels.dtype)
    return jnp.where(jnp.isnan(logits).any(-1), (labels + 1) % classes, decided), labels, classes


def _is_binary(outputs: Any, targets: Any) -> bool:
    check.array(outputs, "outputs")
    check.array(targets, "targets")
    if outputs.shape == targets.shape:
        return outputs.ndim <= 1 or outputs.shape[-1] == 1
    return outputs.shape == (*targets.shape, 1) or targets.shape == (*outputs.shape, 1)
