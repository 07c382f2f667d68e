"""Text from files: any line, without reading the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jdl.data.files.reading import decode, example_number, existing, read_bytes

CHUNK = 1 << 24


class TextFile:
    r"""The lines of a UTF-8 text file: ``lines[i]`` is a string without its line end, ``len(lines)`` their number.

    The file stays on disk, and 8 bytes a line in memory: where each begins. A file whose name ends in ``.gz`` is
    unpacked into memory instead. Lines end at ``\n`` or ``\r\n``.

    Raises:
        InputError: there is no such file, it is empty, or (on reading that line) not UTF-8; the message names the line.
    """

    def __init__(self, path: str | Path):
        self.path = existing(path)
        self._open()
        chunks = range(0, len(self._bytes), CHUNK)
        ends = [start + 1 + np.flatnonzero(self._bytes[start : start + CHUNK] == ord("\n")) for start in chunks]
        starts = np.concatenate([[0], *ends])
        self._starts = starts if starts[-1] == len(self._bytes) else np.append(starts, len(self._bytes))

    def __repr__(self) -> str:
        return f"TextFile({str(self.path)!r}, {len(self)} lines)"

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: Any) -> str:
        line = example_number(index, len(self), "TextFile")
        data = self._bytes[self._starts[line] : self._starts[line + 1]].tobytes()
        text = decode(data, self.path, line + 1).removesuffix("\n").removesuffix("\r")
        return text.removeprefix("\ufeff") if line == 0 else text

    def _open(self) -> None:
        packed = self.path.suffix == ".gz"
        # Mapped rather than read: nothing to seek, so that threads and forked processes do not disturb each other.
        self._bytes = (
            np.frombuffer(read_bytes(self.path), np.uint8) if packed else np.memmap(self.path, np.uint8, mode="r")
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_starts": self._starts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()
