"""How like real images made ones are: distances between two sets in the features of a network that knows the images."""

from __future__ import annotations

import jax
import numpy as np
import optax

import jdl
from jdl import nn
from jdl.data import Splits

# Learns MNIST to more than 0.99 in four epochs; what comes out of "features" is compared, 64 numbers an image.
CLASSIFIER = nn.Chain(
    body=nn.Chain(
        nn.Conv(16, 3),
        jax.nn.relu,
        nn.MaxPool(2),
        nn.Conv(32, 3),
        jax.nn.relu,
        nn.MaxPool(2),
        nn.Conv(64, 3),
        jax.nn.relu,
        nn.Flatten(),
        nn.Dropout(0.5),
    ),
    features=nn.Chain(nn.Dense(64), jax.nn.relu),
    head=nn.Dense(10),
)
FEATURES = nn.Chain(**{name: CLASSIFIER[name] for name in ("body", "features")})


def train_classifier(data: Splits, epochs: float, seed: int = 0) -> jdl.Run:
    """A run of the network whose features are compared."""
    steps = jdl.data.steps_in_epochs(len(data.train), 64, epochs)
    return jdl.fit(
        CLASSIFIER,
        jdl.losses.cross_entropy,
        optax.adamw(optax.cosine_decay_schedule(2e-3, steps)),
        data.train,
        validation=data.validation,
        metrics=[jdl.metrics.accuracy],
        epochs=epochs,
        batch_size=64,
        seed=seed,
    )


def features_of(run: jdl.Run, images: np.ndarray) -> np.ndarray:
    """Images ``[N, H, W, C]`` as features ``[N, 64]``, float64."""
    params = {name: run.params[name] for name in ("body", "features")}
    return jdl.predict(FEATURES, jdl.Variables(params, {}), images).astype(np.float64)


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between normal distributions with the mean and covariance of each set of features ``[N, D]``: 0 if both agree.

    ``|m₁ - m₂|² + tr(S₁ + S₂ - 2 (S₁S₂)^½)``, as in Heusel et al. 2017, arXiv:1706.08500, on features of Inception.
    """
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T  # S₁S₂ has the eigenvalues of this sandwich
    cross = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ second @ root), 0)).sum()
    return float(np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(first) + np.trace(second) - 2 * cross)


def coverage(made: np.ndarray, real: np.ndarray, neighbours: int = 5) -> float:
    """The share of real features ``[N, D]`` with a made one nearer than their ``neighbours``-th nearest real one.

    Naeem et al. 2020, arXiv:2002.09797. As many made as real ones of the same distribution reach 1 - 2^-neighbours.
    """
    shares = []
    for some in np.array_split(real, -(-len(real) // 500)):
        among = np.sort(np.partition(_squared_distances(some, real), neighbours, axis=1)[:, : neighbours + 1], axis=1)
        shares.append(_squared_distances(some, made).min(axis=1) <= among[:, neighbours])  # the nearest is itself
    return float(np.concatenate(shares).mean())


def _squared_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sum(a**2, axis=1)[:, None] - 2 * a @ b.T + np.sum(b**2, axis=1)
