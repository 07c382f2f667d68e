"""Whole numbers as callers give them, wherever the data asks for one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from jdl.data import (
    Crop,
    Dataset,
    Mixup,
    Normaliser,
    Vocabulary,
    batches,
    pad,
    permutation,
    prefetch,
    windows,
)
from jdl.data.counts import whole
from tests.nn.toys import refused

SERIES = Dataset({"inputs": np.arange(9.0)[:, None], "targets": np.arange(9.0)})
TEXT = [["a", "b"], ["a", "c"]]


@pytest.mark.parametrize("three", [3, np.int64(3), np.uint8(3), np.array(3), jnp.int32(3)])
def test_whole_numbers(three: Any):
    assert whole("n", three, 3, 4) == 3 and type(whole("n", three, 0)) is int


@pytest.mark.parametrize("value", [True, np.True_, np.array(True), 2.0, np.float32(2), "2", None, np.ones(1, int), [2]])
def test_other_values(value: Any):
    with refused("n got ", ", wanted a whole number"):
        whole("n", value, 0)


def test_bounds():
    with refused("n got 2, wanted at least 3"):
        whole("n", 2, 3)
    with refused("n got 4, wanted 3 to 3"):
        whole("n", np.int8(4), 3, 4)


ASKED: dict[str, Callable[[Any], Any]] = {
    "length": lambda two: windows(SERIES, two, 1).inputs,
    "horizon": lambda two: windows(SERIES, 2, two).targets,
    "stride": lambda two: windows(SERIES, 2, 1, stride=two).inputs,
    "min_count": lambda two: Vocabulary.of(TEXT, min_count=two),
    "max_size": lambda two: Vocabulary.of(TEXT, max_size=two),
    "pad: length": lambda two: pad([[1]], two)["tokens"],
    "k": lambda two: SERIES.folds(two)[0][1].inputs,
    "axis": lambda two: Normaliser.fit(np.arange(8.0).reshape(2, 2, 2), (0, two)).mean,
    "seed": lambda two: permutation(5, two, 0),
    "batch_size": lambda two: next(batches(SERIES, two))["inputs"],
    "size": lambda two: list(prefetch([1, 2, 3], two)),
    "Crop.padding": Crop,
    "Mixup.classes": lambda two: Mixup(classes=two),
}


@pytest.mark.parametrize("name", ASKED)
def test_every_size_is_one(name: str):
    ask = ASKED[name]
    wanted, found = ask(2), ask(np.int64(2))
    if isinstance(wanted, Crop | Mixup):
        assert repr(found) == repr(wanted), "equal ones print alike and meet one program"
    np.testing.assert_array_equal(found, wanted)
    for value in (True, 2.0):
        with refused(f"{name.removeprefix('pad: ')} got "):
            ask(value)
