"""Conversations that say the same: copies, the two sides of one talk, a talk logged again with small changes.

A corpus often holds each talk from both sides, or each talk once a turn. If one of the two is learnt from and
the other held out, held-out figures measure memory. Two conversations are twins if they hold the same
messages, whoever says them and in any order; or if nearly all messages of the longer one, in order, are also
in the other one; or if one of them is the beginning of the other. The last two need more than chance: talks
made of the same few sentences share many of them and are no twins (`CHANCE`).

The time is linear in the number of messages, and nothing is drawn. What is sorted lies on disk (some 60 bytes
a message, while it takes), so that memory is the same for ten thousand conversations and for ten million.
"""

from __future__ import annotations

import math
import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from turnwise.data.dialogue import Dialogue, spoken
from turnwise.data.disk.buckets import Buckets, placed, spread
from turnwise.data.disk.columns import BLOCK, Column, Records
from turnwise.data.disk.forest import Forest
from turnwise.run.files.hashing import hash_of

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
_REMEMBERED = 20_000  # texts whose hashes are kept


@dataclass(frozen=True)
class Twins:
    """Which conversations say the same."""

    keys: Column
    """[n] uint64, a hash of what each conversation says, whoever says it and in whatever order."""
    group: Column
    """[n] int64, the same number for conversations that are twins of each other: the place of the first."""

    @property
    def count(self) -> int:
        """Conversations that have a twin."""
        n, found = len(self.group), 0
        buckets = Buckets(np.dtype(np.int64), n)
        for block in self.group.blocks():
            buckets.add(spread(block, n), block)
        for labels in buckets:
            sizes = np.unique(labels, return_counts=True)[1]
            found += int(sizes[sizes > 1].sum())
        return found


def find_twins(dialogues: Iterable[Dialogue]) -> Twins:
    """Groups of conversations that say the same."""
    said = _hashed(dialogues)
    # Copies are one conversation from here on: what a hundred copies say is no more common for it.
    first = _first_copies(said.keys)
    forest = Forest(len(said.keys))
    for a, b in _near(said, first):
        forest.join(a, b)
    return Twins(said.keys, Column.joined(map(forest.roots, first.blocks()), np.int64))


def _first_copies(keys: Column) -> Column:
    """[n] where the first conversation of the same key is."""
    pair = np.dtype([("key", np.uint64), ("at", np.int64)])
    buckets, n, before = Buckets(pair, len(keys)), len(keys), 0
    for block in keys.blocks():
        records = np.empty(len(block), pair)
        records["key"], records["at"] = block, np.arange(before, before + len(block))
        buckets.add(block, records)
        before += len(block)

    def found() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for records in buckets:
            _, first, same = np.unique(records["key"], return_index=True, return_inverse=True)
            yield records["at"], records["at"][first][same.reshape(-1)]

    return placed(found(), n, np.dtype(np.int64))


class _Said(NamedTuple):
    """What conversations say, as hashes."""

    keys: Column
    """[n] of each conversation"""
    pieces: Column
    """of all its pieces, one conversation behind the other"""
    starts: Column
    """[n+1] where the pieces of each begin"""


def _hashed(dialogues: Iterable[Dialogue]) -> _Said:
    """The hashes of conversations.

    System messages count in the key and are no pieces: what a side is told in private differs between the two
    sides of a talk, and what all are told says nothing.
    """
    found = _Said(Column(np.uint64), Column(np.uint64), Column(np.int64))
    keys, pieces, starts, total = array("Q"), array("Q"), array("q", [0]), 0

    def keep() -> None:
        for column, values in zip(found, (keys, pieces, starts), strict=True):
            column.extend(np.array(values, column.dtype))
            del values[:]

    known: dict[str, int] = {}  # of short texts: greetings and templates come again and again
    for d in dialogues:
        whole, before = array("Q"), len(pieces)
        for m in d.messages:
            text = m.content if m.name is None and m.tool_calls is None else spoken(m)
            hashed = known.get(text)
            if hashed is None:
                hashed = hash_of(_plain(text).encode(errors="surrogatepass"))
                if len(text) <= SHORT and len(known) < _REMEMBERED:
                    known[text] = hashed
            whole.append(hashed)
            if m.role == "system":
                continue
            if len(text) > LONG:
                parts = filter(None, map(_plain, _SENTENCE.split(text)))
                pieces.extend(hash_of(part.encode(errors="surrogatepass")) for part in parts)
            elif hashed != _NOTHING:
                pieces.append(hashed)
        keys.append(hash_of(array("Q", sorted(whole)).tobytes()))
        total += len(pieces) - before
        starts.append(total)
        if len(starts) > BLOCK or len(pieces) > BLOCK:
            keep()
    keep()
    return found


def _plain(text: str) -> str:
    """The text, whose case and spaces count for nothing."""
    return " ".join(text.casefold().split())


