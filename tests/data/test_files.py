from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jdl.check import InputError
from jdl.data import ArrayFiles, Dataset, Examples, ImageFolder, TextFile, batches, read_npz

RNG = np.random.default_rng(0)


def pixels(height: int = 6, width: int = 5, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def save_image(path: Path, image: np.ndarray, **options) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path, **options)
    return image


def write(path: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# Images.


@pytest.fixture
def animals(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    names = ["dog/b.png", "cat/z.png", "cat/a.PNG", "dog/more/a.bmp", "dog/a.png"]
    folder = tmp_path / "animals"
    images = {name: save_image(folder / name, pixels()) for name in names}
    (folder / ".DS_Store").write_text("hidden")
    (folder / "cat" / ".thumbnail.jpg").write_text("hidden")
    save_image(folder / ".hidden" / "x.png", pixels())
    return folder, images


def test_images_stand_in_order_with_their_classes(animals):
    folder, images = animals
    source = ImageFolder(folder)
    assert source.classes == ("cat", "dog")
    assert source.files == ("cat/a.PNG", "cat/z.png", "dog/a.png", "dog/b.png", "dog/more/a.bmp")
    for number, (name, example) in enumerate(zip(source.files, source, strict=True)):
        np.testing.assert_array_equal(example["inputs"], images[name])
        assert example["inputs"].dtype == np.uint8 and example["inputs"].flags.writeable
        assert example["targets"] == name.startswith("dog") and example["targets"].dtype == np.int32
        np.testing.assert_array_equal(source[number - len(source)]["inputs"], images[name])
    assert repr(source).endswith("animals', 5 images, 2 classes)")

    data = source.load()
    assert isinstance(data, Dataset) and data.name == "animals" and data.classes == ("cat", "dog")
    np.testing.assert_array_equal(data.inputs, [images[name] for name in source.files])
    np.testing.assert_array_equal(data.targets, [0, 0, 1, 1, 1])

    elsewhere = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(elsewhere[3]["inputs"], source[3]["inputs"])


def test_sources_stream_the_batches_of_the_same_data_in_memory(animals, tmp_path):
    data = ImageFolder(animals[0]).load()
    np.save(tmp_path / "x.npy", data.inputs)
    np.save(tmp_path / "y.npy", data.targets)
    lines = write(tmp_path / "y.txt", "".join(f"{label}\n" for label in data.targets))
    for source, load in (
        (ImageFolder(animals[0]), None),
        (ArrayFiles(inputs=tmp_path / "x.npy", targets=tmp_path / "y.npy"), None),
        (TextFile(lines), lambda line: {"targets": int(line)}),
    ):
        stream = Examples(source, load).batches(2, seed=3)
        for (got, _), wanted in zip(stream, batches(data, 2, seed=3, epochs=2), strict=False):
            for name, array in got.items():
                np.testing.assert_array_equal(array, wanted[name])
                assert array.dtype == wanted[name].dtype


def test_a_folder_without_classes(tmp_path):
    images = [save_image(tmp_path / f"{name}.png", pixels()) for name in "ab"]
    source = ImageFolder(tmp_path)
    assert source.classes is None and source.targets is None and source.files == ("a.png", "b.png")
    assert set(source[0]) == {"inputs"}
    np.testing.assert_array_equal(source.load().inputs, images)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1), ("RGBA", 4)])
@pytest.mark.parametrize("stored", [1, 3, 4])
def test_modes(tmp_path, mode, channels, stored):
    image = save_image(tmp_path / "x.png", pixels(channels=stored))
    got = ImageFolder(tmp_path, mode=mode)[0]["inputs"]
    assert got.shape == (6, 5, channels)
    if stored == channels:
        np.testing.assert_array_equal(got, image)
    elif mode == "L":
        np.testing.assert_allclose(got[..., 0], image[..., :3] @ [0.299, 0.587, 0.114], atol=1)
    else:
        np.testing.assert_array_equal(got[..., 0], image[..., 0])


def test_a_palette_with_a_transparent_colour(tmp_path):
    image = Image.fromarray(pixels()).quantize(8)
    image.save(tmp_path / "x.png", transparency=bytes([0, 128, 255]))
    np.testing.assert_array_equal(ImageFolder(tmp_path)[0]["inputs"], np.asarray(image.convert("RGB")))


