"""A U-Net takes the noise out of images, beside non-local means.

The images are those of `jdl.data.load("cifar10_jpeg")`, 32 × 32 in colour: 9,000 train, 1,000 validate, 10,000 test.
The noise is normal with σ = 0.1, where black is 0 and white 1, and not clipped. Settings of both were chosen by
validation. An interrupted run goes on where it was when its command is given again.

Command   python -m experiments.denoise
Machine   2 CPU cores, jax 0.10.2
Time      18 minutes on one core, beside other work
Result    On 10,000 test images of 20.0 dB: the U-Net 27.4 dB, a gain of 7.41; non-local means 26.5 dB, a gain of 6.54.
"""

from __future__ import annotations

import dataclasses
import shutil
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich
from skimage.restoration import denoise_nl_means

import jdl
from experiments.common import Record, Settings, experiment
from jdl import nn, zoo
from jdl.data import Dataset, Noise

SIGMA = 0.1
TEST_NOISE, VALIDATION_NOISE = 0, 1  # seeds: the noise of an image is always the same, except in training

# It learns the noise, which the residual takes away: easier than to learn the image (Zhang et al. 2016, DnCNN).
DENOISER = nn.Residual(zoo.UNet(3, depth=2, block=zoo.DoubleConvolution(16)))


@dataclasses.dataclass(frozen=True)
class Denoise(Settings):
    """Settings of the experiment."""

    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 16
    """Images in a step."""
    learning_rate: float = 2e-3
    """Of Adam, at first; it falls to 0 along a cosine."""
    examples: int = 0
    """Take only so many images of each part; 0 for all."""


@experiment(smoke={"examples": 64, "epochs": 1})
def main(settings: Denoise, record: Record) -> None:
    """Non-local means, which is told how strong the noise is, and the U-Net, which sees new noise in every step."""
    images = jdl.data.load("cifar10_jpeg", normalise=False)
    count = settings.examples or None
    train = Dataset({"inputs": unit(images.train[:count]), "targets": unit(images.train[:count])})
    validation, test = noisy(images.validation[:count], VALIDATION_NOISE), noisy(images.test[:count], TEST_NOISE)
    rich.print(f"{images}\n")
    record.metric("noisy images/psnr", psnr(test.inputs, test.targets))
    begin = time.perf_counter()
    smoothed = non_local_means(test.inputs)
    report("non-local means", smoothed, test, time.perf_counter() - begin, record)
    record.metric("U-Net/parameters", DENOISER.spec(train.inputs[:1]).parameters)
    runs = [fit(train, validation, seed, settings, record) for seed in settings.each_seed]
    for run in runs:
        restored = run.predict(test.inputs)
        report("U-Net", restored, test, run.history[-1]["seconds"], record)
        record.metric("U-Net/validation_psnr", run.history[-1]["validation_psnr"])
    rows = {
        "noisy": test.inputs,
        "non-local means": smoothed,
        "U-Net": runs[0].predict(test.inputs[:8]),
        "clean": test.targets,
    }
    pictures = np.concatenate([np.clip(row[:8], 0, 1) for row in rows.values()])
    jdl.show.plot_images(pictures, [name for name in rows for _ in range(8)], record.path("denoised.png"))
    shutil.rmtree(record.path("checkpoints"))  # of runs that are done: the same command begins anew


def fit(train: Dataset, validation: Dataset, seed: int, settings: Denoise, record: Record) -> jdl.Run:
    """The U-Net, trained."""
    steps = jdl.data.steps_in_epochs(len(train), settings.batch_size, settings.epochs)
    return jdl.fit(
        DENOISER,
        jdl.augmented(jdl.supervised(DENOISER, jdl.losses.mse, [psnr]), Noise(SIGMA)),
        optax.adam(optax.cosine_decay_schedule(settings.learning_rate, steps)),
        train,
        validation=validation,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=seed,
        checkpoint=record.path("checkpoints") / f"seed {seed}",
        callbacks=[record.history(model="U-Net", seed=seed)],
    )


def report(name: str, restored: np.ndarray, test: Dataset, seconds: float, record: Record) -> None:
    """Say and keep how near the restored images are to the clean ones, and how much nearer than the noisy ones."""
    after = psnr(restored, test.targets)
    gain = after - psnr(test.inputs, test.targets)
    rich.print(f"{name}: {after:.2f} dB, {gain:.2f} dB more than the noisy images ({seconds:.0f} s)")
    record.metric(f"{name}/psnr", after)
    record.metric(f"{name}/gain", gain)
    record.metric(f"{name}/seconds", seconds)


def unit(data: Dataset) -> np.ndarray:
    """The images with pixels from 0 to 1."""
    return np.asarray(data.inputs, np.float32) / 255


def noisy(data: Dataset, seed: int) -> Dataset:
    """Images with normal noise, not clipped, beside the clean ones."""
    clean = unit(data)
    noise = SIGMA * np.random.default_rng(seed).standard_normal(clean.shape, np.float32)
    return Dataset({"inputs": clean + noise, "targets": clean})


def psnr(outputs: jax.typing.ArrayLike, targets: jax.typing.ArrayLike) -> jax.Array:
    """Peak signal-to-noise ratio of images ``[B, H, W, C]`` from 0 to 1, in dB: the mean over the images."""
    return jnp.mean(-10 * jnp.log10(jnp.mean(jnp.square(jnp.subtract(outputs, targets)), axis=(1, 2, 3))))


def non_local_means(images: np.ndarray) -> np.ndarray:
    """Buades et al. 2005, by scikit-image; of patches of 3, 5 and 7 pixels and h from 0.4 σ to σ, the best."""
    options = {"patch_size": 5, "patch_distance": 5, "h": 0.9 * SIGMA, "sigma": SIGMA, "fast_mode": False}
    return np.stack([denoise_nl_means(image, channel_axis=-1, **options) for image in images])


if __name__ == "__main__":
    main()
