"""Windows of series against a loop, what they never see, and the series by name."""

from __future__ import annotations

import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jdl
from jdl.check import InputError
from jdl.data import Dataset, DataUnavailable, Splits, load, timeseries, windows


def series(steps: int, first: int = 0, columns: int = 2, masked: bool = False) -> Dataset:
    """Inputs that say their step and column, 7.1, and targets that say their step."""
    t = np.arange(first, first + steps, dtype=np.float32)
    arrays = {"inputs": t[:, None] + np.arange(columns, dtype=np.float32) / 10, "targets": t}
    if masked:
        arrays["mask"] = (t % 3 > 0).astype(np.float32)
    return Dataset(arrays, name="toy", features=tuple("abcdefg"[:columns]))


def renamed(data: Dataset, features: str) -> Dataset:
    return dataclasses.replace(data, features=tuple(features))


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 4), st.integers(0, 12), st.booleans(), st.booleans())
def test_windows_are_those_of_a_loop(
    length: int, horizon: int, stride: int, more: int, masked: bool, with_before: bool
):
    data = series(length + horizon + more, first=20, masked=masked)
    before = series(length + 3, first=20 - length - 3, masked=masked) if with_before else None
    steps = {name: np.concatenate([before[name], data[name]]) if before else data[name] for name in data.arrays}
    found = windows(data, length, horizon, stride=stride, before=before)
    starts = range(3 if with_before else 0, len(steps["inputs"]) - length - horizon + 1, stride)
    assert len(found) == len(starts) and found.arrays.keys() == data.arrays.keys()
    for example, start in enumerate(starts):
        past, ahead = slice(start, start + length), slice(start + length, start + length + horizon)
        np.testing.assert_array_equal(found.inputs[example], steps["inputs"][past])
        for name in data.arrays.keys() - {"inputs"}:
            np.testing.assert_array_equal(found[name][example], steps[name][ahead])
    assert found.features == data.features and found.name == "toy"


def test_parts_share_no_target_and_every_step_of_a_part_is_forecast():
    train, test = series(50), series(20, first=50)
    first, second = windows(train, 8, 4), windows(test, 8, 4, before=train)
    assert set(np.unique(first.targets)) == set(range(8, 50)) and first.inputs.max() < 50
    assert set(np.unique(second.targets)) == set(range(50, 70))
    assert set(np.unique(windows(test, 8, 4).inputs[..., 0])) == set(range(50, 66)), "alone, a part sees itself only"
    for part in (first, second):  # the last step that a window sees comes just before the first that it forecasts
        np.testing.assert_array_equal(part.inputs[:, -1, 0] + 1, part.targets[:, 0])


def test_nothing_is_copied_and_nothing_can_be_changed():
    data = series(1000)
    found = windows(data, 96, 24, stride=2)
    assert found.inputs.shape == (441, 96, 2) and found.targets.shape == (441, 24)
    for name in ("inputs", "targets"):
        assert np.shares_memory(found[name], data[name])
        assert not found[name].flags.writeable
    assert found.take([3]).inputs.flags.c_contiguous


def test_a_series_is_whatever_a_dataset_is_made_of():
    data = series(20)
    wanted = windows(data[10:], 4, 2, before=data[:10])
    parts = [(data.inputs[part], data.targets[part]) for part in (slice(10), slice(10, None))]
    for before, part in (parts, [dict(zip(("inputs", "targets"), part, strict=True)) for part in parts]):
        found = windows(part, 4, 2, before=before)
        np.testing.assert_array_equal(found.inputs, wanted.inputs)
        np.testing.assert_array_equal(found.targets, wanted.targets)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: windows(series(20), 0, 3), "length got 0, wanted at least 1"),
        (lambda: windows(series(20), 4, 2.0), r"horizon got 2\.0, wanted a whole number"),  # pyright: ignore[reportArgumentType]
        (lambda: windows(series(20), 4, 2, stride=True), "stride got True, wanted a whole number"),
        (lambda: windows(series(9), 6, 4), "series got 9 steps, wanted at least 10, one window of 6 and 4 ahead"),
        (lambda: windows(series(9), 6, 3, before=series(5)), "before got 5 steps, wanted at least the .* window, 6"),
        (lambda: windows(series(9), 6, 3, before=series(9, columns=1)), r"before got \{inputs: float32\[9, 1\]"),
        (lambda: windows(series(9), 6, 3, before=series(9, masked=True)), r"before got .*mask: float32\[9\]\}, wanted"),
        (
            lambda: windows((np.zeros((9, 1)), np.full(9, np.nan)), 2, 1),
            r"in series: targets got .*9 values that are NaN .*nan_to_num\(targets\), and give mask=",
        ),
        (lambda: windows(windows(series(9), 4, 2), 2, 1), r"series got \{inputs: float32\[4, 4, 2\].*targets \[T\]"),
        (lambda: windows(np.zeros((9, 2)), 2, 1), r"series got \{inputs: float64\[9, 2\]\}, .*\(x, x\[:, 0\]\)"),
        (lambda: windows(np.zeros(9), 2, 1), r"series got .*\(x\[:, None\], x\)"),
        (lambda: windows([1.0, 2.0, 3.0], 2, 1), r"in series: data got list .*use a tuple of two arrays"),
        (
            lambda: windows(Splits(series(9), series(9), series(9)), 2, 1),
            r"(?s)in series: data got Splits .*use one of its splits",
        ),
        (
            lambda: windows(series(9), 6, 3, before=series(9).map(targets=np.float64)),
            r"before got .*targets: float64\[9\]\}, .*float32\[9\]\}, .*cast them first",
        ),
        (lambda: windows(series(9), 6, 3, before=renamed(series(9), "ba")), "before got the features b, a"),
    ],
)
def test_refused(call, message: str):
    with pytest.raises(InputError, match=message):
        call()


