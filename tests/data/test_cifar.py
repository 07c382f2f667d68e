"""CIFAR-10 as its official archive has it, and the JPEG copy."""

from __future__ import annotations

import hashlib
import io
import struct
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from jdl.check import InputError
from jdl.data import CorruptData, DataUnavailable, cifar, load, names

PARTS = ("train", "validation", "test")


def rows_of(*parts):
    return sorted(row.tobytes() for part in parts for row in part.inputs)


def python_2_pickle(images: np.ndarray, labels: list[int]) -> bytes:
    """A dict of an array and a list, opcode by opcode as Python 2 wrote it in 2009."""
    data = images.transpose(0, 3, 1, 2).tobytes()
    return b"".join(
        [
            b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR",
            b"(K\x01(M" + struct.pack("<H", len(images)) + b"M\x00\x0ct",  # [N, 3072]
            b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb",
            b"\x89T" + struct.pack("<I", len(data)) + data + b"tb",
            b"U\x06labels](" + b"".join(b"K" + bytes([label]) for label in labels) + b"eu.",
        ]
    )


def archive_of(batches: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Puts a file where a loader looks for it; then no loader can download."""
    monkeypatch.setenv("JDL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JDL_CACHE_DIR", str(tmp_path / "cache"))

    def put(name, file, content, constant):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(content)
        algorithm = getattr(cifar, constant).partition(":")[0]
        monkeypatch.setattr(cifar, constant, f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")

    return put


@pytest.fixture
def small_cifar10(keep):
    """Five files of 20 training images and one of 20 test images, two of each class in a file."""
    images = np.random.default_rng(0).integers(0, 256, (120, 32, 32, 3)).astype(np.uint8)
    labels = np.arange(120) % 10
    files = (*cifar.TRAIN_BATCHES, "test_batch")
    parts = zip(files, np.split(images, 6), np.split(labels, 6), strict=True)
    batches = {file: python_2_pickle(part, own.tolist()) for file, part, own in parts}
    keep("cifar10", "cifar-10-python.tar.gz", archive_of(batches), "CHECKSUM")
    return images, labels


def test_cifar10_of_a_small_archive(small_cifar10):
    images, labels = small_cifar10
    raw, splits = load("cifar10", normalise=False), load("cifar10")
    assert [len(getattr(raw, part)) for part in PARTS] == [90, 10, 20]
    assert [getattr(raw, part).name for part in PARTS] == ["cifar10/train", "cifar10/validation", "cifar10/test"]
    assert raw.train.inputs.dtype == np.uint8 and raw.train.targets.dtype == np.int32
    np.testing.assert_array_equal(raw.test.inputs, images[100:])  # rows, columns, colours: as they were made
    np.testing.assert_array_equal(raw.test.targets, labels[100:])
    assert rows_of(raw.train, raw.validation) == sorted(image.tobytes() for image in images[:100])
    known = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    for part in (raw.train, raw.validation):
        assert part.targets.tolist() == [known[image.tobytes()] for image in part.inputs]
    assert np.bincount(raw.validation.targets).tolist() == [1] * 10
    assert load("cifar10", normalise=False).validation.inputs.tobytes() == raw.validation.inputs.tobytes()
    assert splits.train.inputs.dtype == np.float32
    np.testing.assert_allclose(splits.train.inputs.mean((0, 1, 2)), 0, atol=1e-5)  # each colour by itself
    np.testing.assert_allclose(splits.train.inputs.std((0, 1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(splits.normaliser.invert(splits.test.inputs), raw.test.inputs, atol=1e-3)


def test_only_the_official_archive(small_cifar10, monkeypatch):
    monkeypatch.undo()
    official = "md5:c58f30108f718f92721af3b95e74349a"
    asked = []
    monkeypatch.setattr(cifar, "fetch", lambda *place, checksum: asked.append((*place, checksum)) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        load("cifar10")
    address = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert asked == [("cifar10", "cifar-10-python.tar.gz", address, official)]


def test_a_pickle_that_is_more_than_arrays(keep):
    code = b"cos\nsystem\n(S'exit 1'\ntR."
    keep("cifar10", "cifar-10-python.tar.gz", archive_of({"data_batch_1": code}), "CHECKSUM")
    with pytest.raises(InputError, match=r"wants os\.system, wanted pickled arrays and nothing else"):
        load("cifar10")


@pytest.fixture
def small_jpeg(keep):
    """100 and 20 images of one colour each, which survives JPEG within a few levels, the labels in turn."""
    colours = np.random.default_rng(0).integers(0, 256, (120, 3)).astype(np.uint8)
    files = [io.BytesIO() for _ in colours]
    for file, colour in zip(files, colours, strict=True):
        Image.new("RGB", (32, 32), tuple(map(int, colour))).save(file, "JPEG", quality=95, subsampling=0)
    arrays = {}
    for part, chosen in (("train", slice(100)), ("test", slice(100, 120))):
        content = [file.getvalue() for file in files[chosen]]
        arrays[f"{part}_jpeg"] = np.frombuffer(b"".join(content), np.uint8)
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, content)]).astype(np.int32)
        arrays[f"{part}_labels"] = (np.arange(120)[chosen] % 10).astype(np.uint8)
    written = io.BytesIO()
    np.savez(written, **arrays)
    keep("cifar10_jpeg", "cifar10_jpeg_20k.npz", written.getvalue(), "JPEG_CHECKSUM")
    return colours


def test_cifar10_jpeg_of_a_small_file(small_jpeg):
    raw = load("cifar10_jpeg", normalise=False)
    assert [len(getattr(raw, part)) for part in PARTS] == [90, 10, 20]
    assert raw.test.inputs.shape == (20, 32, 32, 3) and raw.test.inputs.dtype == np.uint8
    assert np.abs(raw.test.inputs.astype(int) - small_jpeg[100:, None, None].astype(int)).max() <= 3
    assert raw.test.targets.tolist() == list(range(10)) * 2
    assert np.bincount(raw.validation.targets).tolist() == [1] * 10
    assert "not CIFAR-10 scores" in repr(raw)


def test_what_cifar10_jpeg_needs(small_jpeg, tmp_path, monkeypatch):
    (tmp_path / "cifar10_jpeg" / "cifar10_jpeg_20k.npz").write_bytes(b"of another kind")
    with pytest.raises(CorruptData, match="expected sha256"):
        load("cifar10_jpeg")
    (tmp_path / "cifar10_jpeg" / "cifar10_jpeg_20k.npz").unlink()
    with pytest.raises(DataUnavailable, match="it has no public address"):
        load("cifar10_jpeg")
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ModuleNotFoundError, match=r"'cifar10_jpeg' needs PIL.*pip install \"jdl\[experiments\]\""):
        load("cifar10_jpeg")


def test_names():
    assert {"cifar10", "cifar10_jpeg"} <= set(names())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sizes"), [("cifar10", (45_000, 5_000)), ("cifar10_jpeg", (9_000, 1_000))])
def test_the_real_files(name, sizes, monkeypatch):
    monkeypatch.setattr(cifar, "ADDRESS", ())  # a test does not download
    try:
        splits = load(name, normalise=False)
    except DataUnavailable:
        pytest.skip(f"{name} is neither in JDL_DATA_DIR nor in the cache")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (*sizes, 10_000)
    for part in (splits.train, splits.validation, splits.test):
        assert set(np.bincount(part.targets)) == {len(part) // 10}
    # The published mean and deviation of the 50,000, of which these are all or a fair sample.
    pixels = splits.train.inputs / 255
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), [0.4914, 0.4822, 0.4465], atol=0.003)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), [0.247, 0.2435, 0.2616], atol=0.003)
    assert len(np.unique(splits.test.inputs.reshape(10_000, -1), axis=0)) == 10_000
