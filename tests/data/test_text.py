"""Words, vocabularies and padding."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jdl.check import InputError
from jdl.data import Vocabulary, pad, split_words

SENTENCES = [["the", "cat", "saw", "the", "dog"], ["a", "dog", "saw", "the", "cat"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's 3,5 m.", ["It", "'", "s", "3", ",", "5", "m", "."]),
        ("Deux garçons à l’école…", ["Deux", "garçons", "à", "l", "’", "école", "…"]),
        ("  well-made \n\t(2nd) ", ["well", "-", "made", "(", "2nd", ")"]),
        ("<pad> snake_case", ["<", "pad", ">", "snake_case"]),
        ("", []),
    ],
)
def test_split_words(text: str, words: list[str]):
    assert split_words(text) == words


def test_ids_by_frequency_then_alphabet():
    vocabulary = Vocabulary.of(SENTENCES)
    assert vocabulary.tokens == ("<pad>", "<unk>", "the", "cat", "dog", "saw", "a")
    assert (vocabulary.padding_id, vocabulary.unknown_id, len(vocabulary)) == (0, 1, 7)
    assert vocabulary["the"] == 2 and vocabulary["bird"] == 1
    assert "cat" in vocabulary and "bird" not in vocabulary
    ids = vocabulary.encode(["a", "bird", "saw"])
    assert ids.tolist() == [6, 1, 5] and ids.dtype == np.int32
    assert vocabulary.decode([*ids, 0, 0]) == ["a", "<unk>", "saw"]
    assert vocabulary.encode([]).shape == (0,) and vocabulary.decode([]) == []
    assert repr(vocabulary) == "Vocabulary(7 tokens: '<pad>', '<unk>', 'the', 'cat', 'dog', 'saw', …)"


def test_counts_and_sizes():
    assert Vocabulary.of(SENTENCES, min_count=3).tokens == ("<pad>", "<unk>", "the")
    assert Vocabulary.of(SENTENCES, max_size=4).tokens == ("<pad>", "<unk>", "the", "cat")
    special = Vocabulary.of(iter(SENTENCES), special=("<start>", "dog"), min_count=3)
    assert special.tokens == ("<pad>", "<unk>", "<start>", "dog", "the")
    assert Vocabulary.of([list("abba")]).encode(["a", "b"]).tolist() == [2, 3]
    # the marks themselves are counted like no other token, wherever a text has them
    assert Vocabulary.of([["<unk>", "<pad>", "x"]]).tokens == ("<pad>", "<unk>", "x")
    assert Vocabulary.of([]).tokens == ("<pad>", "<unk>")


@given(st.lists(st.lists(st.text(max_size=3), max_size=5), max_size=5))
def test_what_was_counted_comes_back(sentences: list[list[str]]):
    vocabulary = Vocabulary.of(sentences)
    for sentence in sentences:
        assert vocabulary.decode(vocabulary.encode(sentence)) == sentence


def test_saved_and_loaded(tmp_path: Path):
    vocabulary = Vocabulary.of([["école", '"', "\\", "\n", "猫"]])
    vocabulary.save(tmp_path / "words.json")
    assert Vocabulary.load(tmp_path / "words.json") == vocabulary
    assert "école" in (tmp_path / "words.json").read_text("utf-8")
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary
    for number, content in enumerate(("not json", "[1]", '{"words": []}', '{"tokens": 3}', '{"tokens": ["a", "b"]}')):
        path = tmp_path / f"{number}.json"
        path.write_text(content)
        with pytest.raises(InputError, match=r"vocabulary|tokens"):
            Vocabulary.load(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vocabulary.of(["the cat"]), r"sentence 0 got the string 'the cat', .*split it first, by split_words"),
        (lambda: Vocabulary.of([["a"], [1]]), r"sentence 1 got \(1\), wanted a sequence of strings"),  # pyright: ignore
        (lambda: Vocabulary.of([["a"]], min_count=0), "min_count got 0, wanted a whole number of at least 1"),
        (lambda: Vocabulary.of([["a"]], max_size=1), "max_size got 1, wanted at least 2, for <pad>, <unk>"),
        (lambda: Vocabulary.of([["a"]], special="<start>"), "special got the string '<start>'"),
        (lambda: Vocabulary(("a", "b")), "wanted '<pad>' and '<unk>' before the others"),
        (lambda: Vocabulary(("<pad>", "<unk>", "a", "b", "a")), "tokens got 'a' twice"),
        (lambda: Vocabulary(("<pad>", "<unk>", 1)), r"wanted strings; Vocabulary\.of\(sentences\) counts texts"),  # pyright: ignore
        (lambda: Vocabulary.of([["a"]]).encode("a"), "sentence got the string 'a'"),
        (lambda: Vocabulary.of([["a"]]).decode([2, 3]), r"ids got 2 to 3, wanted 0 to 2, those of Vocabulary\(3"),
        (lambda: Vocabulary.of([["a"]]).decode([-1]), "ids got -1 to -1"),
        (lambda: Vocabulary.of([["a"]]).decode([[0]]), r"wanted whole numbers \[T\]"),
        (lambda: Vocabulary.of([["a"]]).decode([0.5]), r"wanted whole numbers \[T\]"),
        (lambda: pad([]), "pad got no sequences"),
        (lambda: pad([[1], [], [2], []]), r"pad got 2 empty of 4 sequences \(1, 3\); leave them out"),
        (lambda: pad([[1], [1, 2, 3]], 2), r"sequence 1 has 3 ids, wanted at most length=2; cut them first, \[s\[:2\]"),
        (lambda: pad([["a"]]), r"sequence 0 got \('a'\), wanted whole numbers \[T\]; Vocabulary.encode"),
        (lambda: pad([[[1]]]), r"sequence 0 got .*, wanted whole numbers \[T\]"),
    ],
)
def test_refused(make, message: str):
    with pytest.raises(InputError, match=message):
        make()


def test_pad():
    padded = pad([[3, 4], np.array([5]), (6, 7, 8)])
    assert padded["tokens"].tolist() == [[3, 4, 0], [5, 0, 0], [6, 7, 8]]
    assert padded["lengths"].tolist() == [2, 1, 3]
    assert {value.dtype for value in padded.values()} == {np.dtype(np.int32)}
    assert pad([[1]], 3)["tokens"].tolist() == [[1, 0, 0]]
