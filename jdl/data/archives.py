"""Unpacking archives from the network: nothing is written outside the folder, and a failure leaves nothing behind."""

from __future__ import annotations

import contextlib
import functools
import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from jdl.check import InputError

DAMAGED = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError)

Member = tuple[str, bool, Callable[[], Any]]  # name, is it a folder, how to open it


class UnsafeArchive(InputError):
    """An archive wants to write outside the folder it is unpacked into; the message names the member."""


def extract(archive: str | Path, folder: str | Path) -> Path:
    """Unpack a zip or tar file into the new ``folder`` and return it; one that holds something already is kept.

    ``folder`` appears whole or not at all: the files are unpacked beside it first.

    Raises:
        UnsafeArchive: a member is a link or a device, or its path is absolute or leads out of the folder.
        InputError: the file is neither zip nor tar, or is damaged.
    """
    archive, folder = Path(archive), Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.", suffix=".part", dir=folder.parent))
    try:
        inside = beside / "content"
        inside.mkdir()
        try:
            _unpack(archive, inside)
        except DAMAGED as error:
            raise InputError(f"{archive} is damaged or no zip or tar file: {error}") from error
        try:
            inside.rename(folder)
        except OSError:
            if not folder.is_dir():  # otherwise another process was first, with the same files
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _unpack(archive: Path, folder: Path) -> None:
    with contextlib.closing(_zip_members(archive) if zipfile.is_zipfile(archive) else _tar_members(archive)) as members:
        for name, is_folder, opener in members:
            target = folder / _safe(archive, name)
            (target if is_folder else target.parent).mkdir(parents=True, exist_ok=True)
            if not is_folder:
                with opener() as source, open(target, "wb") as copy:
                    shutil.copyfileobj(source, copy)


def _zip_members(archive: Path) -> Generator[Member, None, None]:
    with zipfile.ZipFile(archive) as opened:
        for info in opened.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where the archive was not made on Unix
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                _refuse(archive, info.filename, "is a link or a device")
            yield info.filename, info.is_dir(), functools.partial(opened.open, info)


def _tar_members(archive: Path) -> Generator[Member, None, None]:
    with tarfile.open(archive) as opened:
        for info in opened:
            if not (info.isfile() or info.isdir()):
                _refuse(archive, info.name, "is a link or a device")
            yield info.name, info.isdir(), functools.partial(opened.extractfile, info)


def _safe(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(name).drive or ".." in path.parts or "\0" in name:
        _refuse(archive, name, "leads out of the folder")
    return path


def _refuse(archive: Path, name: str, reason: str) -> None:
    raise UnsafeArchive(f"{archive} is not unpacked: its member {name!r} {reason}; nothing was written")
