"""Histograms against NumPy, and their picture."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jdl
from jdl.check import InputError

VALUES = np.random.default_rng(0).normal(2.0, 3.0, size=(40, 50)).astype(np.float32)


def test_counts_edges_and_moments_are_those_of_numpy():
    found = jdl.show.histogram(jnp.asarray(VALUES), bins=20)
    counts, edges = np.histogram(VALUES.astype(np.float64), 20)
    np.testing.assert_array_equal(found.counts, counts)
    np.testing.assert_allclose(found.edges, edges)
    assert (found.mean, found.deviation) == pytest.approx((VALUES.mean(), VALUES.std()), rel=1e-5)
    assert found.not_finite == 0


@pytest.mark.parametrize(("count", "bins"), [(1, 4), (10, 6), (100, 20), (100_000, 64)])
def test_few_values_have_few_bins(count: int, bins: int):
    assert len(jdl.show.histogram(np.arange(count)).counts) == bins


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int8, jnp.bool_])
def test_of_any_dtype(dtype):
    found = jdl.show.histogram(jnp.asarray([0, 1, 1], dtype))
    assert (found.counts.sum(), found.mean) == (3, pytest.approx(2 / 3))


def test_what_is_not_finite_is_counted_apart():
    found = jdl.show.histogram(np.asarray([1.0, np.nan, np.inf, 3.0]))
    assert (found.counts.sum(), found.not_finite, found.mean) == (2, 2, 2.0)
    assert jdl.show.histogram(np.full(3, np.nan)).counts.sum() == 0


def test_a_panel_a_name(tmp_path: Path):
    pytest.importorskip("matplotlib")
    values = {"kernel": VALUES, "counted": jdl.show.histogram(VALUES), "bias": np.asarray([np.nan, 1.0])}
    figure = jdl.show.plot_histograms(values, tmp_path / "histograms.png")
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(values)
    assert ["not finite" in axes.texts[0].get_text() for axes in figure.axes] == [False, False, True]
    assert (tmp_path / "histograms.png").exists()
    with pytest.raises(InputError, match="wanted a dict"):
        jdl.show.plot_histograms({})
