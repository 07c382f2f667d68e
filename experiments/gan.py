"""Two networks that play a game learn to draw digits: DCGAN with the non-saturating loss, and WGAN-GP.

10,000 made digits are held against the test digits in the features of a network that reads 99.2% of these: by their
Fréchet distance, and by coverage, the share of test digits that have a made one nearer than their fifth neighbour.
Settings were chosen on validation, in runs of 2 to 8 epochs.

Command   python -m experiments.gan
Machine   2 CPU cores, jax 0.10.2
Time      54 minutes on one core, beside other work
Result    Fréchet distance and coverage: DCGAN 11.6 and 0.705, WGAN-GP 10.9 and 0.717; real training digits 0.76 and
          0.953. The bar is 30.4 and 0.477; ten repeated digits have 91.2 and 0.006, noisy class means 490 and 0.006.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich

import jdl
from experiments.common import Record, Settings, experiment
from experiments.features import coverage, features_of, frechet_distance, train_classifier
from jdl import nn, zoo
from jdl.data import Splits
from jdl.metrics import Mean

# The bar, known before any GAN: its digits are at least this many times nearer to real ones than the nearer control's,
# and have at least this share of the coverage that real digits have, which is many times that of either control.
NEARER, COVERED = 3, 0.5


@dataclasses.dataclass(frozen=True)
class Gan(Settings):
    """Settings of the experiment; rates stand beside their players."""

    epochs: int = 15
    """Passes over the training digits, of each GAN."""
    classifier_epochs: int = 4
    """Of the network whose features are compared."""
    width: int = 32
    """Of the generator, its features at 14 × 14; the discriminator begins with half."""
    batch_size: int = 64
    """Digits in a step."""
    examples: int = 0
    """Take only so many digits of each part; 0 for all."""
    score_on: str = "test"
    """The part of the data that made digits are held against: validation, to choose settings."""
    only: str = ""
    """Train this one alone."""


# What each player lowers, of scores of real and made images.


def telling_apart(judged: zoo.Judged, images: jax.Array) -> jax.Array:
    """Cross entropy of a discriminator: real images have a positive logit, made ones a negative one."""
    return jnp.mean(nn.softplus(-judged.real) + nn.softplus(judged.fake))


def passing(judged: zoo.Judged, images: jax.Array) -> jax.Array:
    """The generator's non-saturating loss: made images are to be taken for real."""
    return jnp.mean(nn.softplus(-judged.fake))


def right(judged: zoo.Judged, images: jax.Array) -> Mean:
    """The share of images that the discriminator takes for what they are."""
    return Mean.of(jnp.concatenate([judged.real > 0, judged.fake <= 0]).astype(jnp.float32))


def criticising(judged: zoo.Criticised, images: jax.Array) -> jax.Array:
    """How far made images are below real ones, negative, with a penalty on slopes that are not 1."""
    return jnp.mean(judged.fake - judged.real + 10 * jnp.square(judged.slope - 1))


def pleasing(judged: zoo.Criticised, images: jax.Array) -> jax.Array:
    """The generator's Wasserstein loss."""
    return -jnp.mean(judged.fake)


def every_second(step: Any, **extra: Any) -> Any:
    """A step of the critic alone, then one of both."""
    return step % 2 == 1


