"""Items made ready by a thread while the ones before them are used."""

from __future__ import annotations

import atexit
import collections
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, Self

from jdl.check import InputError


def prefetch(iterator: Iterable[Any], size: int = 2, transform: Callable[[Any], Any] | None = None) -> Prefetched:
    """The items of ``iterator`` in order, with up to ``size`` of them made ready by a background thread.

    ``transform`` is applied there too, such as ``jax.device_put``. What either raises is raised here, at the item it
    belongs to. ``close()``, or leaving a ``with`` block, stops the thread and closes the iterator; so does dropping the
    result.

    Raises:
        InputError: ``size`` is not a whole number of at least 1.
    """
    return Prefetched(iterator, size, transform)


class Prefetched(Iterator[Any]):
    """See `prefetch`."""

    def __init__(self, iterator: Iterable[Any], size: int, transform: Callable[[Any], Any] | None):
        if not isinstance(size, int) or size < 1:
            raise InputError(f"size got {size!r}, wanted a whole number of at least 1")
        self._shelf = _Shelf(size)  # the thread knows the shelf and not this object, which can so be dropped
        work = (self._shelf, iter(iterator), transform)
        self._thread = threading.Thread(target=_fill, args=work, name="jdl-prefetch", daemon=True)
        weakref.finalize(self, _stop, self._shelf, self._thread).atexit = False
        self._thread.start()
        unfinished.add(self)

    def __next__(self) -> Any:
        return self._shelf.take()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread and close the iterator; an item in the making is finished first."""
        _stop(self._shelf, self._thread)


unfinished: weakref.WeakSet[Prefetched] = weakref.WeakSet()


@atexit.register  # before that of `stream_workers`, so it runs after: then no thread waits for a worker any more
def _close_all() -> None:
    """Close what a program left open: no thread should run on while Python falls apart."""
    for items in list(unfinished):
        items.close()


class _Shelf:
    """Room for ``size`` items between the thread that makes them and the one that takes them."""

    def __init__(self, size: int):
        self.size = size
        self.items: collections.deque[Any] = collections.deque()
        self.error: BaseException | None = None
        self.finished = self.closed = False
        self.changed = threading.Condition()

    def has_room(self) -> bool:
        """Wait for room; False where nobody wants more."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or len(self.items) < self.size)
            return not self.closed

    def put(self, item: Any) -> None:
        with self.changed:
            if not self.closed:
                self.items.append(item)
                self.changed.notify_all()

    def finish(self, error: BaseException | None) -> None:
        with self.changed:
            self.error, self.finished = error, True
            self.changed.notify_all()

    def take(self) -> Any:
        with self.changed:
            self.changed.wait_for(lambda: self.closed or self.items or self.finished)
            if self.items:
                self.changed.notify_all()
                return self.items.popleft()
            error, self.error = self.error, None
        try:
            raise StopIteration if error is None else error
        finally:
            del error  # its traceback holds this frame

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.items.clear()
            self.error = None
            self.changed.notify_all()


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
        getattr(iterator, "close", lambda: None)()  # here, as a generator is closed by nobody else while it runs
    except BaseException as raised:
        error = error or raised
    shelf.finish(error)


def _stop(shelf: _Shelf, thread: threading.Thread) -> None:
    shelf.close()
    if thread is not threading.current_thread():  # which may be the one that happens to collect garbage
        thread.join()
