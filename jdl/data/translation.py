"""Pairs of sequences to learn the one from the other, and pairs of sentences by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jdl.check import InputError, describe
from jdl.data.counts import whole
from jdl.data.dataset import Dataset
from jdl.data.files import TextFile
from jdl.data.registry import PARTS, Splits, register
from jdl.data.sources import CorruptData, fetch
from jdl.data.text import Vocabulary, as_rows, as_tokens, check_longest, padded, split_words

Pairs = Sequence[tuple[str, str]]
Split = Callable[[str], Sequence[str]]

START, END = "<start>", "<end>"
MULTI30K_ADDRESS = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
MULTI30K_FILES = {"train": "train", "validation": "val", "test": "test_2016_flickr"}


def sequence_pairs(
    sources: Sequence[Any],
    targets: Sequence[Any],
    *,
    start: int,
    end: int,
    source_length: int | None = None,
    target_length: int | None = None,
    name: str = "",
) -> Dataset:
    """Sequences of ids ``[S]`` and those to be written from them ``[T - 1]``, as teacher forcing takes them.

    Inputs are ``{"source": int32[N, S], "target": int32[N, T], "source_lengths": int32[N]}``, where ``target`` begins
    with ``start``; targets ``int32[N, T]`` are the same one step on, and close with ``end``. A ``mask float32[N, T]``
    leaves out what stands behind that. S and T are those of the longest unless given.

    Raises:
        InputError: another number of sources than of targets, an empty sequence, one that is longer than S or T - 1, or
            ids that are not whole numbers within int32.
    """
    sources, targets = as_rows(sources, "source"), as_rows(targets, "target")
    if len(sources) != len(targets):
        raise InputError(f"sequence_pairs got {len(sources)} sources and {len(targets)} targets, wanted pairs")
    start, end = whole("start", start, 0, 2**31), whole("end", end, 0, 2**31)
    if source_length is not None:
        most = whole("source_length", source_length, 1)
        check_longest(sources, "source", most, f"source_length={most}")
    if target_length is not None:
        most = whole("target_length", target_length, 2) - 1
        wanted = f"{most}, for target_length={target_length} holds {START} or {END} too"
        check_longest(targets, "target", most, wanted)
    source = padded(sources, source_length)
    target = padded([np.append(start, ids) for ids in targets], target_length)
    ahead = padded([np.append(ids, end) for ids in targets], target_length)
    mask = np.arange(ahead["tokens"].shape[1]) < ahead["lengths"][:, None]
    inputs = {"source": source["tokens"], "target": target["tokens"], "source_lengths": source["lengths"]}
    arrays = {"inputs": inputs, "targets": ahead["tokens"], "mask": mask.astype(np.float32)}
    return Dataset(arrays, name)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TranslationSplits(Splits):
    """Splits of pairs of sentences; see `sequence_pairs` for their arrays.

    Attributes:
        source_vocabulary: what the ids of the sources mean, counted on ``train`` alone.
        target_vocabulary: the same of the targets; holds ``<start>`` and ``<end>``.
        sentences: the pairs as they are written, by part: ``sentences["test"][0]`` is ``(source, target)``.
    """

    source_vocabulary: Vocabulary = dataclasses.field(kw_only=True)
    target_vocabulary: Vocabulary = dataclasses.field(kw_only=True)
    sentences: Mapping[str, Pairs] = dataclasses.field(kw_only=True)

    @classmethod
    def of(
        cls, name: str, sentences: Mapping[str, Pairs], split: Split, *, min_count: int = 1, **about: str
    ) -> TranslationSplits:
        """Number the tokens of pairs ``(source, target)``, given by part: train, validation and test.

        ``split`` makes tokens of a sentence: `split_words`, or ``list`` for characters. Those that come less often than
        ``min_count`` in the training sentences are unknown. ``about`` are the other attributes.

        Raises:
            InputError: a part without pairs, a pair that is not two strings, or a sentence without tokens; the message
                names the part and the number of the pair.
        """
        if not isinstance(sentences, Mapping):
            raise InputError(f"sentences got {describe(sentences)}, wanted a dict of train, validation and test")
        if not callable(split):
            raise InputError(f"split got {describe(split)}, wanted a function that makes tokens of a sentence")
        sentences = {part: list(given) if np.iterable(given := sentences.get(part)) else [] for part in PARTS}
        if empty := [part for part in PARTS if not sentences[part]]:
            raise InputError(f"{name} got no pairs in {', '.join(empty)}, wanted some in train, validation and test")
        tokens = {part: _split_pairs(part, sentences[part], split) for part in PARTS}
        ours, theirs = (
            Vocabulary.of((pair[side] for pair in tokens["train"]), min_count=min_count, special=special)
            for side, special in ((0, ()), (1, (START, END)))
        )
        longest = [max(len(pair[side]) for part in PARTS for pair in tokens[part]) for side in (0, 1)]
        train, validation, test = (
            sequence_pairs(
                [ours.encode(source) for source, _ in tokens[part]],
                [theirs.encode(target) for _, target in tokens[part]],
                start=theirs[START],
                end=theirs[END],
                source_length=longest[0],
                target_length=longest[1] + 1,
                name=f"{name}/{part}",
            )
            for part in PARTS
        )
        known = {"source_vocabulary": ours, "target_vocabulary": theirs, "sentences": sentences}
        return cls(train, validation, test, **known, **about)  # pyright: ignore[reportArgumentType]


@register("multi30k")
def multi30k(
    source: str = "en", target: str = "fr", longest: int | None = None, pairs: int | None = None, min_count: int = 2
) -> TranslationSplits:
    """31,014 descriptions of pictures in English and French: 29,000 pairs, 1,014 and, of flickr 2016, 1,000 to test.

    Words and signs are tokens, in lower case; see `sequence_pairs` for the arrays. A test pair stays in the test set
    also where its words are unknown.

    Args:
        source: "en" or "fr".
        target: the other.
        longest: only pairs of at most so many tokens on either side, in all three parts.
        pairs: only the first so many training pairs.
        min_count: tokens that come less often in the training sentences are unknown.
    """
    if (source, target) not in (("en", "fr"), ("fr", "en")):
        raise InputError(f"multi30k got source={source!r} and target={target!r}, wanted 'en' and 'fr' or 'fr' and 'en'")
    longest = None if longest is None else whole("longest", longest, 1)
    pairs = None if pairs is None else whole("pairs", pairs, 1)
    sentences = {part: _aligned(file, (source, target), longest) for part, file in MULTI30K_FILES.items()}
    sentences["train"] = sentences["train"][:pairs]
    return TranslationSplits.of(
        "multi30k",
        sentences,
        _words,
        min_count=min_count,
        description=f"multi30k: descriptions of pictures, from {source} to {target}",
        source="Elliott et al. 2016 and 2017, task 1; pictures of Flickr30k",
        licence="research use",
    )


def join_words(tokens: Sequence[str]) -> str:
    """A sentence of tokens: ``["l", "'", "ami", "."]`` is "l'ami.".

    Raises:
        InputError: ``tokens`` is not a sequence of strings.
    """
    return re.sub(r" (?=[.,;])| ?(['’-]) ?", r"\1", " ".join(as_tokens(tokens, "tokens")))


def _split_pairs(part: str, pairs: Pairs, split: Split) -> list[tuple[Sequence[str], Sequence[str]]]:
    """The tokens of each pair of sentences."""
    found = []
    for index, pair in enumerate(pairs):
        where = f"{part} pair {index}"
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not all(isinstance(text, str) for text in pair):
            raise InputError(f"{where} got {describe(pair)}, wanted two strings (source, target)")
        both = [as_tokens(split(text), f"{where}, as it is split,") for text in pair]
        for side, text, tokens in zip(("source", "target"), pair, both, strict=True):
            if not tokens:
                raise InputError(f"{where} got the {side} {text!r}, wanted at least one token; leave the pair out")
        found.append(tuple(both))
    return found


def _words(sentence: str) -> list[str]:
    """The tokens of a sentence: words and signs, in lower case."""
    return split_words(sentence.lower())


def _aligned(file: str, languages: tuple[str, str], longest: int | None) -> list[tuple[str, str]]:
    """The pairs of a file in two languages, line by line."""
    names = [f"{file}.{language}.gz" for language in languages]
    texts = [TextFile(fetch("multi30k_en_fr", name, MULTI30K_ADDRESS + name)) for name in names]
    if len(texts[0]) != len(texts[1]):
        lines = " and ".join(f"{len(text):,} lines" for text in texts)
        raise CorruptData(f"{' and '.join(names)} have {lines}, wanted a line for each sentence in both")
    pairs = [(texts[0][i].strip(), texts[1][i].strip()) for i in range(len(texts[0]))]
    return [pair for pair in pairs if longest is None or max(len(_words(sentence)) for sentence in pair) <= longest]
