"""The order of the training data, as pure functions of the step number.

Each epoch is a permutation made from ``(seed, epoch)``. The permutations stand one after another in one endless
stream, and batch k is ``stream[k * B : (k + 1) * B]``: the tail that does not fill a batch goes into the next epoch,
every batch is full, and any place in the run is found by arithmetic, with nothing to save.
"""

from __future__ import annotations

import functools
import math
from numbers import Real

import numpy as np

from jdl.check import InputError, describe
from jdl.data.counts import whole

# Splitting a data set draws from an epoch that no run reaches, so a run with the same seed is not correlated with it.
SPLIT_EPOCH = 2**64 - 1


def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of epoch number ``epoch`` (from 0): a permutation of 0..n-1, ``int32[n]``, read-only.

    Made from the raw output of Philox keyed by ``(seed, epoch)``: Salmon et al. 2011, "Parallel Random Numbers: As
    Easy as 1, 2, 3". NumPy fixes that output for good, which it does not for ``Generator.permutation``.

    Raises:
        InputError: ``n`` is not in 1..2³¹-1, or ``seed`` or ``epoch`` not in 0..2⁶⁴-1.
    """
    return _permutation(whole("n", n, 1, 2**31), whole("seed", seed, 0, 2**64), whole("epoch", epoch, 0, 2**64))


def batch_indices(n: int, batch_size: int, seed: int, step: int, shuffle: bool = True) -> np.ndarray:
    """The examples of the batch of one ``step`` (from 0), ``int32[B]``.

    Raises:
        InputError: ``batch_size`` is larger than ``n``, or a number is out of its range.
    """
    return indices_between(n, batch_size, seed, step, step + 1, shuffle)[0]


def indices_between(n: int, batch_size: int, seed: int, start: int, stop: int, shuffle: bool = True) -> np.ndarray:
    """The examples of the batches of steps ``start`` to ``stop - 1``, ``int32[stop - start, B]``.

    ``shuffle=False`` takes the examples in their own order in each epoch.

    Raises:
        InputError: ``batch_size`` is larger than ``n``, or a number is out of its range.
    """
    n, batch_size = _training_sizes(n, batch_size)
    start = whole("start", start, 0)
    stop = whole("stop", stop, start)
    seed = whole("seed", seed, 0, 2**64)
    first, last = start * batch_size, stop * batch_size
    if not shuffle:
        return (np.arange(first, last) % n).astype(np.int32).reshape(-1, batch_size)
    pieces = [
        _permutation(n, seed, epoch)[max(first - epoch * n, 0) : last - epoch * n]
        for epoch in range(first // n, -(-last // n))
    ]
    return np.concatenate([np.empty(0, np.int32), *pieces]).reshape(-1, batch_size)


def steps_in_epochs(n: int, batch_size: int, epochs: float) -> int:
    """The number of full batches in ``epochs`` epochs, ``floor(epochs · n / B)``; ``epochs`` need not be whole.

    Raises:
        InputError: ``batch_size`` is larger than ``n``, or a number is out of its range.
    """
    n, batch_size = _training_sizes(n, batch_size)
    if not isinstance(epochs, Real) or isinstance(epochs, bool) or not 0 <= epochs < math.inf:
        raise InputError(f"epochs got {describe(epochs)}, wanted a number of at least 0")
    if epochs == int(epochs):
        return int(epochs) * n // batch_size
    return math.floor(epochs * n / batch_size + 1e-9)  # 0.29 * 100 is 28.999…


def epoch_end_step(n: int, batch_size: int, epoch: int) -> int:
    """How many steps have run when epoch number ``epoch`` (from 0) is over: ``floor((epoch + 1) · n / B)``.

    A batch that straddles the edge between two epochs belongs to the later one.

    Raises:
        InputError: ``batch_size`` is larger than ``n``, or a number is out of its range.
    """
    return steps_in_epochs(n, batch_size, whole("epoch", epoch, 0) + 1)


def evaluation_batches(n: int, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Every example once, in order, in batches of one size: ``(indices int32[k, B], mask float32[k, B])``.

    Only the last batch is padded, if any: with index 0 under mask 0.

    Raises:
        InputError: ``n`` or ``batch_size`` is not a whole number of at least 1.
    """
    n, batch_size = whole("n", n, 1, 2**31), whole("batch_size", batch_size, 1)
    batches = -(-n // batch_size)
    indices = np.zeros(batches * batch_size, np.int32)
    indices[:n] = np.arange(n, dtype=np.int32)
    mask = np.zeros(batches * batch_size, np.float32)
    mask[:n] = 1
    return indices.reshape(batches, batch_size), mask.reshape(batches, batch_size)


# A call for one step meets the permutation of the step before it, and at an epoch's edge two of them.
@functools.lru_cache(maxsize=4)
def _permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    # Random high bits above the index in the low bits: sorting these puts the indices in random order, a tie of the
    # high bits (44 of them for a million examples) is broken by the index, and it is 15 times faster than argsort.
    low = np.uint64(n.bit_length())
    keys = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(n)
    keys >>= low
    keys <<= low
    keys |= np.arange(n, dtype=np.uint64)
    keys.sort()
    keys &= np.uint64((1 << int(low)) - 1)
    order = keys.astype(np.int32)
    order.flags.writeable = False  # it is shared with every later caller
    return order


def _training_sizes(n: int, batch_size: int) -> tuple[int, int]:
    n, batch_size = whole("n", n, 1, 2**31), whole("batch_size", batch_size, 1)
    if batch_size > n:
        raise InputError(f"batch_size got {batch_size}, wanted at most the {n} examples of the data; lower it to {n}")
    return n, batch_size