def put(folder: Path, file: str, lines: list[str]) -> None:
    (folder / "timeseries").mkdir(exist_ok=True)
    text = "\n".join(lines).encode()
    (folder / "timeseries" / file).write_bytes(gzip.compress(text) if file.endswith(".gz") else text)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JDL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("JDL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path


def test_gaps_are_filled_from_the_past_and_masked(folder: Path):
    hours = 24 + 5 * 365 * 24
    pm = [f"{100 + t % 50}.0" for t in range(hours)]
    pm[:24] = ["NA"] * 24
    pm[30:33] = ["NA"] * 3
    rows = [f"{t},2010,1,1,0,{pm[t]},-21,-11,1021,{'NE' if t % 2 else 'cv'},1.79,0,{t}" for t in range(hours)]
    put(folder, "pollution.csv.gz", ["No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is,Ir", *rows])
    raw = load("pollution", normalise=False)
    assert [len(part) for part in (raw.train, raw.validation, raw.test)] == [26_280, 8_760, 8_760]
    winds = tuple(f"cbwd={wind}" for wind in ("NE", "NW", "SE", "cv"))
    assert raw.train.features == ("pm2.5", "DEWP", "TEMP", "PRES", *winds, "Iws", "Is", "Ir")
    np.testing.assert_array_equal(raw.train.targets[:10], [124, 125, 126, 127, 128, 129, 129, 129, 129, 133])
    np.testing.assert_array_equal(raw.train["mask"][:10], [1, 1, 1, 1, 1, 1, 0, 0, 0, 1])
    assert raw.train["mask"].sum() == 26_277 and raw.test["mask"].all()
    np.testing.assert_array_equal(raw.train.inputs[:2, 4:8], [[0, 0, 0, 1], [1, 0, 0, 0]])
    np.testing.assert_array_equal(raw.test.inputs[:, -1], np.arange(hours - 8_760, hours))


def test_returns_of_a_share(folder: Path):
    close = np.exp(np.linspace(0, 1, 102))
    rows = [f"d,1,{2 * c},{c},{c},{c},{10 + t}" for t, c in enumerate(close.tolist())]
    rows.insert(40, "d,null,null,null,null,null,null")
    put(folder, "AAPL.csv", ["Date,Open,High,Low,Close,Adj Close,Volume", *rows])
    raw = load("aapl", normalise=False)
    assert [len(part) for part in (raw.train, raw.validation, raw.test)] == [70, 11, 20]
    np.testing.assert_allclose(raw.train.targets, 100 / 101, rtol=1e-4)
    np.testing.assert_allclose(raw.test.inputs[:, 1], 100 * np.log(2), rtol=1e-4)
    np.testing.assert_allclose(raw.train.inputs[:2, 2], [np.log(11 / 10), np.log(12 / 11)], rtol=1e-5)


def test_a_wrong_etth1_is_refused(folder: Path):
    put(folder, "ETTh1.csv", ["date,OT", "2016-07-01 00:00:00,30.5"])
    with pytest.raises(jdl.data.CorruptData, match="expected md5 8381763947c85f4be6ac456c508460d6"):
        load("etth1")


def test_a_file_that_was_cut_off_is_refused(folder: Path):
    rows = [f"{t},2010,1,1,0,{t}.0,-21,-11,1021,NE,1.79,0,0" for t in range(100)]
    put(folder, "pollution.csv", ["No,year,month,day,hour,pm2.5,DEWP,TEMP,PRES,cbwd,Iws,Is,Ir", *rows])
    with pytest.raises(jdl.data.CorruptData, match="pollution has 76 steps, wanted 43,800; is its"):
        load("pollution")


SERIES = {
    "etth1": ((8_640, 2_880, 2_880), 7, "OT", (30.531, 2.321)),
    "pollution": ((26_280, 8_760, 8_760), 11, "pm2.5", (129.0, 12.0)),
    "aapl": ((6_726, 962, 1_921), 3, "return", (-5.3606, -0.7958)),
    "sunspots": ((1_974, 282, 564), 1, "Sunspots", (58.0, 33.4)),
}


@pytest.mark.parametrize("name", SERIES)
def test_series_by_name(name: str, monkeypatch: pytest.MonkeyPatch):
    sizes, columns, target, ends = SERIES[name]
    real = timeseries.fetch
    monkeypatch.setattr(timeseries, "fetch", lambda name, file, urls, **given: real(name, file, (), **given))
    try:
        splits, raw = load(name), load(name, normalise=False)
    except DataUnavailable:
        pytest.skip("its file is neither in JDL_DATA_DIR nor in the cache")
    assert raw.whole is not None and splits.normaliser is not None and raw.normaliser is None
    parts = [(getattr(splits, part), getattr(raw, part)) for part in ("train", "validation", "test")]
    column = (splits.train.features or ()).index(target)
    for (part, plain), size in zip(parts, sizes, strict=True):
        assert part.inputs.shape == (size, columns) and part.inputs.dtype == np.float32
        np.testing.assert_array_equal(part.targets, part.inputs[:, column])
        np.testing.assert_allclose(splits.normaliser.invert(part.inputs), plain.inputs, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(splits.train.inputs.mean(0, np.float64), 0, atol=1e-4)
    np.testing.assert_array_equal(np.concatenate([plain.targets for _, plain in parts]), raw.whole.targets)
    np.testing.assert_allclose(raw.whole.targets[[0, -1]], ends, rtol=1e-4)
    if name == "pollution":
        assert sum((1 - plain["mask"]).sum() for _, plain in parts) == 2_067 - 24