def test_photographs_are_upright_and_resized(tmp_path):
    bright = np.zeros((64, 96, 3), np.uint8)
    bright[:, :48] = 255  # the left half is white
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned a quarter clockwise, so that the upper half is white
    save_image(tmp_path / "a.jpg", bright, exif=turned)
    save_image(tmp_path / "b.png", bright)
    upright, plain = ImageFolder(tmp_path)
    assert upright["inputs"].shape == (96, 64, 3) and upright["inputs"][:40].min() > 240
    for size, shape in (((10, 20), (10, 20)), (12, (12, 12))):
        small = ImageFolder(tmp_path, size).load().inputs
        assert small.shape == (2, *shape, 3)
        assert small[0, : shape[0] // 2 - 1].min() > 200 and small[0, -shape[0] // 2 + 1 :].max() < 50
        wanted = Image.fromarray(bright).resize(shape[::-1], Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(small[1], np.asarray(wanted))
    with pytest.raises(
        InputError, match=r"different sizes, \(64, 96\) in b.png, \(96, 64\) in a.jpg; .*size=\(96, 64\)"
    ):
        ImageFolder(tmp_path).load()
    assert plain["inputs"].shape == (64, 96, 3)


def test_a_folder_that_is_read_in_part(animals):
    folder, _ = animals
    write(folder / "dog" / "notes.txt", "no image")
    with pytest.raises(InputError, match=r"has the file 'dog/notes.txt', which is no image; .*suffixes="):
        ImageFolder(folder)
    assert ImageFolder(folder, suffixes=[".png"]).files == ("cat/a.PNG", "cat/z.png", "dog/a.png", "dog/b.png")


def empty_class(folder: Path) -> None:
    save_image(folder / "cat" / "a.png", pixels())
    (folder / "dog").mkdir()


def mixed_levels(folder: Path) -> None:
    save_image(folder / "cat" / "a.png", pixels())
    save_image(folder / "b.png", pixels())


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (lambda folder: folder.rmdir(), "and there is no such folder"),
        (lambda folder: None, "holds no images, wanted files such as .bmp"),
        (lambda folder: write(folder / ".a.png", "x"), "holds no images"),
        (empty_class, "has no images in 'dog', wanted some in each class"),
        (mixed_levels, "has the image 'b.png' beside its folders of classes"),
    ],
)
def test_folders_that_are_no_data(tmp_path, prepare, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    prepare(folder)
    with pytest.raises(InputError, match=message):
        ImageFolder(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "grey"}, "mode got 'grey', wanted one of 'L', 'RGB', 'RGBA'"),
        ({"size": 0}, "size got 0"),
        ({"size": (3, 4, 3)}, r"size got \(3, 4, 3\), wanted \(height, width\)"),
    ],
)
def test_settings_of_images(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        ImageFolder(tmp_path, **options)


def test_damaged_images_are_named(tmp_path):
    save_image(tmp_path / "a.png", pixels(40, 40))
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[:-200])
    (tmp_path / "c.png").write_bytes(b"no image at all")
    Image.fromarray(np.arange(30, dtype=np.uint16).reshape(5, 6) * 1000).save(tmp_path / "d.png")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    (tmp_path / "e.png").write_bytes(flipped)
    source = ImageFolder(tmp_path)
    assert source[0]["inputs"].shape == (40, 40, 3)
    for number, message in enumerate(("b.png cannot be read", "c.png cannot be read", "d.png has more than 8 bits"), 1):
        with pytest.raises(InputError, match=message):
            source[number]
    with pytest.raises(InputError, match=r"e.png cannot be read"):
        source[4]
    with pytest.raises(InputError, match=r"b.png cannot"):
        source.load()


def test_numbers_of_examples(tmp_path):
    save_image(tmp_path / "a.png", pixels())
    source = ImageFolder(tmp_path)
    for wrong in (1, -2):
        with pytest.raises(IndexError, match="of 1 examples"):
            source[wrong]
    with pytest.raises(InputError, match=r"ImageFolder\[…\] got 'a', wanted the number of one example"):
        source["a"]
    assert source[np.int64(0)]["inputs"].shape == (6, 5, 3)


# Arrays.


def test_arrays_of_an_npz(tmp_path):
    x, y = RNG.random((5, 3)), np.arange(5)
    np.savez(tmp_path / "set.npz", x=x, y=y)
    data = read_npz(tmp_path / "set.npz", "x", "y")
    np.testing.assert_array_equal(data.inputs, x)
    np.testing.assert_array_equal(data.targets, y)
    assert data.name == "set" and set(read_npz(tmp_path / "set.npz", "x", None).arrays) == {"inputs"}


class Bomb:
    def __reduce__(self):
        return (Path.touch, (Path("bomb"),))


