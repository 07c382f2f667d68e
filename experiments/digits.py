"""A network beats a linear model on real handwritten digits, and convolutions beat a plain network.

1,797 digits of 8×8 pixels from scikit-learn; the 20% that test are stratified, fixed, and nothing was chosen by them.
Settings were chosen by 5-fold cross-validation within train and validation, which `--folds 5` repeats.

Command   python -m experiments.digits --seeds 3
Machine   2 CPU cores, jax 0.10.2
Time      20 s from a cold start, imports and compilation included, with other work on the machine; 15 s of it computing
Result    Test accuracy 0.969 linear, 0.978 MLP, 0.989 CNN (each seed ≥ 0.986), beside 0.994 of both SVC and k-NN: two
          errors of 359, where the CNN makes three to five. In cross-validation, on four times as many digits, the order
          is another: 0.967 linear, 0.983 MLP, 0.992 CNN, 0.990 SVC, 0.980 k-NN.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import numpy as np
import optax
import rich
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import SVC

import jdl
from experiments.common import Record, Settings, experiment
from jdl import nn
from jdl.data import Dataset, Splits

# The model and its learning rate. Of 3e-3, 1e-2 and 3e-2 the linear model does best with the largest, the others with
# what stands here; weight decay is optax's 1e-4.
NETWORKS = {
    "linear": (nn.Chain(nn.Flatten(), nn.Dense(10)), 3e-2),
    "mlp": (nn.Chain(nn.Flatten(), nn.Dense(128), jax.nn.relu, nn.Dense(10)), 1e-2),
    "cnn": (
        nn.Chain(
            nn.Conv(32, 3),
            jax.nn.relu,
            nn.Conv(32, 3),
            jax.nn.relu,
            nn.MaxPool(2),
            nn.Conv(64, 3),
            jax.nn.relu,
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Dense(10),
        ),
        3e-3,
    ),
}
# Of C = 1, 3, 10, 100, gamma = scale, 0.01, 0.02, 0.05 and of 1, 3, 5 neighbours.
BASELINES = {
    "scikit-learn SVC": SVC(C=10, gamma=0.02),  # pyright: ignore[reportArgumentType]
    "scikit-learn k-NN": KNeighborsClassifier(1),
}


@dataclasses.dataclass(frozen=True)
class Digits(Settings):
    """Settings of the experiment; learning rates stand beside their models."""

    epochs: int = 20
    """Passes over the training digits."""
    batch_size: int = 32
    """Digits in a step."""
    folds: int = 0
    """Score by so many folds within train and validation instead of by the test digits."""


@experiment(smoke={"epochs": 1})
def main(settings: Digits, record: Record) -> None:
    """Train three networks and two models of scikit-learn, and score them on the same digits."""
    digits = jdl.data.load("digits")
    rich.print(f"{digits}\n")
    parts = folds(settings.folds) if settings.folds else [digits]
    for name, baseline in BASELINES.items():
        for part in parts:
            score_baseline(name, baseline, part, record)
    first_runs = {}
    for name, (model, rate) in NETWORKS.items():
        record.metric(f"{name}/parameters", model.spec(digits.train.inputs).parameters)
        steps = jdl.data.steps_in_epochs(len(parts[0].train), settings.batch_size, settings.epochs)
        optimizer = optax.adamw(optax.cosine_decay_schedule(rate, steps))
        for seed in settings.each_seed:
            for part in parts:
                run = train(name, model, optimizer, part, seed, settings, record)
                first_runs.setdefault(name, run)
    draw(first_runs, parts[0].test, record)


def train(
    name: str,
    model: nn.Layer,
    optimizer: optax.GradientTransformation,
    data: Splits,
    seed: int,
    settings: Digits,
    record: Record,
) -> jdl.Run:
    """Fit on train, watch validation, score on test."""
    begin = time.perf_counter()
    run = jdl.fit(
        model,
        jdl.losses.cross_entropy,
        optimizer,
        data.train,
        validation=data.validation,
        metrics=[jdl.metrics.accuracy],
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        seed=seed,
        callbacks=[record.history(model=name, seed=seed)],
    )
    report(name, run.evaluate(data.test)["accuracy"], data.test, time.perf_counter() - begin, record)
    return run


def score_baseline(name: str, model: Any, data: Splits, record: Record) -> None:
    """The same for a model of scikit-learn, on the same training digits."""
    begin = time.perf_counter()
    model.fit(flat(data.train.inputs), data.train.targets)
    accuracy = model.score(flat(data.test.inputs), data.test.targets)
    report(name, accuracy, data.test, time.perf_counter() - begin, record)


def report(name: str, accuracy: float, test: Dataset, seconds: float, record: Record) -> None:
    """Say how it went, and keep it."""
    wrong = round((1 - accuracy) * len(test))
    rich.print(f"{name}: {accuracy:.1%} of {len(test)} unseen digits are right, {wrong} wrong ({seconds:.1f} s)")
    record.metric(f"{name}/accuracy", accuracy)
    record.metric(f"{name}/seconds", seconds)


def flat(images: np.ndarray) -> np.ndarray:
    """``[N, 8, 8, 1]`` as ``[N, 64]``."""
    return images.reshape(len(images), -1)


def folds(k: int) -> list[Splits]:
    """Train and validation together, divided ``k`` times into training and held-out digits, and no test digit."""
    raw = jdl.data.load("digits", normalise=False)
    together = {name: np.concatenate([raw.train[name], raw.validation[name]]) for name in raw.train.arrays}
    pairs = Dataset(together).folds(k, stratify="targets")
    return [Splits(train, held_out, held_out).normalised(axis=None) for train, held_out in pairs]


def draw(runs: dict[str, jdl.Run], test: Dataset, record: Record) -> None:
    """Curves of every network; of the convolutional one, confusions and digits, the wrong ones first."""
    jdl.show.plot_runs({name: run.history for name, run in runs.items()}, record.path("curves.png"))
    logits = runs["cnn"].predict(test)
    confusion = jdl.metrics.confusion_matrix(logits, test.targets).compute()
    jdl.show.plot_confusion(confusion, test.classes, record.path("confusion.png"))
    taken_for = logits.argmax(-1)
    first = np.argsort(taken_for == test.targets, kind="stable")[:32]
    pairs = zip(taken_for[first], test.targets[first], strict=True)
    titles = [f"{guess}" if guess == digit else f"{guess}? is {digit}" for guess, digit in pairs]
    jdl.show.plot_images(-test.inputs[first], titles, record.path("predictions.png"))


if __name__ == "__main__":
    main()
