"""Items made ready by a thread while the ones before them are used."""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

from jdl.data.counts import whole

PATIENCE = 1.0  # seconds that a read may last after nobody wants it any more


def prefetch(iterator: Iterable[Any], size: int = 2, transform: Callable[[Any], Any] | None = None) -> Prefetched:
    """The items of ``iterator`` in order, with up to ``size`` of them made ready by a background thread.

    ``transform`` is applied there too, such as ``jax.device_put``. What either raises is raised here, at the item it
    belongs to. ``close()``, or leaving a ``with`` block, stops the thread and closes the iterator; so does dropping the
    result. A read that hangs is left to the thread after about a second, or ended by the iterator's ``interrupt()``
    where it has one, which is called from another thread.

    Raises:
        InputError: ``size`` is not a whole number of at least 1.
    """
    return Prefetched(iterator, size, transform)


class Prefetched(Iterator[Any]):
    """See `prefetch`."""

    def __init__(self, iterator: Iterable[Any], size: int, transform: Callable[[Any], Any] | None):
        # The thread knows the shelf and not this object, which can so be dropped.
        self._shelf = _Shelf(whole("size", size, 1))
        items = iter(iterator)
        self._thread = threading.Thread(
            target=_fill, args=(self._shelf, items, transform), name="jdl-prefetch", daemon=True
        )
        self._stop = weakref.finalize(self, _stop, self._shelf, self._thread, interrupt_of(items))
        self._stop.atexit = False
        self._thread.start()
        unfinished.add(self)

    def __next__(self) -> Any:
        return self._shelf.take()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and close the iterator; an item in the making is finished first, unless that takes long."""
        self._stop()  # the first time only
        unfinished.discard(self)


class Interruptible(Iterator[Any]):
    """The items of a generator, with an ``interrupt()`` for a thread other than the one that waits for the next."""

    def __init__(self, items: Generator[Any], interrupt: Callable[[], None]):
        self._items, self.interrupt = items, interrupt

    def __next__(self) -> Any:
        return next(self._items)

    def close(self) -> None:
        """Close the generator."""
        self._items.close()


def interrupt_of(iterator: Any) -> Callable[[], None]:
    """What makes a read that is under way in another thread give up; nothing, where the iterator has no such method."""
    return getattr(iterator, "interrupt", _nothing)


def close_if_idle(iterator: Any) -> None:
    """Close an iterator, unless a thread that hangs in it has it still."""
    with contextlib.suppress(ValueError):  # "generator already executing"
        getattr(iterator, "close", _nothing)()


unfinished: weakref.WeakSet[Prefetched] = weakref.WeakSet()


@atexit.register  # before that of `stream_workers`, so it runs after: then no thread waits for a worker any more
def _close_all() -> None:
    """Close what a program left open: no thread should run on while Python falls apart."""
    left, deadline = list(unfinished), time.monotonic() + PATIENCE
    for items in left:
        items._shelf.close()
    for items in left:
        items._thread.join(max(deadline - time.monotonic(), 0))


class _End(NamedTuple):
    error: BaseException | None = None


class _Shelf:
    """Room for ``size`` items between the thread that makes them and the one that takes them.

    The handler of a signal may raise at any point of ``take``, and a finaliser close the shelf at any point of all. So
    there is no lock to be left behind, only queues that such a thing cannot break; ``room`` holds one True for each
    item that may yet be made.
    """

    def __init__(self, size: int):
        self.items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.room: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.closed = False
        for _ in range(size):
            self.room.put(True)

    def has_room(self) -> bool:
        """Wait for room; False where nobody wants more."""
        return self.room.get() and not self.closed

    def put(self, item: Any) -> None:
        if not self.closed:
            self.items.put((item,))

    def finish(self, error: BaseException | None) -> None:
        if self.closed:
            self._clear()
        self.items.put(_End(None if self.closed else error))

    def take(self) -> Any:
        if self.closed:
            raise StopIteration
        try:
            got = self.items.get()
        finally:
            self.room.put(True)  # after an interrupted wait there is room for one more, rather than for none
        if not isinstance(got, _End):
            return got[0]
        self.items.put(_End())  # for the next who asks
        error = got.error
        try:
            raise StopIteration if error is None else error
        finally:
            del error, got  # its traceback holds this frame

    def close(self) -> None:
        self.closed = True
        self.room.put(False)
        self._clear()
        self.items.put(_End())

    def _clear(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self.items.get_nowait()


def _fill(shelf: _Shelf, iterator: Iterator[Any], transform: Callable[[Any], Any] | None) -> None:
    error: BaseException | None = None
    try:
        while shelf.has_room():
            try:
                item = next(iterator)
            except StopIteration:
                break
            shelf.put(item if transform is None else transform(item))
            del item  # on the shelf alone, so that its memory goes with it
    except StopIteration as stop:  # passed on, it would end the loop of whoever takes the items
        error = RuntimeError("transform raised StopIteration")
        error.__cause__ = stop
    except BaseException as raised:
        error = raised
    try:
        getattr(iterator, "close", _nothing)()  # here, as a generator is closed by nobody else while it runs
    except BaseException as raised:
        error = error or raised
    shelf.finish(error)


def _stop(shelf: _Shelf, thread: threading.Thread, interrupt: Callable[[], None]) -> None:
    shelf.close()
    if thread is threading.current_thread():  # which may be the one that happens to collect garbage
        return
    thread.join(PATIENCE)
    if thread.is_alive() and interrupt is not _nothing:
        interrupt()
        thread.join(PATIENCE)


def _nothing() -> None:
    pass
