"""A lock on a folder of checkpoints, which dies with its process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from jdl.check import InputError

_HELD: dict[BinaryIO, Path] = {}  # by this process


class FolderLock:
    """Holds ``folder/lock``, in which the holder's process id stands, until :meth:`release` or the end of the process.

    A lock of the open file (``flock``), as a POSIX lock is lost where its process opens and closes the file once more,
    such as by copying the folder. Forked processes would share it, so they close it: the workers that a run leaves
    when it is killed do not hold the folder.

    Raises:
        InputError: this or another process holds it.
        OSError: the file cannot be made, or its file system has no locks.
    """

    def __init__(self, folder: Path):
        self._path = folder / "lock"
        self._file = _acquire(self._path)

    @property
    def held(self) -> bool:
        """Whether it is this process that holds the folder: not after :meth:`release`, and not in a fork."""
        return self._file in _HELD

    def renew(self) -> None:
        """Hold the folder again where its lock was deleted; others could have it otherwise."""
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file.fileno()), self._path.stat()):
                return
        lost, self._file = self._file, _acquire(self._path)
        _close(lost)

    def release(self) -> None:
        """Let others have the folder."""
        _close(self._file)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _acquire(path: Path) -> BinaryIO:
    import fcntl  # Unix only

    place, file = path.resolve(), path.open("a+b", buffering=0)
    ours = place in _HELD.values()
    _HELD[file] = place
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = "this process" if ours else f"process {file.read().decode().strip() or 'unknown'}"
        _close(file)
        raise InputError(
            f"{str(path.parent)!r} is in use by {holder}; wait until that run is over, or give this one a folder of "
            "its own",
            "checkpoint",
        ) from None
    except BaseException:
        _close(file)
        raise
    with contextlib.suppress(OSError):  # on a full disk the lock holds without the id
        file.truncate(0)
        file.write(str(os.getpid()).encode())
    return file


def _close(file: BinaryIO) -> None:
    file.close()
    _HELD.pop(file, None)


def _close_in_fork() -> None:
    """Closing a descriptor leaves the lock to the other processes that have it; unlocking would take it from them."""
    for file in list(_HELD):
        _close(file)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_fork)
