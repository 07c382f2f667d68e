"""Losses of latent codes: closed forms against distributions and draws, masks, settings as values, what is refused.

PyTorch's values and gradients of them stand in tests/zoo/test_autoencoders.py.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdl import losses
from tests.nn.toys import normal, refused

MASK = jnp.array([1.0, 0.5, 2.0, 0.0])
MEAN, LOG_VARIANCE = normal(4, 3), normal(4, 3, seed=1)
LOGITS, BITS = 2 * normal(4, 2, 5, seed=2), (normal(4, 2, 5, seed=3) > 0).astype(jnp.float32)
OUTPUTS = (LOGITS, MEAN, LOG_VARIANCE)
LOSSES: dict[str, Any] = {
    "bernoulli_nll": lambda mask=None, reduction="mean": losses.bernoulli_nll(LOGITS, BITS, mask, reduction),
    "gaussian_nll": lambda mask=None, reduction="mean": losses.gaussian_nll(LOGITS, BITS, mask, reduction, std=0.5),
    "gaussian_kl": lambda mask=None, reduction="mean": losses.gaussian_kl(MEAN, LOG_VARIANCE, mask, reduction),
    "negative_elbo": lambda mask=None, reduction="mean": losses.negative_elbo(OUTPUTS, BITS, mask, reduction),
    "bits_per_dimension": lambda mask=None, reduction="mean": losses.bits_per_dimension(OUTPUTS, BITS, mask, reduction),
    "l1_sparsity": lambda mask=None, reduction="mean": losses.l1_sparsity(LOGITS, mask, reduction),
}


def close(ours: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(ours), np.asarray(wanted), rtol=tolerance)


@pytest.mark.parametrize("name", LOSSES)
def test_reductions_agree(name: str):
    call = LOSSES[name]
    each, none = np.asarray(call(reduction="none")), np.asarray(call(MASK, "none"))
    assert each.shape == (4,) and none[3] == 0
    close(none, each * np.asarray(MASK))
    close(call(), each.mean())
    close(call(MASK, "sum"), none.sum())
    close(call(MASK), none.sum() / 3.5)
    assert call(jnp.zeros(4)) == 0


def test_values_are_those_of_torch_distributions():
    torch = pytest.importorskip("torch")
    from torch import distributions

    logits, bits, mean, log_variance = (torch.tensor(np.asarray(x)) for x in (LOGITS, BITS, MEAN, LOG_VARIANCE))
    bernoulli, normals = distributions.Bernoulli(logits=logits), distributions.Normal(logits, 0.5)
    posterior = distributions.Normal(mean, torch.exp(log_variance / 2))
    divergence = distributions.kl_divergence(posterior, distributions.Normal(0.0, 1.0)).sum(1)
    close(LOSSES["bernoulli_nll"](reduction="none"), -bernoulli.log_prob(bits).sum((1, 2)))
    close(LOSSES["gaussian_nll"](reduction="none"), -normals.log_prob(bits).sum((1, 2)))
    close(LOSSES["gaussian_kl"](reduction="none"), divergence)
    units = torch.sigmoid(logits)
    mean_units = distributions.Bernoulli(units.mean((0, 1)))
    wanted = distributions.kl_divergence(distributions.Bernoulli(0.1), mean_units).sum()
    close(losses.kl_sparsity(jax.nn.sigmoid(LOGITS), target=0.1), wanted)


def test_the_divergence_is_what_draws_say():
    """E_q[log q(z) - log p(z)] over a million draws, within four standard errors."""
    mean, log_variance, draws = 0.7, -0.9, 1_000_000
    z = mean + math.exp(log_variance / 2) * np.random.default_rng(0).normal(size=draws)
    terms = 0.5 * (z**2 - (z - mean) ** 2 / math.exp(log_variance) - log_variance)
    closed = losses.gaussian_kl(jnp.array([[mean]]), jnp.array([[log_variance]]))
    assert abs(float(closed) - terms.mean()) < 4 * terms.std() / math.sqrt(draws)


def test_the_divergence_is_exact_near_the_prior():
    """½ (e^v - v - 1) is v² / 4, which float32 would lose if it were added up as it stands."""
    small = np.array([1e-3, -1.7e-3, 1.9e-3], np.float32)
    close(losses.gaussian_kl(jnp.zeros((3, 1)), jnp.asarray(small)[:, None], None, "none"), small**2 / 4, 2e-3)
    assert losses.gaussian_kl(jnp.zeros((2, 3)), jnp.zeros((2, 3))) == 0


def test_a_bound_is_likelihood_plus_beta_times_divergence():
    nll, divergence = losses.bernoulli_nll(LOGITS, BITS), losses.gaussian_kl(MEAN, LOG_VARIANCE)
    close(losses.negative_elbo(OUTPUTS, BITS), nll + divergence)
    close(losses.negative_elbo(OUTPUTS, BITS, beta=4), nll + 4 * divergence)
    normals = losses.configured(losses.gaussian_nll, std=2.0)
    close(losses.negative_elbo(OUTPUTS, BITS, likelihood=normals), normals(LOGITS, BITS) + divergence)
    close(losses.bits_per_dimension(OUTPUTS, BITS), (nll + divergence) / 10 / math.log(2))
    even = (jnp.zeros((4, 2, 5)), jnp.zeros((4, 3)), jnp.zeros((4, 3)))
    close(losses.bits_per_dimension(even, BITS), 1)  # a fair coin


def test_masked_targets_are_not_looked_at():
    spoilt = BITS.at[3].set(jnp.nan)

    def loss(outputs: Any, targets: jax.Array) -> jax.Array:
        return losses.negative_elbo(outputs, targets, MASK)

    value_and_grad = jax.jit(jax.value_and_grad(loss))
    ours, wanted = (value_and_grad(OUTPUTS, targets) for targets in (spoilt, BITS))
    jax.tree.map(np.testing.assert_array_equal, ours, wanted)


def test_a_masked_divergence_may_overflow():
    of = jax.jit(jax.value_and_grad(lambda latent: losses.gaussian_kl(*latent, MASK)))
    _, mean, log_variance = OUTPUTS
    spoilt = (mean.at[3].set(1e30), log_variance.at[3].set(200.0))
    (ours, gradient), (wanted, _) = of(spoilt), of((mean, log_variance))
    assert ours == wanted and jnp.isfinite(jnp.stack(gradient)).all()


def test_sparsity_is_zero_at_its_target_and_finite_at_both_ends():
    code = jnp.full((6, 4), 0.2)
    assert abs(losses.kl_sparsity(code, target=0.2)) < 1e-6
    penalty = jax.jit(jax.value_and_grad(lambda code, mask: losses.kl_sparsity(code, mask, target=0.2)))
    for end in (0.0, 1.0):
        value, slope = penalty(jnp.full((6, 4), end), jnp.ones(6))
        assert np.isfinite(value) and value > 1 and np.isfinite(slope).all() and (slope * (end - 0.5) > 0).all()
    assert np.isnan(losses.kl_sparsity(jnp.full((6, 4), 1.5)))
    value, slope = penalty(code, jnp.zeros(6))
    assert value == 0 and (slope == 0).all()


def test_sparsity_is_of_the_weighted_mean_over_all_axes_but_the_last():
    code = jax.nn.sigmoid(normal(4, 2, 3))
    mean = np.einsum("b,btc->c", np.asarray(MASK), np.asarray(code)) / (2 * 3.5)
    wanted = np.sum(0.05 * np.log(0.05 / mean) + 0.95 * np.log(0.95 / (1 - mean)))
    close(losses.kl_sparsity(code, MASK), wanted)
    close(losses.kl_sparsity(code.at[3].set(jnp.nan), MASK), wanted)


def test_low_precision_is_computed_in_float32():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), OUTPUTS)
    rounded = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    ours, wanted = losses.negative_elbo(half, BITS), losses.negative_elbo(rounded, BITS)
    assert ours.dtype == np.float32 and ours == wanted
    assert losses.kl_sparsity(jnp.full((2, 2), 0.5, jnp.bfloat16)).dtype == np.float32


def test_what_cannot_be_used_is_refused():
    with refused("outputs got float32[4, 2, 5], wanted (reconstruction, mean, log_variance)", "VariationalAutoencoder"):
        losses.negative_elbo(LOGITS, BITS)  # pyright: ignore[reportArgumentType]
    with refused("mean got float32[4, 3] and log_variance got float32[4, 2]"):
        losses.gaussian_kl(MEAN, LOG_VARIANCE[:, :2])
    with refused("mask got float32[4, 2], wanted [B], a weight for each example"):
        losses.negative_elbo(OUTPUTS, BITS, jnp.ones((4, 2)))
    for name in ("bernoulli_nll", "gaussian_nll", "l1_sparsity", "gaussian_kl", "negative_elbo"):
        with refused("mask got list", "wanted an array; use jnp.asarray"):
            LOSSES[name]([1.0, 0.0, 1.0, 1.0])
    with refused("the reconstruction got float32[4, 2, 5] and mean got float32[1, 3], wanted the same batch size"):
        losses.negative_elbo((LOGITS, MEAN[:1], LOG_VARIANCE[:1]), BITS)
    with refused("beta got -1"):
        losses.negative_elbo(OUTPUTS, BITS, beta=-1)
    with refused("std got 0, wanted more than 0"):
        losses.gaussian_nll(LOGITS, BITS, std=0)
    with refused("target got 1.0"):
        losses.kl_sparsity(LOGITS, target=1.0)
    with refused("targets got values from"):
        losses.bernoulli_nll(LOGITS, 2 * BITS)
