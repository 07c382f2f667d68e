"""Data sets of text by name."""

from __future__ import annotations

import dataclasses

import numpy as np

from jdl.data.dataset import Dataset
from jdl.data.files import TextFile
from jdl.data.registry import Splits, register
from jdl.data.sources import CorruptData, fetch
from jdl.data.text import Vocabulary, pad

SST2_ADDRESS = "https://raw.githubusercontent.com/clairett/pytorch-sentiment-classification/master/data/SST2/"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class TextSplits(Splits):
    """Splits whose inputs are ids of tokens.

    Attributes:
        vocabulary: what the ids mean, counted on ``train`` alone.
    """

    vocabulary: Vocabulary = dataclasses.field(kw_only=True)


@register("sst2")
def sst2(min_count: int = 1, max_size: int | None = None) -> TextSplits:
    """9,602 sentences of film reviews, 0 negative or 1 positive, in the splits of their source.

    Inputs are ``{"tokens": int32[N, T], "lengths": int32[N]}``, T the length of the longest sentence, targets
    ``int32[N]``. The text has been split at spaces by its makers, and put in lower case. Of the 6,920 training lines
    11 are left out: nine repeat another, and two ("no", "what 's next ?") are test sentences. The parse trees of the
    source, with labels of phrases, are not in here.

    Args:
        min_count: words that come less often in the training sentences are unknown; see `Vocabulary.of`.
        max_size: the largest vocabulary.
    """
    train, validation, test = (_labelled_lines(name) for name in ("train", "dev", "test"))
    train = {text: label for text, label in train.items() if text not in test and text not in validation}
    vocabulary = Vocabulary.of((text.split() for text in train), min_count=min_count, max_size=max_size)
    longest = max(len(text.split()) for part in (train, validation, test) for text in part)

    def part(name: str, lines: dict[str, int]) -> Dataset:
        return Dataset(
            {
                "inputs": pad([vocabulary.encode(text.split()) for text in lines], longest),
                "targets": np.array(list(lines.values()), np.int32),
            },
            name=f"sst2/{name}",
            classes=("negative", "positive"),
        )

    return TextSplits(
        part("train", train),
        part("validation", validation),
        part("test", test),
        vocabulary=vocabulary,
        description="sst2: sentences of film reviews; is the review positive?",
        source="Stanford Sentiment Treebank, Socher et al. 2013, whole sentences without the neutral ones",
        licence="none stated",
    )


def _labelled_lines(name: str) -> dict[str, int]:
    """Text and label of each line of a file, repeated lines once."""
    file = f"{name}.tsv"
    lines = TextFile(fetch("sst2", file, SST2_ADDRESS + file))
    labelled = {}
    for number in range(len(lines)):
        text, _, label = lines[number].partition("\t")
        where = f"line {number + 1} of {lines.path}"
        if not text.strip() or label not in ("0", "1"):
            raise CorruptData(f"{where} is {lines[number]!r}, wanted a text, a tab, and 0 or 1")
        if labelled.setdefault(text, int(label)) != int(label):
            raise CorruptData(f"{where} repeats {text!r} with another label")
    return labelled
