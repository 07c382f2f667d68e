"""Words, vocabularies and padding."""

from __future__ import annotations

import itertools
import pickle
import re
from pathlib import Path
from typing import Any

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
        ("हिन्दी भाषा।", ["हिन्दी", "भाषा", "।"]),  # marks of Unicode stay on their letters
        ("ที่นี่ cafe\u0301s!\u0301a", ["ที่นี่", "cafe\u0301s", "!\u0301", "a"]),
    ],
)
def test_split_words(text: str, words: list[str]):
    assert split_words(text) == words


def test_ids_by_frequency_then_alphabet():
    vocabulary = Vocabulary.of(SENTENCES)
    assert vocabulary.tokens == ("<pad>", "<unk>", "the", "cat", "dog", "saw", "a")
    assert (vocabulary.padding_id, vocabulary.unknown_id, len(vocabulary)) == (0, 1, 7)
    assert vocabulary["the"] == 2 and vocabulary["bird"] == 1
    assert "cat" in vocabulary and "bird" not in vocabulary and 2 not in vocabulary and ["cat"] not in vocabulary
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


def test_a_half_written_vocabulary_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, vocabulary = tmp_path / "words.json", Vocabulary.of(SENTENCES)
    vocabulary.save(path)

    def full(self: Path, *_: Any, **__: Any) -> None:
        self.write_bytes(b'{"tok')
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space"):
        patch.setattr(Path, "write_text", full)
        Vocabulary.of([["other"]]).save(path)
    assert Vocabulary.load(path) == vocabulary and list(tmp_path.iterdir()) == [path]


def test_places_where_no_vocabulary_goes(tmp_path: Path):
    with pytest.raises(InputError, match=r"path got the suffix '', wanted \.json"):
        Vocabulary.of(SENTENCES).save(tmp_path / "words")
    with pytest.raises(InputError, match="does not exist; make it first"):
        Vocabulary.of(SENTENCES).save(tmp_path / "none" / "words.json")


def test_what_no_unicode_text_holds_is_saved(tmp_path: Path):
    vocabulary = Vocabulary.of([[b"caf\xe9".decode("ascii", "surrogateescape")]])
    vocabulary.save(tmp_path / "words.json")
    assert Vocabulary.load(tmp_path / "words.json") == vocabulary


def test_a_character_as_two_surrogates_is_not_saved(tmp_path: Path):
    halves = Vocabulary.of([["\ud83d", "\ude00"]])
    halves.save(tmp_path / "words.json")
    assert Vocabulary.load(tmp_path / "words.json") == halves
    with pytest.raises(InputError, match=r"tokens got '\\ud83d\\ude00', with a character as two surrogates; join"):
        Vocabulary.of([["\ud83d\ude00"]]).save(tmp_path / "words.json")


BROKEN = [
    "[" * 100_000,
    "",
    "not json",
    '{"tokens": ["<pad>", "<un',
    "[1]",
    '{"words": []}',
    '{"tokens": 3}',
    '{"tokens": ["a", "b"]}',
]


@pytest.mark.parametrize("content", [*map(str.encode, BROKEN), b"\xff\xfe", None])
def test_files_that_hold_none(tmp_path: Path, content: bytes | None):
    path = tmp_path / "words.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{re.escape(str(path))}.*(no vocabulary that|there is no file)"):
        Vocabulary.load(path)


