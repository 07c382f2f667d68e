"""Files of public data: found on this machine or downloaded once, and never used unless their checksum is right."""

from __future__ import annotations

import contextlib
import glob
import gzip
import hashlib
import http.client
import os
import secrets
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jdl.check import InputError

CHUNK = 1 << 18


class DataUnavailable(InputError):
    """A file is on neither this machine nor any of its public addresses; the message says where to put it."""


class CorruptData(InputError):
    """A file is not the one it should be; the message has the expected and the found checksum."""


def cache_dir() -> Path:
    """The folder of downloads: ``$JDL_CACHE_DIR``, or ``jdl`` in ``$XDG_CACHE_HOME`` or in the user's own cache.

    Raises:
        DataUnavailable: neither variable is set, and the user has no home.
    """
    if folder := os.environ.get("JDL_CACHE_DIR"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "jdl"
    if sys.platform == "win32":
        own = Path(os.environ.get("LOCALAPPDATA", "~/AppData/Local")) / "jdl"
    else:
        own = Path("~/Library/Caches/jdl" if sys.platform == "darwin" else "~/.cache/jdl")
    try:
        return own.expanduser()
    except RuntimeError:  # as in a container that runs under any number
        message = "there is no folder for downloads, as this user has no home; set JDL_CACHE_DIR to a folder"
        raise DataUnavailable(message) from None


def fetch(
    name: str,
    file: str,
    urls: str | tuple[str, ...],
    *,
    checksum: str | None = None,
    content: str | None = None,
    timeout: float = 30,
) -> Path:
    """The path of a file of the data set ``name``, downloaded if it must be.

    Looked for as ``$JDL_DATA_DIR/<name>/<file>``, then as ``<name>/<file>`` in `cache_dir`, then at each of ``urls``. A
    download appears under its own name only when it is whole and right, whatever interrupts it and however many
    processes want it at once.

    Args:
        name: the data set, a folder.
        file: the file in it.
        urls: public addresses of the file, tried in turn.
        checksum: ``"sha256:…"`` or ``"md5:…"`` of the file. If neither this nor ``content`` is known, the SHA-256 of
            the first download is recorded beside it, and the file is held to that from then on.
        content: the same for the bytes inside a gzip file, whose wrapper may differ from copy to copy.
        timeout: seconds without a byte after which an address is given up.

    Raises:
        DataUnavailable: the file is not here and no address gave it.
        CorruptData: the file in ``$JDL_DATA_DIR``, or every download, has another checksum.
    """
    urls = (urls,) if isinstance(urls, str) else tuple(urls)
    tried = []
    if data_dir := os.environ.get("JDL_DATA_DIR"):
        own = Path(data_dir) / name / file
        if own.is_file():
            verify(own, checksum, content)
            return own
        tried.append(f"{own} (JDL_DATA_DIR): no such file")
    else:
        tried.append("JDL_DATA_DIR is not set")

    cached = cache_dir() / name / file  # after the user's own folder, which is enough where there is no other
    record = cached.with_name(cached.name + ".sha256")
    unknown = checksum is None and content is None
    if unknown and record.is_file():
        checksum = record.read_text().strip()
    if cached.is_file():
        try:
            verify(cached, checksum, content)
            return cached
        except CorruptData as error:
            tried.append(f"{error}; deleted")
            cached.unlink(missing_ok=True)
    else:
        tried.append(f"{cached}: no such file")

    def check(part: Path) -> None:
        verify(part, checksum, content, url)
        if unknown and checksum is None:
            _write_atomically(record, f"sha256:{_digest(part, 'sha256')}\n")

    corrupt = False
    for url in urls:
        try:
            _download(url, cached, check, timeout)
            return cached
        except CorruptData as error:
            corrupt = True
            tried.append(str(error))
        except (OSError, http.client.HTTPException, ValueError) as error:
            tried.append(f"{url}: {error or type(error).__name__}")
    lines = [f"{name} needs the file {file}, which could not be had. Tried:", *(f"- {line}" for line in tried)]
    if unknown and corrupt:
        lines.append(f"If the file has rightly changed at its source, delete {record}.")
    lines.append(f"Without a network: download it elsewhere ({' or '.join(urls) or 'it has no public address'}), and")
    lines.append(f"put it at {cached}, or at <folder>/{name}/{file} with the variable JDL_DATA_DIR=<folder>.")
    raise (CorruptData if corrupt else DataUnavailable)("\n".join(lines))


def verify(path: Path, checksum: str | None = None, content: str | None = None, source: str = "") -> None:
    """Check a file, and the bytes inside a gzip file, against ``"sha256:…"`` or ``"md5:…"``.

    Raises:
        CorruptData: it is another file, or not gzip where ``content`` is given.
    """
    for expected, opener, what in ((checksum, open, ""), (content, gzip.open, "content of ")):
        if expected is None:
            continue
        algorithm, _, wanted = expected.partition(":")
        try:
            found = _digest(path, algorithm, opener)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            found = f"no gzip file ({error})"
        if found != wanted.lower():
            where = source or str(path)
            raise CorruptData(f"{what}{where} is corrupt: expected {algorithm} {wanted.lower()}, found {found}")


def _digest(path: Path, algorithm: str, opener: Callable[..., Any] = open) -> str:
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with opener(path, "rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _download(url: str, target: Path, check: Callable[[Path], None], timeout: float) -> None:
    """Put what ``url`` gives at ``target`` once ``check`` has passed it; otherwise leave nothing there."""
    import urllib.request

    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    with _part_file(target) as (stream, part):
        request = urllib.request.Request(url, headers={"User-Agent": "jdl"})
        with urllib.request.urlopen(request, timeout=timeout) as response:
            length = response.headers.get("Content-Length")
            size = None if length is None else int(length)
            written = 0
            with _progress(target.name, size) as advance:
                while chunk := response.read(CHUNK):
                    stream.write(chunk)
                    written += len(chunk)
                    advance(len(chunk))
        if size is not None and written != size:
            raise OSError(f"the connection ended after {written} of {size} bytes")
        stream.close()
        check(part)
        os.replace(part, target)


@contextlib.contextmanager
def _part_file(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A new file beside ``target`` that no other process has; gone at the end unless it was renamed."""
    part = target.with_name(f"{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with open(part, "xb") as stream:
            yield stream, part
    finally:
        part.unlink(missing_ok=True)


def _remove_abandoned(target: Path, hours: float = 1) -> None:
    """Delete the parts of processes that were killed: nobody has written to them for a while."""
    for part in target.parent.glob(f"{glob.escape(target.name)}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - part.stat().st_mtime > 3600 * hours:
                part.unlink()


def _write_atomically(path: Path, text: str) -> None:
    with _part_file(path) as (stream, part):
        stream.write(text.encode())
        stream.close()
        os.replace(part, path)


@contextlib.contextmanager
def _progress(label: str, size: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar when someone is watching."""
    if not sys.stderr.isatty():
        yield lambda amount: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=size)
        yield lambda amount: progress.advance(task, amount)
