"""What is refused before the first step, and what no longer ends a run after it."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import jax
import optax
import pytest

import jdl
from jdl import monitor
from jdl.check import InputError
from jdl.monitor import boards, console, distributions, files, pages
from tests.monitor.watched import Watched
from tests.networks import batch_of, mlp

pytest.importorskip("tensorboardX")

MONITORS = (monitor.Metrics, monitor.Page, monitor.TensorBoard, monitor.Histograms)


def train(*callbacks, model: jdl.nn.Layer | None = None) -> jdl.Run:
    data, loss = batch_of(24), jdl.losses.cross_entropy
    options = {"steps": 6, "validate_every": 2, "batch_size": 8, "progress": False}
    return jdl.fit(model or mlp(), loss, optax.sgd(0.1), data, callbacks=callbacks, **options)


@pytest.mark.slow
@pytest.mark.parametrize("lost_at", [2, 6])
def test_a_folder_that_goes_away_is_made_again(tmp_path: Path, lost_at: int):
    folder = tmp_path / "deep" / "run"

    def lose(run: jdl.Run) -> None:
        if run.history[-1]["step"] == lost_at:
            shutil.rmtree(folder.parent)

    others = [monitor.TensorBoard(folder), monitor.Histograms(folder)]
    for callbacks in ([lose, *monitor.standard(folder), *others], [*monitor.standard(folder), *others, lose]):
        run = train(*callbacks)  # warnings are errors
        assert run.history[-1]["step"] == 6
        rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == [2, 4, 6]
        assert [row["loss"] for row in rows] == [row["loss"] for row in run.history]
        assert json.loads((folder / "result.json").read_text())["status"] == "finished"
        assert json.loads((folder / "config.json").read_text())["settings"]["steps"] == "6"
        assert "finished" in (folder / "index.html").read_text()
        if callbacks[0] is lose:
            events = [path.suffix for path in sorted(folder.glob("events.out.tfevents.*"))]
            assert events == [".histograms", ".scalars"]


@pytest.mark.parametrize(
    ("kind", "module", "name"),
    [
        (monitor.Metrics, files, "measure"),
        (monitor.Page, pages, "measure"),
        (monitor.Page, pages, "write_run"),
        (monitor.TensorBoard, boards, "measure"),
        (monitor.Histograms, distributions, "histograms"),
        (lambda folder: monitor.Console(True), console, "measure"),
    ],
)
def test_no_error_after_the_beginning_ends_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind, module, name):
    def broken(*arguments):
        raise ZeroDivisionError("a fault of ours")

    def damage(run: jdl.Run) -> None:
        monkeypatch.setattr(module, name, broken)

    monkeypatch.setattr(pages, "_SHORTEST", 0.0)
    monkeypatch.setattr(pages, "_SHARE", 1e9)
    with pytest.warns(monitor.MonitorWarning, match="ZeroDivisionError: a fault of ours; the run goes on") as warned:
        run = train(damage, kind(tmp_path))
    assert run.history[-1]["step"] == 6
    assert len(warned) == 1


@pytest.mark.parametrize("kind", MONITORS)
class TestAFolderThatCannotBeUsed:
    def test_as_it_is_a_file(self, tmp_path: Path, kind):
        (tmp_path / "file").write_text("")
        for folder in (tmp_path / "file", tmp_path / "file" / "a"):
            with pytest.raises(InputError, match=f"^folder got '{folder}', where a file stands in the way; give"):
                Watched([kind(folder)]).begin()

    def test_as_it_is_read_only(self, tmp_path: Path, kind, monkeypatch: pytest.MonkeyPatch):
        def refuse(*arguments, **options):
            raise PermissionError(13, "Permission denied", str(tmp_path / ".temporary"))

        monkeypatch.setattr(tempfile, "mkstemp", refuse)  # root may write everywhere
        monkeypatch.setattr("builtins.open", refuse)
        watched = Watched([kind(tmp_path)])
        with pytest.raises(InputError) as caught:
            watched.begin()
        monkeypatch.undo()
        wanted = f"folder got {str(tmp_path)!r}, where nothing can be written: Permission denied; give one that"
        assert str(caught.value).startswith(wanted)


class TestTwoThatWriteMetrics:
    def test_in_one_run(self, tmp_path: Path):
        with pytest.raises(InputError, match="into which this run writes its metrics already; give every run"):
            train(*monitor.standard(tmp_path), *monitor.standard(tmp_path / "." / "a" / ".."))

    def test_in_a_run_within_another(self, tmp_path: Path):
        def nested(run: jdl.Run) -> None:
            with pytest.raises(InputError, match="into which another run writes"):
                train(monitor.Metrics(tmp_path))

        train(monitor.Metrics(tmp_path), nested)
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3

    def test_one_after_the_other(self, tmp_path: Path):
        watch = monitor.Metrics(tmp_path)
        train(watch)
        train(watch)
        assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
        assert (tmp_path / "metrics.1.jsonl").exists()


def test_a_batch_that_the_model_does_not_take_is_refused_at_the_beginning(tmp_path: Path):
    with pytest.raises(InputError):
        Watched([monitor.Histograms(tmp_path, {"inputs": batch_of()["inputs"][:, :3]})]).begin()


def test_no_report_compiles(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    class Listening:
        def __init__(self, watch):
            self.begin, self.end, self.watch = watch.begin, watch.end, watch

        def __call__(self, run: jdl.Run) -> None:
            with jax.log_compiles():
                self.watch(run)

    watches = [*monitor.standard(tmp_path), monitor.TensorBoard(tmp_path), monitor.Histograms(tmp_path, batch_of())]
    model = jdl.nn.Chain(jdl.nn.Dense(13), jdl.nn.Dense(3))  # a shape that no other test has
    train(*map(Listening, watches), model=model)
    assert [record.message for record in caplog.records if "ompil" in record.message] == []
