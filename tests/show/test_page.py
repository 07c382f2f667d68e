"""Pages of runs: what they tell, that they stand alone, and that no text in them is taken for markup."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import jdl
from jdl.check import InputError
from jdl.show import page, page_series
from jdl.show.__main__ import main
from jdl.show.page_folders import read_folders
from jdl.show.page_results import _told_apart
from jdl.show.page_run import Report, write_run
from tests.show.pages import Page

NASTY = [
    '<script>alert("x")</script>',
    "</script><img src=x onerror=alert(1)>",
    "\"quoted\" & 'more'",
    "<!--",
    "é ∞ \u2028",
]


def rows(count: int = 5, scale: float = 1.0, **more) -> list[dict]:
    """A loss that halves and an accuracy that grows, both validated."""
    made = []
    for k in range(1, count + 1):
        loss = scale / 2**k
        row = {"step": 10 * k, "epoch": k, "seconds": 1.5 * k, "loss": loss, "accuracy": 1 - loss}
        made.append(row | {"validation_loss": 2 * loss, "validation_accuracy": 1 - 2 * loss} | more)
    return made


def folder(path: Path, lines: list[dict], settings: dict | None = None, end: str = "", **result) -> Path:
    path.mkdir(parents=True)
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines) + end)
    if settings is not None:
        (path / "config.json").write_text(json.dumps({"settings": settings}))
    if result:
        (path / "result.json").write_text(json.dumps(result))
    return path


def run_page(path: Path, lines: list[dict], **about) -> Page:
    write_run(path / "index.html", Report("a run", lines, **about))
    return Page(path / "index.html")


def compared(path: Path, *folders: Path) -> Page:
    jdl.show.compare(folders, path / "comparison.html")
    return Page(path / "comparison.html")


class TestAPageStandsAlone:
    @pytest.mark.parametrize("kind", ["run", "comparison"])
    def test_and_asks_nothing_of_a_network(self, tmp_path: Path, kind: str):
        if kind == "run":
            found = run_page(tmp_path, rows())
        else:
            found = compared(tmp_path, folder(tmp_path / "a", rows()), folder(tmp_path / "b", rows(3)))
        assert found.loads == ["data:,"]  # an empty icon, for which browsers ask otherwise
        assert not re.search(r"https?:|//[a-z]|@import|url\(|fetch\(|XMLHttp|import\(", found.source)
        assert found.elements.count("script") == 2

    @pytest.mark.parametrize("text", NASTY)
    def test_and_takes_no_text_for_markup(self, tmp_path: Path, text: str):
        about = {"facts": {text: {text: text}}, "findings": [f"{text}\n{text}"], "notes": [text], "reason": text}
        write_run(tmp_path / "run.html", Report(text, rows(**{text: 1.0}), status="failed", **about))
        plain = {"facts": {"x": {"x": "x"}}, "findings": ["x\nx"], "notes": ["x"], "reason": "x"}
        plain = run_page(tmp_path, rows(x=1.0), status="failed", **plain)
        found = Page(tmp_path / "run.html")
        assert text.strip() in found.texts
        assert found.elements == plain.elements
        assert text in {panel["title"] for panel in found.data["panels"]}

    @pytest.mark.parametrize("text", NASTY)
    def test_and_a_comparison_takes_none_either(self, tmp_path: Path, text: str):
        made = [
            folder(tmp_path / text.replace("/", "") / str(number), rows(**{text: 1.0}), {text: f"{text}{number}"})
            for number in (0, 1)
        ]
        found = compared(tmp_path, *made)
        assert f"{text}1".strip() in found.texts
        assert found.elements == compared(tmp_path, *(plain_twin(tmp_path, number) for number in (0, 1))).elements

    def test_and_is_written_whole_or_not_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        run_page(tmp_path, rows())
        before = (tmp_path / "index.html").read_text()
        with monkeypatch.context() as patched, pytest.raises(OSError):
            patched.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("killed")))
            run_page(tmp_path, rows(9))
        assert (tmp_path / "index.html").read_text() == before
        assert os.listdir(tmp_path) == ["index.html"]

    def test_and_is_html(self, tmp_path: Path):
        with pytest.raises(InputError, match="suffix"):
            write_run(tmp_path / "index.txt", Report("a"))


def plain_twin(path: Path, number: int) -> Path:
    return folder(path / "plain" / str(number), rows(x=1.0), {"x": f"x{number}"})


class TestTheRun:
    @pytest.mark.parametrize("status", ["running", "finished", "stopped", "failed"])
    def test_is_followed_only_while_it_lasts(self, tmp_path: Path, status: str):
        found = run_page(tmp_path, rows(), status=status, steps=100)
        assert found.refreshes == (status == "running") == found.data["running"]
        assert status in found.texts
        assert "step 50 of 100 · epoch 5 · 7.5 s" in found.text

    def test_says_how_long_it_needs(self, tmp_path: Path):
        found = run_page(tmp_path, rows(**{"machine/steps_per_second": 0.5}), steps=150)
        assert "about 3 min 20 s left" in found.text

    def test_tells_the_last_and_the_best(self, tmp_path: Path):
        lines = [*rows(3), rows(4)[-1] | {"validation_accuracy": 0.5}]
        found = run_page(tmp_path, lines)
        assert {"validation accuracy", "0.5", "best 0.75 at epoch 3", "training 0.9375"} <= found.texts
        assert {"validation loss", "0.125", "best 0.125 at epoch 4"} <= found.texts

    def test_draws_training_and_validation_together(self, tmp_path: Path):
        found = run_page(tmp_path, rows(3))
        panels = {panel["title"]: panel for panel in found.data["panels"]}
        training, validation = panels["loss"]["curves"]
        assert (training["label"], training["y"]) == ("training", [0.5, 0.25, 0.125])
        assert (validation["label"], validation["y"], validation["best"]) == ("validation", [1, 0.5, 0.25], 2)
        assert found.data["clock"] == "epoch"
        assert found.data["runs"][0]["clocks"] == {"epoch": [1, 2, 3], "step": [10, 20, 30], "seconds": [1.5, 3, 4.5]}

    def test_that_is_not_finite_says_so(self, tmp_path: Path):
        lines = rows(2) + [row | {"loss": math.nan, "validation_loss": math.inf} for row in rows(4)[2:]]
        found = run_page(tmp_path, lines)
        training, validation = found.data["panels"][0]["curves"]
        assert training["y"] == [0.5, 0.25, None, None]
        assert (training["lost"], training["first_lost"], validation["best"]) == (2, 2, 1)
        assert "not finite" in found.texts

    def test_without_a_report_or_without_anything_to_draw(self, tmp_path: Path):
        assert "No report yet." in run_page(tmp_path, []).texts
        assert run_page(tmp_path, [{"step": 1, "name": "x", "matrix": [[1, 0]]}]).data["panels"] == []

    def test_draws_what_changes_and_tells_what_does_not(self, tmp_path: Path):
        lines = [
            row | {"optimizer/learning_rate": 0.1, "optimizer/b1": 0.9, "optimizer/b2": row["step"]} for row in rows()
        ]
        found = run_page(tmp_path, lines)
        titles = {panel["title"] for panel in found.data["panels"]}
        assert {"learning rate", "b2"} <= titles and "b1" not in titles
        assert ["b1", "0.9"] in found.table("b1")


class TestCurves:
    @pytest.mark.parametrize("count", [1, 2, 600, 601, 5000])
    def test_of_many_reports_keep_their_extremes_and_ends(self, count: int):
        values = np.random.default_rng(0).normal(size=count)
        values[count // 2] = 40.0
        lines = [{"step": k, "validation_loss": value} for k, value in enumerate(values)]
        found = page_series.curve(lines, "validation_loss")
        assert found["i"] == sorted(set(found["i"])) and len(found["i"]) <= 603
        assert found["y"] == pytest.approx(values[found["i"]], rel=1e-5)
        assert (min(found["y"]), max(found["y"])) == pytest.approx((values.min(), values.max()), rel=1e-5)
        assert (found["i"][0], found["i"][-1]) == (0, count - 1)
        assert found["i"][found["best"]] == values.argmin()

    def test_of_many_reports_keep_their_gaps(self):
        values = np.sin(np.arange(4000.0))
        values[1234] = np.nan
        found = page_series.curve([{"loss": value} for value in values], "loss")
        assert 1234 in found["i"] and None in found["y"]

    def test_stand_where_they_were_reported(self):
        lines = [{"step": k, "loss": 1.0} | ({"validation_loss": k} if k % 3 == 2 else {}) for k in range(9)]
        assert page_series.curve(lines, "validation_loss")["i"] == [2, 5, 8]
        assert page_series.curve(lines, "accuracy") is None

    @pytest.mark.parametrize(
        ("name", "values", "log"),
        [
            ("loss", [1.0, 0.2], False),
            ("loss", [1.0, 0.05], True),
            ("loss", [1.0, 0.0], False),
            ("accuracy", [0.01, 0.9], False),
            ("optimizer/gradient_norm", [0.001, 3.0], True),
        ],
    )
    def test_that_span_decades_have_a_logarithmic_axis(self, name: str, values: list[float], log: bool):
        assert page_series.panel(name, [page_series.curve([{name: v} for v in values], name)])["log"] == log

    @pytest.mark.parametrize(
        ("places", "clock"),
        [
            ([{"epoch": [1, 2], "step": [5, 9]}], "epoch"),
            ([{"epoch": [1, 1], "step": [5, 9]}], "step"),
            ([{"epoch": [1, 2], "step": [5, 9]}, {"step": [5]}], "step"),
            ([{"epoch": [1, 1]}], "epoch"),
            ([], "epoch"),
        ],
    )
    def test_run_over_a_clock_that_tells_reports_apart(self, places: list, clock: str):
        assert page_series.first_clock(places) == clock


class TestComparing:
    def test_shows_the_settings_that_differ_alone(self, tmp_path: Path):
        settings = {"seed": 0, "optimizer": {"name": "adam", "rate": 0.1}}
        a = folder(tmp_path / "a", rows(), settings)
        b = folder(tmp_path / "b", rows(), settings | {"optimizer": {"name": "adam", "rate": 0.2}, "extra": True})
        found = compared(tmp_path, a, b)
        body = found.table("a")
        assert [row[:3] for row in body] == [["a", "0.1", "–"], ["b", "0.2", "True"]]
        assert "2 of the settings differ; press a heading to sort; bold is best" in found.texts
        assert found.table("seed")[:2] == [["seed", "0"], ["optimizer.name", "adam"]]

    def test_tables_the_last_and_the_best(self, tmp_path: Path):
        worse = [*rows(3), rows(4)[-1] | {"validation_loss": 0.3}]
        a = folder(tmp_path / "a", worse, status="stopped", metrics={})
        b = folder(tmp_path / "b", rows(5, **{"machine/examples_per_second": 1200.0}))
        found = compared(tmp_path, a, b)
        assert found.table("a") == [
            ["a", "0.3", "0.25epoch 3", "0.875", "0.875epoch 4", "6 s", "–", "40", "stopped"],
            ["b", "0.0625", "0.0625epoch 5", "0.9375", "0.9375epoch 5", "7.5 s", "1.2 k", "50", ""],
        ]
        cells = {cell["data-value"] for row in found.rows for cell in row if "best" in cell.get("class", "")}
        assert cells == {"0.0625", "0.9375"}

    def test_tells_apart_what_an_experiment_logged_in_one_file(self, tmp_path: Path):
        lines = [{"model": name, "seed": seed} | row for row in rows(3) for name in ("mlp", "cnn") for seed in (0, 1)]
        metrics = {"mlp/accuracy": 0.97, "cnn/accuracy": 0.98, "cnn/seconds": 3.0, "best": None}
        result = {"metrics": metrics, "deviations": {"cnn/accuracy": 0.002}, "seconds": 9}
        found = compared(tmp_path, folder(tmp_path / "digits", lines, {"seed": 7}, **result))
        names = [run["name"] for run in found.data["runs"]]
        assert names == [f"digits model={name} seed={seed}" for name in ("mlp", "cnn") for seed in (0, 1)]
        assert all(run["clocks"]["step"] == [10, 20, 30] for run in found.data["runs"])
        assert [row[1:3] for row in found.table("digits model=mlp seed=0")] == [
            ["0", "mlp"], ["1", "mlp"], ["0", "cnn"], ["1", "cnn"],
        ]  # fmt: skip
        assert found.table("mlp") == [
            ["mlp", "0.97", "", ""],
            ["cnn", "0.98 ± 0.002", "3", ""],
            ["", "", "", "not finite"],
        ]

    def test_says_what_could_not_be_read(self, tmp_path: Path, capsys: pytest.CaptureFixture):
        good = folder(tmp_path / "good", rows(3), end='{"step": 40, "lo')
        (tmp_path / "empty").mkdir()
        bad = folder(tmp_path / "bad", rows(2))
        (bad / "config.json").write_text("{")
        names = [str(tmp_path / name) for name in ("good", "empty", "bad", "none")]
        assert main([*names, "--out", str(tmp_path / "c.html")]) == 0
        out, err = capsys.readouterr()
        assert out.splitlines() == [str(tmp_path / "c.html")]
        told = err.splitlines()
        assert told[0] == f"{good / 'metrics.jsonl'}: left out 1 broken line"
        assert told[1] == f"{tmp_path / 'empty'} holds no metrics.jsonl"
        assert told[2].startswith(f"{bad / 'config.json'} is not JSON")
        assert told[3] == f"{tmp_path / 'none'} is no folder"
        found = Page(tmp_path / "c.html")
        assert set(told) <= found.texts
        assert [run["name"] for run in found.data["runs"]] == ["good", "bad"]

    def test_of_nothing_is_an_error(self, tmp_path: Path, capsys: pytest.CaptureFixture):
        assert main([str(tmp_path / "none"), "--out", str(tmp_path / "c.html")]) == 1
        assert "there is nothing to compare" in capsys.readouterr().err
        assert not (tmp_path / "c.html").exists()
        with pytest.raises(InputError, match="no folders were given"):
            jdl.show.compare([], tmp_path / "c.html")

    def test_of_a_run_killed_before_its_first_report(self, tmp_path: Path):
        with pytest.raises(InputError, match="nothing to compare"):
            compared(tmp_path, folder(tmp_path / "a", [], {"seed": 0}))

    def test_names_runs_by_what_tells_them_apart(self, tmp_path: Path):
        made = [folder(tmp_path / name, rows(1)) for name in ("one/a", "two/a", "two/b")]
        assert [read.name for read in read_folders([*made, made[0]])] == ["one/a", "two/a", "b"]

    def test_links_to_the_pages_of_runs(self, tmp_path: Path):
        a, b = folder(tmp_path / "runs" / "a b", rows()), folder(tmp_path / "runs" / "b", rows())
        run_page(a, rows())
        assert compared(tmp_path, a, b).links == ["runs/a%20b/index.html"]

    @pytest.mark.parametrize(
        ("values", "shown"),
        [
            (["Dense(3)", "Dense(4)"], ["Dense(3)", "Dense(4)"]),
            (
                [f"Chain({'Conv(32, 3), relu, ' * 3}Dense({n}), softmax)" for n in (3, 4)],
                ["…Dense(3),…", "…Dense(4),…"],
            ),
            (["x" * 60, "x " * 30], ["x" * 60, "x " * 30]),
            (["a " * 30, "a " * 30 + "b"], ["…", "…b"]),
        ],
    )
    def test_shortens_long_settings_to_what_differs(self, values: list[str], shown: list[str]):
        assert [text.replace("\u2060", "") for text in _told_apart(values)] == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1234, "0.123 s"), (59.9, "59.9 s"), (61, "1 min 1 s"), (7384, "2 h 3 min"), (200_000, "2 days 7 h")],
)
def test_durations(seconds: float, text: str):
    assert page.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.98611, "", "0.9861"),
        (12345, "", "12,345"),
        (3e-5, "", "3e-05"),
        (math.nan, "", "not finite"),
        (None, "", "not finite"),
        (0.1234, "share", "12.3 %"),
        (812_345_678, "bytes", "812 MB"),
        (31_234.0, "rate", "31.2 k/s"),
        (2.5, "rate", "2.5/s"),
    ],
)
def test_numbers(value, unit: str, text: str):
    assert page.quantity(value, unit) == text


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "comparison", "empty"])
def test_a_browser_draws_it(tmp_path: Path, kind: str):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium here")
    lines = rows(5, **{"machine/waiting": 0.1}) + [row | {"validation_loss": math.nan} for row in rows(7)[5:]]
    if kind == "comparison":
        kept = [json.loads(json.dumps(row).replace("NaN", "null")) for row in lines]
        jdl.show.compare([folder(tmp_path / name, kept) for name in "abc"], tmp_path / "page.html")
    else:
        write_run(tmp_path / "page.html", Report("a", lines if kind == "run" else []))
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    quiet += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={tmp_path}/browser"]
    address = (tmp_path / "page.html").as_uri()
    command = [chromium, *quiet, "--enable-logging=stderr", "--virtual-time-budget=2000", "--dump-dom", address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "Uncaught" not in done.stderr and "CONSOLE" not in done.stderr
    assert done.stdout.count('<path d="M') >= {"run": 5, "comparison": 9, "empty": 0}[kind]
    if kind == "run":
        assert "validation: 2 not finite (▲), first at epoch 6" in done.stdout
