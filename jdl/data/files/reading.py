"""What readers of files share."""

from __future__ import annotations

import gzip
import operator
import zlib
from pathlib import Path
from typing import Any

from jdl.check import InputError, describe

DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error)


def existing(path: str | Path, name: str = "path") -> Path:
    """``path`` as a file that is there and holds something."""
    path = Path(path).expanduser()
    if path.is_dir():
        raise InputError(f"{name} got the folder {str(path)!r}, wanted a file in it")
    if not path.is_file():
        raise InputError(f"{name} got {str(path)!r}, and there is no such file; it was looked for in {Path.cwd()}")
    if not path.stat().st_size:
        raise InputError(f"{name} got {str(path)!r}, which is empty")
    return path


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked where its name ends in ``.gz``."""
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path, "rb") as stream:
            return stream.read()
    except DAMAGED as error:
        raise InputError(f"{path} is damaged, or no gzip file: {error}") from error


def decode(data: bytes, path: Path, line: int = 1) -> str:
    """UTF-8 text that begins at this line of a file."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise InputError(
            f"{path}, line {line}: got the byte 0x{data[error.start]:02x}, wanted text in UTF-8; convert the file first"
        ) from None


def example_number(index: Any, n: int, owner: str) -> int:
    """``index`` in 0..n-1; a negative one counts from the end.

    Raises:
        IndexError: it is outside, which also ends a loop over the source.
    """
    try:
        number = operator.index(index)
    except TypeError:
        raise InputError(f"{owner}[…] got {describe(index)}, wanted the number of one example") from None
    if not -n <= number < n:
        raise IndexError(f"{owner}[{number}] of {n} examples")
    return number % n
