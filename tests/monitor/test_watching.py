"""What a person watches: the page, the console, TensorBoard and histograms."""

from __future__ import annotations

import struct
from pathlib import Path

import jax
import numpy as np
import pytest

from jdl import monitor
from jdl.check import InputError
from jdl.diagnosis.findings import Finding
from jdl.monitor import pages
from tests.monitor.watched import STEPS, Watched
from tests.show.pages import Page

pytest.importorskip("matplotlib")


class TestPage:
    def test_follows_the_run_and_then_stops(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(pages, "_SHORTEST", 0.0)
        monkeypatch.setattr(pages, "_SHARE", 1e9)
        watched = Watched([monitor.Page(tmp_path / "first try")])
        watched.begin()
        page = Page(tmp_path / "first try" / "index.html")
        assert {"first try", "running", "No report yet."} <= page.texts
        assert page.refreshes
        watched.report()
        page = Page(tmp_path / "first try" / "index.html")
        assert page.refreshes
        assert page.data["runs"][0]["clocks"]["step"] == [3]
        watched.end()
        page = Page(tmp_path / "first try" / "index.html")
        assert "finished" in page.texts
        assert not page.refreshes
        assert (tmp_path / "first try" / "curves.png").read_bytes().startswith(b"\x89PNG")

    def test_tells_what_is_known(self, tmp_path: Path):
        watched = Watched([monitor.Page(tmp_path, peak_flops=2e12)])
        watched.run.findings = [Finding("unnormalised_inputs", "mean 33", "it learns slowly", "normalise", path="x")]
        watched.all()
        page = Page(tmp_path / "index.html")
        assert {"unnormalised_inputs (x)", "Chain(Dense(7), tanh, Dense(3))", "1 time", "66"} <= page.texts
        assert "mean 33" in page.text and "Try: normalise" in page.text
        assert "÷ 2 TFLOP/s (as given)" in page.text
        titles = {panel["title"] for panel in page.data["panels"]}
        assert {"loss", "learning rate", "norms", "update ratio", "examples per second", "waiting"} <= titles

    def test_says_why_a_run_failed(self, tmp_path: Path):
        def fail(run):
            raise ValueError("a <b>bad</b> thing")

        with pytest.raises(ValueError):
            Watched([monitor.Page(tmp_path)], row=fail).all()
        page = Page(tmp_path / "index.html")
        assert {"failed", "ValueError: a <b>bad</b> thing"} <= page.texts
        assert not page.refreshes

    def test_is_written_seldom(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        written = []
        monkeypatch.setattr(pages, "write_run", lambda path, report: written.append(report.status))
        Watched([monitor.Page(tmp_path)], reports=30).all()
        assert written == ["running", "finished"]

    def test_goes_on_with_the_reports_before(self, tmp_path: Path):
        for kept in ([monitor.Metrics(tmp_path)], []):
            watched = Watched(resumed=2 * STEPS)
            for _ in range(2):
                watched.report()
            watched.monitors = [*kept, monitor.Page(tmp_path)]
            watched.all()
            assert Page(tmp_path / "index.html").data["runs"][0]["clocks"]["step"] == [3, 6, 9, 12]

    def test_that_cannot_be_written_does_not_end_the_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        watched = Watched([monitor.Page(tmp_path)])
        watched.begin()

        def full(*arguments):
            raise OSError("No space left on device")

        monkeypatch.setattr(pages, "write_run", full)
        watched.report()
        with pytest.warns(monitor.MonitorWarning, match="Page could not write: No space left"):
            watched.end()


class TestConsole:
    def test_prints_a_header_a_line_a_report_and_the_end(self, capsys: pytest.CaptureFixture):
        Watched([monitor.Console(True, peak_flops=2e12)], reports=2).all()
        assert capsys.readouterr().out == ""
        Watched([monitor.Console(True, peak_flops=2e12)], reports=2).all()
        head, size, formula, first, second, end = capsys.readouterr().err.splitlines()
        assert head == "Chain(Dense(7), tanh, Dense(3))"
        assert size == "66 parameters, 6 steps"
        assert formula == monitor.explain(Watched().run, 2e12)
        assert first.startswith("step 3  epoch 1  loss ")
        assert "learning rate 0.5  gradient norm " in second
        assert second.endswith("examples 1.2 k/s  waiting 25 %  FLOPs utilisation 2.32e-05 %")
        assert end == "finished at step 6 after 1 s"

    @pytest.mark.parametrize(
        ("terminal", "shown", "lines"), [(True, None, 0), (False, None, 6), (True, True, 6), (False, False, 0)]
    )
    def test_leaves_terminals_to_the_bar(self, terminal, shown, lines, capsys, monkeypatch):
        monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
        Watched([monitor.Console(shown, 1e12)], reports=2).all()
        assert len(capsys.readouterr().err.splitlines()) == lines

    def test_says_why_a_run_was_stopped(self, capsys: pytest.CaptureFixture):
        watched = Watched([monitor.Console(True, 1e12)])
        watched.begin()
        watched.report()
        watched.run.stop("no progress")
        watched.end()
        assert capsys.readouterr().err.splitlines()[-1] == "stopped at step 3 after 0.5 s: no progress"


def events(folder: Path) -> list:
    """The events of all files in a folder, record by record: length, its checksum, bytes, their checksum."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    found = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            found.append(event_pb2.Event.FromString(content[place + 12 : place + 12 + length]))
            place += 16 + length
    return found


def values(folder: Path) -> dict:
    return {(value.tag, event.step): value for event in events(folder) for value in event.summary.value}


class TestTensorBoard:
    def test_holds_the_scalars_by_group(self, tmp_path: Path):
        run = Watched([monitor.TensorBoard(tmp_path)], reports=2, row=lambda report: {"validation_loss": 0.25}).all()
        found = values(tmp_path)
        assert found["loss/training", 6].simple_value == pytest.approx(run.history[-1]["loss"])
        assert found["loss/validation", 3].simple_value == 0.25
        assert found["optimizer/learning_rate", 6].simple_value == 0.5
        assert found["machine/waiting", 3].simple_value == 0.25
        text = found["settings/text_summary", 0].tensor.string_val[0].decode()
        assert "| batch_size | 12 |" in text

    def test_purges_what_lies_beyond_a_resume(self, tmp_path: Path):
        watched = Watched([monitor.TensorBoard(tmp_path)], resumed=6)
        watched.begin()
        watched.end()
        assert [event.step for event in events(tmp_path) if event.session_log.status] == [7]


class TestHistograms:
    def test_are_those_of_numpy(self, tmp_path: Path):
        batch = {"inputs": np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)}
        watch = monitor.Histograms(tmp_path, batch, every=2)
        run = Watched([watch], reports=2).all()
        params = jax.tree.map(np.asarray, run.state.params)
        hidden = batch["inputs"] @ params["0"]["kernel"] + params["0"]["bias"]
        outputs = np.tanh(hidden) @ params["2"]["kernel"] + params["2"]["bias"]
        expected = {f"parameters/{i}/{name}": params[i][name] for i in ("0", "2") for name in ("bias", "kernel")}
        expected |= {"activations/0": hidden, "activations/1": np.tanh(hidden), "activations/2": outputs}
        assert watch.last.keys() == expected.keys()
        for name, array in expected.items():
            one = watch.last[name]
            assert one.counts.sum() == array.size
            assert (one.mean, one.deviation) == pytest.approx((array.mean(), array.std()), rel=1e-4, abs=1e-6)
            assert (one.edges[0], one.edges[-1]) == pytest.approx((array.min(), array.max()), rel=1e-5)
        written = values(tmp_path)
        assert {step for _, step in written} == {6}  # every second report
        histo = written["parameters/0/kernel", 6].histo
        assert histo.num == 35
        assert histo.sum_squares == pytest.approx(np.sum(np.square(params["0"]["kernel"])), rel=1e-5)
        assert (tmp_path / "histograms.png").read_bytes().startswith(b"\x89PNG")

    def test_count_what_is_not_finite(self):
        run = Watched().run
        run.state = jax.tree.map(lambda leaf: leaf, run.state)  # other tests begin with the same dicts
        run.state.params["0"]["bias"] = run.state.params["0"]["bias"].at[2].set(np.nan)
        found = monitor.histograms(run)["parameters/0/bias"]
        assert (found.not_finite, found.counts.sum()) == (1, 6)

    @pytest.mark.parametrize("wrong", [{"every": 0}, {"every": 1.5}, {"batch": 3}])
    def test_refuse(self, tmp_path: Path, wrong: dict):
        with pytest.raises(InputError):
            monitor.Histograms(tmp_path, **wrong)
