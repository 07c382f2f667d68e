"""The order of training data: each example once an epoch, from any start, the same for ever."""

from __future__ import annotations

import collections
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdl.check import InputError
from jdl.data import (
    batch_indices,
    batches,
    epoch_end_step,
    evaluation_batches,
    indices_between,
    permutation,
    steps_in_epochs,
)


@st.composite
def sizes(draw):
    n = draw(st.integers(1, 40))
    return n, draw(st.integers(1, n)), draw(st.integers(0, 2**64 - 1))


def philox_4x64(key: tuple[int, int], blocks: int) -> list[int]:
    """Philox4x64-10 from the paper (Salmon et al. 2011); the counter starts at 1, as NumPy's does."""
    words, mask = [], 2**64 - 1
    for block in range(1, blocks + 1):
        c, k = [block, 0, 0, 0], list(key)
        for _ in range(10):
            p0, p1 = c[0] * 0xD2E7470EE14C6C93, c[2] * 0xCA5A826395121157
            c = [(p1 >> 64) ^ c[1] ^ k[0], p1 & mask, (p0 >> 64) ^ c[3] ^ k[1], p0 & mask]
            k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
        words += c
    return words


@pytest.mark.parametrize(("n", "seed", "epoch"), [(1, 0, 0), (10, 0, 0), (100, 7, 3), (33, 2**64 - 1, 2**64 - 1)])
def test_permutation_is_philox_sorted(n, seed, epoch):
    words = philox_4x64((seed, epoch), -(-n // 4))[:n]
    low = n.bit_length()
    expected = sorted(range(n), key=lambda i: (words[i] >> low, i))
    order = permutation(n, seed, epoch)
    assert order.dtype == np.int32
    assert order.tolist() == expected


def test_permutations_are_uniform():
    epochs = 12_000
    counts = collections.Counter(tuple(permutation(4, 5, epoch).tolist()) for epoch in range(epochs))
    expected = epochs / 24
    chi_squared = sum((counts[p] - expected) ** 2 / expected for p in itertools.permutations(range(4)))
    assert chi_squared < 49.7  # the 99.9% quantile at 23 degrees of freedom


def test_cached_permutation_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        permutation(10, 0, 0)[0] = 3
    indices_between(10, 5, 0, 0, 2)[:] = 0  # ours to change
    assert sorted(permutation(10, 0, 0)) == list(range(10))


@given(sizes(), st.integers(0, 60), st.integers(0, 12), st.booleans())
def test_any_range_is_the_stream(size, start, length, shuffle):
    n, batch_size, seed = size
    epochs = (start + length) * batch_size // n + 1
    order = permutation if shuffle else lambda n, seed, epoch: np.arange(n)
    stream = np.concatenate([order(n, seed, epoch) for epoch in range(epochs)])
    expected = stream[start * batch_size : (start + length) * batch_size].reshape(length, batch_size)
    found = indices_between(n, batch_size, seed, start, start + length, shuffle)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, expected)
    for step in range(start, start + length):
        one = batch_indices(n, batch_size, seed, step, shuffle)
        assert one.dtype == np.int32
        np.testing.assert_array_equal(one, found[step - start])


@given(sizes(), st.integers(1, 5))
def test_every_example_exactly_once_per_epoch(size, epochs):
    n, batch_size, seed = size
    steps = -(-epochs * n // batch_size)
    stream = indices_between(n, batch_size, seed, 0, steps).reshape(-1)
    for epoch in range(epochs):
        assert sorted(stream[epoch * n : (epoch + 1) * n]) == list(range(n))


def test_seed_and_epoch_change_the_order():
    orders = {permutation(50, seed, epoch).tobytes() for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16
    assert indices_between(50, 50, 3, 0, 2, shuffle=False).tolist() == [list(range(50))] * 2


@given(sizes(), st.integers(0, 50))
def test_steps_and_epoch_ends(size, epoch):
    n, batch_size, _ = size
    steps = epoch_end_step(n, batch_size, epoch)
    assert steps == steps_in_epochs(n, batch_size, epoch + 1)
    # The last step that lies wholly in the epochs so far.
    assert steps * batch_size <= (epoch + 1) * n < (steps + 1) * batch_size


@pytest.mark.parametrize(
    ("epochs", "steps"), [(0, 0), (1, 14), (2, 28), (7, 100), (0.5, 7), (0.07, 1), (1e3, 14285), (np.int32(2), 28)]
)
def test_fractions_of_epochs(epochs, steps):
    assert steps_in_epochs(100, 7, epochs) == steps


def test_rounding_does_not_lose_a_step():
    assert steps_in_epochs(100, 1, 0.29) == 29  # 0.29 * 100 is 28.999999999999996


@given(st.integers(1, 200), st.integers(1, 64))
def test_evaluation_sees_each_example_once(n, batch_size):
    indices, mask = evaluation_batches(n, batch_size)
    assert indices.dtype == np.int32 and mask.dtype == np.float32
    assert indices.shape == mask.shape == (-(-n // batch_size), batch_size)
    assert indices[mask == 1].tolist() == list(range(n))
    assert (mask[:-1] == 1).all() and set(mask[-1]) <= {0, 1}
    assert (indices[mask == 0] == 0).all()


def test_batches_are_the_examples_of_the_stream():
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10)
    found = list(batches((x, y), 4, seed=3, epochs=2))
    assert len(found) == 5
    for step, batch in enumerate(found):
        indices = batch_indices(10, 4, 3, step)
        np.testing.assert_array_equal(batch["inputs"], x[indices])
        np.testing.assert_array_equal(batch["targets"], y[indices])
    resumed = list(batches((x, y), 4, seed=3, epochs=2, start=3))
    assert [b["targets"].tolist() for b in resumed] == [b["targets"].tolist() for b in found[3:]]
    assert [b["targets"].tolist() for b in batches((x, y), 5, shuffle=False)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: permutation(0, 0, 0), "n got 0, wanted 1 to 2147483647"),
        (lambda: permutation(3, -1, 0), "seed got -1, wanted 0 to"),
        (lambda: permutation(3, 0.5, 0), "seed got 0.5, wanted a whole number"),
        (lambda: indices_between(10, 11, 0, 0, 1), "batch_size got 11, wanted at most the 10 examples"),
        (lambda: indices_between(10, 0, 0, 0, 1), "batch_size got 0, wanted at least 1"),
        (lambda: indices_between(10, 2, 0, 3, 2), "stop got 2, wanted at least 3"),
        (lambda: batch_indices(10, 2, 0, -1), "start got -1, wanted at least 0"),
        (lambda: steps_in_epochs(10, 2, float("nan")), "epochs got nan"),
        (lambda: steps_in_epochs(10, 2, "3"), "epochs got '3', wanted a number of at least 0"),
        (lambda: steps_in_epochs(10, 11, 1), "batch_size got 11"),
        (lambda: epoch_end_step(10, 2, -1), "epoch got -1, wanted at least 0"),
        (lambda: evaluation_batches(0, 2), "n got 0"),
        (lambda: batches((np.ones(3), np.ones(3)), 4), "batch_size got 4, wanted at most the 3"),  # before iterating
        (lambda: batches((np.ones(3), np.ones(3)), 2, seed=-3), "seed got -3"),
    ],
)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
