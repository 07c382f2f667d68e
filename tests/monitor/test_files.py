"""What a run leaves in its folder, however it ends and goes on."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from jdl import monitor
from jdl.check import InputError
from tests.monitor.watched import STEPS, Watched


def lines(folder: Path, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def read(folder: Path, name: str) -> dict:
    return json.loads((folder / name).read_text())


def test_a_line_a_report_is_what_was_measured(tmp_path: Path):
    seen = []
    watched = Watched([monitor.Metrics(tmp_path / "deep" / "a"), lambda_monitor(seen)])
    watched.all()
    kept = lines(tmp_path / "deep" / "a")
    assert [row["step"] for row in kept] == [3, 6, 9, 12]
    for row, measured in zip(kept, seen, strict=True):
        assert list(row) == list(measured)
        assert {name: pytest.approx(value, rel=1e-12) for name, value in measured.items()} == row


def test_lines_are_there_while_the_run_lasts(tmp_path: Path):
    watched = Watched([monitor.Metrics(tmp_path)])
    watched.begin()
    for report in (1, 2):
        watched.report()
        assert len(lines(tmp_path)) == report


def test_json_knows_all_of_it(tmp_path: Path):
    row = {"nan": np.nan, "inf": -np.inf, "validation_confusion": np.eye(2), "count": np.int64(3), "flag": True}
    Watched([monitor.Metrics(tmp_path)], reports=1, row=lambda report: row).all()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    found = lines(tmp_path)[0]
    assert [found[name] for name in row] == [None, None, [[1, 0], [0, 1]], 3, True]


def test_settings_versions_and_machine_stand_from_the_beginning(tmp_path: Path):
    watched = Watched([monitor.Metrics(tmp_path, peak_flops=1e12)])
    watched.run.settings |= {"rate": 1e-3, "optimizer": {"name": "sgd"}, "path": Path("x"), "none": None}
    watched.begin()
    config = read(tmp_path, "config.json")
    assert config["settings"] == {
        "model": "Chain(Dense(7), tanh, Dense(3))",
        "batch_size": 12,
        "rate": 1e-3,
        "optimizer": {"name": "sgd"},
        "path": "x",
        "none": None,
    }
    assert {"python", "jdl", "jax", "optax", "numpy"} <= config["versions"].keys()
    assert config["machine"]["devices"] == 1
    assert config["parameters"] == 5 * 7 + 7 + 7 * 3 + 3
    assert "1 TFLOP/s" in config["measured"]


class TestEnding:
    def test_finished(self, tmp_path: Path):
        run = Watched([monitor.Metrics(tmp_path)]).all()
        result = read(tmp_path, "result.json")
        assert (result["status"], result["reason"], result["step"], result["seconds"]) == ("finished", "", 12, 2.0)
        assert result["metrics"] == {"loss": pytest.approx(run.history[-1]["loss"])}

    def test_stopped(self, tmp_path: Path):
        stop = lambda_monitor([], lambda run: run.stop("early stopping"))
        Watched([monitor.Metrics(tmp_path), stop]).all()
        assert read(tmp_path, "result.json")["status"] == "stopped"
        assert read(tmp_path, "result.json")["reason"] == "early stopping"

    @pytest.mark.parametrize(
        ("error", "status", "reason"),
        [
            (ValueError("too high"), "failed", "ValueError: too high"),
            (KeyboardInterrupt(), "stopped", "KeyboardInterrupt"),
        ],
    )
    def test_by_an_error(self, tmp_path: Path, error: BaseException, status: str, reason: str):
        def fail(run):
            raise error

        with pytest.raises(type(error)):
            Watched([monitor.Metrics(tmp_path), lambda_monitor([], fail)]).all()
        result = read(tmp_path, "result.json")
        assert (result["status"], result["reason"]) == (status, reason)

    def test_an_error_around_the_run_is_none_of_its_own(self, tmp_path: Path):
        try:
            raise ValueError("before")
        except ValueError:
            Watched([monitor.Metrics(tmp_path)]).all()
        assert read(tmp_path, "result.json")["status"] == "finished"


class TestGoingOn:
    @pytest.mark.parametrize("killed_after", [2, 3, 4])
    @pytest.mark.parametrize("broken", ["", '{"step": 9, "los'])
    def test_the_file_is_that_of_the_whole_run(self, tmp_path: Path, killed_after: int, broken: str):
        whole = Watched([monitor.Metrics(tmp_path / "whole")])
        whole.all()
        first = Watched([monitor.Metrics(tmp_path / "parts")])
        first.begin()
        for _ in range(killed_after):
            first.report()
        with (tmp_path / "parts" / "metrics.jsonl").open("a") as file:
            file.write(broken)
        second = Watched([monitor.Metrics(tmp_path / "parts")], resumed=2 * STEPS)
        silent, second.monitors = second.monitors, []
        for _ in range(2):  # stands in for the checkpoint
            second.report()
        second.monitors = silent
        second.all()
        ours, theirs = lines(tmp_path / "parts"), lines(tmp_path / "whole")
        for row in ours + theirs:
            row.pop("machine/process_memory", None)
            row.pop("machine/model_flops_utilisation")
        assert ours == theirs
        assert read(tmp_path / "parts", "config.json")["resumed"] == 6
        assert not list((tmp_path / "parts").glob("*.1.*"))

    def test_lines_that_were_lost_come_from_the_history(self, tmp_path: Path):
        watched = Watched(resumed=2 * STEPS)
        for _ in range(2):
            watched.report()
        watched.monitors = [monitor.Metrics(tmp_path)]
        watched.all()
        assert [row["step"] for row in lines(tmp_path)] == [3, 6, 9, 12]

    def test_a_new_run_puts_an_old_one_aside(self, tmp_path: Path):
        for _ in range(3):
            Watched([monitor.Metrics(tmp_path)], reports=2).all()
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            *(f"config{number}.json" for number in (".1", ".2", "")),
            *(f"metrics{number}.jsonl" for number in (".1", ".2", "")),
            *(f"result{number}.json" for number in (".1", ".2", "")),
        ]
        assert lines(tmp_path, "metrics.1.jsonl")[-1]["step"] == 6

    def test_a_run_that_reported_nothing_is_no_loss(self, tmp_path: Path):
        Watched([monitor.Metrics(tmp_path)]).begin()
        Watched([monitor.Metrics(tmp_path)]).begin()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "metrics.jsonl"]


class TestAFullDisk:
    def test_is_a_warning_and_the_run_goes_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        watched = Watched([monitor.Metrics(tmp_path)])
        watched.begin()
        watched.report()
        full = Path.open

        def half(path: Path, *arguments, **options):
            with full(path, *arguments, **options) as file:
                file.write('{"half')
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "open", half)
        with pytest.warns(monitor.MonitorWarning, match="No space left on device; the run goes on"):
            watched.report()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            watched.report()  # said once
        monkeypatch.undo()
        watched.report()
        assert [row["step"] for row in lines(tmp_path)] == [3, 12]

    def test_at_the_beginning_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        def full(*arguments, **options):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_text", full)
        with pytest.raises(InputError, match="nothing can be written: No space left on device"):
            Watched([monitor.Metrics(tmp_path)]).begin()


def test_an_old_file_is_readable_at_every_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Watched([monitor.Metrics(tmp_path)]).all()
    before = (tmp_path / "metrics.jsonl").read_text()

    def fail(*arguments):
        raise OSError("killed")

    monkeypatch.setattr(os, "replace", fail)
    watched = Watched([monitor.Metrics(tmp_path)], resumed=3)
    with pytest.raises(InputError, match="killed"):
        watched.begin()
    assert (tmp_path / "metrics.jsonl").read_text() == before


class lambda_monitor:
    """A monitor that keeps what is measured, and does something at each report."""

    def __init__(self, seen: list, then=lambda run: None):
        self.seen, self.then = seen, then

    def __call__(self, run):
        self.seen.append(monitor.measure(run))
        self.then(run)

    def begin(self, run): ...

    def end(self, run): ...
