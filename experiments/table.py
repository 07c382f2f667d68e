"""The table of results in README.md, made from the result.json and config.json that are kept in results/.

To renew a row: run its command, copy the two files from runs/NAME to experiments/results/NAME, then

Command   python -m experiments.table
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from experiments.common import format_metric, pivot

HERE = Path(__file__).parent
BEGIN, END = "<!-- made by python -m experiments.table -->\n", "<!-- end -->\n"


@dataclasses.dataclass(frozen=True)
class Row:
    """One claim: a metric of an experiment, what was wanted of it, and other metrics to read it beside."""

    experiment: str
    data: str
    metric: str
    at_least: float | None = None  # the mean
    each_at_least: float | None = None  # every seed
    at_most: float | None = None  # the mean
    beside: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        """The claim in words."""
        bounds = {"≥": self.at_least, "each ≥": self.each_at_least, "≤": self.at_most}
        return ", ".join(f"{words} {bound}" for words, bound in bounds.items() if bound is not None)

    def holds(self, result: dict[str, Any]) -> bool:
        """Whether the result is as good as was wanted."""
        mean, least = result["metrics"][self.metric], min(result["values"][self.metric])
        return (
            (self.at_least is None or mean >= self.at_least)
            and (self.each_at_least is None or least >= self.each_at_least)
            and (self.at_most is None or mean <= self.at_most)
        )


DIGITS = "scikit-learn digits, 359 of 1,797 test"
MNIST = "MNIST, official 10,000 test"
CANCER = 'breast cancer, 569 × 10 "worst", 5 folds'
DIABETES = "diabetes, 442 × 10, 5 folds"
GATES = "the four inputs of a gate"
CIFAR = "JPEG copies of CIFAR-10: 9,000 to train, 10,000 test"
SST2 = "SST-2, official 1,821 test sentences"
ETTH1, POLLUTION = "ETTh1, oil temperature, 24 hours ahead", "Beijing, PM2.5, 24 hours ahead"
ROWS = (
    Row(
        "digits",
        DIGITS,
        "cnn/accuracy",
        at_least=0.985,
        each_at_least=0.98,
        beside=("mlp/accuracy", "linear/accuracy", "scikit-learn SVC/accuracy", "scikit-learn k-NN/accuracy"),
    ),
    Row("mnist", MNIST, "SimpleNet/accuracy", at_least=0.98, beside=("linear/accuracy",)),
    Row("mnist", MNIST, "SimpleNet, images shifted/accuracy", at_least=0.98),
    Row("mnist", MNIST, "convolutional, images shifted/accuracy", at_least=0.992),
    Row(
        "breast_cancer",
        CANCER,
        "10-64-1 network/roc_auc",
        at_least=0.99,
        beside=("10-64-1 network/pooled_roc_auc", "logistic regression/roc_auc", "logistic regression/pooled_roc_auc"),
    ),
    Row(
        "diabetes",
        DIABETES,
        "network by mse/r2",
        beside=("network by mae/r2", "network by huber/r2", "ridge regression/r2"),
    ),
    Row("xor", GATES, "first 100 updates/difference · 1e6", at_most=1),
    Row("xor", GATES, "10,000 epochs/solved", beside=("10,000 epochs/runs", "10,000 epochs/largest error of these")),
    Row(
        "benchmark",
        "784-128-10 at batch 32, made-up inputs",
        "784-128-10, jdl.fit/ratio",
        at_most=1.05,
        beside=("784-128-10, control: the loop again/ratio", "784-128-10, jdl.fit/ms per step"),
    ),
    Row(
        "overheads",
        "784-1024-10 at batch 256, made-up inputs",
        "watching, watched and saved/ratio",
        at_most=1.05,
        beside=(
            "watching, watched and saved, with norms/ratio",
            "watching, control: jdl.fit again/ratio",
            "watching, watched and saved/ms per step",
        ),
    ),
    Row(
        "overheads",
        "batches of 128 × 784 bytes",
        "loading, gathered on the device, 8 steps a call/ratio",
        at_most=1,
        beside=(
            "loading, gathered on the device, a step a call/ratio",
            "loading, control: NumPy indexing again/ratio",
            "loading, NumPy indexing/ms per step",
        ),
    ),
    Row(
        "pitfalls",
        "the first batches of 10 seeds",
        "digits, cnn/pitfalls",
        at_most=0,
        beside=tuple(
            f"{network}/pitfalls"
            for network in ("mnist, SimpleNet", "breast_cancer, 10-64-1", "diabetes, 10-64-1 by mse")
        ),
    ),
    Row("kill_test", DIGITS, "all/kills", at_least=100, beside=("all/inside a save", "all/runs finished")),
    Row("kill_test", DIGITS, "all/runs that differ", at_most=0),
    Row("perceptron", GATES, "AND/learned", at_least=1, beside=("OR/learned", "XOR/learned")),
    Row("zoo_digits", DIGITS, "linear/accuracy", at_least=0.95),
    Row("zoo_digits", DIGITS, "radial basis/accuracy", at_least=0.975),
    Row("zoo_digits", DIGITS, "feed-forward/accuracy", at_least=0.97, beside=("deep feed-forward/accuracy",)),
    Row(
        "zoo_digits",
        DIGITS,
        "convolutional/accuracy",
        at_least=0.985,
        beside=(
            "RNN over rows/accuracy",
            "GRU over rows/accuracy",
            "vision transformer/accuracy",
            "scikit-learn SVC/accuracy",
            "scikit-learn k-NN/accuracy",
        ),
    ),
    Row(
        "autoencoders",
        MNIST,
        "AE, 32 units/mse_ratio",
        at_most=1,
        beside=("AE, 32 units/mse", "PCA, 32 components/mse", "convolutional AE, 32 units/mse"),
    ),
    Row(
        "autoencoders",
        MNIST,
        "VAE, 20 latents/negative_elbo",
        at_most=101,
        beside=(
            "VAE, 20 latents/bits_per_dimension",
            "convolutional VAE, 20 latents/negative_elbo",
            "VAE, 2 latents/negative_elbo",
            "mean image/negative_elbo",
        ),
    ),
    Row(
        "autoencoders",
        MNIST,
        "DAE, 1,024 units/psnr_gain_in_dB",
        at_least=12,
        beside=(
            "convolutional DAE, 256 units/psnr_gain_in_dB",
            "ridge regression/psnr_gain_in_dB",
            "mean image/psnr_gain_in_dB",
        ),
    ),
    Row(
        "autoencoders",
        MNIST,
        "SAE, 256 units, KL/off_target",
        at_most=0.2,
        beside=("SAE, 256 units, KL/mean_activation", "SAE, 256 units, KL/units_off_by_over_20%"),
    ),
    Row(
        "autoencoders",
        MNIST,
        "SAE, 256 units, KL/mse_ratio",
        at_most=1.5,
        beside=(
            "SAE, 256 units, KL/mse",
            "convolutional SAE, 256 units/mse_ratio",
            "SAE, 256 units, L1/mse_ratio",
            "SAE, 256 units, L1/exact_zeros",
        ),
    ),
    *(Row("forecast", ETTH1, f"etth1, {cell}/mse", at_most=0.0276) for cell in ("RNN", "LSTM")),
    Row(
        "forecast",
        ETTH1,
        "etth1, GRU/mse",
        at_most=0.0276,
        beside=("etth1, linear/mse", "etth1, linear, from the last value/mse", "etth1, seasonal naive/mse"),
    ),
    *(Row("forecast", POLLUTION, f"pollution, {cell}/mse", at_most=1.275) for cell in ("RNN", "LSTM")),
    Row(
        "forecast",
        POLLUTION,
        "pollution, GRU/mse",
        at_most=1.275,
        beside=("pollution, linear/mse", "pollution, seasonal naive/mse"),
    ),
    Row(
        "forecast",
        "sunspots, 12 months ahead",
        "sunspots, GRU/mse",
        beside=("sunspots, linear/mse", "sunspots, linear, from the last value/mse", "sunspots, seasonal naive/mse"),
    ),
    Row(
        "forecast",
        "Apple, daily returns, 5 days ahead",
        "aapl, GRU/mse",
        beside=("aapl, linear/mse", "aapl, price as it is/mse", "aapl, mean return/mse"),
    ),
    Row(
        "resnet",
        CIFAR,
        "ResNet-20/above the small CNN",
        at_least=0,
        beside=("ResNet-20/accuracy", "small CNN/accuracy", "ConvolutionalNet/accuracy"),
    ),
    Row("denoise", CIFAR, "U-Net/gain", at_least=5, beside=("non-local means/gain", "noisy images/psnr")),
    Row(
        "copy_translate",
        "strings of 5 to 20 letters backwards, 1,000 unseen",
        "reversal, attention/test exact",
        at_least=0.99,
        beside=("reversal, no attention/test exact",),
    ),
    Row(
        "copy_translate",
        "dates in 12 forms as ISO 8601, 1,000 unseen",
        "dates, attention/test exact",
        at_least=0.99,
        beside=("dates, no attention/test exact",),
    ),
    Row(
        "copy_translate",
        "Multi30k, English to French, 5,000 short pairs to train, test_2016",
        "en-fr, attention/test BLEU, beams",
        beside=(
            "en-fr, attention/test BLEU, greedy",
            "en-fr, no attention/test BLEU, beams",
            "en-fr, no attention/test BLEU, greedy",
        ),
    ),
    *(
        Row(
            "gan",
            MNIST,
            f"{name}/distance_of_the_bar",
            at_most=1,
            beside=(
                f"{name}/Fréchet_distance",
                "real training digits/Fréchet_distance",
                "ten repeated digits/Fréchet_distance",
                "noisy class means/Fréchet_distance",
            ),
        )
        for name in ("DCGAN", "WGAN-GP")
    ),
    *(
        Row(
            "gan",
            MNIST,
            f"{name}/coverage_of_the_bar",
            at_least=1,
            beside=(
                f"{name}/coverage",
                "real training digits/coverage",
                "ten repeated digits/coverage",
                "noisy class means/coverage",
            ),
        )
        for name in ("DCGAN", "WGAN-GP")
    ),
    Row("sentiment", SST2, "TextNet/accuracy", at_least=0.78, beside=("TextNet, literal/accuracy",)),
    Row(
        "sentiment",
        SST2,
        "TextNet with GRU/accuracy",
        at_least=0.81,
        beside=(
            "TextNet with GRU/accuracy of all seeds' mean",
            "bidirectional GRU, mean over time/accuracy",
            "logistic regression, bag of words/accuracy",
            "logistic regression, tf-idf/accuracy",
        ),
    ),
)
EXPERIMENTS = tuple(dict.fromkeys(row.experiment for row in ROWS))


def read(experiment: str, file: str) -> dict[str, Any]:
    """A kept file of an experiment."""
    return json.loads((HERE / "results" / experiment / file).read_text())


def claims() -> str:
    """The rows, in Markdown."""
    lines = ["| experiment | data | wanted | result | beside it |", "|---|---|---|---|---|"]
    for row in ROWS:
        result = read(row.experiment, "result.json")
        got = f"{row.metric} **{format_metric(result, row.metric)}**"
        beside = "; ".join(f"{name} {format_metric(result, name)}" for name in row.beside)
        lines.append(f"| [{row.experiment}]({row.experiment}.py) | {row.data} | {row.wanted} | {got} | {beside} |")
    return "\n".join(lines) + "\n"


def whole(experiment: str) -> str:
    """All that an experiment measured, in Markdown."""
    result, config = read(experiment, "result.json"), read(experiment, "config.json")
    rows, columns, cells = pivot(result)
    runs = f"{len(result['seeds'])} seeds, " if len(result["seeds"]) > 1 else ""
    versions = ", ".join(f"{name} {config['versions'][name]}" for name in ("jax", "jdl", "python"))
    about = f"{runs}{result['seconds']:.0f} s in all on {config['machine']['cores']} CPU cores; {versions}"
    lines = [f"### {experiment}", "", f"`{config['command']}` ({about})", ""]
    lines += [f"| | {' | '.join(column.replace('_', ' ') for column in columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {row} | {' | '.join(cells.get((row, column), '') for column in columns)} |" for row in rows]
    return "\n".join(lines) + "\n"


def readme() -> str:
    """README.md as the kept results have it."""
    parts = [claims(), *map(whole, EXPERIMENTS)]
    before, rest = (HERE / "README.md").read_text().split(BEGIN)
    return before + BEGIN + "\n".join(parts) + END + rest.split(END)[1]


if __name__ == "__main__":
    (HERE / "README.md").write_text(readme())
