"""Losses of models with a latent code: the evidence lower bound and its terms, and sparsity of a code.

Sums over an example's values, in nats. A variational autoencoder returns ``(reconstruction, mean, log_variance)``,
which :func:`negative_elbo` takes. Sparsity is of a code alone; it is added to a reconstruction loss in a function of
your own::

    def sparse(outputs, targets, mask=None):
        reconstruction, code = outputs
        return losses.mse(reconstruction, targets, mask) + 1e-3 * losses.kl_sparsity(code, mask)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdl import check
from jdl.check import Array
from jdl.losses import inputs
from jdl.losses.classification import binary_cross_entropy
from jdl.losses.reduction import check_mask, reduce, weights
from jdl.losses.regression import mse

Likelihood = Callable[..., Array]
"""A loss ``(outputs, targets, mask, reduction)`` that is -log p(x | z) of each example, in nats."""


def bernoulli_nll(outputs: Array, targets: Array, mask: Array | None = None, reduction: str = "mean") -> Array:
    """-log p(x) of independent binary values: the sum of :func:`binary_cross_entropy` over an example, in nats.

    ``outputs [B, ...]`` are logits, ``targets`` of that shape 0, 1 or probabilities.
    """
    return _features(outputs, mask) * binary_cross_entropy(outputs, targets, mask, reduction)


def gaussian_nll(
    outputs: Array, targets: Array, mask: Array | None = None, reduction: str = "mean", *, std: float = 1.0
) -> Array:
    """-log p(x) of independent normal values about ``outputs``, Σ (x - y)² / 2σ² + log σ + ½ log 2π, in nats.

    ``outputs`` and ``targets`` are ``[B, ...]``; ``std`` is σ > 0, the same everywhere.
    """
    inputs.check_positive("std", std)
    features, axes = _features(outputs, mask), _axes(mask)
    constant = features * (jnp.log(std) + 0.5 * math.log(2 * math.pi))
    errors = mse(outputs, targets, mask, reduction)
    constants = reduce(jnp.full(outputs.shape[:axes], constant, errors.dtype), mask, reduction)
    return features / (2 * std**2) * errors + constants


def gaussian_kl(mean: Array, log_variance: Array, mask: Array | None = None, reduction: str = "mean") -> Array:
    """KL(N(mean, σ²) ‖ N(0, 1)) = ½ Σ (mean² + σ² - log σ² - 1), in nats.

    ``mean`` and ``log_variance`` (log σ²) are ``[B, ...]``, independent normal latents; ``mask`` is ``[B]``.
    """
    mean, log_variance = inputs.predictions(mean, "mean"), inputs.predictions(log_variance, "log_variance")
    check.same_shape(mean, log_variance, ("mean", "log_variance"), "each latent has one of both")
    _check_mask(mask)
    mean, log_variance = inputs.looked_at(mean, mask), inputs.looked_at(log_variance, mask)  # exp may overflow
    each = (jnp.square(mean) + jnp.expm1(log_variance) - log_variance) / 2
    return reduce(jnp.sum(each, tuple(range(1, each.ndim))), mask, reduction)


def negative_elbo(
    outputs: tuple[Array, Array, Array],
    targets: Array,
    mask: Array | None = None,
    reduction: str = "mean",
    *,
    beta: float = 1.0,
    likelihood: Likelihood = bernoulli_nll,
) -> Array:
    """-log p(x | z) + β · KL(q(z | x) ‖ N(0, 1)): the negative evidence lower bound of each example, in nats.

    ``outputs`` are ``(reconstruction, mean, log_variance)`` with z drawn from q = N(mean, exp(log_variance));
    ``targets`` is what was encoded; ``mask`` is ``[B]``. ``likelihood`` is the loss of the reconstruction:
    :func:`bernoulli_nll` (on logits), :func:`gaussian_nll`, or one of your own. Kingma & Welling 2013; with ``beta``
    other than 1 no bound, and more or less regular codes (Higgins et al. 2017).
    """
    inputs.check_setting("beta", beta, 0.0)
    reconstruction, mean, log_variance = _variational(outputs)
    _check_mask(mask)
    nll = likelihood(reconstruction, targets, mask, reduction)
    return nll + beta * gaussian_kl(mean, log_variance, mask, reduction)


def bits_per_dimension(
    outputs: tuple[Array, Array, Array],
    targets: Array,
    mask: Array | None = None,
    reduction: str = "mean",
    *,
    likelihood: Likelihood = bernoulli_nll,
) -> Array:
    """The negative ELBO in bits for each of an example's D values: nats / (D · log 2). See :func:`negative_elbo`."""
    nats = negative_elbo(outputs, targets, mask, reduction, likelihood=likelihood)
    return nats / (_features(outputs[0], None) * math.log(2))