def test_a_vocabulary_gives_its_tokens_one_by_one():
    assert list(itertools.islice(Vocabulary.of([["a"]]), 9)) == ["<pad>", "<unk>", "a"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Vocabulary.of(["the cat"]), r"sentence 0 got the string 'the cat', .*split it first, by split_words"),
        (lambda: Vocabulary.of([["a"], [1]]), r"sentence 1 got \(1\), wanted a sequence of strings"),  # pyright: ignore
        (lambda: Vocabulary.of([["a"]], min_count=0), "min_count got 0, wanted at least 1"),
        (lambda: Vocabulary.of([["a"]], max_size=1), "max_size got 1, wanted at least 2"),
        (lambda: Vocabulary.of([["a"]], max_size=0), "max_size got 0, wanted at least 2"),
        (lambda: Vocabulary.of("the cat"), "sentences got the string 'the cat', wanted many sequences of tokens"),
        (lambda: Vocabulary.of(None), "sentences got None, wanted many sequences of tokens"),  # pyright: ignore
        (lambda: Vocabulary.of([["a"]], special=None), "special got None, wanted a sequence of strings"),  # pyright: ignore
        (lambda: Vocabulary.of([["a"]])[2], r"vocabulary\[…\] got 2, wanted a token, .*vocabulary\.tokens\[id\]"),  # pyright: ignore
        (lambda: Vocabulary.of([["a"]])[["a"]], r"vocabulary\[…\] got \('a'\), wanted a token"),  # pyright: ignore
        (lambda: split_words(None), "text got None, wanted a string"),  # pyright: ignore
        (lambda: split_words(b"a"), "text got b'a', wanted a string"),  # pyright: ignore
        (lambda: Vocabulary.of([["a"]], special="<start>"), "special got the string '<start>'"),
        (lambda: Vocabulary(("a", "b")), "wanted '<pad>' and '<unk>' before the others"),
        (lambda: Vocabulary(("<pad>", "<unk>", "a", "b", "a")), "tokens got 'a' twice"),
        (lambda: Vocabulary(("<pad>", "<unk>", 1)), r"wanted strings; Vocabulary\.of\(sentences\) counts texts"),  # pyright: ignore
        (lambda: Vocabulary.of([["a"]]).encode("a"), "sentence got the string 'a'"),
        (lambda: Vocabulary.of([["a"]]).decode([2, 3]), r"ids got 2 to 3, wanted 0 to 2, those of Vocabulary\(3"),
        (lambda: Vocabulary.of([["a"]]).decode([-1]), "ids got -1 to -1"),
        (lambda: Vocabulary.of([["a"]]).decode([[0]]), r"wanted whole numbers \[T\]"),
        (lambda: Vocabulary.of([["a"]]).decode([0.5]), r"wanted whole numbers \[T\]"),
        (lambda: pad([]), "got no sequences"),
        (lambda: pad([[1], [], [2], []]), r"got 2 empty of 4 sequences \(1, 3\); leave them out"),
        (lambda: pad([[1], [1, 2, 3]], 2), r"sequence 1 has 3 ids, wanted at most length=2; cut them first, \[s\[:2\]"),
        (lambda: pad([["a"]]), r"sequence 0 got \('a'\), wanted whole numbers \[T\]; Vocabulary.encode"),
        (lambda: pad([[[1]]]), r"sequence 0 got .*, wanted whole numbers \[T\]"),
        (lambda: pad([[1], [[1], [2, 3]]]), r"sequence 1 got \(\(1\), \(2, 3\)\), wanted whole numbers \[T\]"),
        (lambda: pad([[1], [1.0, 2.0]]), r"sequence 1 got \(1.0, 2.0\), wanted whole numbers \[T\]"),
        (lambda: pad([[True]]), r"sequence 0 got \(True\), wanted whole numbers \[T\]"),
        (lambda: pad([1, 2]), r"sequence 0 got 1, wanted whole numbers \[T\]"),
        (lambda: pad(None), "sequences got None, wanted sequences of ids"),  # pyright: ignore
        (lambda: pad([[1]], 0), "length got 0, wanted at least 1"),
        (lambda: pad([[1], [3, 2**31]]), "sequence 1 got the id 2147483648, wanted ids that int32 holds"),
        (lambda: pad([np.array([-(2**40)])]), "sequence 0 got the id -1099511627776"),
        (lambda: pad([np.array([2**64 - 1], np.uint64)]), "sequence 0 got the id 18446744073709551615"),
        (lambda: pad([[-1, 2**63]]), "sequence 0 got the id 9223372036854775808"),
        (lambda: pad([[10**30]]), "sequence 0 got the id 10{30}"),
        (lambda: Vocabulary.of([["a"]]).decode([2**40]), "ids got the id 1099511627776"),
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
