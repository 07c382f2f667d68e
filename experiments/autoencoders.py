"""Autoencoders of MNIST: a narrow code, a sparse one, a variational one to draw from, and one that takes noise away.

55,000 digits train, 5,000 validate, the official 10,000 test. Settings were chosen by validation, on single short runs.
Squared errors are of pixels from 0 to 1; `mse_ratio` is over PCA's for autoencoders and over the AE's for sparse ones.
Evidence lower bounds are of binary images, drawn anew in every step and once for the test, with a draw of the latents.
The network with 2 latents, for its picture, and the convolutional ones after the first are trained with one seed.

Command   python -m experiments.autoencoders --seeds 3
Machine   one of 2 CPU cores, jax 0.10.2
Time      15 minutes
Result    With 32 units the test error is 0.0101 dense and 0.0094 convolutional after two epochs, beside 0.0168 of 32
          principal components. The VAE needs 97.8 ± 0.3 nats or 0.180 bits a pixel (24.2 of the nats for its 20
          latents), where the mean image needs 205.8. The denoiser gains 13.13 dB at noise of deviation 0.5, unclipped,
          beside 11.49 of ridge regression clipped to black and white, and 5.69 of the mean image. The sparse code's
          mean activation is 0.0528 for a target of 0.05, no unit is off by over 20%, and its error is 0.65 of the AE's;
          by an L1 price 69% of activations are exactly 0, at 0.70 of the AE's error. Convolutional ones, of one seed:
          the denoiser gains 13.72 dB, the sparse one has 0.62 of the AE's error at a mean activation of 0.0502, and the
          VAE needs 103.3 nats after eight epochs, more than the dense one.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import statistics
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import rich
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

import jdl
from experiments.common import Record, Settings, experiment
from jdl import losses, nn, zoo

Array = jax.Array
Data = dict[str, Any]
IMAGE = (28, 28, 1)
NOISE = 0.5  # standard deviation, where black is 0 and white is 1
SPARSE = 0.05  # the mean activation that the sparse code is asked for
KL_PRICE, L1_PRICE = 5e-3, 1e-4  # what sparsity weighs beside the mean squared error
LINEAR, AE = "PCA, 32 components", "AE, 32 units"
FLAT = "VAE, 2 latents"  # for its picture


# What is learned from, and what is evaluated on: training draws afresh in every step, evaluation has its draws fixed.


def plain(images: np.ndarray, training: bool) -> Data:
    """Images that are to come out as they went in."""
    return {"inputs": images}


def noisy(images: np.ndarray, training: bool) -> Data:
    """Images under noise, and the clean ones as targets; in training the noise is an augmentation."""
    noise = 0 if training else np.random.default_rng(0).normal(scale=NOISE, size=images.shape)
    return {"inputs": (images + noise).astype(np.float32), "targets": images}


def binary(images: np.ndarray, training: bool, latents: int = 20) -> Data:
    """Grey as a probability. In evaluation each pixel is drawn once, and beside it the noise that a bound needs."""
    if training:
        return {"inputs": images}
    rng = np.random.default_rng(0)
    drawn = (rng.random(images.shape) < images).astype(np.float32)
    noise = rng.normal(size=(len(images), latents)).astype(np.float32)
    return {"inputs": {"x": drawn, "noise": noise}, "targets": drawn}


def wanted(batch: Data) -> Any:
    """What the output is held against: the targets, or where there are none the inputs themselves."""
    return batch.get("targets", batch["inputs"])


# Losses and metrics of several outputs.


def kl_sparse(outputs: zoo.Coded, targets: Array, mask: Array | None = None) -> Array:
    """Squared error, and mean activations near their target."""
    sparsity = losses.kl_sparsity(outputs.code, mask, target=SPARSE)
    return losses.mse(outputs.reconstruction, targets, mask) + KL_PRICE * sparsity


def l1_sparse(outputs: zoo.Coded, targets: Array, mask: Array | None = None) -> Array:
    """Squared error, and a price on every activation."""
    return losses.mse(outputs.reconstruction, targets, mask) + L1_PRICE * losses.l1_sparsity(outputs.code, mask)


def reconstruction_mse(outputs: zoo.Coded, targets: Array, mask: Array | None = None) -> Array:
    """Mean squared error of the reconstruction alone."""
    return losses.mse(outputs.reconstruction, targets, mask)


def probability_mse(outputs: Array, targets: Array, mask: Array | None = None) -> Array:
    """Mean squared error of the probabilities that logits stand for."""
    return losses.mse(jax.nn.sigmoid(outputs), targets, mask)


def divergence(outputs: zoo.Variational, targets: Array, mask: Array | None = None) -> Array:
    """The part of the bound that the code costs, in nats."""
    return losses.gaussian_kl(outputs.mean, outputs.log_variance, mask)


@dataclasses.dataclass(frozen=True)
class Network:
    """A model and how it is trained."""

    model: nn.Layer
    loss: Callable[..., Array]
    data: Callable[..., Data]
    epochs: int
    learning_rate: float
    metrics: tuple[Callable[..., Any], ...] = ()
    augmentations: tuple[jdl.data.Augmentation, ...] = ()
    against: str = ""  # whose squared error its own is divided by
    steps_per_call: int = 25  # a convolution inside a scan is ten times slower on a CPU: 1 for those
    once: bool = False  # trained with the first seed only


def variational(latents: int) -> zoo.VariationalAutoencoder:
    """The VAE with two hidden layers on both sides."""
    return zoo.VariationalAutoencoder(zoo.DenseEncoder(2 * latents, (512, 256)), zoo.DenseDecoder(IMAGE, (256, 512)))


def sparse(activation: Callable[[Array], Array], units: int = 256) -> zoo.SparseAutoencoder:
    """One hidden layer, wider than it need be."""
    return zoo.SparseAutoencoder(nn.Chain(zoo.DenseEncoder(units, ()), activation), zoo.DenseDecoder(IMAGE, ()))


def convolutional(
    kind: type[zoo.Autoencoder], units: int, activation: Callable[[Array], Array] | None = None
) -> zoo.Autoencoder:
    """An autoencoder of 16 and 32 features on either side."""
    encoder = zoo.ConvolutionalEncoder(units, (16, 32))
    return kind(nn.Chain(encoder, activation) if activation else encoder, zoo.ConvolutionalDecoder(IMAGE, (32, 16)))


OVERCOMPLETE = zoo.Autoencoder(nn.Chain(zoo.DenseEncoder(1024, ()), nn.relu), zoo.DenseDecoder(IMAGE, ()))
CODED = (losses.configured(reconstruction_mse, name="mse"),)
DENOISED = (losses.configured(probability_mse, name="mse"),)
BITS = (losses.negative_elbo, losses.bits_per_dimension, divergence)
NETWORKS = {
    AE: Network(
        zoo.Autoencoder(zoo.DenseEncoder(32), zoo.DenseDecoder(IMAGE)),
        losses.mse, plain, 10, 2e-3, (jdl.metrics.mse,), against=LINEAR,
    ),
    "convolutional AE, 32 units": Network(
        convolutional(zoo.Autoencoder, 32), losses.mse, plain, 2, 3e-3, (jdl.metrics.mse,),
        against=LINEAR, steps_per_call=1,
    ),
    "SAE, 256 units, KL": Network(sparse(nn.sigmoid), kl_sparse, plain, 10, 1e-2, CODED, against=AE),
    "SAE, 256 units, L1": Network(sparse(nn.relu), l1_sparse, plain, 10, 2e-3, CODED, against=AE),
    "DAE, 1,024 units": Network(
        OVERCOMPLETE, losses.binary_cross_entropy, noisy, 5, 1e-3, DENOISED, (jdl.data.Noise(NOISE),)
    ),
    "VAE, 20 latents": Network(
        variational(20), losses.negative_elbo, binary, 12, 2e-3, BITS, (jdl.data.Binarise(),)
    ),
    FLAT: Network(
        variational(2), losses.negative_elbo, functools.partial(binary, latents=2), 6, 2e-3, BITS,
        (jdl.data.Binarise(),), once=True,
    ),
    "convolutional SAE, 256 units": Network(
        convolutional(zoo.SparseAutoencoder, 256, nn.sigmoid), kl_sparse, plain, 3, 5e-3, CODED,
        against=AE, steps_per_call=1, once=True,
    ),
    "convolutional DAE, 256 units": Network(
        convolutional(zoo.Autoencoder, 256), losses.binary_cross_entropy, noisy, 5, 3e-3, DENOISED,
        (jdl.data.Noise(NOISE),), steps_per_call=1, once=True,
    ),
    "convolutional VAE, 20 latents": Network(
        convolutional(zoo.VariationalAutoencoder, 2 * 20), losses.negative_elbo, binary, 8, 3e-3, BITS,
        (jdl.data.Binarise(),), steps_per_call=1, once=True,
    ),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Autoencoders(Settings):
    """Settings of the experiment; how a network is trained stands beside its model."""

    examples: int = 0
    """Take only so many digits of each part; 0 for all."""


@dataclasses.dataclass(frozen=True, eq=False)
class Digits:
    """Grey images ``[N, 28, 28, 1]`` from 0 to 1, and which digit each of the test images is."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    labels: np.ndarray

    @classmethod
    def load(cls, examples: int) -> Digits:
        """MNIST, or the first ``examples`` of each part."""
        mnist = jdl.data.load("mnist", normalise=False)
        rich.print(f"{mnist}\n")
        count = examples or None
        train, validation, test = (
            part.inputs[:count].astype(np.float32) / 255 for part in (mnist.train, mnist.validation, mnist.test)
        )
        return cls(train, validation, test, mnist.test.targets[:count])