def kl_sparsity(code: Array, mask: Array | None = None, *, target: float = 0.05) -> Array:
    """Σ_j KL(ρ ‖ ρ̂_j) of Bernoulli variables: how far the mean activations are from the ``target`` ρ.

    ρ̂_j is the mean of unit j, the last axis of ``code [B, ..., C]``, over all others, weighted by ``mask`` (``[B]`` or
    more leading axes). The code lies in 0 to 1, as after a sigmoid; a mean outside gives NaN. It is a loss of the
    batch, not of examples: it cannot be accumulated over microbatches exactly. Ng 2011, "Sparse autoencoder".
    """
    inputs.check_setting("target", target, 1e-7, 1.0)
    code = inputs.predictions(code, "code")
    weight, axes = weights(mask, code), tuple(range(code.ndim - 1))
    total = jnp.sum(weight, axes)
    mean = jnp.sum(jnp.where(weight != 0, weight * code, 0), axes) / jnp.where(total == 0, 1, total)
    on, off = (_SMALLEST + (1 - 2 * _SMALLEST) * share for share in (mean, 1 - mean))  # finite at 0 and 1
    divergence = target * jnp.log(target / on) + (1 - target) * jnp.log((1 - target) / off)
    return jnp.sum(jnp.where(total == 0, 0, divergence))


_SMALLEST = 1e-7


def l1_sparsity(code: Array, mask: Array | None = None, reduction: str = "mean") -> Array:
    """The sum of the absolute values of an example's code ``[B, ...]``, which pulls activations to exactly 0."""
    code = inputs.predictions(code, "code")
    if mask is not None:
        check_mask(mask, code.shape)
    return reduce(jnp.sum(jnp.abs(code), tuple(range(_axes(mask), code.ndim))), mask, reduction)


def _features(outputs: Any, mask: Array | None) -> int:
    """How many values an example (or what else the mask weights) has."""
    check.array(outputs, "outputs")
    if mask is not None:
        check_mask(mask, outputs.shape)
    return math.prod(outputs.shape[_axes(mask) :])


def _axes(mask: Array | None) -> int:
    """How many leading axes tell examples (or what else the mask weights) apart."""
    return 1 if mask is None else mask.ndim


def _variational(outputs: Any) -> tuple[Array, Array, Array]:
    if not isinstance(outputs, tuple) or len(outputs) != 3:
        fix = "a model that makes them is jdl.zoo.VariationalAutoencoder"
        wanted = "(reconstruction, mean, log_variance)"
        raise check.InputError(f"outputs got {check.describe(outputs)}, wanted {wanted}; {fix}")
    reconstruction, mean, _ = outputs
    for made in jax.tree.leaves(reconstruction):  # a single latent would broadcast
        check.same_batch(made, mean, ("the reconstruction", "mean"), "a posterior is of one example")
    return outputs


def _check_mask(mask: Array | None) -> None:
    if mask is not None:
        check.rank(mask, 1, "[B], a weight for each example", "mask")
