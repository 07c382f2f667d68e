"""Series in time: windows of the past with what came next as targets, and four series to forecast by name."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from jdl.check import InputError, describe
from jdl.data.counts import whole
from jdl.data.dataset import Dataset
from jdl.data.files import read_csv
from jdl.data.normalise import Normaliser
from jdl.data.registry import PARTS, Splits, register
from jdl.data.sources import CorruptData, DataUnavailable, fetch


def windows(series: Any, length: int, horizon: int, *, stride: int = 1, before: Any = None) -> Dataset:
    """Examples of forecasting: ``inputs [N, length, D]``, and as ``targets [N, horizon]`` the steps that follow them.

    The series, anything that `Dataset.of` takes, holds ``inputs [T, D]`` and ``targets [T]`` in the order of time, and
    where targets are missing any number in place of them and a ``mask [T]`` of 0, which becomes ``[N, horizon]``.
    Windows begin ``stride`` steps apart. They are views: nothing is copied for them.

    No window leaves the series, so that of parts cut one after another none sees into the next. ``before``, the part
    that came before this one, lends its last ``length`` steps as inputs; then the first window forecasts the first
    step of the series, as a forecaster in use would, and still no target belongs to two parts:
    ``windows(splits.test, 96, 24, before=splits.validation)``.

    Raises:
        InputError: not such a series, sizes that are not whole numbers from 1, a series too short for one window, or a
            ``before`` with other arrays, columns or dtypes than the series.
    """
    length, horizon, stride = whole("length", length, 1), whole("horizon", horizon, 1), whole("stride", stride, 1)
    series = _in_time(series, "series")
    arrays = series.arrays
    if before is not None:
        earlier = _in_time(before, "before")
        _check_alike(earlier, series)
        if len(earlier) < length:
            raise InputError(f"before got {len(earlier)} steps, wanted at least the length of a window, {length}")
        arrays = {name: np.concatenate([earlier[name][-length:], arrays[name]]) for name in arrays}
    steps = len(arrays["inputs"])
    if steps < length + horizon:
        raise InputError(
            f"series got {steps} steps, wanted at least {length + horizon}, one window of {length} and {horizon} ahead"
        )
    past = sliding_window_view(arrays["inputs"][:-horizon], length, axis=0)
    ahead = {name: sliding_window_view(arrays[name][length:], horizon) for name in arrays if name != "inputs"}
    examples = {"inputs": np.moveaxis(past, -1, 1), **ahead}
    strided = {name: array[::stride] for name, array in examples.items()}
    return dataclasses.replace(series, arrays=strided)


def _in_time(series: Any, name: str) -> Dataset:
    """The series as a data set, with its shapes looked at."""
    try:
        series = Dataset.of(series)
    except InputError as error:
        raise InputError(error.message, name) from None
    ranks = {key: getattr(array, "ndim", None) for key, array in series.arrays.items()}
    if ranks not in ({"inputs": 2, "targets": 1}, {"inputs": 2, "targets": 1, "mask": 1}):
        fixes = {1: "to forecast x [T] give (x[:, None], x)", 2: "to forecast a column of x [T, D] give (x, x[:, 0])"}
        fix = "" if "targets" in ranks else fixes.get(ranks.get("inputs") or 0, "")
        wanted = "inputs [T, D], targets [T] and perhaps a mask [T]" + (f"; {fix}" if fix else "")
        raise InputError(f"{name} got {describe(dict(series.arrays))}, wanted {wanted}")
    return series


def _check_alike(before: Dataset, series: Dataset) -> None:
    """``before`` has the arrays of the series, and joining the two casts nothing and mixes no columns."""
    kinds = [{name: (array.shape[1:], array.dtype) for name, array in part.arrays.items()} for part in (before, series)]
    if kinds[0] != kinds[1]:
        wanted = f"the arrays of the series, {describe(dict(series.arrays))}, and their dtypes; cast them first"
        raise InputError(f"before got {describe(dict(before.arrays))}, wanted {wanted}")
    if before.features and series.features and before.features != series.features:
        names = [", ".join(part.features or ()) for part in (before, series)]
        raise InputError(f"before got the features {names[0]}, wanted those of the series, {names[1]}")


@register("etth1")
def etth1(normalise: bool = True) -> Splits:
    """14,400 hours of an electricity transformer: ``inputs [T, 7]``, six loads and the oil temperature, the target.

    The series is divided as Zhou et al. 2021 (arXiv:2012.07436) do it: 12, 4 and 4 months of 30 days; 3,020 hours
    after them stay unused. ``normalise=False`` keeps the units, °C of the target.
    """
    url = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv"
    path = _file("ETTh1.csv", url, checksum="md5:8381763947c85f4be6ac456c508460d6")
    table = read_csv(path, ignore=["date"])
    month = 30 * 24
    return _divide(
        "etth1",
        table[: 20 * month],
        "OT",
        (12 * month, 4 * month, 4 * month),
        normalise,
        description="etth1: loads and oil temperature of an electricity transformer, hour by hour from July 2016",
        source="Zhou et al. 2021, Informer",
        licence="CC BY-ND 4.0",
    )


@register("pollution")
def pollution(normalise: bool = True) -> Splits:
    """43,800 hours of Beijing's air: ``inputs [T, 11]``, PM2.5 (the target, in µg/m³) and the weather, and a ``mask``.

    Trains on 2010 to 2012, validates on 2013, tests on 2014. Of the PM2.5 values 2,043 are missing: the inputs repeat
    the last one measured, which needs no look ahead, and ``mask`` is 0 where the target was not measured. The first
    day, with nothing measured yet, is left out.
    """
    path = _file("pollution.csv", JBROWNLEE + "pollution.csv")
    winds = {"cbwd": ("NE", "NW", "SE", "cv")}
    columns = ["pm2.5", "DEWP", "TEMP", "PRES", "cbwd", "Iws", "Is", "Ir"]
    table = read_csv(path, inputs=columns, categories=winds, missing=-1.0)  # what was measured is never negative
    first_day = 24
    inputs = np.array(table.inputs[first_day:])
    measured = inputs[:, 0] >= 0
    inputs[:, 0] = inputs[_last_true(measured), 0]
    year = 365 * 24
    return _divide(
        "pollution",
        table.map(inputs=lambda _: inputs),
        "pm2.5",
        (3 * year, year, year),  # 2012 had a day more, and the first day of 2010 is left out
        normalise,
        measured.astype(np.float32),
        description="pollution: PM2.5 at the US embassy in Beijing and the weather, hour by hour from January 2010",
        source="UCI Beijing PM2.5, Liang et al. 2015",
        licence="CC BY 4.0",
    )


@register("aapl")
def aapl(normalise: bool = True) -> Splits:
    """9,609 days of Apple's share: ``inputs [T, 3]``, and as target the return since the day before, in percent.

    Returns are logarithmic, of the closing price adjusted for splits and dividends; beside them stand the day's range,
    100 log(high / low), and the logarithm of the volume by that of the day before. Divided in time, 70, 10 and 20%.
    """
    url = "https://raw.githubusercontent.com/trenton3983/DataCamp/master/data/AAPL.csv"
    columns = ["Adj Close", "High", "Low", "Volume"]
    table = read_csv(_file("AAPL.csv", url), inputs=columns, missing="drop")  # a day without any value
    close, high, low, volume = np.asarray(table.inputs, np.float64).T
    features = {
        "return": 100 * np.diff(np.log(close)),
        "range": 100 * np.log(high / low)[1:],
        "volume": np.diff(np.log(np.maximum(volume, 1))),
    }
    inputs = np.stack(list(features.values()), axis=1).astype(np.float32)
    return _divide(
        "aapl",
        Dataset({"inputs": inputs}, features=tuple(features)),
        "return",
        _shares(len(inputs)),
        normalise,
        description="aapl: daily returns of Apple's share from December 1980 to January 2019, in percent",
        source="Yahoo Finance",
        licence="none stated",
    )


@register("sunspots")
def sunspots(normalise: bool = True) -> Splits:
    """2,820 months of sunspot numbers, 1749 to 1983: ``inputs [T, 1]``, the target itself. In time, 70, 10 and 20%."""
    table = read_csv(_file("monthly-sunspots.csv", JBROWNLEE + "monthly-sunspots.csv"), inputs=["Sunspots"])
    return _divide(
        "sunspots",
        table,
        "Sunspots",
        _shares(len(table)),
        normalise,
        description="sunspots: monthly mean sunspot numbers from January 1749 to December 1983",
        source="Andrews and Herzberg 1985",
        licence="none stated",
    )


JBROWNLEE = "https://raw.githubusercontent.com/jbrownlee/Datasets/master/"


def _file(file: str, url: str, checksum: str | None = None) -> Path:
    """The file as its source gives it, or gzipped where someone put it so."""
    with contextlib.suppress(DataUnavailable):
        return fetch("timeseries", file + ".gz", (), content=checksum)
    return fetch("timeseries", file, url, checksum=checksum)


def _divide(
    name: str, table: Dataset, target: str, sizes: Sequence[int], normalise: bool, mask: Any = None, **about: Any
) -> Splits:
    """Parts of these sizes, one after another, with the column ``target`` of the table as targets, normalised alike."""
    if len(table) < sum(sizes):
        raise CorruptData(f"{name} has {len(table):,} steps, wanted {sum(sizes):,}; is its file cut off?")
    column = (table.features or ()).index(target)
    masks = {} if mask is None else {"mask": mask}
    whole = Dataset({**_with_targets(table.inputs, column), **masks}, name, features=table.features)
    series, normaliser = whole, None
    if normalise:
        normaliser = Normaliser.fit(table.inputs[: sizes[0]])
        arrays = _with_targets(normaliser.apply(table.inputs), column)
        series = dataclasses.replace(whole, arrays={**whole.arrays, **arrays})
    starts = np.cumsum([0, *sizes])
    parts = {
        part: dataclasses.replace(series[start : start + size], name=f"{name}/{part}")
        for part, start, size in zip(PARTS, starts, sizes, strict=False)
    }
    return Splits(**parts, normaliser=normaliser, whole=whole, **about)


def _with_targets(inputs: np.ndarray, column: int) -> dict[str, np.ndarray]:
    return {"inputs": inputs, "targets": inputs[:, column]}


def _shares(steps: int) -> tuple[int, int, int]:
    """70, 10 and 20 percent."""
    train, test = 7 * steps // 10, 2 * steps // 10
    return train, steps - train - test, test


def _last_true(flags: np.ndarray) -> np.ndarray:
    """For each place of ``flags``, the last place up to it where it is true: ``int[T]``; 0 where there is none."""
    return np.maximum.accumulate(np.where(flags, np.arange(len(flags)), 0))
