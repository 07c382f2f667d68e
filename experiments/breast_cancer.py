"""The 10-64-1 binary classifier tells malignant tumours from benign ones, beside logistic regression.

569 tumours from scikit-learn, the ten "worst" measures of each. Five folds, stratified and fixed; normalised within
each fold by its training part. Every tumour is held out once: roc_auc is the mean over the five folds, pooled_roc_auc
that of all 569 held-out scores together. Nothing was tuned: these settings are the first that were tried.

Command   python -m experiments.breast_cancer --seeds 5
Machine   2 CPU cores, jax 0.10.2
Time      9 s
Result    ROC-AUC 0.9931 ± 0.0005 over seeds (pooled 0.9925), beside 0.9924 (0.9920) of logistic regression: on ten
          measures as telling as these a hidden layer has little to add.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from sklearn.linear_model import LogisticRegression

import jdl
from experiments.common import Record, Settings, experiment
from jdl import zoo
from jdl.data import Dataset, Normaliser

MODEL = zoo.BinaryClassifier()  # one logit: the sigmoid is in the loss


@dataclasses.dataclass(frozen=True)
class BreastCancer(Settings):
    """Settings of the experiment."""

    epochs: int = 50
    """Passes over the training tumours."""
    batch_size: int = 32
    """Tumours in a step."""
    learning_rate: float = 1e-3
    """Of AdamW, constant."""
    folds: int = 5
    """Parts of the data, each held out once."""


@experiment(smoke={"epochs": 1, "folds": 2})
def main(settings: BreastCancer, record: Record) -> None:
    """Score both classifiers by cross-validation."""
    table = jdl.data.load("breast_cancer", columns="worst").whole
    assert table is not None
    folds = [normalised(*fold) for fold in table.folds(settings.folds, stratify="targets")]
    held_out = [test for _, test in folds]
    optimizer = optax.adamw(settings.learning_rate)

    score("logistic regression", [logistic_regression(train, test) for train, test in folds], held_out, record)
    record.metric("10-64-1 network/parameters", MODEL.spec(table.inputs).parameters)
    for seed in settings.each_seed:
        runs = [
            jdl.fit(
                MODEL,
                jdl.losses.binary_cross_entropy,
                optimizer,
                train,
                validation=test,
                metrics=[jdl.metrics.accuracy],
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                seed=seed,
                callbacks=[record.history(seed=seed, fold=fold)],
            )
            for fold, (train, test) in enumerate(folds)
        ]
        logits = [run.predict(test) for run, test in zip(runs, held_out, strict=True)]
        score("10-64-1 network", logits, held_out, record)
        if seed == settings.seed:
            runs[0].plot(record.path("curves.png"))


def normalised(train: Dataset, test: Dataset) -> tuple[Dataset, Dataset]:
    """Both by the mean and standard deviation of the training part."""
    apply = Normaliser.fit(train.inputs).apply
    return train.map(inputs=apply), test.map(inputs=apply)


def logistic_regression(train: Dataset, test: Dataset) -> np.ndarray:
    """Logits of scikit-learn's, with its default penalty, for the held-out tumours ``[N, 1]``."""
    model = LogisticRegression(max_iter=1000).fit(train.inputs, train.targets)
    return model.decision_function(test.inputs)[:, None].astype(np.float32)


def score(name: str, logits: list[Any], held_out: list[Dataset], record: Record) -> None:
    """Keep the ROC-AUC by fold and of all folds together, and the accuracy."""
    targets = [test.targets for test in held_out]
    by_fold = [float(jdl.metrics.roc_auc(*pair)) for pair in zip(logits, targets, strict=True)]
    everything = jnp.concatenate(logits), jnp.concatenate(targets)
    record.metric(f"{name}/roc_auc", np.mean(by_fold))
    record.metric(f"{name}/pooled_roc_auc", jdl.metrics.roc_auc(*everything))
    record.metric(f"{name}/accuracy", jdl.metrics.accuracy(*everything))


if __name__ == "__main__":
    main()
