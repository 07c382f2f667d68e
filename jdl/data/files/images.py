"""Images from a folder, decoded one by one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from jdl.check import InputError, describe
from jdl.data.dataset import Dataset
from jdl.data.files.reading import example_number
from jdl.extras import require

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
CHANNELS = {"L": 1, "RGB": 3, "RGBA": 4}


class ImageFolder:
    """The images of a folder with one subfolder for each class, or of one without subfolders and then without classes.

    ``source[i]`` is ``{"inputs": uint8[H, W, C], "targets": int32}``, read when it is asked for; ``load()`` reads all
    into a `Dataset`. Classes are the names of the subfolders in sorted order, images stand in the order of their
    paths; names that begin with a dot are passed over. Images are turned upright as their camera says.

    Args:
        folder: where the images are.
        size: resize to ``(height, width)``, or a square, bilinearly and without keeping the ratio of the sides.
        mode: ``"RGB"``, ``"L"`` (grey) or ``"RGBA"``.
        suffixes: read only files with these; by default all, and every file must be an image.

    Attributes:
        files: paths within the folder. classes: names, or None. targets: ``int32[N]``, or None.

    Raises:
        InputError: no such folder, no images, an empty class, a file that is no image; on reading, one that is
            damaged. The message names the file.
    """

    def __init__(
        self,
        folder: str | Path,
        size: int | tuple[int, int] | None = None,
        mode: str = "RGB",
        suffixes: Sequence[str] | None = None,
    ):
        require("PIL.Image", "experiments", "reading images")
        self.folder, self.mode, self.size = Path(folder).expanduser(), mode, _size(size)
        if mode not in CHANNELS:
            raise InputError(f"mode got {mode!r}, wanted one of {', '.join(map(repr, CHANNELS))}")
        if not self.folder.is_dir():
            raise InputError(f"folder got {str(folder)!r}, and there is no such folder; looked for in {Path.cwd()}")
        entries = sorted(name for name in os.listdir(self.folder) if not name.startswith("."))
        classes = [name for name in entries if (self.folder / name).is_dir()]
        self.classes = tuple(classes) if classes else None
        files = [_images(self.folder, name, suffixes) for name in classes]
        loose = _images(self.folder, "", suffixes, deep=False)
        if classes and loose:
            fix = "put it into one of them, or name the suffixes to read: suffixes=('.png',)"
            raise InputError(f"{self.folder} has the image {loose[0]!r} beside its folders of classes; {fix}")
        if empty := [name for name, found in zip(classes, files, strict=True) if not found]:
            raise InputError(f"{self.folder} has no images in {', '.join(map(repr, empty))}, wanted some in each class")
        self.files = tuple(path for found in files for path in found) if classes else tuple(loose)
        if not self.files:
            raise InputError(f"{self.folder} holds no images, wanted files such as {', '.join(suffixes or SUFFIXES)}")
        self.targets = np.repeat(np.arange(len(classes), dtype=np.int32), list(map(len, files))) if classes else None

    def __repr__(self) -> str:
        classes = "" if self.classes is None else f", {len(self.classes)} classes"
        return f"ImageFolder({str(self.folder)!r}, {len(self)} images{classes})"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> dict[str, Any]:
        number = example_number(index, len(self), "ImageFolder")
        example: dict[str, Any] = {"inputs": _read(self.folder / self.files[number], self.mode, self.size)}
        return example if self.targets is None else example | {"targets": self.targets[number]}

    def load(self, threads: int = 8) -> Dataset:
        """All images in memory, ``uint8[N, H, W, C]``.

        Raises:
            InputError: images of different sizes where no ``size`` was given, or a damaged one.
        """
        first = self[0]["inputs"]
        images = np.empty((len(self), *first.shape), np.uint8)

        def read(number: int) -> None:
            image = self[number]["inputs"]
            if image.shape != first.shape:
                fix = f"resize them all: ImageFolder(folder, size={first.shape[:2]})"
                sizes = f"{image.shape[:2]} in {self.files[number]}, {first.shape[:2]} in {self.files[0]}"
                raise InputError(f"{self.folder} has images of different sizes, {sizes}; {fix}")
            images[number] = image

        with ThreadPoolExecutor(threads) as pool:  # decoding leaves Python's lock
            for _ in pool.map(read, range(len(self))):
                pass
        arrays = {"inputs": images} | ({} if self.targets is None else {"targets": self.targets})
        return Dataset(arrays, name=self.folder.name, classes=self.classes)


def _size(size: Any) -> tuple[int, int] | None:
    if size is None:
        return None
    sides = size if isinstance(size, (tuple, list)) else (size, size)
    if len(sides) != 2 or not all(isinstance(side, int) and not isinstance(side, bool) and side > 0 for side in sides):
        raise InputError(f"size got {describe(size)}, wanted (height, width) in pixels, or one number for a square")
    return sides[0], sides[1]


def _images(folder: Path, inside: str, suffixes: Sequence[str] | None, deep: bool = True) -> list[str]:
    """Sorted paths of the images below ``folder/inside``, as seen from ``folder``."""
    wanted = SUFFIXES if suffixes is None else tuple(suffix.lower() for suffix in suffixes)
    found = []
    for path, folders, files in os.walk(folder / inside):
        folders[:] = [name for name in folders if deep and not name.startswith(".")]
        for name in files:
            file = Path(path, name).relative_to(folder).as_posix()
            if name.startswith("."):
                continue
            if name.lower().endswith(wanted):
                found.append(file)
            elif suffixes is None:
                fix = "take it out, or name the suffixes to read: suffixes=('.jpg', '.png')"
                raise InputError(f"{folder} has the file {file!r}, which is no image; {fix}")
    return sorted(found)


def _read(path: Path, mode: str, size: tuple[int, int] | None) -> np.ndarray:
    """``uint8[H, W, C]``."""
    pillow, operations = (require(name, "experiments", "reading images") for name in ("PIL.Image", "PIL.ImageOps"))
    try:
        with pillow.open(path) as image:
            if size is not None:
                image.draft(None, (max(size), max(size)))  # a JPEG much larger than that is decoded at 1/2, 1/4 or 1/8
            image = operations.exif_transpose(image)
            if image.mode.startswith(("I", "F")):
                raise InputError(f"{path} has more than 8 bits a channel ({image.mode}); convert it first")
            if image.mode == "P" and "transparency" in image.info:
                image = image.convert("RGBA")
            image = image.convert(mode)
            if size is not None and image.size != size[::-1]:
                image = image.resize(size[::-1], pillow.Resampling.BILINEAR)
            return np.array(image).reshape(image.height, image.width, CHANNELS[mode])
    except InputError:
        raise
    except Exception as error:  # decoders raise errors of many kinds
        raise InputError(f"{path} cannot be read as an image: {type(error).__name__}: {error}") from error
