"""Every experiment runs, leaves its files, and the README's figures are those of the kept results."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import table
from experiments.common import Record, Settings, experiment, format_metric, pivot
from jdl.data import DataUnavailable, sources

ROOT = Path(__file__).parents[2]
EXPERIMENTS = {
    path.stem: ast.get_docstring(ast.parse(path.read_text())) or ""
    for path in sorted((ROOT / "experiments").glob("*.py"))
    if "@experiment(" in path.read_text() and path.stem != "common"
}
# More than a few seconds, even in a smoke run.
QUICK = {"perceptron"}  # the others take seconds, and run with the slow tests
# A metric that a network reaches even in its smoke run, though it learns for a second only.
LEARNS = {
    "digits": ("cnn/accuracy", 0.5),
    "mnist": ("SimpleNet/accuracy", 0.5),
    "breast_cancer": ("10-64-1 network/roc_auc", 0.7),
}


@dataclasses.dataclass(frozen=True)
class Toy(Settings):
    epochs: int = 20


@experiment(smoke={"epochs": 1})
def toy(settings: Toy, record: Record) -> None:
    for seed in settings.each_seed:
        record.log(seed=seed, loss=np.float32(0.5), confusion=np.eye(2), nothing=math.nan)
        record.metric("net/score", seed**2)
        record.metric("net/diverged", math.inf)
    record.metric("net/epochs", settings.epochs)


def read(folder: Path, file: str) -> Any:
    return json.loads((folder / file).read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_every_experiment_says_what_it_shows():
    assert {"digits", "mnist", "breast_cancer", "diabetes", "xor", "perceptron"} <= EXPERIMENTS.keys()
    for name, about in EXPERIMENTS.items():
        for entry in (f"Command   python -m experiments.{name}", "Machine   ", "Time      ", "Result    "):
            assert f"\n{entry}" in about, f"the header of {name} has no line '{entry}…'"


def test_what_an_experiment_leaves(tmp_path: Path):
    returned = toy(["--out", str(tmp_path), "--seed", "1", "--seeds", "3"])
    config, result = read(tmp_path, "config.json"), read(tmp_path, "result.json")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "metrics.jsonl", "result.json"]
    assert config["settings"] == {"seed": 1, "seeds": 3, "smoke": False, "epochs": 20}
    assert config["command"].startswith("python -m experiments.test_experiments --out ")
    assert config["versions"].keys() == {"python", "jdl", "jax", "optax", "numpy"} and config["machine"]["cores"] >= 1
    assert result == returned
    assert result["metrics"] == {"net/score": pytest.approx(14 / 3), "net/diverged": None, "net/epochs": 20}
    # the sample variance of 1, 4, 9 is ((11/3)² + (2/3)² + (13/3)²) / 2
    assert result["deviations"]["net/score"] == pytest.approx(math.sqrt((121 + 4 + 169) / 18))
    assert result["values"]["net/score"] == [1, 4, 9] and result["seeds"] == [1, 2, 3] and result["seconds"] >= 0
    assert lines[0] == {"seed": 1, "loss": 0.5, "confusion": [[1, 0], [0, 1]], "nothing": None}
    assert format_metric(result, "net/score") == "4.667 ± 4.041"
    assert pivot(result)[:2] == (["net"], ["score", "diverged", "epochs"])


def test_smoke_settings_and_a_failed_run_that_leaves_no_old_result(tmp_path: Path):
    toy(["--out", str(tmp_path), "--smoke", "--seeds", "5"])
    assert read(tmp_path, "config.json")["settings"] == {"seed": 0, "seeds": 1, "smoke": True, "epochs": 1}

    @experiment()
    def fails(settings: Toy, record: Record) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails(["--out", str(tmp_path)])
    assert (tmp_path / "config.json").exists() and not (tmp_path / "result.json").exists()


@pytest.mark.parametrize(
    ("mean", "deviation", "text"),
    [
        (0.98765, 0.00123, "0.9877 ± 0.0012"),
        (1.0, None, "1"),
        (1.0, 0.0, "1.000 ± 0.000"),
        (44.25, 0.5, "44.2 ± 0.5"),
        (3006.4, 44.8, "3,006 ± 45"),
        (38314.0, None, "38,314"),
        (None, None, "none"),
    ],
)
def test_format_metric(mean: float | None, deviation: float | None, text: str):
    deviations = {} if deviation is None else {"x": deviation}
    assert format_metric({"metrics": {"x": mean}, "deviations": deviations}, "x") == text


def no_network(*_):
    raise OSError("a test does not download")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in EXPERIMENTS if name != "digits"],
)
def test_smoke(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "_download", no_network)
    main = importlib.import_module(f"experiments.{name}").main
    try:
        with jax.numpy_dtype_promotion("standard"):  # as a person has it who runs the command
            main(["--smoke", "--out", str(tmp_path)])
    except DataUnavailable:
        pytest.skip("its data is neither in JDL_DATA_DIR nor in the cache")
    check_smoke(name, tmp_path)


@pytest.mark.slow
def test_the_main_job_from_the_command_line(tmp_path: Path):
    command = [sys.executable, "-m", "experiments.digits", "--smoke", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "the progress bar is for terminals"
    assert "of 359 unseen digits are right" in done.stdout
    check_smoke("digits", tmp_path)
    assert {"curves.png", "predictions.png", "confusion.png"} <= {path.name for path in tmp_path.iterdir()}


def check_smoke(name: str, folder: Path) -> None:
    config, result = read(folder, "config.json"), read(folder, "result.json")
    assert config["experiment"] == name and config["settings"]["smoke"]
    assert result["metrics"] and all(math.isfinite(value) for value in result["metrics"].values())
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert json.loads(line)
    if name in LEARNS:
        metric, least = LEARNS[name]
        assert result["metrics"][metric] > least
    assert result["metrics"].get("all/runs that differ", 0) == 0
    for picture in folder.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_readme_has_the_kept_results():
    assert (ROOT / "experiments" / "README.md").read_text() == table.readme(), "run python -m experiments.table"


@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: f"{row.experiment} {row.metric}")
def test_the_kept_results_are_as_good_as_was_wanted(row: table.Row):
    assert row.holds(table.read(row.experiment, "result.json"))


@pytest.mark.parametrize("name", table.EXPERIMENTS)
def test_the_kept_results_are_of_the_command_in_the_header(name: str):
    config = table.read(name, "config.json")
    assert not config["settings"]["smoke"]
    assert f"\nCommand   {config['command']}\n" in EXPERIMENTS[name]


def test_every_kept_result_is_in_the_table():
    assert sorted(path.name for path in (ROOT / "experiments" / "results").iterdir()) == sorted(table.EXPERIMENTS)


def test_a_claim_that_does_not_hold():
    result = {"metrics": {"a": 0.985}, "values": {"a": [0.979, 0.991]}}
    assert table.Row("x", "", "a", at_least=0.985).holds(result)
    assert not table.Row("x", "", "a", at_least=0.986).holds(result)
    assert not table.Row("x", "", "a", at_least=0.98, each_at_least=0.98).holds(result)
    assert table.Row("x", "", "a", at_most=0.985).holds(result)
    assert not table.Row("x", "", "a", at_most=0.98).holds(result)