@experiment(smoke={"examples": 512})
def main(settings: Autoencoders, record: Record) -> None:
    """Train each network and hold it against its baseline on the official test digits."""
    digits = Digits.load(settings.examples)
    pictures = baselines(digits, record)
    for seed in settings.each_seed:
        runs = {}
        for name, network in NETWORKS.items():
            if network.once and seed != settings.seed:
                continue
            runs[name] = train(name, network, digits, seed, record)
            score(name, network, runs[name], digits, record)
        if seed == settings.seed:
            draw(runs, pictures, digits).savefig(record.path("autoencoders.png"), dpi=80)


def train(name: str, network: Network, digits: Digits, seed: int, record: Record) -> jdl.Run:
    """Fit on train, watch validation."""
    objective = jdl.supervised(network.model, network.loss, network.metrics, targets=wanted)
    batch_size = min(128, len(digits.train) // 4)
    steps = jdl.data.steps_in_epochs(len(digits.train), batch_size, network.epochs)
    return jdl.fit(
        network.model,
        jdl.augmented(objective, *network.augmentations),
        optax.adam(optax.cosine_decay_schedule(network.learning_rate, steps)),
        network.data(digits.train, training=True),
        validation=network.data(digits.validation, training=False),
        epochs=network.epochs,
        batch_size=batch_size,
        steps_per_call=network.steps_per_call,
        seed=seed,
        callbacks=[record.history(model=name, seed=seed)],
    )


def score(name: str, network: Network, run: jdl.Run, digits: Digits, record: Record) -> None:
    """What the test digits say of a trained network."""
    test = network.data(digits.test, training=False)
    found = run.evaluate(test)
    del found["loss"]  # among the metrics by its own name, where it says something
    if network.against:
        found["mse_ratio"] = found["mse"] / record.values[f"{network.against}/mse"][-1]
    if "mse" in found and "targets" in test:
        found["psnr_gain_in_dB"] = gain(found["mse"], test)
    if network.loss is kl_sparse:
        means = run.predict(digits.test).code.mean(0)
        found["mean_activation"] = means.mean()
        found["off_target"] = abs(means.mean() / SPARSE - 1)
        found["units_off_by_over_20%"] = np.sum(np.abs(means / SPARSE - 1) > 0.2)
    if network.loss is l1_sparse:
        found["exact_zeros"] = np.mean(run.predict(digits.test).code == 0)
    found["seconds"] = run.history[-1]["seconds"]
    rich.print(f"{name}: " + ", ".join(f"{metric.replace('_', ' ')} {value:.4g}" for metric, value in found.items()))
    for metric, value in found.items():
        record.metric(f"{name}/{metric}", value)


def gain(mse: float, test: Data) -> float:
    """By how much the peak signal-to-noise ratio of noisy images rises, in dB: 10 log₁₀ of the ratio of errors."""
    return 10 * math.log10(np.mean(np.square(test["inputs"] - test["targets"])) / mse)


def baselines(digits: Digits, record: Record) -> dict[str, np.ndarray]:
    """Principal components, a linear denoiser, and the mean image; what the first two make of the first test digits."""
    flat, test = (images.reshape(len(images), -1) for images in (digits.train, digits.test))
    pca = PCA(32, svd_solver="covariance_eigh").fit(flat)
    projected = pca.inverse_transform(pca.transform(test))
    record.metric(f"{LINEAR}/mse", np.mean(np.square(projected - test)))

    # Noise of variance σ² on N images is, on average over its draws, a ridge penalty of N σ² on clean ones.
    seen = noisy(digits.test, training=False)
    ridge = Ridge(len(flat) * NOISE**2).fit(flat, flat)
    cleaned = np.clip(ridge.predict(seen["inputs"].reshape(test.shape)), 0, 1)
    mean = flat.mean(0)
    for name, image in (("ridge regression", cleaned), ("mean image", mean)):
        mse = np.mean(np.square(image - test))
        record.metric(f"{name}/mse", mse)
        record.metric(f"{name}/psnr_gain_in_dB", gain(mse, seen))

    chance, drawn = np.clip(mean, 1e-4, 1 - 1e-4), binary(digits.test, training=False)["targets"].reshape(test.shape)
    nats = -np.mean(np.sum(drawn * np.log(chance) + (1 - drawn) * np.log(1 - chance), 1))
    record.metric("mean image/negative_elbo", nats)
    record.metric("mean image/bits_per_dimension", nats / test.shape[1] / math.log(2))
    return {name: made[:SHOWN].reshape(-1, *IMAGE) for name, made in (("PCA", projected), ("ridge", cleaned))}


SHOWN = 12  # digits in a row of a picture


def draw(runs: dict[str, jdl.Run], made: dict[str, np.ndarray], digits: Digits) -> Figure:
    """Reconstructions, denoised digits, draws from the variational autoencoders, and a map of a code."""
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    grid = figure.add_gridspec(2, 6, height_ratios=(0.55, 1))
    clean, seen = digits.test[:SHOWN], noisy(digits.test[:SHOWN], training=False)["inputs"]
    rows = {
        "in": clean,
        "PCA, 32": made["PCA"],
        "AE, 32": runs[AE].predict(clean),
        "SAE, 256": runs["SAE, 256 units, KL"].predict(clean).reconstruction,
    }
    show(figure.add_subplot(grid[0, :3]), "reconstructions", rows)
    cleaned = jax.nn.sigmoid(runs["DAE, 1,024 units"].predict(seen))
    rows = {"in": seen, "ridge": made["ridge"], "DAE": np.asarray(cleaned), "clean": clean}
    show(figure.add_subplot(grid[0, 3:]), "noise of standard deviation 0.5 taken away", rows)

    latents = np.random.default_rng(2).normal(size=(100, 20)).astype(np.float32)
    drawn = decoded(runs["VAE, 20 latents"], latents)
    show(
        figure.add_subplot(grid[1, :2]),
        "drawn from the VAE, 20 latents",
        dict(enumerate(drawn.reshape(10, 10, *IMAGE))),
    )
    normal = statistics.NormalDist()
    quantiles = np.array([normal.inv_cdf(share) for share in np.linspace(0.03, 0.97, 15)], np.float32)
    plane = np.stack(np.meshgrid(quantiles, quantiles[::-1]), -1).reshape(-1, 2)
    across = decoded(runs[FLAT], plane).reshape(15, 15, *IMAGE)
    show(figure.add_subplot(grid[1, 2:4]), "what 2 latents stand for, by quantiles", dict(enumerate(across)))

    axes, few = figure.add_subplot(grid[1, 4:]), slice(3000)
    means, labels = runs[FLAT].predict(digits.test[few]).mean, digits.labels[few]
    for digit in range(10):
        x, y = means[labels == digit].T
        axes.scatter(x, y, s=4, color=f"C{digit}", linewidths=0, alpha=0.6)
        axes.text(
            float(np.median(x)), float(np.median(y)), str(digit), size=14, weight="bold", ha="center", va="center"
        )
    axes.set(title="where test digits lie in them", aspect="equal", xlim=(-4, 4), ylim=(-4, 4))
    return figure


def decoded(run: jdl.Run, latents: np.ndarray) -> np.ndarray:
    """What the decoder of a variational autoencoder makes of latents ``[N, L]``: grey images."""
    assert isinstance(run.model, zoo.VariationalAutoencoder)
    return np.asarray(jax.nn.sigmoid(run.model.decoder(nn.part(run.model, run.variables, "decoder"), latents)))


def show(axes: Axes, title: str, rows: dict[Any, np.ndarray]) -> None:
    """Rows of grey images ``[N, 28, 28, 1]``, with their names where they have one."""
    images = np.stack(list(rows.values()))[..., 0]
    axes.imshow(np.concatenate(np.concatenate(images, 1), 1), cmap="gray", vmin=0, vmax=1)
    named = [name for name in rows if isinstance(name, str)]
    axes.set_yticks(28 * np.arange(len(named)) + 14, named)
    axes.tick_params(length=0)
    axes.set(title=title, xticks=())
    axes.spines[:].set_visible(False)


if __name__ == "__main__":
    main()
