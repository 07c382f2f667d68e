"""A step that is not finite is noticed, traced back to its number, left as a file, and costs no good checkpoint."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jdl
import jdl.looping
from jdl import nn
from jdl.data import batch_indices

pytestmark = pytest.mark.filterwarnings("ignore::jdl.PitfallWarning")  # the planted example is a pitfall, too

RNG = np.random.default_rng(0)
BAD = int(batch_indices(40, 8, 0, 3)[0])  # the example whose loss overflows, in the fourth step
X = RNG.normal(size=(40, 5)).astype(np.float32)
X[BAD] = 3e38
Y = RNG.integers(3, size=40).astype(np.int32)
SOUND = (np.delete(X, BAD, axis=0)[:16], Y[:16])
MODEL = nn.Chain(nn.Dense(7), jax.nn.relu, nn.Dense(3))
FIRST = 4


def fit(optimizer, folder=None, data=(X, Y), **options):
    options = {"epochs": 3, "batch_size": 8} | options
    checkpoint = None if folder is None else jdl.Checkpoints(folder, every=1)
    return jdl.fit(MODEL, jdl.losses.cross_entropy, optimizer, data, checkpoint=checkpoint, **options)


def is_finite(tree) -> bool:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return all(np.isfinite(leaf).all() for leaf in leaves)


@pytest.mark.parametrize("per_call", [1, 2])
def test_the_step_is_found_and_the_run_stops_at_its_last_good_checkpoint(per_call, tmp_path):
    with pytest.warns(jdl.NonFiniteWarning, match=rf"The first is step {FIRST}; jdl\.replay\("):
        run = fit(optax.adam(1e-2), tmp_path, steps_per_call=per_call)
    assert run.stopped == "parameters are not finite"
    (file,) = tmp_path.glob("nonfinite_*.safetensors")
    assert file.name == f"nonfinite_{FIRST:08d}.safetensors"
    newest = jdl.Checkpoints(tmp_path).restore(run.state, at="state")
    assert newest.step < FIRST and is_finite(newest.state.params)


@pytest.mark.slow
@pytest.mark.parametrize("per_call", [1, 2])
def test_skipped_steps_are_counted_and_the_first_leaves_a_file(per_call, tmp_path):
    with pytest.warns(jdl.NonFiniteWarning, match="1 steps were skipped") as caught:
        run = fit(jdl.skip_nonfinite(optax.adam(1e-2)), tmp_path, steps_per_call=per_call)
    assert len([w for w in caught if w.category is jdl.NonFiniteWarning]) == 1, "said once"
    assert run.stopped is None and int(run.state.step) == 15 and int(jdl.skipped(run.state).total) == 3
    assert is_finite(run.state) and all(np.isfinite(row["loss"]) for row in run.history)
    assert [path.name for path in tmp_path.glob("nonfinite_*")] == [f"nonfinite_{FIRST:08d}.safetensors"]


@pytest.mark.slow
def test_a_file_that_cannot_be_written_costs_nothing(tmp_path, monkeypatch):
    def full(folder, bad):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jdl.looping, "write_bad_step", full)
    with pytest.warns(jdl.NonFiniteWarning, match="could not be written down: OSError: .*No space left"):
        run = fit(jdl.skip_nonfinite(optax.adam(1e-2)), tmp_path)
    assert run.stopped is None and int(run.state.step) == 15


@pytest.mark.slow
def test_too_many_skipped_in_a_row_stop_the_run(tmp_path):
    data = (np.full_like(X, 3e38), Y)
    with pytest.warns(jdl.NonFiniteWarning) as caught:
        run = fit(jdl.skip_nonfinite(optax.adam(1e-2), limit=4), tmp_path, data)
    assert run.stopped == "4 steps in a row were not finite"
    told = [str(warning.message) for warning in caught if warning.category is jdl.NonFiniteWarning]
    assert ["the run stops" in message for message in told] == [False, True]
    assert is_finite(run.params)


def test_without_a_checkpoint_the_run_stops_and_says_how_to_find_the_step():
    with pytest.warns(jdl.NonFiniteWarning, match=r"fit\(\.\.\., checkpoint=folder\) would leave the step"):
        run = fit(optax.adam(1e-2))
    assert run.stopped == "parameters are not finite" and len(run.history) == 1


def test_a_loss_that_is_infinite_once_does_not_stop_finite_parameters():
    def capped(outputs, targets, mask=None):
        loss = jdl.losses.cross_entropy(outputs, targets, mask=mask)
        return jax.lax.stop_gradient(loss * np.inf) + 0 * outputs.sum()

    with pytest.warns(jdl.NonFiniteWarning, match="the loss or gradient was not finite"):
        run = jdl.fit(MODEL, capped, optax.adam(1e-2), SOUND, epochs=2, batch_size=8)
    assert run.stopped is None and len(run.history) == 2


def test_a_healthy_run_is_never_looked_at_twice(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = fit(jdl.skip_nonfinite(optax.adam(1e-2)), tmp_path, SOUND)
    assert not list(tmp_path.glob("nonfinite_*")) and run.stopped is None
