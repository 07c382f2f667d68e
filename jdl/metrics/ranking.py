"""Metrics of an order of scores, which need all the scores at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jdl.check import Array
from jdl.losses import inputs
from jdl.losses.reduction import weights
from jdl.metrics.state import State, namespace, ratio


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Scores(State):
    """Scores, 0/1 labels and weights ``[N]`` gathered so far; adding joins them end to end."""

    scores: Array
    labels: Array
    weights: Array

    def __add__(self, other: Any) -> Any:
        if not isinstance(other, Scores):
            return NotImplemented
        return jax.tree.map(lambda a, b: namespace(a, b).concatenate([a, b]), self, other)

    def all_reduce(self, axis_name: str) -> Self:
        return jax.tree.map(lambda x: jax.lax.all_gather(x, axis_name, tiled=True, to="invarying"), self)

    def compute(self) -> Array:
        return area_under_roc(self.scores, self.labels, self.weights)


@dataclass(frozen=True)
class RocAuc:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties counting half.

    Scores (logits will do) ``[B]`` or ``[B, 1]``, labels 0/1 ``[B]``, weighted by the mask. NaN with one class only, or
    a score that is NaN. Mann & Whitney 1947; Hanley & McNeil 1982.
    """

    name: ClassVar[str] = "roc_auc"
    gathers: ClassVar[bool] = True

    def __call__(self, outputs: Array, targets: Array, mask: Array | None = None) -> Scores:
        scores, labels = inputs.binary(outputs, targets, mask)
        weight = weights(mask, scores)
        return Scores(scores.reshape(-1), (labels > 0.5).reshape(-1).astype(scores.dtype), weight.reshape(-1))


roc_auc = RocAuc()


def area_under_roc(scores: Any, labels: Any, weights: Any) -> Array:
    """Weighted area under the ROC curve of ``scores`` ``[N]``: in float64 on the host, in their dtype while tracing."""
    xp: Any = jnp
    if not any(isinstance(x, Tracer) for x in (scores, labels, weights)):
        xp = np
        scores, labels, weights = (np.asarray(x, np.float64) for x in (scores, labels, weights))
    scores = xp.where(weights > 0, scores, 0)
    positive, negative = weights * labels, weights * (1 - labels)
    order = xp.argsort(scores)
    ranked = scores[order]
    below = xp.concatenate([xp.zeros(1, weights.dtype), xp.cumsum(negative[order])])
    # Half of the negatives below the tie plus half of those up to its end: those below, and half of the tied.
    chance = 0.5 * (below[xp.searchsorted(ranked, scores)] + below[xp.searchsorted(ranked, scores, "right")])
    area = ratio(xp.sum(positive * chance), xp.sum(positive) * xp.sum(negative))
    return xp.where(xp.isnan(scores).any(), float("nan"), area)
