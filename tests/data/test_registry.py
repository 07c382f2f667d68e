"""Data sets by name, their splits, and the real ones."""

from __future__ import annotations

import gzip
import hashlib
import struct
import subprocess
import sys

import numpy as np
import pytest
import sklearn.datasets

import jdl.data
from jdl.check import InputError
from jdl.data import Dataset, DataUnavailable, Splits, load, names, read_idx, register, registry, standard


def rows_of(*parts):
    return sorted(row.tobytes() for part in parts for row in part.inputs)


def test_names():
    assert {"breast_cancer", "diabetes", "digits", "mnist"} <= set(names())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load("digit"), r"load got 'digit', wanted one of .*'digits', .*'mnist'.*; did you mean 'digits'\?"),
        (lambda: load("Breast-Cancer"), r"did you mean 'breast_cancer'\?"),
        (lambda: load("imagenet21k"), r"load got 'imagenet21k', wanted one of .*'breast_cancer', .*'mnist'[^;]*$"),
        (lambda: load("digits", colour=True), "got an unexpected keyword argument 'colour'; it has normalise"),
        (lambda: load("breast_cancer", columns="best"), "columns got 'best', wanted 'all', 'mean', 'error', 'worst'"),
        (lambda: load("breast_cancer", columns=["mean radius", "age"]), "columns got 'age', wanted names among mean"),
        (lambda: load("breast_cancer", columns=[]), "columns got no names"),
    ],
)
def test_unknown(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_register(monkeypatch):
    monkeypatch.setattr(registry, "_LOADERS", dict(registry._LOADERS))
    whole = Dataset({"inputs": np.arange(40.0)[:, None], "targets": np.arange(40) % 2}, name="toy")

    @register("toy")
    def toy(stratify: str | None = None) -> Splits:
        return Splits.divide(whole, (0.5, 0.25, 0.25), stratify, description="toy: 40 numbers", licence="mine")

    splits = load("toy", stratify="targets")
    assert "toy" in names()
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [20, 10, 10]
    assert splits.train.name == "toy/train"
    assert rows_of(splits.train, splits.validation, splits.test) == rows_of(whole)
    register("toy")(toy)  # again, as in a notebook
    with pytest.raises(InputError, match=r"the data set 'toy' is .*toy already; .* needs another name"):
        register("toy")(test_names)
    with pytest.raises(InputError, match="wanted three: train, validation and test"):
        Splits.divide(whole, (0.5, 0.5))
    lines = repr(splits.normalised()).splitlines()
    assert lines[0] == "toy: 40 numbers"
    assert lines[1].split() == ["split", "examples", "inputs", "targets"]
    assert lines[2].split() == ["train", "20", "float64[20,", "1]", "int64[20]"]
    assert lines[5] == "inputs normalised by the mean and standard deviation of train"


TABLES = {
    "digits": (sklearn.datasets.load_digits, {}, (1258, 180, 359), (8, 8, 1), 10),
    "breast_cancer": (sklearn.datasets.load_breast_cancer, {}, (398, 57, 114), (30,), 2),
    "diabetes": (sklearn.datasets.load_diabetes, {"scaled": False}, (309, 44, 89), (10,), None),
}


@pytest.mark.parametrize("name", TABLES)
def test_tables(name):
    source, options, sizes, shape, classes = TABLES[name]
    table = source(**options)
    splits = load(name)
    raw = load(name, normalise=False)
    for kind, size in zip(("train", "validation", "test"), sizes, strict=True):
        part = getattr(splits, kind)
        assert part.inputs.shape == (size, *shape) and part.inputs.dtype == np.float32
        assert part.targets.dtype == (np.float32 if classes is None else np.int32)
        assert part.targets.shape == ((size, 1) if classes is None else (size,))
        restored = splits.normaliser.invert(part.inputs)
        np.testing.assert_allclose(restored, getattr(raw, kind).inputs, rtol=1e-4, atol=1e-4)
        if classes:
            share = np.bincount(table.target) * size / len(table.target)
            assert np.abs(np.bincount(part.targets) - share).max() <= 1
    # The source's own rows, each in exactly one part, with their own targets.
    assert rows_of(raw.train, raw.validation, raw.test) == rows_of(raw.whole)
    np.testing.assert_array_equal(raw.whole.inputs.reshape(len(table.data), -1), table.data.astype(np.float32))
    np.testing.assert_array_equal(raw.whole.targets.reshape(-1), table.target)
    pairs = {row.tobytes(): label for row, label in zip(raw.whole.inputs, raw.whole.targets.reshape(-1), strict=True)}
    for part in (raw.train, raw.validation, raw.test):
        assert all(
            pairs[row.tobytes()] == label for row, label in zip(part.inputs, part.targets.reshape(-1), strict=True)
        )
    # Normalised by the training part alone.
    axis = None if name == "digits" else 0
    np.testing.assert_allclose(splits.train.inputs.mean(axis), 0, atol=1e-5)
    np.testing.assert_allclose(splits.train.inputs.std(axis), 1, atol=1e-5)
    np.testing.assert_allclose(splits.normaliser.mean, raw.train.inputs.mean(axis, np.float64), rtol=1e-6)
    assert raw.normaliser is None
    assert (splits.train.classes is None) == (classes is None) or len(splits.train.classes) == classes
    assert load(name).test.inputs.tobytes() == splits.test.inputs.tobytes()


def test_breast_cancer_columns():
    worst = load("breast_cancer", columns="worst", normalise=False)
    assert worst.train.inputs.shape == (398, 10)
    assert all(name.startswith("worst ") for name in worst.train.features)
    table = sklearn.datasets.load_breast_cancer()
    np.testing.assert_array_equal(worst.whole.inputs, table.data[:, 20:].astype(np.float32))
    assert [len(load("breast_cancer", columns=c).train.features) for c in ("all", "mean", "error")] == [30, 10, 10]
    two = load("breast_cancer", columns=["worst area", "mean radius"]).train
    assert two.features == ("worst area", "mean radius") and two.inputs.shape == (398, 2)
    assert two.classes == ("malignant", "benign")


def test_missing_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"'digits' needs sklearn.*pip install \"jdl\[experiments\]\""):
        load("digits")