def dcgan(width: int, steps: int) -> tuple[nn.Layer, jdl.Gradient, optax.GradientTransformation]:
    """The model, its game, and the optimizer of both players."""
    model = zoo.GAN(resizing_generator(width), zoo.DCGANDiscriminator(width // 2))
    optimizer = rates(optax.adam(falling(1e-3, steps), b1=0.5), optax.adam(falling(5e-4, steps), b1=0.5))
    return model, play(model, passing, telling_apart, [right]), optimizer


def wgan_gp(width: int, steps: int) -> tuple[nn.Layer, jdl.Gradient, optax.GradientTransformation]:
    """The same with a critic, which takes two steps for each of the generator's."""
    model = zoo.WassersteinGAN(resizing_generator(width), zoo.DCGANDiscriminator(width // 2, norm=None))
    slow = optax.conditionally_mask(optax.adam(falling(1e-3, steps // 2), b1=0.0, b2=0.9), every_second)
    return model, play(model, pleasing, criticising), rates(slow, optax.adam(falling(1e-3, steps), b1=0.0, b2=0.9))


def resizing_generator(width: int) -> nn.Layer:
    """Of both; its gradient takes a CPU half as long as that of transposed convolutions."""
    return zoo.DCGANGenerator(width, up=zoo.resize_convolution)


def falling(rate: float, steps: int) -> optax.Schedule:
    """A rate that in the second half falls to nothing."""
    return optax.linear_schedule(rate, 0.0, steps - steps // 2, steps // 2)


def play(model: nn.Layer, generator: Any, discriminator: Any, metrics: Any = ()) -> jdl.Gradient:
    """Each player's gradient, of its own loss by its own parameters."""
    return jdl.game(
        {
            "generator/**": jdl.supervised(model, generator, targets="inputs"),
            "discriminator/**": jdl.supervised(model, discriminator, metrics, targets="inputs"),
        }
    )


def rates(
    generator: optax.GradientTransformation, discriminator: optax.GradientTransformation
) -> optax.GradientTransformation:
    """An optimizer for each player; what draws in the end is a running average of the generator."""
    players = {"generator/**": "generator", "discriminator/**": "discriminator"}
    averaged = optax.chain(generator, jdl.average_params(0.99))
    return optax.multi_transform({"generator": averaged, "discriminator": discriminator}, jdl.label(players))


GANS = {"DCGAN": dcgan, "WGAN-GP": wgan_gp}


class Samples:
    """A callback that draws from the same noise at every report, and the generator's images for any noise."""

    def __init__(self, model: Any, seed: int):
        self.model = model
        self.noise = self.draw(10, seed)
        self.history: list[np.ndarray] = []

    def __call__(self, run: jdl.Run) -> None:
        self.history.append(self.images(run, self.noise))

    def draw(self, count: int, seed: int) -> np.ndarray:
        """Noise for so many images."""
        return np.random.default_rng(seed).normal(size=(count, self.model.latent)).astype(np.float32)

    def images(self, run: jdl.Run, noise: np.ndarray) -> np.ndarray:
        """What the generator makes of noise ``[N, latent]``."""
        return jdl.predict(self.model.generator, nn.part(self.model, run.variables, "generator"), noise)


@experiment(smoke={"examples": 512, "epochs": 1, "width": 4, "classifier_epochs": 1})
def main(settings: Gan, record: Record) -> None:
    """Train both GANs, and hold their digits and the controls' against real ones."""
    mnist = digits(settings.examples)
    held_out = getattr(mnist, settings.score_on)
    classifier = train_classifier(mnist, settings.classifier_epochs)
    accuracy = classifier.evaluate(mnist.test)["accuracy"]
    rich.print(f"Features of a network that reads {accuracy:.2%} of {len(mnist.test):,} test digits\n")
    record.metric("classifier/accuracy", accuracy)
    real = features_of(classifier, held_out.inputs)

    def score(name: str, images: np.ndarray) -> tuple[float, float]:
        made = features_of(classifier, images)
        distance, covered = frechet_distance(made, real), coverage(made, real)
        rich.print(f"{name}: Fréchet distance {distance:.2f}, coverage {covered:.3f}")
        record.metric(f"{name}/Fréchet_distance", distance)
        record.metric(f"{name}/coverage", covered)
        return distance, covered

    _, best = score("real training digits", some(mnist, len(real)))
    nearest = min(score(name, images)[0] for name, images in controls(mnist, len(real)).items())
    for name, make in GANS.items():
        if settings.only in ("", name):
            for seed in settings.each_seed:
                steps = jdl.data.steps_in_epochs(len(mnist.train), settings.batch_size, settings.epochs)
                players = make(settings.width, steps)
                distance, covered = score(name, train(name, *players, mnist, seed, settings, record))
                record.metric(f"{name}/distance_of_the_bar", distance * NEARER / nearest)
                record.metric(f"{name}/coverage_of_the_bar", covered / (COVERED * best))


def train(
    name: str,
    model: nn.Layer,
    game: jdl.Gradient,
    optimizer: optax.GradientTransformation,
    mnist: Splits,
    seed: int,
    settings: Gan,
    record: Record,
) -> np.ndarray:
    """Play, and return as many digits as are scored."""
    begin, samples = time.perf_counter(), Samples(model, seed)
    run = jdl.fit(
        model,
        game,
        optimizer,
        {"inputs": mnist.train.inputs},
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=seed,
        callbacks=[record.history(model=name, seed=seed), samples],
    )
    record.metric(f"{name}/seconds", time.perf_counter() - begin)
    if seed == settings.seed:
        jdl.show.plot_images(np.concatenate(samples.history), path=record.path(f"{name}_samples.png"), columns=10)
        jdl.show.plot_history(run.history, record.path(f"{name}_curves.png"))
    return samples.images(run, samples.draw(len(getattr(mnist, settings.score_on)), seed + 1))


def digits(examples: int) -> Splits:
    """MNIST from -1 to 1, as the generators draw."""
    mnist = jdl.data.load("mnist", normalise=False)
    parts = {name: getattr(mnist, name) for name in ("train", "validation", "test")}
    parts = {name: part[:examples] if examples else part for name, part in parts.items()}
    return dataclasses.replace(mnist, **{name: part.map(inputs=to_unit) for name, part in parts.items()})


def to_unit(pixels: np.ndarray) -> np.ndarray:
    """Bytes as numbers from -1 to 1."""
    return pixels.astype(np.float32) / 127.5 - 1


def some(mnist: Splits, count: int) -> np.ndarray:
    """So many training digits."""
    return mnist.train.inputs[np.random.default_rng(0).permutation(len(mnist.train))[:count]]


def controls(mnist: Splits, count: int) -> dict[str, np.ndarray]:
    """What is no generator, and what a score must not take for one."""
    rng = np.random.default_rng(0)
    images, targets = mnist.train.inputs, mnist.train.targets
    means, firsts = (np.stack([of(images[targets == digit]) for digit in range(10)]) for of in (mean, first))
    labels = rng.integers(10, size=count)
    noise = rng.normal(scale=0.2, size=(count, *images.shape[1:]))
    return {
        "noisy class means": np.clip(means[labels] + noise, -1, 1).astype(np.float32),
        "ten repeated digits": firsts[labels],
    }


def mean(images: np.ndarray) -> np.ndarray:
    """The mean image."""
    return images.mean(axis=0)


def first(images: np.ndarray) -> np.ndarray:
    """The first image."""
    return images[0]


if __name__ == "__main__":
    main()
