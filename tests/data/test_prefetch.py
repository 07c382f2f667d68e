"""Items made ready by a thread: in order, no further ahead than asked, and gone when nobody wants them."""

from __future__ import annotations

import gc
import itertools
import random
import signal
import subprocess
import sys
import threading
import time
import traceback

import jax
import numpy as np
import pytest

from jdl.check import InputError
from jdl.data import prefetch


class Recorded:
    """Counts up to ``stop``, and keeps what became of it."""

    def __init__(self, stop=None):
        self.items, self.made, self.closed_in = itertools.islice(itertools.count(), stop), 0, None
        self.more = threading.Condition()

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self.items)
        with self.more:
            self.made += 1
            self.more.notify_all()
        return item

    def close(self):
        self.closed_in = threading.current_thread().name

    def wait(self, made):
        with self.more:
            assert self.more.wait_for(lambda: self.made >= made, 10)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "jdl-prefetch"]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert threads() == []


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_order_and_end(size, count):
    items = prefetch(range(count), size, lambda x: x * x)
    assert list(items) == [x * x for x in range(count)]
    with pytest.raises(StopIteration):
        next(items)
    items.close()


def test_transform_to_the_device():
    with prefetch([{"x": np.arange(3)}], transform=jax.device_put) as items:
        (batch,) = items
    assert isinstance(batch["x"], jax.Array)
    assert batch["x"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("size", [1, 3])
def test_no_further_ahead_than_asked(size):
    source = Recorded()
    with prefetch(source, size) as items:
        source.wait(size)
        time.sleep(0.05)
        assert source.made == size
        assert next(items) == 0
        source.wait(size + 1)
        time.sleep(0.05)
        assert source.made == size + 1


def test_waiting_costs_no_processor_time():
    with prefetch(Recorded(), 2):
        time.sleep(0.05)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1


def fails_at_three():
    yield from range(3)
    raise KeyError("the fourth item")


@pytest.mark.parametrize(
    ("items", "transform", "kind"),
    [
        (fails_at_three(), None, KeyError),
        (range(9), lambda x: [3 // (3 - x), x][1], ZeroDivisionError),
        (range(9), lambda x: next(iter([x] if x < 3 else [])), RuntimeError),  # StopIteration would end our loop
    ],
)
def test_errors_come_at_their_item_with_their_traceback(items, transform, kind):
    ready = prefetch(items, 2, transform)
    seen = []
    with pytest.raises(kind) as caught:
        seen.extend(ready)
    with pytest.raises(StopIteration):
        next(ready)
    where = caught.value.__cause__ or caught.value
    assert traceback.extract_tb(where.__traceback__)[-1].filename == __file__


def test_items_before_an_error_are_not_lost():
    seen = []
    with pytest.raises(KeyError):
        for item in prefetch(fails_at_three(), 5):
            seen.append(item)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("take", [0, 1, 4])
def test_closing_stops_a_thread_that_waits_for_room(take):
    source = Recorded()
    items = prefetch(source, 2)
    assert list(itertools.islice(items, take)) == list(range(take))
    source.wait(take + 2)
    before = time.perf_counter()
    items.close()
    assert time.perf_counter() - before < 1
    assert threads() == []
    assert source.closed_in == "jdl-prefetch"  # where no other thread can be inside it
    with pytest.raises(StopIteration):
        next(items)
    items.close()


def test_closing_closes_a_generator():
    left = []

    def numbers():
        try:
            yield from itertools.count()
        finally:
            left.append(True)

    with prefetch(numbers()) as items:
        next(items)
    assert left == [True]


def test_dropping_it_stops_the_thread():
    source = Recorded()
    items = prefetch(source, 2)
    next(items)
    del items
    gc.collect()
    assert threads() == []
    assert source.closed_in is not None


def test_a_taken_item_is_not_kept_while_the_next_is_made():
    alive, begun, more = set(), threading.Event(), threading.Event()

    class Item:
        def __init__(self, number):
            self.number = number
            if number == 1:
                begun.set()
                more.wait(10)
            alive.add(number)

        def __del__(self):
            alive.discard(self.number)

    with prefetch(map(Item, range(5)), 1) as items:
        next(items)
        assert begun.wait(10)
        gc.collect()
        assert alive == set()
        more.set()
        for item in items:
            del item
    gc.collect()
    assert alive == set()


PROGRAM = """
from jdl.data import prefetch
def numbers():
    try:
        while True:
            yield 0
    finally:
        print("closed")
items = prefetch(numbers())
print(next(items))
"""


def test_a_program_that_closes_nothing_still_ends():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\nclosed\n", "")


class Hangs:
    """Its reads last until they are let go."""

    def __init__(self, go_on):
        self.go_on, self.begun = go_on, threading.Event()

    def __iter__(self):
        return self

    def __next__(self):
        self.begun.set()
        self.go_on.wait(30)
        raise StopIteration


class Interruptible(Hangs):
    def interrupt(self):
        self.go_on.set()


def generator(source):
    yield from source


@pytest.fixture
def go_on(monkeypatch):
    monkeypatch.setattr(sys.modules["jdl.data.prefetch"], "PATIENCE", 0.2)
    event = threading.Event()
    yield event
    event.set()
    for thread in threads():
        thread.join(10)


@pytest.mark.parametrize("wrap", [iter, generator])
def test_a_read_that_hangs_is_left_to_its_thread(wrap, go_on):
    source = Hangs(go_on)
    items = prefetch(wrap(source))
    assert source.begun.wait(10)
    before = time.perf_counter()
    items.close()
    items.close()
    with pytest.raises(StopIteration):
        next(items)
    del items
    assert time.perf_counter() - before < 2
    (thread,) = threads()
    assert thread.daemon


def test_a_read_that_hangs_is_interrupted_where_it_can_be(go_on):
    source = Interruptible(go_on)
    items = prefetch(source)
    assert source.begun.wait(10)
    items.close()
    assert go_on.is_set() and threads() == []


class Signalled(Exception):
    pass


@pytest.fixture
def alarm():
    """A signal that raises in the main thread, wherever that is."""

    def handler(number, frame):
        raise Signalled

    before = signal.signal(signal.SIGALRM, handler)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_a_signal_ends_the_wait_for_an_item(alarm, go_on):
    items = prefetch(generator(Hangs(go_on)))
    alarm(0.1)
    with pytest.raises(Signalled):
        next(items)
    items.close()
    with pytest.raises(StopIteration):
        next(items)


def test_a_signal_at_any_point_of_taking_breaks_nothing(alarm):
    with prefetch(itertools.count(), 1) as items:
        last, caught = -1, 0
        for _ in range(300):
            try:
                alarm(random.uniform(5e-5, 5e-4))
                while True:
                    item = next(items)
                    assert item > last
                    last = item
            except Signalled:
                caught += 1
        assert caught == 300
        alarm(20)  # rather than wait for ever
        assert next(items) > last


HANGING = """
import time
from jdl.data import prefetch
def numbers():
    yield 0
    time.sleep(1000)
items = prefetch(numbers())
print(next(items))
"""


@pytest.mark.slow
def test_a_program_ends_though_a_read_hangs():
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", HANGING], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert time.perf_counter() - before < 40  # on a busy machine


@pytest.mark.parametrize("size", [0, -1, 1.5, "2"])
def test_bad_sizes(size):
    with pytest.raises(InputError, match="size got"):
        prefetch([], size)
