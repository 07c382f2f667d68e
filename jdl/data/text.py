"""Text as numbers: words, a vocabulary that numbers them, and sentences of several lengths as one array."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jdl import saving
from jdl.check import InputError, describe
from jdl.data.counts import whole

PADDING, UNKNOWN = "<pad>", "<unk>"


def split_words(text: str) -> list[str]:
    """The words and signs of a text: runs of letters, digits and ``_`` are words, any other sign stands alone.

    A combining mark belongs to what it stands on: vowels of Hindi and Thai, an accent that is a character of its own.
    White space only separates, and case stays: ``split_words("It's 3,5 m.")`` is ``["It", "'", "s", "3", ",", "5",
    "m", "."]``. Text that has been split before, with spaces between the pieces, wants ``text.split()`` instead.

    Raises:
        InputError: ``text`` is no string.
    """
    if not isinstance(text, str):
        raise InputError(f"text got {describe(text)}, wanted a string")
    return re.findall(r"\w+|[^\w\s]" if text.isascii() else _pieces(), text)  # the former is 6 times as fast


@functools.cache
def _pieces() -> re.Pattern[str]:
    """Words and signs, each with its combining marks, which Python's ``re`` has no name for."""
    places = itertools.chain(range(0x300, 0x1F000), range(0xE0100, 0xE01F0))  # where Unicode has them
    marks = "".join(letter for letter in map(chr, places) if unicodedata.category(letter).startswith("M"))
    return re.compile(rf"\w[\w{marks}]*|[^\w\s][{marks}]*")


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Tokens numbered 0, 1, …: padding is 0, and 1 stands for every token that is not here.

    A token is a string: a word, a character, a piece of a word. ``vocabulary["the"]`` is its id, ``"the" in
    vocabulary`` whether it has one of its own, ``len(vocabulary)`` how many rows an ``nn.Embedding`` needs; a loop over
    it gives the tokens.

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
        if isinstance(sentences, str) or not np.iterable(sentences):
            got = f"the string {describe(sentences)}" if isinstance(sentences, str) else describe(sentences)
            raise InputError(f"sentences got {got}, wanted many sequences of tokens")
        first = tuple(dict.fromkeys((PADDING, UNKNOWN, *as_tokens(special, "special"))))
        min_count = whole("min_count", min_count, 1)
        max_size = None if max_size is None else whole("max_size", max_size, len(first))
        counts = Counter(token for index, s in enumerate(sentences) for token in as_tokens(s, f"sentence {index}"))
        kept = sorted((token for token, count in counts.items() if count >= min_count), key=lambda t: (-counts[t], t))
        return cls(tuple(dict.fromkeys((*first, *kept)))[:max_size])

    def __len__(self) -> int:
        return len(self.tokens)

    def __iter__(self) -> Iterator[str]:
        return iter(self.tokens)

    def __contains__(self, token: object) -> bool:
        return isinstance(token, str) and token in self._ids

    def __getitem__(self, token: str) -> int:
        if not isinstance(token, str):
            fix = "vocabulary.tokens[id] is the token of an id"
            raise InputError(f"vocabulary[…] got {describe(token)}, wanted a token, a string; {fix}")
        return self._ids.get(token, self.unknown_id)

    def __repr__(self) -> str:
        listed = ", ".join(map(repr, self.tokens[:6])) + ", …" * (len(self) > 6)
        return f"Vocabulary({len(self):,} tokens: {listed})"

    def encode(self, sentence: Sequence[str]) -> np.ndarray:
        """The ids of a sequence of tokens, ``int32[T]``.

        Raises:
            InputError: it is no sequence of strings.
        """
        return np.array([self[token] for token in as_tokens(sentence, "sentence")], np.int32)

    def decode(self, ids: Any) -> list[str]:
        """The tokens of ``ids [T]``, without padding.

        Raises:
            InputError: the ids are not whole numbers ``[T]`` of this vocabulary.
        """
        ids = _as_ids(ids, "ids")
        if ids.size and not (ids.min() >= 0 and ids.max() < len(self)):
            raise InputError(f"ids got {ids.min()} to {ids.max()}, wanted 0 to {len(self) - 1}, those of {self!r}")
        return [self.tokens[i] for i in ids if i != self.padding_id]

    def save(self, path: str | Path) -> None:
        """Write it as JSON, ``{"tokens": […]}``; the file is whole or not there.

        Raises:
            InputError: the suffix is not ``.json``, the folder does not exist, or a token holds both halves of a
                surrogate pair side by side, which reading would join.
        """
        if split := [token for token in self.tokens if _PAIR.search(token)]:
            fix = "join them: token.encode('utf-16', 'surrogatepass').decode('utf-16')"
            raise InputError(f"tokens got {split[0]!a}, with a character as two surrogates; {fix}")
        text = json.dumps({"tokens": self.tokens}, ensure_ascii=False, indent=0) + "\n"
        # Half of a surrogate pair, which UTF-8 cannot hold, is written as JSON escapes it.
        saving.save(path, lambda beside: beside.write_text(text, "utf-8", "backslashreplace"), (".json",))

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read what `save` wrote.

        Raises:
            InputError: it is missing, cut off, or another file.
        """
        try:
            return cls(json.loads(Path(path).read_text("utf-8"))["tokens"])
        except (FileNotFoundError, IsADirectoryError):
            raise InputError(f"path got {str(path)!r}, where there is no file") from None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise InputError(f"{path} is no vocabulary that Vocabulary.save wrote: {error!r}") from None


_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")


def pad(sequences: Iterable[Any], length: int | None = None) -> dict[str, np.ndarray]:
    """Sequences of ids as ``{"tokens": int32[N, T], "lengths": int32[N]}``, zeros to the right of each.

    T is ``length``, by default that of the longest. A recurrent layer that is given ``lengths`` sees no padding.

    Raises:
        InputError: no sequences, an empty one, one longer than ``length``, or one that is not whole numbers ``[T]``
            within int32.
    """
    rows = as_rows(sequences, "sequence")
    if length is not None:
        length = whole("length", length, 1)
        check_longest(rows, "sequence", length, f"length={length}")
    return padded(rows, length)


# What translation asks of its sequences too.


def padded(rows: Sequence[np.ndarray], length: int | None) -> dict[str, np.ndarray]:
    """What `pad` gives, of rows that were looked at."""
    lengths = np.array([len(row) for row in rows], np.int32)
    tokens = np.zeros((len(rows), lengths.max() if length is None else length), np.int32)
    for row, ids in zip(tokens, rows, strict=True):
        row[: len(ids)] = ids
    return {"tokens": tokens, "lengths": lengths}


def as_rows(sequences: Iterable[Any], name: str) -> list[np.ndarray]:
    """At least one sequence of ids, none of them empty, as ``int32[T]`` each; messages call one ``name``."""
    if not np.iterable(sequences):
        raise InputError(f"{name}s got {describe(sequences)}, wanted sequences of ids [T]")
    rows = [_as_ids(ids, f"{name} {index}") for index, ids in enumerate(sequences)]
    if not rows:
        raise InputError(f"got no {name}s, wanted at least one")
    if empty := [index for index, row in enumerate(rows) if not len(row)]:
        named = ", ".join(map(str, empty[:5])) + ", …" * (len(empty) > 5)
        raise InputError(f"got {len(empty)} empty of {len(rows)} {name}s ({named}); leave them out")
    return rows


def check_longest(rows: Sequence[np.ndarray], name: str, most: int, wanted: str) -> None:
    """None of the rows has more than ``most`` ids, which a message calls ``wanted``."""
    lengths = [len(row) for row in rows]
    if (longest := max(lengths)) > most:
        fix = f"cut them first, [s[:{most}] for s in {name}s], or leave the long ones out"
        raise InputError(f"{name} {lengths.index(longest)} has {longest} ids, wanted at most {wanted}; {fix}")


def as_tokens(sentence: Any, name: str) -> Sequence[str]:
    """``sentence`` as it came, a sequence of strings; a message calls it ``name``."""
    if isinstance(sentence, str):
        fix = "split it first, by split_words(text), text.split(), or list(text) for characters"
        raise InputError(f"{name} got the string {describe(sentence)}, wanted a sequence of tokens; {fix}")
    if not isinstance(sentence, Sequence) or not all(isinstance(token, str) for token in sentence):
        raise InputError(f"{name} got {describe(sentence)}, wanted a sequence of strings")
    return sentence


def _as_ids(ids: Any, name: str) -> np.ndarray:
    """``ids`` as ``int32[T]``."""
    try:
        array = np.asarray(ids)
    except ValueError:  # rows of several lengths
        array = np.asarray(None)
    if array.ndim == 1 and array.dtype.kind not in "iu":  # Python's ints, where NumPy's do not hold them; or nothing
        array = np.array(list(ids), object)
    if array.ndim != 1 or (array.dtype == object and not all(type(i) is int for i in array)):
        raise InputError(f"{name} got {describe(ids)}, wanted whole numbers [T]; Vocabulary.encode makes them")
    limits = np.iinfo(np.int32)
    if (outside := array[(array < limits.min) | (array > limits.max)]).size:
        raise InputError(f"{name} got the id {outside[0]}, wanted ids that int32 holds, at most {limits.max}")
    return array.astype(np.int32)
