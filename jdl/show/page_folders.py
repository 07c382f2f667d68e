"""Reading what runs left in folders: ``metrics.jsonl``, ``config.json`` and ``result.json``, whole or broken off."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdl.show.page import flat
from jdl.show.page_series import CLOCKS

METRICS, CONFIG, RESULT = "metrics.jsonl", "config.json", "result.json"


@dataclasses.dataclass(frozen=True)
class Kept:
    """One run as its folder tells it: its name, settings, rows of metrics, and what is known of its end."""

    name: str
    folder: Path
    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    status: str = ""


@dataclasses.dataclass(frozen=True)
class Folder:
    """All that a folder holds: its runs, the metrics of its result, and what could not be read."""

    path: Path
    name: str
    runs: Sequence[Kept]
    result: Mapping[str, Any]
    troubles: Sequence[str]


def read_folders(paths: Iterable[str | Path]) -> list[Folder]:
    """Read each folder once, and name it by what tells it apart from the others."""
    folders = list(dict.fromkeys(Path(path) for path in paths))
    return [_read(path, name) for path, name in zip(folders, _names(folders), strict=True)]


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of a ``metrics.jsonl``, and how many lines are none, as the last one of a killed process may be."""
    rows, broken = [], 0
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            broken += 1
    return rows, broken


def _read(path: Path, name: str) -> Folder:
    troubles: list[str] = []
    config, result = (_object(path / file, troubles) for file in (CONFIG, RESULT))
    rows: list[dict[str, Any]] = []
    if (path / METRICS).is_file():
        rows, broken = read_rows(path / METRICS)
        if broken:
            troubles.append(f"{path / METRICS}: left out {broken} broken {'line' if broken == 1 else 'lines'}")
    elif not result:
        troubles.append(f"{path} holds no {METRICS}" if path.is_dir() else f"{path} is no folder")
    settings = config.get("settings")
    settings = flat(settings) if isinstance(settings, Mapping) else {}
    if isinstance(optimizer := config.get("optimizer"), Mapping):
        settings |= flat({"optimizer": optimizer})
    status = result["status"] if isinstance(result.get("status"), str) else ""
    runs = [
        Kept(" ".join([name, *(f"{key}={value}" for key, value in labels)]), path, settings | dict(labels), own, status)
        for labels, own in _by_label(rows).items()
    ]
    metrics = result.get("metrics")
    kept = isinstance(metrics, Mapping) and not status  # a run of jdl.monitor has its result in its rows
    return Folder(path, name, runs, result if kept else {}, troubles)


def _object(path: Path, troubles: list[str]) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        troubles.append(f"{path} is not JSON: {error}")
        return {}
    return value if isinstance(value, dict) else {}


def _by_label(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[tuple[str, Any], ...], list[Mapping[str, Any]]]:
    """Runs that share a file stand apart by the labels that lead their rows, before the first clock."""
    runs: dict[tuple[tuple[str, Any], ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        names = list(row)
        if "step" not in row and "epoch" not in row:
            continue  # no report of training
        first = min(names.index(clock) for clock in CLOCKS if clock in row)
        labels = tuple((name, row[name] if _is_plain(row[name]) else str(row[name])) for name in names[:first])
        runs.setdefault(labels, []).append({name: row[name] for name in names[first:]})
    return runs


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, int, float))


def _names(paths: Sequence[Path]) -> list[str]:
    """Each path by its last part, and by as many more as tell it apart from the others."""
    parts = [path.resolve().parts for path in paths]
    return [next(_ends(own, [other for other in parts if other != own])) for own in parts]


def _ends(own: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> Iterator[str]:
    for count in range(1, len(own) + 1):
        if all(other[-count:] != own[-count:] for other in others) or count == len(own):
            yield "/".join(own[-count:]).replace("//", "/")
