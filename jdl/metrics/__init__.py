"""Metrics: named callables ``metric(outputs, targets, mask=None)`` whose states add up.

A state holds sums and counts: ``a + b`` is the state of both batches together, ``.compute()`` the value and
``f"{a:.3f}"`` its text. So a metric is exact for any batch size and for a padded, masked last batch; where the mask is
0 nothing is counted. States pass through jit, scan and vmap, ``all_reduce`` joins them over devices, and after
``jax.device_get`` they add as NumPy arrays. Scores that do not reduce to sums (``roc_auc``) are gathered: such a metric
has ``gathers = True``, its state grows as it is added to, and training steps leave it out.
"""

from jdl.losses.preset import configured
from jdl.metrics.classification import accuracy, confusion_matrix, f1, perplexity, precision, recall, top_k
from jdl.metrics.ranking import roc_auc
from jdl.metrics.regression import mae, mse, r2
from jdl.metrics.state import Mean, State, all_reduce, metric_name

__all__ = [
    "Mean",
    "State",
    "accuracy",
    "all_reduce",
    "configured",
    "confusion_matrix",
    "f1",
    "mae",
    "metric_name",
    "mse",
    "perplexity",
    "precision",
    "r2",
    "recall",
    "roc_auc",
    "top_k",
]
