"""Conversations that say the same: copies, the two sides of one talk, a talk logged again with small changes.

A corpus often holds each talk from both sides, or each talk once a turn. If one of the two is learnt from and
the other held out, held-out figures measure memory. Two conversations are twins if they hold the same
messages, whoever says them and in any order; or if nearly all messages of the longer one, in order, are also
in the other one; or if one of them is the beginning of the other. The last two need more than chance: talks
made of the same few sentences share many of them and are no twins (`CHANCE`).

The time is linear in the number of messages, memory is some 16 bytes a message, and nothing is drawn.
"""

from __future__ import annotations

import hashlib
import math
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.data.dialogue import Dialogue, spoken

NEARLY_ALL = 0.75
"""share of the longer conversation's pieces that twins have in common, in order"""
CHANCE = 1.5
"""Twins share pieces whose surprise (the sum of log(conversations / conversations with that piece)) is above
CHANCE * log(conversations). If messages were drawn independently, a conversation would have such a partner by
chance once in sqrt(conversations): far too seldom for chains of partners to grow."""
RARE = 64
"""conversations with one piece, at most, among which twins are looked for"""
LONG = 400
"""characters above which a message is compared sentence by sentence"""
_SENTENCE = re.compile(r"(?<=[.!?\n])\s+")
SHORT = 60
"""characters of a text at most whose hash is kept"""
_PLACE = re.compile(r"(?s:.*):\d+|(?s:.*)\[\d+\]|row \d+|")
"""an id that a conversation has from its place: the line of its file, its number in a list, none"""
_REMEMBERED = 100_000  # texts whose hashes are kept


@dataclass(frozen=True)
class Twins:
    """Which conversations say the same."""

    keys: np.ndarray
    """[n] uint64, a hash of what each conversation says, whoever says it and in whatever order."""
    group: np.ndarray
    """[n] int64, the same number for conversations that are twins of each other."""

    @property
    def count(self) -> int:
        """Conversations that have a twin."""
        sizes = np.bincount(self.group)
        return int(sizes[sizes > 1].sum())


def find_twins(dialogues: Iterable[Dialogue]) -> Twins:
    """Groups of conversations that say the same."""
    keys, pieces, lengths = _hashed(dialogues)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    # Copies are one conversation from here on: what a hundred copies say is no more common for it.
    parents = np.arange(len(first))
    for a, b in _near(pieces, np.cumsum(lengths) - lengths, lengths, first):
        a, b = _root(parents, a), _root(parents, b)
        parents[max(a, b)] = min(a, b)
    for i, parent in enumerate(parents):  # a parent is never larger than its child
        parents[i] = parents[parent]
    return Twins(keys, parents[group.reshape(-1)])


def _root(parents: np.ndarray, i: int) -> int:
    while parents[i] != i:
        parents[i] = parents[parents[i]]
        i = int(parents[i])
    return i