def marks_of(dialogues: Iterable[Dialogue]) -> Column:
    """[n] uint64, by which each conversation is known again: a hash of its words (as of `Twins.keys`) and of
    its id, if it has one of its own. An id that says where it stood in a file is none."""
    names = Records()

    def passed() -> Iterator[Dialogue]:
        for d in dialogues:
            names.add(b"" if _PLACE.fullmatch(d.id) else d.id.encode(errors="surrogatepass"))
            yield d

    keys, made, at = _hashed(passed()).keys, Column(np.uint64), 0
    for block in keys.blocks():
        own = names.at(np.arange(at, at + len(block)))
        pairs = zip(block.tolist(), own, strict=True)
        made.extend(np.array([hash_of(b"%d %s" % pair) for pair in pairs], np.uint64))
        at += len(block)
    return made


_NOTHING = hash_of(b"")


_PIECE = np.dtype(
    [
        ("piece", np.uint64),
        ("key", np.uint64),  # of the conversation that has it
        ("owner", np.int64),  # its place
        ("at", np.int64),  # the piece's place among all pieces
        ("length", np.int32),  # pieces of the conversation
    ]
)


def _near(said: _Said, first: Column) -> Iterator[tuple[int, int]]:
    """Pairs of conversations that share nearly all pieces, or of which one is the beginning of the other.

    `first`: where the first copy of each is; only first copies are compared.
    """
    occurrences, n = _occurrences(said, first)
    pairs = Buckets(np.dtype([("a", np.int64), ("b", np.int64)]), len(said.pieces))
    last = max(1, len(first))

    def counted() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """How often a piece comes, if it comes more than once; on the way the pairs that share rare ones."""
        for found in occurrences:
            found = found[np.argsort(found["piece"], kind="stable")]
            pieces = found["piece"]
            begin = np.flatnonzero(np.concatenate([[True], pieces[1:] != pieces[:-1]])[: len(pieces)])
            count = np.diff(np.append(begin, len(pieces)))
            each = np.repeat(count, count)
            common, rare = found[each >= 2], found[(each >= 2) & (each <= RARE)]
            yield common["at"], each[each >= 2]
            # Within a piece by length: the beginnings of one talk come in their order.
            rare = rare[np.lexsort((rare["key"], rare["length"], rare["piece"]))]
            near = _neighbours(rare["piece"], rare["owner"])
            pairs.add(spread(near["a"], last), near)

    counts = placed(counted(), len(said.pieces), np.dtype(np.int32), fill=1)
    bound = CHANCE * math.log(max(n, 1))

    def row(i: int) -> tuple[list[int], list[int]]:
        start, stop = said.starts.read(i, i + 2).tolist()
        return said.pieces.read(start, stop).tolist(), counts.read(start, stop).tolist()

    for some in pairs:
        for a, b in np.unique(some).tolist():
            if _same_talk(*row(a), *row(b), n, bound):
                yield a, b


def _occurrences(said: _Said, first: Column) -> tuple[Buckets, int]:
    """Where each piece comes in conversations that are no copies; and how many of these there are."""
    buckets, n, at = Buckets(_PIECE, len(said.pieces)), 0, 0
    for keys, firsts in zip(said.keys.blocks(), first.blocks(), strict=True):
        starts = said.starts.read(at, at + len(keys) + 1)
        lengths = np.diff(starts)
        places = np.arange(at, at + len(keys))
        original = firsts == places
        n += int(original.sum())
        kept = np.repeat(original, lengths)
        records = np.empty(int(kept.sum()), _PIECE)
        records["piece"] = said.pieces.read(int(starts[0]), int(starts[-1]))[kept]
        records["at"] = np.arange(starts[0], starts[-1])[kept]
        for name, values in (("key", keys), ("owner", places), ("length", lengths)):
            records[name] = np.repeat(values, lengths)[kept]
        buckets.add(records["piece"], records)
        at += len(keys)
    return buckets, n


def _neighbours(pieces: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """(a, b), conversations one, two or three places apart in the list of those that have a piece.

    All pairs of a piece that four conversations share, and a chain through more: linear in the pieces.
    """
    found = []
    for apart in (1, 2, 3):
        same = (pieces[apart:] == pieces[:-apart]) & (owner[apart:] != owner[:-apart])
        a, b = owner[apart:][same], owner[:-apart][same]
        near = np.empty(len(a), [("a", np.int64), ("b", np.int64)])
        near["a"], near["b"] = np.minimum(a, b), np.maximum(a, b)
        found.append(near)
    return np.concatenate(found)


def _same_talk(
    a: Sequence[int], a_counts: Sequence[int], b: Sequence[int], b_counts: Sequence[int], n: int, bound: float
) -> bool:
    """Whether two of n conversations share enough, in order, and more than chance would let them share.

    `a`, `b`: their pieces; beside them how often each of these comes in all conversations.
    """
    short, long = sorted((a, b), key=len)
    begins = short == long[: len(short)]
    if not begins:
        if len(short) < NEARLY_ALL * len(long) or len(set(short) & set(long)) < NEARLY_ALL * len(set(long)):
            return False
        if _in_order(short, long) < NEARLY_ALL * len(long):
            return False
    count, other = dict(zip(a, a_counts, strict=True)), set(b)
    return sum(math.log(n / min(count[piece], n)) for piece in sorted(count) if piece in other) > bound


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
