"""What lets a run stop at any moment and go on: signals as requests, settings held against those of the checkpoint."""

from __future__ import annotations

import hashlib
import re
import signal
import threading
import zlib
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdl.data import Dataset, Stream
from jdl.runs import Run

WIDTH = 120  # of a setting in a message


class ResumeWarning(UserWarning):
    """A run goes on from a checkpoint, but not as it would have without the stop; the message says why."""


class Interrupted(SystemExit):
    """``fit`` was asked to stop by a signal and has written a checkpoint: nothing is lost.

    A ``SystemExit`` with the code that shells expect (143 after SIGTERM, 130 after SIGINT), so a script ends quietly;
    catch it to do something with ``run`` first.
    """

    def __init__(self, name: str, run: Run):
        super().__init__(128 + signal.Signals[name].value)
        self.run = run


class Woken(BaseException):
    """Raised by a signal while ``Signals.waiting`` is set: what is waited for may never come."""


class Signals:
    """SIGTERM and SIGINT as a request, ``received``, that a loop reads between two calls.

    A second SIGINT raises KeyboardInterrupt at once. The handlers of before come back at the end. Python lets only the
    main thread of a process handle signals; elsewhere nothing is ever received.
    """

    def __init__(self, active: bool = True):
        self.active = active and threading.current_thread() is threading.main_thread()
        self.received: str | None = None
        self.waiting = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        if self.active:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name
        if self.waiting:
            self.waiting = False
            raise Woken


def describe_data(data: Dataset | Stream | None) -> str:
    """A line that changes when the data does: its shapes, and a checksum over a sample of its values."""
    if not isinstance(data, Dataset):
        return "none" if data is None else repr(data)
    total = 0
    for leaf in jax.tree.leaves(data.arrays):
        rows = leaf[:: max(1, leaf.nbytes >> 22)]  # some megabytes at most
        total = zlib.crc32(np.ascontiguousarray(rows).tobytes(), total)
    return f"{data!r}, checksum {total:08x}"


def program_checksum(program: Any) -> str:
    """A checksum of a traced step, in which every constant stands: a learning rate, say, or a loss's weight."""
    digest = hashlib.sha256(re.sub(r"0x[0-9a-f]{6,}", "", program.pretty_print(use_color=False)).encode())
    for constant in program.consts:
        if not jnp.issubdtype(jax.typeof(constant).dtype, jax.dtypes.prng_key):
            digest.update(np.asarray(constant).tobytes())
    return digest.hexdigest()[:16]


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Which settings are not those of the run that a checkpoint is of; training longer needs no word."""
    changed = [name for name in now if name != "steps" and before.get(name, now[name]) != now[name]]
    if "versions" in changed and "program" in changed:
        changed.remove("program")  # other versions trace other programs
    lines = [f"{name}: {_change(before[name], now[name])}" for name in changed if name != "program"]
    if "program" in changed:
        lines.append("the compiled step: a learning rate or other constant, the loss, or a layer's code")
    return lines


def states_of(callbacks: Sequence[Any]) -> list[dict[str, Any]]:
    """What a checkpoint keeps of callbacks: for each with a state its name and that."""
    stateful = [callback for callback in callbacks if hasattr(callback, "get_state")]
    return [{"name": readable(callback), "state": callback.get_state()} for callback in stateful]


def hand_over(callbacks: Sequence[Any], kept: Sequence[Mapping[str, Any]]) -> list[str]:
    """Give every callback the state of the one of its name, and say which are left without one, or over."""
    left, lines = list(kept), []
    for callback in callbacks:
        if not hasattr(callback, "set_state"):
            continue
        name = readable(callback)
        if (place := next((index for index, entry in enumerate(left) if entry["name"] == name), None)) is None:
            lines.append(f"callbacks: nothing is kept of {name}, which starts anew")
        else:
            callback.set_state(left.pop(place)["state"])
    return lines + [f"callbacks: {entry['name']} is not there any more" for entry in left]


def readable(value: Any) -> str:
    """The repr of a value without addresses, functions by their names: the same in every process."""
    text = re.sub(r"<(?:function|bound method) (\S+) at 0x[0-9a-f]+>", r"\1", repr(value))
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _change(old: str, new: str) -> str:
    """Both texts around the first place where they differ."""
    same = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    start = max(0, same - 40)
    return " became ".join(
        "… " * bool(start) + text[start : start + WIDTH] + " …" * (len(text) > start + WIDTH) for text in (old, new)
    )
