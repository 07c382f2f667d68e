"""CIFAR-10: the real set, and a smaller one of JPEG copies of its images."""

from __future__ import annotations

import io
import itertools
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from jdl.check import InputError
from jdl.data.dataset import Dataset
from jdl.data.registry import Splits, register
from jdl.data.sources import fetch
from jdl.extras import require

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ADDRESS = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
CHECKSUM = "md5:c58f30108f718f92721af3b95e74349a"
JPEG_CHECKSUM = "sha256:1c631db7171e096262081fbe3ef82e0347884250c318f8b6a3caad97973e50b3"
TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
VALIDATION_SHARE = 0.1  # of the training images


@register("cifar10")
def cifar10(normalise: bool = True) -> Splits:
    """60,000 colour images of 32×32 pixels in ten classes: inputs ``float32[N, 32, 32, 3]``, targets ``int32[N]``.

    The official 10,000 test images; of the official 50,000 training images, 5,000 validate. ``normalise=False`` keeps
    the pixels, ``uint8`` 0..255; otherwise each channel has mean 0 and standard deviation 1.
    """
    archive = fetch("cifar10", "cifar-10-python.tar.gz", ADDRESS, checksum=CHECKSUM)
    return _splits(
        "cifar10",
        _read_batches(archive, TRAIN_BATCHES),
        _read_batches(archive, ("test_batch",)),
        normalise,
        description="cifar10: photographs of things and animals, 32×32 pixels of red, green and blue from 0 to 255",
        source="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
        licence="none stated",
    )


@register("cifar10_jpeg")
def cifar10_jpeg(normalise: bool = True) -> Splits:
    """20,000 images of CIFAR-10 after lossy JPEG compression: a fifth of those for training, and 10,000 for testing.

    In everything else as ``cifar10``: inputs ``float32[N, 32, 32, 3]``, targets ``int32[N]``, 9,000 to train, 1,000 to
    validate and 10,000 to test. A score on it is not a score on CIFAR-10. The file has no public address.

    Raises:
        ModuleNotFoundError: pillow, which decodes the images, is not installed.
    """
    image = require("PIL.Image", "experiments", "the data set 'cifar10_jpeg'")
    with np.load(fetch("cifar10_jpeg", "cifar10_jpeg_20k.npz", (), checksum=JPEG_CHECKSUM)) as file:
        official, test = (
            (_decode(image.open, file[f"{part}_jpeg"], file[f"{part}_offsets"]), file[f"{part}_labels"])
            for part in ("train", "test")
        )
    return _splits(
        "cifar10_jpeg",
        official,
        test,
        normalise,
        description="cifar10_jpeg: 20,000 images of CIFAR-10, JPEG-compressed; its scores are not CIFAR-10 scores",
        source="a JPEG copy of Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
        licence="none stated",
    )


Labelled = tuple[np.ndarray, np.ndarray]  # images uint8[N, 32, 32, 3], labels [N]


def _splits(name: str, official: Labelled, test: Labelled, normalise: bool, **about: Any) -> Splits:
    """Validation from the official training images, every class alike and always the same ones."""
    whole, held_out = (
        Dataset({"inputs": images, "targets": labels.astype(np.int32)}, name=f"{name}/{part}", classes=CLASSES)
        for part, (images, labels) in (("train", official), ("test", test))
    )
    train, validation = whole.split((1 - VALIDATION_SHARE, VALIDATION_SHARE), stratify="targets")
    validation = Dataset(validation.arrays, name=f"{name}/validation", classes=CLASSES)
    splits = Splits(train, validation, held_out, **about)
    return splits.normalised(axis=(0, 1, 2)) if normalise else splits


def _decode(open_image: Callable[..., Any], data: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """JPEG files that lie one after another in ``data uint8[bytes]``, where file i begins at ``offsets[i]``."""
    files = (data[begin:end].tobytes() for begin, end in itertools.pairwise(offsets))
    return np.stack([np.asarray(open_image(io.BytesIO(file)).convert("RGB")) for file in files])


def _read_batches(archive: Path, names: tuple[str, ...]) -> Labelled:
    """Images and labels of these files in the official archive, which has the channels of an image first."""
    with tarfile.open(archive) as opened:
        members = (opened.extractfile(f"cifar-10-batches-py/{name}") for name in names)
        batches = [_ArraysOnly(io.BytesIO(member.read()), encoding="latin1").load() for member in members if member]
    images = np.concatenate([batch["data"] for batch in batches]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), np.concatenate([batch["labels"] for batch in batches])


class _ArraysOnly(pickle.Unpickler):
    """Reads pickled NumPy arrays and plain values, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """What the file calls by this name, which must be a part of an array."""
        if (module, name) not in ARRAY_PARTS:
            raise InputError(f"the file wants {module}.{name}, wanted pickled arrays and nothing else")
        return ARRAY_PARTS[module, name]


# By the names that NumPy had for them when the archive was written.
ARRAY_PARTS = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}
