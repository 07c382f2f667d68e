"""A lock on a folder of checkpoints, which dies with its process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from types import TracebackType

from jdl.check import InputError

_HELD: dict[Path, int] = {}  # by the process that holds it, as a forked child inherits this dict


class FolderLock:
    """Holds ``folder/lock``, in which the holder's process id stands, until :meth:`release` or the end of the process.

    A POSIX lock: the worker processes that a run leaves when it is killed do not inherit it. Such a lock never
    refuses its own process, so that is looked up first.

    Raises:
        InputError: this or another process holds it.
    """

    def __init__(self, folder: Path):
        import fcntl  # Unix only

        self._folder = folder.resolve()
        if _HELD.get(self._folder) == os.getpid():
            raise InputError(_say(folder, "this process"), "checkpoint")
        self._file = (folder / "lock").open("a+b", buffering=0)
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._file.seek(0)
            holder = self._file.read().decode().strip()
            self._file.close()
            raise InputError(_say(folder, f"process {holder or 'unknown'}"), "checkpoint") from None
        with contextlib.suppress(OSError):  # on a full disk the lock holds without the id
            self._file.truncate(0)
            self._file.write(str(os.getpid()).encode())
        _HELD[self._folder] = os.getpid()

    def release(self) -> None:
        """Let others have the folder."""
        if not self._file.closed:
            self._file.close()
            _HELD.pop(self._folder, None)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def _say(folder: Path, holder: str) -> str:
    return f"{str(folder)!r} is in use by {holder}; wait until that run is over, or give this one a folder of its own"
