"""ResNet-20 beats a small CNN of as many parameters, and a U-Net takes the noise out of images.

Both on the JPEG copies of CIFAR-10's images, `jdl.data.load("cifar10_jpeg")`: a fifth of the training images, lossily
compressed, so no score here is a CIFAR-10 score. 9,000 images train, 1,000 validate, 10,000 test; settings were chosen
by validation, those of the baselines too. An interrupted run goes on where it was when its command is given again.

Command   python -m experiments.resnet
Machine   2 CPU cores, jax 0.10.2
Time      not measured yet
Result    not measured yet
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
from jdl.data import Crop, Dataset, Flip, Noise, Splits

SIGMA = 0.1  # of the noise, where black is 0 and white 1
TEST_NOISE, VALIDATION_NOISE = 0, 1  # seeds: the noise of an image is always the same, except in training

# 282,250 parameters, where ResNet-20 has 269,722.
SMALL_CNN = nn.Chain(
    nn.Conv(32, 3),
    nn.relu,
    nn.MaxPool(2),
    nn.Conv(64, 3),
    nn.relu,
    nn.MaxPool(2),
    nn.Flatten(),
    nn.Dropout(0.25),
    nn.Dense(64),
    nn.relu,
    nn.Dense(10),
)
# The network and the highest learning rate of its cycle.
CLASSIFIERS = {
    "ConvolutionalNet": (zoo.ConvolutionalNet(flattened=None), 0.03),
    "small CNN": (SMALL_CNN, 0.03),
    "ResNet-20": (zoo.ResNet20(), 0.1),
}

# It learns the noise, which the residual takes away: easier than to learn the image (Zhang et al. 2016, DnCNN).
DENOISER = nn.Residual(zoo.UNet(3, depth=2, block=zoo.DoubleConvolution(16)))


@dataclasses.dataclass(frozen=True)
class Resnet(Settings):
    """Settings of the experiment; highest learning rates stand beside their networks."""

    epochs: int = 30
    """Passes of the classifiers over the training images."""
    denoiser_epochs: int = 10
    """Passes of the U-Net."""
    batch_size: int = 64
    """Images in a step."""
    examples: int = 0
    """Take only so many images of each part; 0 for all."""


@experiment(smoke={"examples": 256, "epochs": 1, "denoiser_epochs": 1})
def main(settings: Resnet, record: Record) -> None:
    """Train and score the classifiers, then the denoisers."""
    images = jdl.data.load("cifar10_jpeg", normalise=False)
    if settings.examples:
        parts = {name: getattr(images, name)[: settings.examples] for name in ("train", "validation", "test")}
        images = dataclasses.replace(images, **parts)
    rich.print(f"{images}\n")
    classify(images, settings, record)
    denoise(images, settings, record)
    shutil.rmtree(record.path("checkpoints"))  # of runs that are done: the same command begins anew


def classify(images: Splits, settings: Resnet, record: Record) -> None:
    """Both classifiers on the same images, moved and mirrored at random in training."""
    images = images.normalised(axis=(0, 1, 2))
    steps = jdl.data.steps_in_epochs(len(images.train), settings.batch_size, settings.epochs)
    runs = {}
    for name, (model, peak) in CLASSIFIERS.items():
        record.metric(f"{name}/parameters", model.spec(images.train.inputs[:1]).parameters)
        for seed in settings.each_seed:
            objective = jdl.supervised(model, jdl.losses.cross_entropy, [jdl.metrics.accuracy])
            run = jdl.fit(
                model,
                jdl.augmented(objective, Crop(4), Flip()),
                momentum(peak, steps),
                images.train,
                validation=images.validation,
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                seed=seed,
                checkpoint=record.path("checkpoints") / f"{name}, seed {seed}",
                callbacks=[record.history(model=name, seed=seed)],
            )
            runs.setdefault(name, run)
            accuracy, seconds = run.evaluate(images.test)["accuracy"], run.history[-1]["seconds"]
            rich.print(f"{name}: {accuracy:.1%} of {len(images.test):,} test images are right ({seconds:.0f} s)")
            record.metric(f"{name}/validation_accuracy", run.history[-1]["validation_accuracy"])
            record.metric(f"{name}/accuracy", accuracy)
            record.metric(f"{name}/seconds", seconds)
    for deep, small in zip(record.values["ResNet-20/accuracy"], record.values["small CNN/accuracy"], strict=True):
        record.metric("ResNet-20/above the small CNN", deep - small)
    jdl.show.plot_runs({name: run.history for name, run in runs.items()}, record.path("curves.png"))
    logits = runs["ResNet-20"].predict(images.test)
    confusion = jdl.metrics.confusion_matrix(logits, images.test.targets).compute()
    jdl.show.plot_confusion(confusion, images.test.classes, record.path("confusion.png"))


def momentum(peak: float, steps: int) -> optax.GradientTransformation:
    """Stochastic gradient descent with Nesterov's momentum and weight decay, its learning rate one cycle."""
    cycle = jdl.schedules.one_cycle(peak, steps)
    return optax.chain(optax.add_decayed_weights(5e-4), optax.sgd(cycle, momentum=0.9, nesterov=True))


def denoise(images: Splits, settings: Resnet, record: Record) -> None:
    """The U-Net, which sees new noise in every step, and non-local means, which is told how strong the noise is."""
    train = Dataset({"inputs": unit(images.train), "targets": unit(images.train)})
    validation, test = noisy(images.validation, VALIDATION_NOISE), noisy(images.test, TEST_NOISE)
    record.metric("noisy images/psnr", psnr(test.inputs, test.targets))
    begin = time.perf_counter()
    smoothed = non_local_means(test.inputs)
    report("non-local means", smoothed, test, time.perf_counter() - begin, record)

    record.metric("U-Net/parameters", DENOISER.spec(train.inputs[:1]).parameters)
    steps = jdl.data.steps_in_epochs(len(train), settings.batch_size, settings.denoiser_epochs)
    for seed in settings.each_seed:
        objective = jdl.supervised(DENOISER, jdl.losses.mse, [psnr])
        run = jdl.fit(
            DENOISER,
            jdl.augmented(objective, Noise(SIGMA)),
            optax.adam(optax.cosine_decay_schedule(2e-3, steps)),
            train,
            validation=validation,
            epochs=settings.denoiser_epochs,
            batch_size=settings.batch_size,
            seed=seed,
            checkpoint=record.path("checkpoints") / f"U-Net, seed {seed}",
            callbacks=[record.history(model="U-Net", seed=seed)],
        )
        restored = run.predict(test.inputs)
        report("U-Net", restored, test, run.history[-1]["seconds"], record)
        record.metric("U-Net/validation_psnr", run.history[-1]["validation_psnr"])
    rows = {"noisy": test.inputs, "non-local means": smoothed, "U-Net": restored, "clean": test.targets}
    pictures = np.concatenate([np.clip(row[:8], 0, 1) for row in rows.values()])
    jdl.show.plot_images(pictures, [name for name in rows for _ in range(8)], record.path("denoised.png"))


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