def idx(array, dtype=0x08):
    return bytes([0, 0, dtype, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


@pytest.mark.parametrize(("code", "dtype"), [(0x08, ">u1"), (0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0E, ">f8")])
def test_idx(code, dtype, tmp_path):
    array = np.arange(-6, 6).astype(dtype).reshape(2, 2, 3)
    (tmp_path / "a").write_bytes(idx(array, code))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array, code)))
    for path in (tmp_path / "a", tmp_path / "a.gz"):
        found = read_idx(path)
        assert found.dtype == np.dtype(dtype).newbyteorder("=") and found.dtype.isnative
        np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\0\0", "starts with 00 00, wanted an IDX file"),
        (b"PK\3\4 and so on", "starts with 50 4b 03 04, wanted an IDX file"),
        (b"\0\0\x08\x02\0\0\0\1", "wanted an IDX file"),
        (idx(np.zeros((2, 3), np.uint8))[:-1], r"has 5 bytes of values, wanted 6 for its shape \[2, 3\]"),
        (idx(np.zeros((2, 3), np.uint8)) + b"x", "has 7 bytes of values, wanted 6"),
    ],
)
def test_idx_refused(data, message, tmp_path):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(InputError, match=message):
        read_idx(tmp_path / "a")


@pytest.fixture
def small_mnist(tmp_path, monkeypatch):
    """Four files like the real ones, of 120 and 20 examples."""
    rng = np.random.default_rng(0)
    arrays = [
        rng.integers(0, 256, (120, 28, 28)).astype(np.uint8),
        (np.arange(120) % 10).astype(np.uint8),
        rng.integers(0, 256, (20, 28, 28)).astype(np.uint8),
        (np.arange(20) % 10).astype(np.uint8),
    ]
    monkeypatch.setenv("JDL_DATA_DIR", str(tmp_path))
    (tmp_path / "mnist").mkdir()
    sums = {}
    for file, array in zip(standard.MNIST_FILES, arrays, strict=True):
        (tmp_path / "mnist" / file).write_bytes(gzip.compress(idx(array)))
        sums[file] = "md5:" + hashlib.md5(idx(array)).hexdigest()
    monkeypatch.setattr(standard, "MNIST_FILES", sums)
    return arrays


def test_mnist_of_four_small_files(small_mnist):
    raw, splits = load("mnist", normalise=False), load("mnist")
    assert [len(s) for s in (raw.train, raw.validation, raw.test)] == [110, 10, 20]
    assert raw.train.inputs.dtype == np.uint8 and raw.train.inputs.shape[1:] == (28, 28, 1)
    assert np.bincount(raw.validation.targets).tolist() == [1] * 10
    assert rows_of(raw.train, raw.validation) == sorted(row.tobytes() for row in small_mnist[0])
    np.testing.assert_array_equal(raw.test.inputs[..., 0], small_mnist[2])  # the official order
    np.testing.assert_array_equal(raw.test.targets, small_mnist[3])
    np.testing.assert_allclose(splits.normaliser.mean, raw.train.inputs.mean(dtype=np.float64), rtol=1e-6)
    assert splits.train.inputs.dtype == np.float32


def test_wrong_mnist_is_refused(small_mnist, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(standard, "fetch", lambda name, file, urls, content: pytest.fail(f"{urls} {content}"))
    # The official sums and both addresses reach fetch.
    with pytest.raises(
        pytest.fail.Exception, match=r"cvdf-datasets/mnist/train-images-idx3-ubyte\.gz.*ossci.*6bbc9ace"
    ):
        load("mnist")


@pytest.mark.slow
def test_real_mnist(monkeypatch):
    monkeypatch.setattr(standard, "MNIST_ADDRESSES", ())  # a test does not download
    try:
        splits = load("mnist", normalise=False)
    except DataUnavailable:
        pytest.skip("MNIST is neither in JDL_DATA_DIR nor in the cache")
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [55_000, 5_000, 10_000]
    # The published number of each digit: 60,000 for training, 10,000 for testing.
    training = np.bincount(splits.train.targets) + np.bincount(splits.validation.targets)
    assert training.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(splits.test.targets).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    everything = np.concatenate([splits.train.inputs, splits.validation.inputs]) / 255
    assert abs(everything.mean() - 0.1307) < 5e-5 and abs(everything.std() - 0.3081) < 5e-5


def test_import_is_light():
    heavy = ["sklearn", "rich", "urllib.request", "multiprocessing", "matplotlib", "torch", "pandas", "scipy"]
    code = f"""
import sys, jax, chex
before = set(sys.modules)
import jdl.data
print([name for name in {heavy} if name in sys.modules and name not in before])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_exist():
    assert sorted(jdl.data.__all__) == jdl.data.__all__
    assert all(hasattr(jdl.data, name) for name in jdl.data.__all__)
