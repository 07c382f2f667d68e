"""Files that are whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path

from jdl.check import InputError


def save(path: str | Path, write: Callable[[Path], object], suffixes: Collection[str]) -> None:
    """Let ``write`` fill a file with the suffix of ``path``, then put it at ``path``; nothing stays where it fails.

    Raises:
        InputError: the suffix is none of ``suffixes``, or the folder does not exist.
    """
    path = Path(path)
    check_suffix(path, suffixes)
    if not path.parent.is_dir():
        raise InputError(f"path got {str(path)!r}, but the folder {str(path.parent)!r} does not exist; make it first")
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        write(beside)
        mask = os.umask(0)
        os.umask(mask)
        beside.chmod(0o666 & ~mask)  # as open() would have made it
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def check_suffix(path: str | Path, suffixes: Collection[str]) -> None:
    """``path`` ends in one of ``suffixes``."""
    if (suffix := Path(path).suffix.lower()) not in suffixes:
        raise InputError(f"path got the suffix {suffix!r}, wanted {' or '.join(suffixes)}")
