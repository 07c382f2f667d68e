"""What `jdl.diagnose` says of the networks of these experiments as they are, and of XOR and the perceptron.

Each network that learns digits, MNIST, breast cancer or diabetes is looked at with its own data, loss, optimizer and
batch size, on the first batch of each seed. None of them should have a pitfall, and the table shows how far each is
from one: the loss at the start over that of a model that knows nothing (a pitfall above 5, of values above 10), the
largest share of dead units in a layer (above ½), the gradient's norm at the first layer over that at the last (beyond a
thousandth or a thousand), updates over weights, and the steps to learn the batch by heart.

Command   python -m experiments.pitfalls --seeds 10
Machine   2 CPU cores, jax 0.10.2
Time      145 s, with much other work on the machine
Result    No pitfall in any of 11 networks from 10 seeds each: losses at the start are 1.2 to 2.4 times those expected,
          at most 3% of a layer's units are dead, gradients differ by less than 1.4 between first and last layer. XOR
          where a run stands still: saturated units; by a line: a batch that cannot be overfitted. A perceptron trained
          by its error: all zero gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import rich

import jdl
from experiments import breast_cancer, diabetes, digits, mnist, perceptron, xor
from experiments.common import Record, Settings, experiment
from jdl import nn
from jdl.data import Dataset


@dataclasses.dataclass(frozen=True)
class Pitfalls(Settings):
    """Settings of the experiment."""

    only: str = ""
    """Look only at the networks whose names start so, and at no gates."""


@dataclasses.dataclass(frozen=True)
class Setup:
    """A network as an experiment trains it."""

    name: str
    model: nn.Layer
    loss: Callable[..., jax.Array]
    optimizer: optax.GradientTransformation
    train: Dataset
    validation: Dataset
    batch_size: int

    def diagnosis(self, seed: int) -> jdl.Diagnosis:
        """Of new weights and the first batch of this seed."""
        batch = self.train.gather(jdl.data.batch_indices(len(self.train), self.batch_size, seed, 0))
        parts = self.model, self.loss, self.optimizer, batch
        return jdl.diagnose(*parts, validation=self.validation, train=self.train, seed=seed)


def setups(only: str = "") -> Iterator[Setup]:
    """The networks of the experiments, as they are, of which the names start so."""
    families = {
        "digits": digits_setups,
        "mnist": mnist_setups,
        "breast_cancer": breast_cancer_setups,
        "diabetes": diabetes_setups,
    }
    for name, family in families.items():
        if name.startswith(only.partition(",")[0]) or only.startswith(name):
            yield from (setup for setup in family() if setup.name.startswith(only))


def breast_cancer_setups() -> Iterator[Setup]:
    """That of breast_cancer, in the first fold."""
    table = jdl.data.load("breast_cancer", columns="worst").whole
    assert table is not None
    fold, own = breast_cancer.normalised(*table.folds(5, stratify="targets")[0]), breast_cancer.BreastCancer()
    parts = optax.adamw(own.learning_rate), *fold, own.batch_size
    yield Setup("breast_cancer, 10-64-1", breast_cancer.MODEL, jdl.losses.binary_cross_entropy, *parts)


def diabetes_setups() -> Iterator[Setup]:
    """Those of diabetes, in the first fold."""
    table = jdl.data.load("diabetes", normalise=False).whole
    assert table is not None
    fold, own = diabetes.Fold.of(*table.folds(5)[0]), diabetes.Diabetes()
    parts = optax.adamw(own.learning_rate), fold.train, fold.validation, own.batch_size
    for name, loss in diabetes.LOSSES.items():
        yield Setup(f"diabetes, 10-64-1 by {name}", diabetes.MODEL, loss, *parts)


def digits_setups() -> Iterator[Setup]:
    """Those of digits."""
    data, own = jdl.data.load("digits"), digits.Digits()
    steps = jdl.data.steps_in_epochs(len(data.train), own.batch_size, own.epochs)
    for name, (model, rate) in digits.NETWORKS.items():
        optimizer = optax.adamw(optax.cosine_decay_schedule(rate, steps))
        parts = data.train, data.validation, own.batch_size
        yield Setup(f"digits, {name}", model, jdl.losses.cross_entropy, optimizer, *parts)


def mnist_setups() -> Iterator[Setup]:
    """Those of MNIST."""
    data = jdl.data.load("mnist")
    for name, network in mnist.NETWORKS.items():
        steps = jdl.data.steps_in_epochs(len(data.train), network.batch_size, network.epochs)
        optimizer = optax.adamw(optax.cosine_decay_schedule(network.learning_rate, steps))
        parts = data.train, data.validation, network.batch_size
        yield Setup(f"mnist, {name}", network.model, jdl.losses.cross_entropy, optimizer, *parts)


def gates() -> Iterator[tuple[str, jdl.Diagnosis]]:
    """What is said of XOR, at the start and where a run stands still, and of a perceptron and a line."""
    for seed in (1, 17):
        state = xor.start(xor.first_params(seed))
        yield f"XOR, 2-2-1 from seed {seed}", of_xor(state.variables)
        if seed == 17:
            runs, _ = xor.train(jax.tree.map(lambda leaf: leaf[None], state), 100, 100)
            stuck = jax.tree.map(lambda leaf: leaf[0], runs.variables)
            yield f"XOR, 2-2-1 after 10,000 epochs from seed {seed}", of_xor(stuck)
    batch = {"inputs": perceptron.INPUTS, "targets": perceptron.GATES["XOR"].astype(np.int32)}
    line = nn.Neuron(nn.linear)
    yield "XOR by a line", jdl.diagnose(line, jdl.losses.binary_cross_entropy, optax.adam(0.1), batch)
    batch = {"inputs": perceptron.INPUTS, "targets": perceptron.GATES["AND"].astype(np.float32)}
    rule = jdl.vector_field(perceptron.rule)
    yield "AND, a perceptron by its rule", jdl.diagnose(nn.Perceptron(), rule, perceptron.OPTIMIZER, batch)
    yield "AND, a perceptron by its error", jdl.diagnose(nn.Perceptron(), jdl.losses.mse, perceptron.OPTIMIZER, batch)


def of_xor(variables: jdl.Variables) -> jdl.Diagnosis:
    """The network of that experiment with these weights."""
    variables = jax.tree.map(jnp.asarray, variables)
    return jdl.diagnose(xor.MODEL, xor.OBJECTIVE, xor.OPTIMIZER, xor.BATCH, variables=variables)


COLUMNS = ("first_loss", "dead", "gradient_ratio", "update_ratio", "learned_after")


@experiment(smoke={"only": "breast"})
def main(settings: Pitfalls, record: Record) -> None:
    """Diagnose every network, and list what is said of the gates."""
    for setup in setups(settings.only):
        for seed in settings.each_seed:
            diagnosis = setup.diagnosis(seed)
            say(setup.name, diagnosis, record, seed=seed)
            record.metric(f"{setup.name}/pitfalls", len(diagnosis))
            for column in COLUMNS:
                if column in diagnosis.numbers:
                    record.metric(f"{setup.name}/{column}", diagnosis.numbers[column])
    for name, diagnosis in gates() if not settings.only else ():
        say(name, diagnosis, record)
        print(f"{diagnosis}\n")


def say(name: str, diagnosis: jdl.Diagnosis, record: Record, **labels: Any) -> None:
    """Print the names of what was found, and log everything."""
    rich.print(f"[bold]{name}[/bold]: {', '.join(diagnosis.names) or 'no pitfalls'}")
    lists = {"checked": diagnosis.checked, "skipped": diagnosis.skipped}
    record.log(setup=name, **labels, pitfalls=diagnosis.names, numbers=diagnosis.numbers, **lists)


if __name__ == "__main__":
    main()
