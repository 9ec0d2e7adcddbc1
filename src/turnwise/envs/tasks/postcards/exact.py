"""The best postcard, exactly: the most gold that any reply has, and the words that reach it.

Fluency depends on the kinds of words alone, and the rest of gold (but for the frame) on how often each word
is used. So the search has three stages: once for all prompts, the most fluent sequence of kinds for every
vector of counts (a dynamic programme over the counts and the last kind); for a prompt, the best words for
every count of a kind; and then the best counts. Three arguments make this exact:

- Within a kind, each further use of a word is worth less (or the same, if it hurts), and which word stands
where
  changes nothing else. So the m most valuable uses are the best m.
- A best reply has a greeting only as its first word, a closing only as its last, and no unknown word: any
  other such word can be replaced by "and", which loses no fluency, or one `STEP` of it (before a name), and
  spares a larger cost.
- Replies longer than `LONGEST` words cannot be best: `ceiling` is below what shorter ones reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from turnwise.envs.tasks.postcards.rules import FADE, FITS, FOLLOWS, STEP, length_worth, zeal_worth
from turnwise.envs.tasks.postcards.words import KIND_OF

LONGEST = 18
COUNTED = ("name", "noun", "verb", "tone", "zeal")
"""kinds whose counts matter; articles, joints and subjects are worth nothing, so only their total counts"""
LINKS = ("article", "joint", "subject")
MIDDLE = (*COUNTED, *LINKS)
_AXIS = tuple(min(i, len(COUNTED)) for i in range(len(MIDDLE)))
_BEFORE = len(MIDDLE)  # the kind that stands for what comes before the middle
_NEVER = -1e9


class _Fluency(NamedTuple):
    """The most fluent middles, for every vector of counts.

    A middle is a reply without its greeting and its closing. `value[greeted, i, l]` is the most fluency of a
    middle with `counts[i]` whose last kind is l, after a greeting (1) or with nothing before it (0).
    `most[greeted, signed, i]` is the best of these, before a closing (1) or with nothing after it (0).
    `codes[i]` is the vector of counts as one number; the codes rise, so that binary search finds a vector.
    """

    counts: np.ndarray
    codes: np.ndarray
    value: np.ndarray
    most: np.ndarray


def best_words(worth: Mapping[str, float], longest: int = LONGEST) -> tuple[float, tuple[str, ...]]:
    """(gold, words) of the best reply of at most `longest` words. `worth` needs words of each kind."""
    table = _fluency(longest)
    uses = {kind: _best_uses(worth, kind, longest) for kind in COUNTED}
    gains = [np.cumsum([0.0, *(value for value, _ in uses[kind])]) for kind in COUNTED]
    gains[COUNTED.index("zeal")] = np.array([zeal_worth(z) for z in range(longest + 1)])
    content = sum((gain[table.counts[:, axis]] for axis, gain in enumerate(gains)), np.zeros(()))
    size = table.counts.sum(1)
    lengths = np.array([length_worth(n) for n in range(longest + 3)])
    greeting, closing = _best_of(worth, "greeting"), _best_of(worth, "closing")
    best: tuple[float, tuple[str, ...]] = (_NEVER, ())
    for greeted in (0, 1):
        for signed in (0, 1):
            n = size + greeted + signed
            total = content + table.most[greeted, signed] + lengths[n]
            total = total + greeted * greeting[0] + signed * closing[0]
            i = int(np.where(n <= longest, total, _NEVER).argmax())
            if n[i] <= longest and total[i] > best[0]:
                last = int((table.value[greeted, i] + signed * _to_closing(greeted)).argmax())
                words = _fill(_trace(table, greeted, i, last, longest), uses, worth)
                best = (float(total[i]), (*[greeting[1]] * greeted, *words, *[closing[1]] * signed))
    return best


def ceiling(worth: Mapping[str, float], words: int) -> float:
    """An upper bound on the gold of a reply of so many words: the most of every part by itself."""
    uses = sum(value for kind in FITS for value, _ in _best_uses(worth, kind, words) if value > 0)
    frame = _best_of(worth, "greeting")[0] + _best_of(worth, "closing")[0]
    return uses + frame + zeal_worth(2) + STEP * (words - 1) + length_worth(words)


def _best_of(worth: Mapping[str, float], kind: str) -> tuple[float, str]:
    return max((value, word) for word, value in worth.items() if KIND_OF[word] == kind)


def _best_uses(worth: Mapping[str, float], kind: str, longest: int) -> list[tuple[float, str]]:
    """(worth, word) of the uses of a kind's words, the most valuable first."""
    every = [
        (value * FADE**k if value > 0 else value, word)
        for word, value in worth.items()
        if KIND_OF[word] == kind
        for k in range(longest)
    ]
    return sorted(every, key=lambda use: -use[0])[:longest]


