"""Text as numbers: words, a vocabulary that numbers them, and sentences of several lengths as one array."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jdl.check import InputError, describe

PADDING, UNKNOWN = "<pad>", "<unk>"


def split_words(text: str) -> list[str]:
    """The words and signs of a text: runs of letters, digits and ``_`` are words, any other sign stands alone.

    White space only separates, and case stays: ``split_words("It's 3,5 m.")`` is ``["It", "'", "s", "3", ",", "5",
    "m", "."]``. Text that has been split before, with spaces between the pieces, wants ``text.split()`` instead.
    """
    return re.findall(r"\w+|[^\w\s]", text)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Tokens numbered 0, 1, …: padding is 0, and 1 stands for every token that is not here.

    A token is a string: a word, a character, a piece of a word. ``vocabulary["the"]`` is its id, ``"the" in
    vocabulary`` whether it has one of its own, ``len(vocabulary)`` how many rows an ``nn.Embedding`` needs.

    Attributes:
        tokens: in the order of their ids; the first two are ``<pad>`` and ``<unk>``.

    Raises:
        InputError: tokens that are not strings, that come twice, or without these two first.
    """

    tokens: tuple[str, ...]

    padding_id: ClassVar[int] = 0
    unknown_id: ClassVar[int] = 1

    def __post_init__(self) -> None:
        tokens = self.tokens
        if not isinstance(tokens, (tuple, list)) or not all(isinstance(token, str) for token in tokens):
            raise InputError(f"tokens got {describe(tokens)}, wanted strings; Vocabulary.of(sentences) counts texts")
        if tuple(tokens[:2]) != (PADDING, UNKNOWN):
            raise InputError(f"tokens got {describe(tokens)}, wanted {PADDING!r} and {UNKNOWN!r} before the others")
        object.__setattr__(self, "tokens", tuple(tokens))
        if len(self._ids) < len(tokens):
            twice = next(token for index, token in enumerate(tokens) if self[token] != index)
            raise InputError(f"tokens got {twice!r} twice, wanted each once")

    @functools.cached_property
    def _ids(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}

    @classmethod
    def of(
        cls,
        sentences: Iterable[Sequence[str]],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        special: Sequence[str] = (),
    ) -> Vocabulary:
        """Count the tokens of training sentences; the most frequent get the lowest ids, equally frequent by alphabet.

        Args:
            sentences: each a sequence of tokens: ``split_words(text)``, or ``list(text)`` for characters.
            min_count: a token that comes less often stays unknown.
            max_size: at most so many tokens in all, padding, unknown and special ones among them.
            special: tokens to have in any case, such as ``("<start>", "<end>")``: ids 2, 3, ….

        Raises:
            InputError: a sentence is not a sequence of strings, or one of the numbers is too small.
        """
        first = tuple(dict.fromkeys((PADDING, UNKNOWN, *_tokens(special, "special"))))
        if type(min_count) is not int or min_count < 1:
            raise InputError(f"min_count got {min_count!r}, wanted a whole number of at least 1")
        if max_size is not None and (type(max_size) is not int or max_size < len(first)):
            raise InputError(f"max_size got {max_size!r}, wanted at least {len(first)}, for {', '.join(first)}")
        counts = Counter(token for index, s in enumerate(sentences) for token in _tokens(s, f"sentence {index}"))
        kept = sorted((token for token, count in counts.items() if count >= min_count), key=lambda t: (-counts[t], t))
        return cls(tuple(dict.fromkeys((*first, *kept)))[:max_size])

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    def __getitem__(self, token: str) -> int:
        return self._ids.get(token, self.unknown_id)

    def __repr__(self) -> str:
        listed = ", ".join(map(repr, self.tokens[:6])) + ", …" * (len(self) > 6)
        return f"Vocabulary({len(self):,} tokens: {listed})"

    def encode(self, sentence: Sequence[str]) -> np.ndarray:
        """The ids of a sequence of tokens, ``int32[T]``.

        Raises:
            InputError: it is no sequence of strings.
        """
        return np.array([self[token] for token in _tokens(sentence, "sentence")], np.int32)

    def decode(self, ids: Any) -> list[str]:
        """The tokens of ``ids [T]``, without padding.

        Raises:
            InputError: the ids are not whole numbers ``[T]`` of this vocabulary.
        """
        ids = _sequence(ids, "ids")
        if ids.size and not (ids.min() >= 0 and ids.max() < len(self)):
            raise InputError(f"ids got {ids.min()} to {ids.max()}, wanted 0 to {len(self) - 1}, those of {self!r}")
        return [self.tokens[i] for i in ids if i != self.padding_id]

    def save(self, path: str | Path) -> None:
        """Write it as JSON, ``{"tokens": […]}``."""
        Path(path).write_text(json.dumps({"tokens": self.tokens}, ensure_ascii=False, indent=0) + "\n", "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            InputError: it is another file.
        """
        try:
            tokens = json.loads(Path(path).read_text("utf-8"))["tokens"]
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} is no vocabulary that Vocabulary.save wrote: {error!r}") from None
        return cls(tokens)


def pad(sequences: Sequence[Any], length: int | None = None) -> dict[str, np.ndarray]:
    """Sequences of ids as ``{"tokens": int32[N, T], "lengths": int32[N]}``, zeros to the right of each.

    T is ``length``, by default that of the longest. A recurrent layer that is given ``lengths`` sees no padding.

    Raises:
        InputError: no sequences, an empty one, one longer than ``length``, or one that is not whole numbers ``[T]``.
    """
    rows = [_sequence(sequence, f"sequence {index}") for index, sequence in enumerate(sequences)]
    if not rows:
        raise InputError("pad got no sequences, wanted at least one")
    lengths = np.array([len(row) for row in rows], np.int32)
    if empty := np.flatnonzero(lengths == 0).tolist():
        named = ", ".join(map(str, empty[:5])) + ", …" * (len(empty) > 5)
        raise InputError(f"pad got {len(empty)} empty of {len(rows)} sequences ({named}); leave them out")
    longest = int(lengths.max())
    if length is not None and longest > length:
        fix = f"cut them first, [s[:{length}] for s in sequences], or leave the long ones out"
        raise InputError(f"sequence {lengths.argmax()} has {longest} ids, wanted at most length={length}; {fix}")
    tokens = np.zeros((len(rows), longest if length is None else length), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return {"tokens": tokens, "lengths": lengths}


def _tokens(sentence: Any, name: str) -> Sequence[str]:
    if isinstance(sentence, str):
        fix = "split it first, by split_words(text), text.split(), or list(text) for characters"
        raise InputError(f"{name} got the string {describe(sentence)}, wanted a sequence of tokens; {fix}")
    if not isinstance(sentence, Sequence) or not all(isinstance(token, str) for token in sentence):
        raise InputError(f"{name} got {describe(sentence)}, wanted a sequence of strings")
    return sentence


def _sequence(ids: Any, name: str) -> np.ndarray:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"{name} got {describe(ids)}, wanted whole numbers [T]; Vocabulary.encode makes them")
    return array