def _hashed(dialogues: Iterable[Dialogue]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(key of each conversation, hashes of all pieces in a row, how many pieces each conversation has).

    System messages count in the key and are no pieces: what a side is told in private differs between the two
    sides of a talk, and what all are told says nothing.
    """
    keys, pieces, lengths = array("Q"), array("Q"), array("q")
    known: dict[str, int] = {}  # of short texts: greetings and templates come again and again
    for d in dialogues:
        whole, before = array("Q"), len(pieces)
        for m in d.messages:
            text = m.content if m.name is None and m.tool_calls is None else spoken(m)
            found = known.get(text)
            if found is None:
                found = hash_of(_plain(text).encode(errors="surrogatepass"))
                if len(text) <= SHORT and len(known) < _REMEMBERED:
                    known[text] = found
            whole.append(found)
            if m.role == "system":
                continue
            if len(text) > LONG:
                parts = filter(None, map(_plain, _SENTENCE.split(text)))
                pieces.extend(hash_of(part.encode(errors="surrogatepass")) for part in parts)
            elif found != _NOTHING:
                pieces.append(found)
        keys.append(hash_of(array("Q", sorted(whole)).tobytes()))
        lengths.append(len(pieces) - before)
    return (np.array(keys, np.uint64), np.array(pieces, np.uint64), np.array(lengths, np.int64))


def _plain(text: str) -> str:
    """The text, whose case and spaces count for nothing."""
    return " ".join(text.casefold().split())


def marks_of(dialogues: Sequence[Dialogue]) -> np.ndarray:
    """[n] uint64, by which each conversation is known again: a hash of its words (as of `Twins.keys`) and of
    its id, if it has one of its own. An id that says where it stood in a file is none."""
    keys, _, _ = _hashed(dialogues)
    found = array("Q")
    for key, d in zip(keys.tolist(), dialogues, strict=True):
        name = d.id if _PLACE.fullmatch(d.id) is None else ""
        found.append(hash_of(f"{key} {name}".encode(errors="surrogatepass")))
    return np.array(found, np.uint64)


def hash_of(data: bytes) -> int:
    """64 bits that are the same in every process."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


_NOTHING = hash_of(b"")


def _near(
    pieces: np.ndarray, starts: np.ndarray, lengths: np.ndarray, first: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Pairs of conversations that share nearly all pieces, or of which one is the beginning of the other.

    `starts` and `lengths` say which of the `pieces` are a conversation's; `first` are the ones to compare,
    which the pairs number from 0.
    """
    n = len(first)
    owner = np.full(len(lengths), -1, np.int32)
    owner[first] = np.arange(n)
    owner = np.repeat(owner, lengths)
    said, owner = pieces[owner >= 0], owner[owner >= 0]
    order = np.argsort(said, kind="stable")
    said, owner = said[order], owner[order]
    begin = np.flatnonzero(np.concatenate([[True], said[1:] != said[:-1]])) if len(said) else np.zeros(0, int)
    count = np.diff(np.append(begin, len(said)))
    rare = np.repeat((count >= 2) & (count <= RARE), count)
    kinds, count = said[begin[count >= 2]], count[count >= 2]  # what two have in common is among these
    surprise = np.log(n / np.minimum(count, n))
    said, owner = said[rare], owner[rare]
    # Within a piece by length: the beginnings of one talk come in their order.
    order = np.lexsort((owner, lengths[first[owner]], said))
    bound = CHANCE * math.log(max(n, 1))

    def row(i: int) -> list[int]:
        at = starts[first[i]]
        return pieces[at : at + lengths[first[i]]].tolist()

    for a, b in _neighbours(said[order], owner[order]):
        if _same_talk(row(a), row(b), kinds, surprise, bound):
            yield a, b


def _neighbours(pieces: np.ndarray, owner: np.ndarray) -> Iterator[tuple[int, int]]:
    """Conversations one, two or three places apart in the list of those that have a piece; each pair once.

    All pairs of a piece that four conversations share, and a chain through more: linear in the pieces.
    """
    found = []
    for apart in (1, 2, 3):
        same = (pieces[apart:] == pieces[:-apart]) & (owner[apart:] != owner[:-apart])
        a, b = owner[apart:][same], owner[:-apart][same]
        found.append(np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1))
    pairs = np.unique(np.concatenate(found), axis=0)
    return ((int(a), int(b)) for a, b in pairs)


def _same_talk(
    a: Sequence[int], b: Sequence[int], kinds: np.ndarray, surprise: np.ndarray, bound: float
) -> bool:
    """Whether two conversations share enough, in order, and more than chance would let them share."""
    short, long = sorted((a, b), key=len)
    begins = short == long[: len(short)]
    if not begins:
        if len(short) < NEARLY_ALL * len(long) or len(set(short) & set(long)) < NEARLY_ALL * len(set(long)):
            return False
        if _in_order(short, long) < NEARLY_ALL * len(long):
            return False
    shared = np.array(sorted(set(short) & set(long)), np.uint64)
    return float(surprise[np.searchsorted(kinds, shared)].sum()) > bound


def _in_order(short: Sequence[int], long: Sequence[int]) -> int:
    """The most pieces that both have in the same order (each piece of `long` is taken once)."""
    places: dict[int, list[int]] = {}
    for i, piece in enumerate(long):
        places.setdefault(piece, []).append(i)
    ends: list[int] = []  # ends[k]: the earliest place at which k + 1 shared pieces in order can end
    for piece in short:
        for i in reversed(places.get(piece, ())):
            k = bisect_left(ends, i)
            ends[k : k + 1] = [i]
    return len(ends)