def _fill(
    kinds: Sequence[int], uses: Mapping[str, list[tuple[float, str]]], worth: Mapping[str, float]
) -> list[str]:
    """Words for the kinds of a middle: the best uses, links in turn."""
    links = {kind: [word for word in worth if KIND_OF[word] == kind] for kind in LINKS}
    words: list[str] = []
    for k, l in enumerate(kinds):
        before, kind = kinds[:k].count(l), MIDDLE[l]
        words.append(links[kind][before % len(links[kind])] if kind in links else uses[kind][before][1])
    return words


@lru_cache(maxsize=4)
def _fluency(longest: int) -> _Fluency:
    """Bellman: value(counts, l) = max over l' of value(counts less one of l, l') + follows(l', l)."""
    axes = len(COUNTED) + 1
    # All count vectors of at most `longest` words, as places of bars among stars.
    bars = np.array(list(combinations(range(longest + axes), axes)))
    counts = np.diff(bars, axis=1, prepend=-1) - 1
    codes = _codes(counts, longest)
    order = np.argsort(codes)
    counts, codes = counts[order], codes[order]
    value = np.full((2, len(counts), len(MIDDLE) + 1), _NEVER)
    value[:, 0, _BEFORE] = 0.0
    size = counts.sum(1)
    for n in range(1, longest + 1):
        here = np.flatnonzero(size == n)
        for l, axis in enumerate(_AXIS):
            into = here[counts[here, axis] > 0]
            # The same counts with one word of kind l less.
            source = np.searchsorted(codes, codes[into] - (longest + 1) ** axis)
            for greeted in (0, 1):
                value[greeted, into, l] = (value[greeted, source] + _into(greeted, l)).max(1)
    most = [[(value[o] + c * _to_closing(o)).max(1) for c in (0, 1)] for o in (0, 1)]
    return _Fluency(counts, codes, value, np.array(most))


def _codes(counts: np.ndarray, longest: int) -> np.ndarray:
    return counts @ (longest + 1) ** np.arange(counts.shape[1])


def _into(greeted: int, l: int) -> np.ndarray:
    """[last kinds], the fluency that kind l adds after each of them, or after the greeting or nothing."""
    start = FOLLOWS["greeting", MIDDLE[l]] if greeted else 0.0
    return np.array([*(FOLLOWS[kind, MIDDLE[l]] for kind in MIDDLE), start])


def _to_closing(greeted: int) -> np.ndarray:
    start = FOLLOWS["greeting", "closing"] if greeted else 0.0
    return np.array([*(FOLLOWS[kind, "closing"] for kind in MIDDLE), start])


def _trace(table: _Fluency, greeted: int, i: int, last: int, longest: int) -> list[int]:
    """The kinds of the most fluent middle: the dynamic programme followed back from its end."""
    kinds: list[int] = []
    while last != _BEFORE:
        kinds.append(last)
        i = int(np.searchsorted(table.codes, table.codes[i] - (longest + 1) ** _AXIS[last]))
        last = int((table.value[greeted, i] + _into(greeted, last)).argmax())
    return kinds[::-1]
