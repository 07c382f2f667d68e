"""The data sets of text by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import jdl.data
from jdl.data import CorruptData, DataUnavailable, TextSplits, text_sets
from jdl.data.text_sets import sst2

LINES = {
    "train": ["a fine film\t1", "no\t0", "a dull film\t0", "a fine film\t1", "fine , fine\t1", "so so\t0"],
    "dev": ["a film\t0", "so so\t0"],
    "test": ["no\t0", "quite a fine film , quite\t1"],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JDL_DATA_DIR", str(tmp_path))
    (tmp_path / "sst2").mkdir()
    for name, lines in LINES.items():
        (tmp_path / "sst2" / f"{name}.tsv").write_text("\n".join(lines))
    return tmp_path / "sst2"


def sentences(part: jdl.data.Dataset, vocabulary: jdl.data.Vocabulary) -> list[str]:
    return [" ".join(vocabulary.decode(row)) for row in part.inputs["tokens"]]


def test_sst2_leaves_out_what_repeats_and_what_is_tested(folder: Path):
    splits = jdl.data.load("sst2")
    assert isinstance(splits, TextSplits)
    vocabulary = splits.vocabulary
    assert sentences(splits.train, vocabulary) == ["a fine film", "a dull film", "fine , fine"]
    assert splits.train.targets.tolist() == [1, 0, 1] and splits.train.targets.dtype == np.int32
    assert vocabulary.tokens == ("<pad>", "<unk>", "fine", "a", "film", ",", "dull")
    assert sentences(splits.validation, vocabulary) == ["a film", "<unk> <unk>"]
    assert sentences(splits.test, vocabulary) == ["<unk>", "<unk> a fine film , <unk>"]
    assert splits.test.inputs["lengths"].tolist() == [1, 6]
    assert {part.inputs["tokens"].shape[1] for part in (splits.train, splits.validation, splits.test)} == {6}
    assert splits.train.classes == ("negative", "positive")
    assert sst2(min_count=2).vocabulary.tokens == ("<pad>", "<unk>", "fine", "a", "film")
    assert len(sst2(max_size=3).vocabulary) == 3


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no label", "line 7 of .*train.tsv is 'no label', wanted a text, a tab, and 0 or 1"),
        ("strange\t2", "wanted a text, a tab, and 0 or 1"),
        ("\t1", "wanted a text, a tab, and 0 or 1"),
        ("a fine film\t0", "line 7 of .*train.tsv repeats 'a fine film' with another label"),
    ],
)
def test_other_files_are_refused(folder: Path, line: str, message: str):
    (folder / "train.tsv").write_text("\n".join([*LINES["train"], line]))
    with pytest.raises(CorruptData, match=message):
        jdl.data.load("sst2")


def test_real_sst2(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(text_sets, "SST2_ADDRESS", "file:///nowhere/")  # a test does not download
    try:
        splits = sst2()
    except DataUnavailable:
        pytest.skip("SST-2 is neither in JDL_DATA_DIR nor in the cache")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [6_909, 872, 1_821]
    assert [int(part.targets.sum()) for part in (splits.validation, splits.test)] == [444, 909]
    assert splits.train.inputs["tokens"].shape[1] == 53 and splits.test.inputs["lengths"].max() == 53
    assert len(splits.vocabulary) == 13_840
    texts = [set(sentences(part, splits.vocabulary)) for part in (splits.train, splits.test)]
    assert len(texts[0]) == 6_909 and not texts[0] & texts[1]
