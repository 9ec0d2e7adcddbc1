"""Texts to token ids, each word once: the ids that a tokenizer gives, for a fraction of its time.

A tokenizer takes some thirty microseconds for a short message, nearly all of it to find its way into the
text. Most byte-level tokenizers never merge across the space between two words (the pattern that cuts a text
into words puts a space before the word that follows it), so that the ids of a text are those of its words in
a row. Words repeat, and their ids are remembered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from functools import partial
from itertools import chain
from typing import Any, Generic, TypeVar

REMEMBERED = 1_000_000
"""characters of text whose ids, or whose rendered text, are kept: at most about 12 MB of each"""
WORDS_REMEMBERED = 20_000_000
"""the same for single words, an entry's own size included: at most about 40 MB"""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_LETTERS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
_PATTERNS = tuple(_LETTERS % digits for digits in ("", "{1,3}"))  # Qwen's family, Llama 3's family


class TextEncoder:
    """A tokenizer's ids of texts, remembered as whole texts and word by word where that is exact."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self._texts = Remembered[bool, list[int]](REMEMBERED)
        self._by_words = encodes_by_words(tokenizer)
        self._words = {literally: _Words(partial(self._encode, literally)) for literally in (False, True)}

    def encode(self, text: str, literally: bool = False) -> list[int]:
        """Ids of a text; with `literally`, special tokens (the stop, say) are encoded as plain text."""
        if self._by_words:
            words = text.split(" ")
            # The same words without the argument: no space is doubled, or stands beside other white space.
            if len(words) > 1 and words == text.split():
                return self._words[literally].ids(words)
        return self._texts.of(text, literally, partial(self._encode, literally, text))

    def _encode(self, literally: bool, text: str) -> list[int]:
        # Not verbose: it would warn of texts longer than the context, which `segments` sees to.
        options = {"add_special_tokens": False, "split_special_tokens": literally, "verbose": False}
        return self.tokenizer.encode(text, **options) if text else []


class _Words:
    """Ids of words: those that begin a text, and those that follow a space."""

    def __init__(self, encode: Callable[[str], list[int]]) -> None:
        self._encode = encode
        self._first, self._later = dict[str, list[int]](), dict[str, list[int]]()
        self._size = 0

    def ids(self, words: list[str]) -> list[int]:
        """Ids of the words with one space between each two."""
        first, later = words[0], words[1:]
        try:
            # `sum` and `+` would copy what they have so far again and again.
            return list(chain(self._first[first], *[self._later[word] for word in later]))
        except KeyError:
            self._learn(first, later)
        return self.ids(words)

    def _learn(self, first: str, later: list[str]) -> None:
        if self._size > WORDS_REMEMBERED:
            self._first.clear()
            self._later.clear()
            self._size = 0
        if first not in self._first:
            self._first[first] = self._encode(first)
            self._size += len(first) + 100  # characters, and about as much for the entry itself
        for word in later:
            if word not in self._later:
                self._later[word] = self._encode(" " + word)
                self._size += len(word) + 100


def encodes_by_words(tokenizer: Any) -> bool:
    """Whether a single space between two characters that are none is always the beginning of a word.

    It is in GPT-2's pattern and in those of Llama 3 and Qwen: each takes a space only as the first character
    of a match, and white space that is followed by more of it does not occur here. No special token may hold
    white space or swallow what stands beside it. Everything else is encoded as a whole.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ != "BPE" or backend.model.dropout:
        return False
    for token in tokenizer.added_tokens_decoder.values():
        if token.lstrip or token.rstrip or token.single_word or token.content.split() != [token.content]:
            return False
    return _parts(backend.normalizer)["type"] in (None, "NFC") and _takes_spaces_in_front(
        _parts(backend.pre_tokenizer)
    )


def _parts(step: Any) -> dict[str, Any]:
    """What a step of a tokenizer is made of, as its file says it."""
    return {"type": None} if step is None else json.loads(step.__getstate__())


def _takes_spaces_in_front(pre_tokenizer: Any) -> bool:
    if pre_tokenizer["type"] == "ByteLevel":
        return pre_tokenizer["use_regex"]
    if pre_tokenizer["type"] != "Sequence" or len(pre_tokenizer["pretokenizers"]) != 2:
        return False
    split, bytes_ = pre_tokenizer["pretokenizers"]
    return (
        split["type"] == "Split"
        and split["pattern"].get("Regex") in _PATTERNS
        and split["behavior"] == "Isolated"
        and not split["invert"]
        and bytes_["type"] == "ByteLevel"
        and not bytes_["use_regex"]
        and not bytes_["add_prefix_space"]
    )


class Remembered(Generic[K, V]):
    """What was made of texts, each for a purpose; once they are `limit` characters it begins anew.

    Without a bound, the texts of large logs would stay in memory as long as their format.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._made: dict[tuple[str, K], V] = {}
        self._size = 0

    def of(self, text: str, purpose: K, make: Callable[[], V]) -> V:
        """What `make` makes of the text, from memory if it was made before."""
        key = (text, purpose)
        found = self._made.get(key)
        if found is None:
            if self._size > self._limit:
                self._made.clear()
                self._size = 0
            found = self._made[key] = make()
            self._size += len(text) + 100  # characters, and about as much for the entry itself
        return found
