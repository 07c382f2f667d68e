"""Worker processes: nothing lost or repeated, nobody left behind, however it ends.

Workers import this module for its functions, so it imports little at its head.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest

from jdl.check import InputError
from jdl.data import Examples, batches, prefetch, steps_in_epochs

N, BATCH = 50, 8
ROOT = pathlib.Path(__file__).parents[2]


class Numbers:
    """Examples that tell which they are."""

    def __len__(self):
        return N

    def __getitem__(self, index):
        return {"inputs": np.full((2, 3), index, np.float32), "targets": index}


def decode(example):
    return example | {"inputs": 2 * example["inputs"]}


def raises(example):
    if example["targets"] == 7:
        raise KeyError("no such file")
    return example


def dies(example):
    os._exit(3)


class Odd(Exception):
    """It does not survive being pickled, as many do not."""

    def __init__(self, code, reason):
        super().__init__(reason)


def raises_odd(example):
    raise Odd(1, "disk")


def takes_long(example):
    time.sleep(60)


def takes_long_soon(example, already=[]):  # noqa: B006
    already.append(example)
    if len(already) > BATCH:
        time.sleep(600)
    return example


def arrays():
    numbers = np.arange(N, dtype=np.int32)
    return {"inputs": np.repeat(2 * numbers, 6).reshape(N, 2, 3).astype(np.float32), "targets": numbers}


def close(iterator):
    """Close it, in little time and with nobody left."""
    before = time.perf_counter()
    iterator.close()
    assert time.perf_counter() - before < 10  # on a busy machine; it takes 0.05 s on a quiet one
    assert multiprocessing.active_children() == []


def check(workers, start, count):
    """The batches from a step on are those of the same data in memory."""
    found = Examples(Numbers(), decode, workers).batches(BATCH, 3, start=start)
    expected = batches(arrays(), BATCH, 3, epochs=20, start=start)
    rows = []
    for (batch, position), wanted in zip(itertools.islice(found, count), expected, strict=False):
        assert position is None
        assert {name: (type(x), x.dtype) for name, x in batch.items()} == {
            name: (np.ndarray, x.dtype) for name, x in wanted.items()
        }
        for name in wanted:
            np.testing.assert_array_equal(batch[name], wanted[name])
        batch["inputs"] += 1  # it is ours
        rows += batch["targets"].tolist()
    close(found)
    return rows


def test_two_workers_give_what_memory_gives():
    check(2, 5, 9)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_each_example_once_an_epoch_and_after_a_resume(workers):
    stop = steps_in_epochs(N, BATCH, 3)
    middle = stop // 2  # in the middle of the second epoch
    rows = check(workers, 0, middle) + check(workers, middle, stop - middle)
    for epoch in range(len(rows) // N):
        assert sorted(rows[epoch * N : (epoch + 1) * N]) == list(range(N))


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "batch_size"), [(1, 8), (2, 20), (3, 50)])
def test_evaluation(workers, batch_size):
    alone = list(Examples(Numbers(), decode).evaluation_batches(batch_size))
    together = list(Examples(Numbers(), decode, workers).evaluation_batches(batch_size))
    assert multiprocessing.active_children() == []
    for a, b in zip(alone, together, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "error", "message"),
    [
        (raises, InputError, r"in example 7: load raised KeyError: 'no such file' \(.*_workers.py, line \d+\)"),
        (raises_odd, InputError, r"in example \d+: load raised Odd: disk"),
        (dies, RuntimeError, "a worker process that reads data ended with exit code 3; .*__main__"),
    ],
)
def test_errors_arrive_and_end_the_workers(load, error, message):
    iterator = Examples(Numbers(), load, workers=2).batches(BATCH, 0)
    with pytest.raises(error, match=message):
        list(itertools.islice(iterator, 2 * N))
    assert multiprocessing.active_children() == []


def test_what_cannot_be_sent_to_a_worker():
    iterator = Examples(Numbers(), lambda example: example, workers=1).batches(BATCH, 0)
    with pytest.raises(InputError, match=r"load cannot be sent to a worker process: .*lambda.*top of a module"):
        next(iterator)
    source = [{"inputs": 1.0, "lock": threading.Lock()}]
    with pytest.raises(InputError, match=r"cannot be sent to a worker process: .*lock"):
        next(Examples(source, workers=1).batches(1, 0))


@pytest.mark.slow
def test_what_a_worker_cannot_read(monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "only_here", decode, raising=False)
    monkeypatch.setattr(decode, "__qualname__", "only_here")
    iterator = Examples(Numbers(), decode, workers=1).batches(BATCH, 0)
    with pytest.raises(InputError, match=r"a worker process cannot read .* AttributeError: .*only_here"):
        next(iterator)


@pytest.mark.slow
def test_closing_waits_for_no_long_read():
    iterator = Examples(Numbers(), takes_long, workers=2).batches(BATCH, 0)
    ready = prefetch(iterator)  # which starts them
    deadline = time.perf_counter() + 30
    while len(multiprocessing.active_children()) < 2 and time.perf_counter() < deadline:
        time.sleep(0.05)
    time.sleep(3)  # the thread waits for the first batch now
    before = time.perf_counter()
    ready.close()
    assert time.perf_counter() - before < 3
    assert multiprocessing.active_children() == []
    assert "jdl-prefetch" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.slow
def test_workers_outlive_signals_to_the_group():
    iterator = Examples(Numbers(), decode, workers=2).batches(BATCH, 3)
    found = [next(iterator), next(iterator)]  # one of each worker: both have started
    for child in multiprocessing.active_children():
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(child.pid, number)
    found += itertools.islice(iterator, 12)
    for (batch, _), wanted in zip(found, batches(arrays(), BATCH, 3, epochs=20), strict=False):
        np.testing.assert_array_equal(batch["targets"], wanted["targets"])
    close(iterator)


PROGRAM = """
import multiprocessing, time
from jdl.data import Examples, prefetch
from tests.data.test_stream_workers import Numbers, decode, takes_long_soon
def main():
    global ready  # nobody closes it
    batches = Examples(Numbers(), {load}, workers=2).batches(8, 0)
    ready = prefetch(batches) if {threaded} else batches
    next(ready)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    {then}
{guard}
    main()
