"""The data sets that everything is tried on first. Their splits are fixed and do not depend on a run's seed."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import numpy as np

from jdl.check import InputError
from jdl.data.dataset import Dataset
from jdl.data.idx import read_idx
from jdl.data.registry import Splits, register
from jdl.data.sources import fetch
from jdl.extras import require

DIGITS = tuple("0123456789")


@register("digits")
def digits(normalise: bool = True) -> Splits:
    """1,797 handwritten digits of 8×8 pixels: inputs ``float32[N, 8, 8, 1]`` (raw 0..16), targets ``int32[N]``."""
    table = _sklearn_datasets("digits").load_digits()
    whole = Dataset(
        {"inputs": table.images[..., None].astype(np.float32), "targets": table.target.astype(np.int32)},
        name="digits",
        classes=DIGITS,
    )
    splits = Splits.divide(
        whole,
        stratify="targets",
        description="digits: handwritten digits of 13 people, 8×8 counts of ink from 0 to 16",
        source="scikit-learn, from the UCI test set of Alpaydin and Kaynak 1998",
        licence="CC BY 4.0",
    )
    return splits.normalised(axis=None) if normalise else splits


@register("breast_cancer")
def breast_cancer(columns: str | Sequence[str] = "all", normalise: bool = True) -> Splits:
    """569 tumours, 0 malignant or 1 benign: inputs ``float32[N, 30]``, targets ``int32[N]``.

    Args:
        columns: "all" 30, the ten of "mean", "error" or "worst", or names of columns.
        normalise: each column to mean 0 and standard deviation 1.
    """
    table = _sklearn_datasets("breast_cancer").load_breast_cancer()
    known = [str(name) for name in table.feature_names]
    chosen = _columns(columns, known)
    whole = Dataset(
        {
            "inputs": table.data[:, [known.index(name) for name in chosen]].astype(np.float32),
            "targets": table.target.astype(np.int32),
        },
        name="breast_cancer",
        classes=tuple(table.target_names),
        features=tuple(chosen),
    )
    splits = Splits.divide(
        whole,
        stratify="targets",
        description="breast_cancer: measures of cell nuclei in a fine-needle aspirate; is the tumour benign?",
        source="scikit-learn, from UCI Breast Cancer Wisconsin (Diagnostic), Wolberg et al. 1995",
        licence="CC BY 4.0",
    )
    return splits.normalised() if normalise else splits


@register("diabetes")
def diabetes(normalise: bool = True) -> Splits:
    """442 patients: inputs ``float32[N, 10]`` in their units, targets ``float32[N, 1]``, the progression (25..346)."""
    table = _sklearn_datasets("diabetes").load_diabetes(scaled=False)
    whole = Dataset(
        {"inputs": table.data.astype(np.float32), "targets": table.target.astype(np.float32)[:, None]},
        name="diabetes",
        features=tuple(table.feature_names),
    )
    splits = Splits.divide(
        whole,
        description="diabetes: ten measures of a patient; how far has the disease come after a year, from 25 to 346?",
        source="scikit-learn, from Efron et al. 2004, Least Angle Regression",
        licence="none stated",
    )
    return splits.normalised() if normalise else splits


MNIST_ADDRESSES = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
# Of the bytes inside: copies differ in how they were compressed.
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "md5:6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte.gz": "md5:a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte.gz": "md5:2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte.gz": "md5:27ae3e4e09519cfbb04c329615203637",
}


@register("mnist")
def mnist(normalise: bool = True) -> Splits:
    """70,000 handwritten digits of 28×28 pixels: inputs ``float32[N, 28, 28, 1]``, targets ``int32[N]``.

    The official 10,000 test images; of the official 60,000 training images, 5,000 validate. ``normalise=False`` keeps
    the pixels, ``uint8`` 0..255.
    """
    arrays = [
        read_idx(fetch("mnist", file, tuple(address + file for address in MNIST_ADDRESSES), content=content))
        for file, content in MNIST_FILES.items()
    ]
    official, test = (
        Dataset({"inputs": images[..., None], "targets": labels.astype(np.int32)}, name=name, classes=DIGITS)
        for name, images, labels in (("mnist/train", *arrays[:2]), ("mnist/test", *arrays[2:]))
    )
    train, validation = official.split((55 / 60, 5 / 60), stratify="targets")
    splits = Splits(
        train,
        Dataset(validation.arrays, name="mnist/validation", classes=DIGITS),
        test,
        description="mnist: handwritten digits, 28×28 grey pixels from 0 to 255",
        source="LeCun, Cortes and Burges 1998",
        licence="commonly CC BY-SA 3.0",
    )
    return splits.normalised(axis=None) if normalise else splits


def _columns(columns: str | Sequence[str], known: list[str]) -> list[str]:
    if isinstance(columns, str):
        groups = {"all": known, **{g: [n for n in known if g in n.split()] for g in ("mean", "error", "worst")}}
        if columns not in groups:
            raise InputError(f"columns got {columns!r}, wanted {', '.join(map(repr, groups))} or a list of names")
        return groups[columns]
    unknown = [name for name in columns if name not in known]
    if unknown or not columns:
        got = f"{unknown[0]!r}" if unknown else "no names"
        raise InputError(f"columns got {got}, wanted names among {', '.join(known)}")
    return list(columns)


def _sklearn_datasets(name: str) -> ModuleType:
    return require("sklearn.datasets", "experiments", f"the data set {name!r}")