def test_files_that_are_no_npz(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "a.npz", x=np.zeros((50, 3)), y=np.arange(4), o=np.array([Bomb()]))
    whole = (tmp_path / "a.npz").read_bytes()
    write(tmp_path / "cut.npz", whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[200] ^= 255
    write(tmp_path / "flipped.npz", bytes(damaged))
    np.save(tmp_path / "b.npy", np.zeros(3))
    np.save(tmp_path / "o.npy", np.array([Bomb()]))
    write(tmp_path / "text.npz", "hello")
    write(tmp_path / "empty.npz", "")
    cases = [
        ("nowhere.npz", "x", "y", "there is no such file"),
        ("empty.npz", "x", "y", "which is empty"),
        ("text.npz", "x", "y", "text.npz cannot be read"),
        ("cut.npz", "x", "y", "cut.npz cannot be read"),
        ("flipped.npz", "x", None, "flipped.npz cannot be read"),
        ("a.npz", "inputs", "y", "has no array 'inputs', it holds 'x', 'y', 'o'; .*inputs=…"),
        ("a.npz", "o", None, "cannot be read as arrays of numbers: it holds Python objects"),
        ("a.npz", "x", "y", r"a.npz: the data set got different numbers of examples \(50 in inputs, 4 in targets\)"),
        ("b.npy", "x", "y", r"holds one array, float64\[3\], wanted a .npz file; use jdl.data.ArrayFiles"),
        ("o.npy", "x", "y", "Python objects"),
        (".", "x", "y", "got the folder"),
    ]
    for file, inputs, targets, message in cases:
        with pytest.raises(InputError, match=message):
            read_npz(tmp_path / file, inputs, targets)
    assert not (tmp_path / "bomb").exists()


def test_rows_of_npy_files(tmp_path):
    x, y = RNG.random((6, 2, 3)).astype(np.float32), np.arange(6, dtype=np.int32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    source = ArrayFiles(inputs=tmp_path / "x.npy", targets=tmp_path / "y.npy")
    assert len(source) == 6 and repr(source) == "ArrayFiles(6 examples, inputs=float32[6, 2, 3], targets=int32[6])"
    elsewhere = pickle.loads(pickle.dumps(source))
    assert len(pickle.dumps(source)) < 1_000  # paths, not the arrays
    for either in (source, elsewhere):
        for row, example in enumerate(either):
            np.testing.assert_array_equal(example["inputs"], x[row])
            assert example["targets"] == row and example["inputs"].flags.writeable
            assert not isinstance(example["inputs"], np.memmap)
    np.testing.assert_array_equal(source.load().inputs, x)


def test_files_that_are_no_npy(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(100))
    whole = (tmp_path / "x.npy").read_bytes()
    np.savez(tmp_path / "z.npy.npz", x=np.zeros(3))
    cases = {
        write(tmp_path / "cut.npy", whole[:300]): "cut.npy cannot be read",
        write(tmp_path / "text.npy", "hello"): "text.npy cannot be read",
        tmp_path / "z.npy.npz": "holds several arrays, wanted a .npy file; use jdl.data.read_npz",
        tmp_path / "nowhere.npy": "inputs got .*nowhere.npy', and there is no such file",
    }
    for path, message in cases.items():
        with pytest.raises(InputError, match=message):
            ArrayFiles(inputs=path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "ArrayFiles got no file"),
        ({"inputs": np.zeros(3), "targets": np.zeros(4)}, "different numbers of examples .3 in .*inputs.npy, 4 in"),
        ({"inputs": np.array(["a"])}, "inputs.npy holds <U1.1., wanted numbers"),
        ({"inputs": np.float32(3)}, "wanted numbers with a leading axis"),
        ({"inputs": np.array([{}])}, "inputs.npy cannot be read as arrays of numbers"),
    ],
)
def test_files_that_are_no_arrays(tmp_path, arrays, message):
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    with pytest.raises(InputError, match=message):
        ArrayFiles(**{name: tmp_path / f"{name}.npy" for name in arrays})


# Text.


@pytest.mark.parametrize("name", ["t.txt", "t.txt.gz"])
@pytest.mark.parametrize("content", ["one\n\nthree — 3\r\nlast", "a\nb\n", "\n", "no end", "﻿x\ny\n"])
def test_lines(tmp_path, name, content):
    lines = TextFile(write(tmp_path / name, content))
    wanted = content.removeprefix("﻿").replace("\r\n", "\n").removesuffix("\n").split("\n")
    assert list(lines) == wanted and len(lines) == len(wanted) and lines[-1] == wanted[-1]
    assert list(pickle.loads(pickle.dumps(lines))) == wanted


def test_lines_across_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr("jdl.data.files.text.CHUNK", 7)
    wanted = ["x" * int(n) for n in RNG.integers(0, 20, 100)]
    assert list(TextFile(write(tmp_path / "t.txt", "\n".join(wanted) + "\n"))) == wanted


def test_text_that_is_none(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        TextFile(tmp_path / "t.txt")
    with pytest.raises(InputError, match="which is empty"):
        TextFile(write(tmp_path / "e.txt", ""))
    lines = TextFile(write(tmp_path / "t.txt", b"fine\ncaf\xe9\nfine\n"))
    assert lines[2] == "fine"
    with pytest.raises(InputError, match=r"t.txt, line 2: got the byte 0xe9, wanted text in UTF-8"):
        lines[1]
    with pytest.raises(IndexError, match=r"TextFile\[3\] of 3 examples"):
        lines[3]
