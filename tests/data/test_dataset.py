"""Data sets: what they take, what they refuse, and how they divide."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import numpy as jnp

from jdl.check import InputError
from jdl.data import Dataset, permutation

X = np.arange(24, dtype=np.float32).reshape(6, 4)
Y = np.array([0, 1, 0, 1, 1, 0], np.int32)


@pytest.mark.parametrize(
    ("given_data", "arrays"),
    [
        ((X, Y), {"inputs": X, "targets": Y}),
        ({"inputs": X, "targets": Y, "mask": Y}, {"inputs": X, "targets": Y, "mask": Y}),
        (X, {"inputs": X}),
        ((X.tolist(), Y.tolist()), {"inputs": X, "targets": Y}),
        ((((0, 0), (0, 1)), (0, 1)), {"inputs": np.array([[0, 0], [0, 1]]), "targets": np.array([0, 1])}),
        ((list(X), Y), {"inputs": X, "targets": Y}),
        ((jnp.asarray(X), jnp.asarray(Y)), {"inputs": X, "targets": Y}),
        ((X > 3, Y.astype(bool)), {"inputs": X > 3, "targets": Y.astype(bool)}),
    ],
)
def test_of(given_data, arrays):
    data = Dataset.of(given_data)
    assert len(data) == len(arrays["inputs"])
    assert list(data.arrays) == list(arrays)
    for key, array in arrays.items():
        assert isinstance(data[key], np.ndarray)
        np.testing.assert_array_equal(data[key], array)
    assert data.inputs is data["inputs"]
    assert Dataset.of(data) is data


def test_several_inputs():
    data = Dataset.of(({"source": X, "target": X[:, :2]}, Y))
    assert data["inputs"]["target"].shape == (6, 2)
    assert repr(data.take([3, 1])).startswith("Dataset(2 examples, inputs/source=float32[2, 4], inputs/target=")
    pair = Dataset.of(((X, Y), Y))
    np.testing.assert_array_equal(pair[2:4].inputs[1], Y[2:4])
    with pytest.raises(InputError, match=r"6 in inputs/0, 5 in inputs/1, 6 in targets"):
        Dataset.of(((X, X[:5]), Y))


def test_arrays_are_views_that_cannot_be_changed():
    x = X.copy()
    data = Dataset.of((x, Y))
    assert np.shares_memory(data.inputs, x) and np.shares_memory(data[1:3].inputs, x)
    with pytest.raises(ValueError, match="read-only"):
        data.inputs[0, 0] = 1
    assert x.flags.writeable
    x[0, 0] = 1  # still the user's


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.complex64])
@pytest.mark.parametrize(("value", "count"), [(np.nan, 1), (np.inf, 2), (-np.inf, 1)])
def test_not_finite(dtype, value, count):
    x = np.ones((5, 3), dtype)
    assert len(Dataset.of((x, np.ones(5)))) == 5
    x[2:, 1][:count] = value
    with pytest.raises(InputError, match=rf"inputs got .* with {count} value.* NaN or infinite, the first at \[2, 1\]"):
        Dataset.of((x, np.ones(5)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ((X, Y[:5]), "different numbers of examples .6 in inputs, 5 in targets."),
        ((X[:0], Y[:0]), r"inputs got float32\[0, 4\], which is empty"),
        ((X[:, :0], Y), r"inputs got float32\[6, 0\], which is empty"),
        (([], []), r"inputs got float64\[0\], which is empty"),
        (([[1, 2], [3]], [0, 1]), "inputs cannot be made an array: .*ragged lists need padding and a mask"),
        ((np.array([1, None]), [0, 1]), r"inputs got object\[2\], wanted numbers"),
        ((X, ["cat"] * 6), r"targets got <U3\[6\], wanted numbers; encode text"),
        ((X, np.float32(1)), r"targets got float32\[\], wanted an array with a leading axis"),
        ({}, "wanted a dict of at least one array"),
        ({"inputs": {}}, r"inputs got object\[\], wanted numbers"),
        ([X, Y], "use a tuple of two arrays"),
        ((X, Y, Y), r"wanted \(inputs, targets\)"),
        ("digits", r"use jdl\.data\.load\('digits'\)\.train"),
    ],
)
def test_refused(bad, message):
    with pytest.raises(InputError, match=message):
        Dataset.of(bad)


def test_names():
    data = Dataset({"inputs": X, "targets": Y}, name="toy", classes=["no", "yes"], features=list("abcd"))
    assert repr(data) == "Dataset('toy', 6 examples, inputs=float32[6, 4], targets=int32[6], classes=2)"
    part = data.take([0, 2])
    assert (part.name, part.classes, part.features) == ("toy", ("no", "yes"), ("a", "b", "c", "d"))
    assert data.map(inputs=lambda x: 2 * x).features == ("a", "b", "c", "d")
    assert data.map(inputs=lambda x: x[:, :3]).features is None
    with pytest.raises(InputError, match="features got 2 names, wanted one for each of 4 columns"):
        Dataset({"inputs": X}, features=("a", "b"))


def test_taking():
    data = Dataset.of((X, Y))
    np.testing.assert_array_equal(data.take([5, 0, 5]).inputs, X[[5, 0, 5]])
    np.testing.assert_array_equal(data.take(Y == 1).targets, [1, 1, 1])
    np.testing.assert_array_equal(data[1:5:2].inputs, X[1:5:2])
    np.testing.assert_array_equal(data.gather(np.array([4, 1]))["targets"], Y[[4, 1]])
    np.testing.assert_array_equal(data.map(targets=lambda y: y + 1).targets, Y + 1)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda d: d["label"], "data has no array 'label', only 'inputs', 'targets'"),
        (lambda d: d[0], r"data\[…\] got 0, wanted the name of an array or a slice"),
        (lambda d: next(iter(d)), r"use data\[3:4\], data.take"),
        (lambda d: d[6:], "which is empty"),
        (lambda d: d.take([]), "wanted at least one whole number"),
        (lambda d: d.take([0.5]), "wanted at least one whole number"),
        (lambda d: d.take([0, 6]), "indices got 0 to 6, wanted 0 to 5"),
        (lambda d: d.take([-1]), "indices got -1 to -1, wanted 0 to 5"),
        (lambda d: d.take(np.ones(5, bool)), r"indices got bool\[5\], wanted a mask of the 6 examples"),
        (lambda d: d.map(image=abs), "data has no array 'image'"),
        (lambda d: d.map(targets=lambda y: y[:3]), "6 in inputs, 3 in targets"),
        (lambda d: d.split((0.5, 0.6)), "wanted positive numbers that add up to 1"),
        (lambda d: d.split((1.5, -0.5)), "wanted positive numbers that add up to 1"),
        (lambda d: d.split((0.99, 0.01)), r"6 examples give parts of \[6, 0\], wanted none empty"),
        (lambda d: d.split((0.5, 0.5), stratify="inputs"), r"stratify got inputs of float32\[6, 4\], wanted class"),
        (lambda d: d.split((0.5, 0.5), seed=-1), "seed got -1"),
        (lambda d: d.folds(1), "k got 1, wanted at least 2"),
        (lambda d: d.folds(7), "k got 7, wanted 2 to the 6 examples"),
    ],
)
def test_misuse(use, message):
    with pytest.raises(InputError, match=message):
        use(Dataset.of((X, Y)))


def numbered(labels):
    return Dataset.of({"inputs": np.arange(len(labels)), "targets": np.asarray(labels, np.int32)})


@given(
    st.lists(st.integers(0, 4), min_size=12, max_size=150),
    st.lists(st.integers(1, 8), min_size=2, max_size=6),
    st.integers(0, 3),
)
def test_split_keeps_the_proportions(labels, weights, seed):
    shares = np.array(weights) / sum(weights)
    if len(labels) * shares.min() < 1:
        return  # an empty part, which is refused
    data = numbered(labels)
    parts = data.split(tuple(shares), seed, stratify="targets")
    assert sorted(np.concatenate([p.inputs for p in parts])) == list(range(len(labels)))  # each in one part
    for part, share in zip(parts, shares, strict=True):
        assert abs(len(part) - share * len(labels)) < 1
        assert (np.diff(part.inputs) > 0).all()  # in the order of the data
        for label in set(labels):
            assert abs((part.targets == label).sum() - share * labels.count(label)) <= 1


def test_largest_remainder_by_hand():
    # 0.7, 0.1 and 0.2 of 11 are 7.7, 1.1 and 2.2: the one left over goes to 0.7.
    assert [len(p) for p in numbered([0] * 11).split((0.7, 0.1, 0.2))] == [8, 1, 2]
    # Halves of 3 + 3 + 2 are 1.5, 1.5 and 1: the parts have 4 each, so one class of three gives two to each part.
    parts = numbered([0, 0, 0, 1, 1, 1, 2, 2]).split((0.5, 0.5), stratify="targets")
    assert sorted(np.bincount(p.targets).tolist() for p in parts) == [[1, 2, 1], [2, 1, 1]]
    # Exact shares stay exact.
    parts = numbered([0] * 30 + [1] * 70).split((0.7, 0.1, 0.2), stratify="targets")
    assert [np.bincount(p.targets).tolist() for p in parts] == [[21, 49], [3, 7], [6, 14]]


def test_split_is_a_function_of_its_seed():
    data = numbered([0, 1] * 30)
    picks = {seed: data.split((0.5, 0.5), seed, "targets")[0].inputs.tolist() for seed in range(5)}
    assert len(set(map(tuple, picks.values()))) == 5
    assert data.split((0.5, 0.5), 2, "targets")[0].inputs.tolist() == picks[2]
    # For good, as published results depend on it: of each class those that come first in the last epoch's permutation.
    order = permutation(60, 3, 2**64 - 1)
    first = [*order[order % 2 == 0][:15], *order[order % 2 == 1][:15]]
    assert picks[3] == sorted(first)


def test_split_is_random_within_a_class():
    counts = np.zeros(20)
    for seed in range(2000):
        counts[numbered([0] * 10 + [1] * 10).split((0.3, 0.7), seed, "targets")[0].inputs] += 1
    # Binomial with p = 0.3: five standard deviations are 102.
    assert np.abs(counts - 600).max() < 102


def test_folds_hold_each_example_out_once():
    data = numbered([0] * 13 + [1] * 24)
    folds = data.folds(5, seed=1, stratify="targets")
    assert len(folds) == 5
    assert sorted(np.concatenate([held.inputs for _, held in folds])) == list(range(37))
    for train, held in folds:
        assert sorted([*train.inputs, *held.inputs]) == list(range(37))
        assert len(held) in (7, 8) and (held.targets == 0).sum() in (2, 3)
