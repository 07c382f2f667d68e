"""ResNet-20 beats a small CNN of as many parameters.

On the JPEG copies of CIFAR-10's images, `jdl.data.load("cifar10_jpeg")`: a fifth of the training images, lossily
compressed, so no score here is a CIFAR-10 score. 9,000 images train, 1,000 validate, 10,000 test; settings were chosen
by validation, those of the small networks too. An interrupted run goes on where it was when its command is given again.

Command   python -m experiments.resnet
Machine   2 CPU cores, jax 0.10.2
Time      2.2 hours, twice interrupted and beside other work; an epoch of ResNet-20 takes 55 s on two quiet cores
Result    Right of 10,000 test images: ResNet-20 77.8%, the small CNN 69.1%, the handouts' ConvolutionalNet 61.3%.
"""

from __future__ import annotations

import dataclasses
import shutil

import optax
import rich

import jdl
from experiments.common import Record, Settings, experiment
from jdl import nn, zoo
from jdl.data import Crop, Flip, Splits

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


@dataclasses.dataclass(frozen=True)
class Resnet(Settings):
    """Settings of the experiment; highest learning rates stand beside their networks."""

    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 64
    """Images in a step."""
    examples: int = 0
    """Take only so many images of each part; 0 for all."""


@experiment(smoke={"examples": 256, "epochs": 1})
def main(settings: Resnet, record: Record) -> None:
    """Train and score a ResNet and two networks without shortcuts."""
    images = jdl.data.load("cifar10_jpeg", normalise=False)
    if settings.examples:
        parts = {name: getattr(images, name)[: settings.examples] for name in ("train", "validation", "test")}
        images = dataclasses.replace(images, **parts)
    rich.print(f"{images}\n")
    classify(images, settings, record)
    shutil.rmtree(record.path("checkpoints"))  # of runs that are done: the same command begins anew


def classify(images: Splits, settings: Resnet, record: Record) -> None:
    """All on the same images, moved and mirrored at random in training."""
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


if __name__ == "__main__":
    main()
