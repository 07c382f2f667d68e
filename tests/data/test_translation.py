"""Pairs of sequences as teacher forcing takes them, and the sentences of Multi30k."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jdl
from jdl.data import CorruptData, DataUnavailable, TranslationSplits, join_words, sequence_pairs, sources, split_words
from tests.nn.toys import refused

START, END = 2, 3


def test_pairs_are_shifted_by_one_and_masked_behind_the_end():
    pairs = sequence_pairs([[5, 6, 7], [8]], [[9], [4, 5]], start=START, end=END, name="toy")
    assert pairs.name == "toy"
    np.testing.assert_array_equal(pairs.inputs["source"], [[5, 6, 7], [8, 0, 0]])
    np.testing.assert_array_equal(pairs.inputs["source_lengths"], [3, 1])
    np.testing.assert_array_equal(pairs.inputs["target"], [[START, 9, 0], [START, 4, 5]])
    np.testing.assert_array_equal(pairs.targets, [[9, END, 0], [4, 5, END]])
    np.testing.assert_array_equal(pairs["mask"], [[1, 1, 0], [1, 1, 1]])
    wide = sequence_pairs([[5]], [[9]], start=START, end=END, source_length=4, target_length=5)
    assert wide.inputs["source"].shape == (1, 4) and wide.targets.shape == wide["mask"].shape == (1, 5)


def test_pairs_that_are_none():
    with refused("sequence_pairs got 1 sources and 2 targets"):
        sequence_pairs([[5]], [[9], [8]], start=START, end=END)
    with refused("sources got None, wanted sequences of ids"):
        sequence_pairs(None, [[9]], start=START, end=END)  # pyright: ignore[reportArgumentType]
    with refused("target 1 got ('a'), wanted whole numbers [T]"):
        sequence_pairs([[5], [5]], [[9], ["a"]], start=START, end=END)
    for sources_, targets in (([[5], []], [[8], [9]]), ([[8], [9]], [[5], []])):
        with refused(f"got 1 empty of 2 {'sources' if [] in sources_ else 'targets'} (1); leave them out"):
            sequence_pairs(sources_, targets, start=START, end=END)
    with refused("got no sources"):
        sequence_pairs([], [], start=START, end=END)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source_length": 1}, "source 1 has 2 ids, wanted at most source_length=1; cut them first, [s[:1] for s in"),
        ({"target_length": 3}, "target 1 has 3 ids, wanted at most 2, for target_length=3 holds <start> or <end> too"),
        ({"target_length": 1}, "target_length got 1, wanted at least 2"),
        ({"target_length": 4.0}, "target_length got 4.0, wanted a whole number"),
        ({"end": 2**31}, "end got 2147483648, wanted 0 to 2147483647"),
        ({"start": "<start>"}, "start got '<start>', wanted a whole number"),
    ],
)
def test_sizes_of_pairs(options: dict[str, Any], message: str):
    chosen: dict[str, Any] = {"start": START, "end": END} | options
    with refused(message):
        sequence_pairs([[5], [6, 7]], [[9], [4, 5, 6]], **chosen)


def test_pairs_of_arrays_and_their_sizes():
    start, four = np.array([START, 4])
    pairs = sequence_pairs([np.array([5, 6])], [np.array([4, 5, 6])], start=start, end=END, target_length=four)
    np.testing.assert_array_equal(pairs.inputs["target"], [[START, 4, 5, 6]])
    np.testing.assert_array_equal(pairs.targets, [[4, 5, 6, END]])
    assert pairs.inputs["target"].dtype == np.int32


PARTS = {"train": [("a b", "c"), ("b", "d")], "validation": [("a", "c")], "test": [("b", "d")]}


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"test": []}, "toy got no pairs in test, wanted some in train, validation and test"),
        ({"validation": None}, "toy got no pairs in validation"),
        ({"validation": 3, "test": np.array([["b", "d"]])}, "toy got no pairs in validation, wanted"),
        ({"test": np.array([["b", "d"]])}, "test pair 0 got <U1[2], wanted two strings"),
        ({"train": [("a", "c"), ("b", " ")]}, "train pair 1 got the target ' ', wanted at least one token"),
        ({"test": [("", "d")]}, "test pair 0 got the source '', wanted at least one token; leave the pair out"),
        ({"train": [("a", "c"), "bd"]}, "train pair 1 got 'bd', wanted two strings (source, target)"),
        ({"test": [("a", "c", "d")]}, "test pair 0 got ('a', 'c', 'd'), wanted two strings"),
        ({"test": [("a", 3)]}, "test pair 0 got ('a', 3), wanted two strings"),
    ],
)
def test_sentences_that_are_no_pairs(parts: dict[str, Any], message: str):
    with refused(message):
        TranslationSplits.of("toy", PARTS | parts, str.split)


def test_sentences_of_no_kind():
    with refused("sentences got ", "wanted a dict of train, validation and test"):
        TranslationSplits.of("toy", [("a", "b")], str.split)  # pyright: ignore[reportArgumentType]
    with refused("split got None, wanted a function that makes tokens of a sentence"):
        TranslationSplits.of("toy", PARTS, None)  # pyright: ignore[reportArgumentType]
    with refused("train pair 0, as it is split, got the string 'A B', wanted a sequence of tokens"):
        TranslationSplits.of("toy", PARTS, str.upper)
    with refused("tokens got the string 'a b', wanted a sequence of tokens"):
        join_words("a b")


def test_sentences_may_come_one_by_one():
    splits = TranslationSplits.of("toy", {part: iter(pairs) for part, pairs in PARTS.items()}, str.split)  # pyright: ignore[reportArgumentType]
    assert splits.sentences == PARTS and len(splits.train) == 2


@pytest.mark.parametrize("text", ["l'homme est là, près d'un t-shirt.", "un homme ; assis", "a man's dog"])
def test_joined_words_are_the_sentence(text: str):
    assert join_words(split_words(text)) == text.replace(" ;", ";")


def written(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    """A data folder with these lines in place of the real ones."""
    (folder / "multi30k_en_fr").mkdir()
    lines = {
        "train.en": "A man.\nA man walks.\nTwo men walk far.\n",
        "train.fr": "Un homme.\nUn homme marche.\nDeux hommes marchent loin.\n",
        "val.en": "A man walks.\nA man and a dog walk.\n",
        "val.fr": "Un homme marche.\nUn homme et un chien marchent.\n",
        "test_2016_flickr.en": "A dog walks.\n",
        "test_2016_flickr.fr": "Un chien marche.\n",
    }
    for name, text in (lines | files).items():
        (folder / "multi30k_en_fr" / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    monkeypatch.setenv("JDL_DATA_DIR", str(folder))


def test_multi30k_numbers_the_words_of_its_training_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written(tmp_path, monkeypatch)
    splits = jdl.data.load("multi30k", longest=4, pairs=2, min_count=1)
    assert isinstance(splits, TranslationSplits)
    assert splits.source_vocabulary.tokens[2:] == (".", "a", "man", "walks")
    assert splits.target_vocabulary.tokens[2:] == ("<start>", "<end>", ".", "homme", "un", "marche")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [2, 1, 1]
    assert splits.sentences["test"] == [("A dog walks.", "Un chien marche.")]
    assert splits.train.inputs["source"].shape == (2, 4) and splits.train.targets.shape == (2, 5)
    a, unknown, walks, stop = splits.test.inputs["source"][0]
    assert [splits.source_vocabulary.tokens[i] for i in (a, unknown, walks, stop)] == ["a", "<unk>", "walks", "."]
    backwards = jdl.data.load("multi30k", source="fr", target="en", min_count=1)
    assert "homme" in backwards.source_vocabulary and "<end>" in backwards.target_vocabulary
    assert len(backwards.train) == 3 and backwards.validation.targets.shape[1] == backwards.test.targets.shape[1] == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": "de"}, "multi30k got source='de' and target='fr', wanted 'en' and 'fr'"),
        ({"source": ["en"]}, "multi30k got source=['en'] and target='fr', wanted 'en' and 'fr'"),
        ({"longest": 2}, "multi30k got no pairs in train, validation, test"),
        ({"longest": "4"}, "longest got '4', wanted a whole number"),
        ({"pairs": -1}, "pairs got -1, wanted at least 1"),
    ],
)
def test_options_that_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], message: str
):
    written(tmp_path, monkeypatch)
    with refused(message):
        jdl.data.load("multi30k", **options)


def test_files_of_other_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written(tmp_path, monkeypatch, **{"val.fr": "Un homme marche.\n"})
    with pytest.raises(CorruptData, match=r"val.en.gz and val.fr.gz have 2 lines and 1 lines"):
        jdl.data.load("multi30k")


@pytest.mark.slow
def test_the_real_pairs(monkeypatch: pytest.MonkeyPatch):
    def nothing(*_: Any) -> None:
        raise OSError("a test does not download")

    monkeypatch.setattr(sources, "_download", nothing)
    try:
        splits = jdl.data.load("multi30k")
    except DataUnavailable:
        pytest.skip("its data is neither in JDL_DATA_DIR nor in the cache")
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [29_000, 1_014, 1_000]
    assert splits.sentences["train"][0] == (
        "Two young, White males are outside near many bushes.",
        "Deux jeunes hommes blancs sont dehors près de buissons.",
    )
