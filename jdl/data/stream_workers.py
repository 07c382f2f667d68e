"""Worker processes that make numbered items, which arrive in the order of their numbers.

Each worker makes every n-th item and writes it to a pipe of its own, which is all the control there is: a full pipe
makes it wait, and where nobody reads any more, because the parent closed the pipe or was killed, it ends.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import multiprocessing
import multiprocessing.util  # before our own `atexit`, so that ours runs before its
import os
import pickle
import signal
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import jax

from jdl.check import InputError
from jdl.data.prefetch import Interruptible, close_if_idle, prefetch

PATIENCE = 0.5  # seconds that workers have to leave by themselves; less than those of `prefetch`


def in_workers(make: Callable[[int], Any], count: int | None, workers: int, ready: int) -> Interruptible:
    """``make(0)``, ``make(1)``, … up to ``count``, made by processes that each keep ``ready`` of them ready.

    What ``make`` raises is raised here. Closing the iterator stops the processes; ``interrupt()`` kills
    them from another thread, which wakes one that waits for a hanging worker.

    Raises:
        InputError: ``make`` cannot be sent to a process.
        RuntimeError: a worker ended by itself, or was killed.
    """
    team: list[_Worker] = []
    items = Interruptible(_made_by_workers(team, make, count, workers, ready), functools.partial(_kill, team))
    unfinished.add(items)
    return items


def _made_by_workers(
    team: list[_Worker], make: Callable[[int], Any], count: int | None, workers: int, ready: int
) -> Generator[Any]:
    try:
        task = pickle.dumps((make, count, workers, ready, jax.config.read("jax_enable_x64")), protocol=5)
    except Exception as error:  # objects raise what they like when they are pickled
        fix = "define functions at the top of a module, open files when an example is read, or use workers=0"
        raise InputError(f"the source or load cannot be sent to a worker process: {error}; {fix}") from error
    try:
        for index in range(workers):
            team.append(_Worker(index))
        for worker in team:  # once all of them are starting
            worker.send(task)
        del task  # it may be as large as the source
        for number in itertools.count() if count is None else range(count):
            yield team[number % workers].receive()
    finally:
        _dismiss(team)


def _dismiss(team: list[_Worker]) -> None:
    """Let the workers leave, all at the same time, and kill those who do not."""
    for worker in team:
        worker.tasks.close()
    deadline = time.monotonic() + PATIENCE
    for worker in team:
        worker.process.join(max(deadline - time.monotonic(), 0))
    _kill(team)
    for worker in team:
        worker.process.join(PATIENCE)


def _kill(team: Iterable[_Worker]) -> None:
    for worker in list(team):
        worker.process.kill()


class _Worker:
    """A process, seen from its parent."""

    def __init__(self, index: int):
        context = multiprocessing.get_context("spawn")  # a fork would copy the locks of JAX's threads
        self.tasks, their_tasks = context.Pipe()
        self.process = context.Process(target=_work, args=(index, their_tasks), name=f"jdl-worker-{index}", daemon=True)
        with their_tasks:
            self.process.start()
        running.add(self)

    def send(self, task: bytes) -> None:
        with self._explained():
            self.tasks.send_bytes(task)

    def receive(self) -> Any:
        with self._explained():
            item, error = pickle.loads(self.tasks.recv_bytes())
        if error is not None:
            raise error
        return item

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self.process.join(PATIENCE)
            raise RuntimeError(
                f"a worker process that reads data ended with exit code {self.process.exitcode}; what it said itself "
                'stands above. Workers import the script again, so it must train under `if __name__ == "__main__":`; '
                "an exit code of -9 means that it was killed, perhaps for want of memory"
            ) from error


unfinished: weakref.WeakSet[Interruptible] = weakref.WeakSet()
running: weakref.WeakSet[_Worker] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """End what a program left open: multiprocessing would wait for the workers."""
    for items in list(unfinished):
        close_if_idle(items)  # or else a thread waits in it for a worker, which ends now
    _kill(running)


def _work(index: int, tasks: Connection) -> None:
    """The whole life of a worker."""
    # Ctrl-C, and a scheduler's signal to the whole group, reach the workers too, while their parent still trains on to
    # write a checkpoint. It is the parent that ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    jax.config.update("jax_platforms", "cpu")  # whatever a user's function does, it takes no accelerator's memory
    try:
        for answer in _answers(index, tasks.recv_bytes()):
            tasks.send_bytes(answer)
    except (EOFError, ConnectionError):  # the parent wants no more, or is no more
        pass
    os._exit(0)  # without waiting for an item in the making


def _answers(index: int, task: bytes) -> Iterator[bytes]:
    try:
        make, count, workers, ready, wide = pickle.loads(task)
        jax.config.update("jax_enable_x64", wide)
    except Exception as error:
        fix = "define it in a module that a new process can import, or use workers=0"
        message = f"a worker process cannot read the source or load: {type(error).__name__}: {error}; {fix}"
        return iter([pickle.dumps((None, InputError(message)))])
    numbers = itertools.count(index, workers) if count is None else range(index, count, workers)
    return prefetch(numbers, ready, lambda number: _answer(make, number))


def _answer(make: Callable[[int], Any], number: int) -> bytes:
    try:
        return pickle.dumps((make(number), None), protocol=5)
    except InputError as error:
        return pickle.dumps((None, error))
    except Exception as error:  # of a type that may not be picklable
        return pickle.dumps((None, RuntimeError(f"{type(error).__name__}: {error}")))