"""


def program(tmp_path, then, guard='if __name__ == "__main__":', threaded=False, load="decode"):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM).format(then=then, guard=guard, threaded=threaded, load=load))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, path], text=True, env=environment, **pipes)


def is_running(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


def assert_gone(pids):
    deadline = time.perf_counter() + 20
    while any(map(is_running, pids)) and time.perf_counter() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, pids))


@pytest.mark.slow
@pytest.mark.parametrize("threaded", [False, True])
def test_a_killed_program_leaves_no_workers(tmp_path, threaded):
    with program(tmp_path, "time.sleep(600)", threaded=threaded) as running:
        pids = list(map(int, running.stdout.readline().split()))
        assert len(pids) == 2
        assert all(map(is_running, pids))
        running.kill()
        assert_gone(pids)


@pytest.mark.slow
@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("load", ["decode", "takes_long_soon"])
def test_a_program_that_closes_nothing_ends_in_silence(tmp_path, load, threaded):
    with program(tmp_path, "raise SystemExit(0)", load=load, threaded=threaded) as running:
        out, error = running.communicate(timeout=120)
    assert (running.returncode, error) == (0, "")
    assert_gone(map(int, out.split()))


@pytest.mark.slow
def test_a_program_without_a_guard_is_told(tmp_path):
    with program(tmp_path, "pass", guard="if True:") as running:
        _, error = running.communicate(timeout=120)
    assert running.returncode == 1
    assert 'it must train under `if __name__ == "__main__":`' in error.splitlines()[-1]
