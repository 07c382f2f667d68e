"""Monitors in ``fit``: through a crash and a resume, and in what they cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import optax
import pytest

import jdl
from jdl import monitor, nn
from tests.networks import batch_of, mlp
from tests.show.pages import Page

DATA, HELD_OUT = batch_of(40), batch_of(20, seed=1)
OPTIMIZER = jdl.record_norms(optax.inject_hyperparams(optax.sgd)(optax.linear_schedule(0.5, 0.0, 12)))


def train(folder: Path, *more, **options) -> jdl.Run:
    callbacks = [*monitor.standard(folder), *more]
    return jdl.fit(
        mlp(0.2), jdl.losses.cross_entropy, OPTIMIZER, (DATA["inputs"], DATA["targets"]), steps=12, validate_every=3,
        validation=(HELD_OUT["inputs"], HELD_OUT["targets"]), metrics=[jdl.metrics.accuracy], callbacks=callbacks,
        batch_size=8, progress=False, **options,
    )  # fmt: skip


def reports(folder: Path) -> list[dict]:
    """The lines without what the clock and the machine say."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    clocked = ("seconds", "machine/")
    return [{name: value for name, value in line.items() if not name.startswith(clocked)} for line in lines]


@pytest.mark.slow
def test_a_crash_and_a_resume_leave_the_files_of_the_whole_run(tmp_path: Path):
    whole = train(tmp_path / "whole")

    def crash(run: jdl.Run) -> None:
        if run.history[-1]["step"] == 9:
            raise RuntimeError("the power is gone")

    parts = tmp_path / "parts"
    with pytest.raises(RuntimeError):
        train(parts, crash, checkpoint=parts / "checkpoints")
    assert len(reports(parts)) == 3
    assert json.loads((parts / "result.json").read_text())["status"] == "failed"
    assert {"failed", "RuntimeError: the power is gone"} <= Page(parts / "index.html").texts
    run = train(parts, checkpoint=parts / "checkpoints")
    assert run.resumed == 6
    assert reports(parts) == reports(tmp_path / "whole")
    assert [row["loss"] for row in reports(parts)] == [row["loss"] for row in whole.history]
    page, config = Page(parts / "index.html"), json.loads((parts / "config.json").read_text())
    assert page.data["runs"][0]["clocks"]["step"] == [3, 6, 9, 12]
    assert "finished" in page.texts
    assert config["optimizer"]["learning_rate"] == 0.5  # where it began, not where it went on
    assert config["resumed"] == 6


def test_what_is_reported_beside_the_history(tmp_path: Path):
    run = train(tmp_path)
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["optimizer/learning_rate"] == pytest.approx(0.5 / 12, rel=1e-5)
    assert last["machine/examples_per_second"] == pytest.approx(8 * last["machine/steps_per_second"])
    assert 0 <= last["machine/waiting"] <= 1
    flops = 8 * (2 * 5 * 7 + 7 + 7 + 2 * 7 * 3 + 3)
    peak = monitor.peak_of(run.state.step.devices()).flops
    share = 3 * flops * last["machine/steps_per_second"] / peak
    assert last["machine/model_flops_utilisation"] == pytest.approx(share)


def test_runs_are_compared_by_how_their_optimizers_began(tmp_path: Path):
    train(tmp_path / "a")
    train(tmp_path / "b", seed=1)
    assert jdl.show.compare([tmp_path / "a", tmp_path / "b"], tmp_path / "comparison.html") == []
    found = Page(tmp_path / "comparison.html")
    assert [row[:2] for row in found.table("a")] == [["a", "0"], ["b", "1"]]
    assert ["optimizer.learning_rate", "0.5"] in found.table("model")
    assert found.links == ["a/index.html", "b/index.html"]


def test_a_monitor_that_never_began_does_not_end(tmp_path: Path):
    class Fails:
        def __call__(self, run): ...

        def begin(self, run):
            raise ValueError("no")

    after = [*monitor.standard(tmp_path), monitor.TensorBoard(tmp_path), monitor.Histograms(tmp_path)]
    with pytest.raises(ValueError, match="no"):
        jdl.fit(mlp(), jdl.losses.cross_entropy, OPTIMIZER, DATA, steps=1, callbacks=[Fails(), *after], progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_done_keeps_the_settings_it_was_trained_with(tmp_path):
    def train(batch_size):
        data = (np.random.default_rng(0).normal(size=(24, 3)).astype(np.float32), np.arange(24) % 2)
        options = {"steps": 4, "batch_size": batch_size, "checkpoint": tmp_path / "c"}
        monitors = [jdl.monitor.Metrics(tmp_path / "m")]
        loss = jdl.losses.cross_entropy
        return jdl.fit(nn.Chain(nn.Dense(2)), loss, optax.sgd(0.1), data, callbacks=monitors, **options)

    train(8)
    before = (tmp_path / "m" / "config.json").read_text()
    with pytest.warns(jdl.ResumeWarning, match="all steps are done, so nothing is trained"):
        train(12)
    assert (tmp_path / "m" / "config.json").read_text() == before
