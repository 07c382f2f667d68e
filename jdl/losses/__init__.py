"""Losses: plain functions ``loss(outputs, targets, mask=None, reduction="mean")``, settings as keywords.

``mask`` holds a weight for each example ``[B]`` or token ``[B, T]``, bool or float: 0 for padding, class or sample
weights otherwise. Where it is 0 a target is not looked at: it may be NaN, a label -100. With losses l and mask m:

============  ================================================================
``"mean"``    Σ m·l / Σ m; 0, with a gradient of 0, where Σ m is 0
``"sum"``     Σ m·l
``"none"``    m·l, one for each example or token
============  ================================================================

Losses of classes are one value a label (``[B, T]`` for logits ``[B, T, C]``). Losses of values (regression, binary) are
averaged over their feature axes: those behind ``[B]``, or behind the mask's axes when it has more. Arithmetic is in
float32 at least. Labels are checked against their range where their values are known, that is outside ``jax.jit``;
inside it, a label out of range gives NaN.

A loss takes its settings by keyword; ``configured(huber, delta=2.0)`` fixes them in a value that is equal to any other
with these settings, and hashes as it does, so that one made anew does not compile anew.
"""

from jdl.losses.classification import (
    binary_cross_entropy,
    binary_cross_entropy_on_probabilities,
    cross_entropy,
    cross_entropy_on_probabilities,
    focal,
    kl_divergence,
)
from jdl.losses.embedding import contrastive, info_nce, triplet
from jdl.losses.inputs import check_labels
from jdl.losses.latent import (
    bernoulli_nll,
    bits_per_dimension,
    gaussian_kl,
    gaussian_nll,
    kl_sparsity,
    l1_sparsity,
    negative_elbo,
)
from jdl.losses.margin import hinge, squared_hinge
from jdl.losses.preset import Configured, configured
from jdl.losses.regression import huber, mae, mse
from jdl.losses.segmentation import dice
from jdl.losses.sequence import ctc

__all__ = [
    "Configured",
    "bernoulli_nll",
    "binary_cross_entropy",
    "binary_cross_entropy_on_probabilities",
    "bits_per_dimension",
    "check_labels",
    "configured",
    "contrastive",
    "cross_entropy",
    "cross_entropy_on_probabilities",
    "ctc",
    "dice",
    "focal",
    "gaussian_kl",
    "gaussian_nll",
    "hinge",
    "huber",
    "info_nce",
    "kl_divergence",
    "kl_sparsity",
    "l1_sparsity",
    "mae",
    "mse",
    "negative_elbo",
    "squared_hinge",
    "triplet",
]
