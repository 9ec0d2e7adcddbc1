"""The two sides take turns: each side's acts are found by the acts of the other, again and again.

    until nothing is gained, at most ROUNDS times:
        split the agent's sentences anew, in two ways (splitting.py); join what is not told apart (telling.py)
        take the way whose acts foretell best what the conversations earn (foretold.py)
        the same for the answers
    the acts that foretold best of all

A split is greedy and hangs on the half of the conversations that its directions come from: the same logs give
good acts and bad ones. What is earned tells which, without a look at any policy. If nobody said what a
conversation was worth, the newest acts are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from turnwise.data.acts.contexts import Gists, around_agent, around_partner
from turnwise.data.acts.corpus import Corpus
from turnwise.data.acts.foretold import foretold
from turnwise.data.acts.splitting import Known, Sentences, split, told_apart
from turnwise.data.acts.telling import Joined, asked, joined

ROUNDS = 5
"""rounds at most"""
SURE = 2
"""rounds in which the newest acts are gone on with, even if they foretell less than those before: what one
side's acts foretell shows only when the other side has some"""


@dataclass(frozen=True)
class Coding:
    """A reading of the conversations.

    `agent` [N] and `partner` [N] (0 is silence) are acts, `finest` those of both sides before any were
    joined, `joins` how they were (None for a side whose acts were given). `worth`: what they foretell; None
    if there is nothing to foretell.
    """

    agent: np.ndarray
    partner: np.ndarray
    finest: tuple[np.ndarray, np.ndarray]
    joins: tuple[Joined | None, Joined | None] = (None, None)
    worth: float | None = None


def take_turns(
    corpus: Corpus,
    agent: Sentences | None,
    partner: Sentences | None,
    codes: tuple[np.ndarray, np.ndarray],
    gists: Gists,
    seed: int,
    done: Callable[[str], None] = lambda what: None,
) -> Coding:
    """Discover the acts of the sides that are given; `codes` are those of a side that is not.

    `done` is told of each split.
    """
    at = Coding(*codes, codes, worth=foretold(corpus, *codes))
    best, rng = at, np.random.default_rng(seed)
    sides = [(i, s) for i, s in enumerate((agent, partner)) if s is not None]
    for number in range(ROUNDS):
        before = at
        # Directions come from one half of the conversations: another half gives others.
        half = corpus.half if number < SURE else rng.random(len(corpus.starts))[corpus.conversation] < 0.5
        gained = False
        for i, sentences in sides:
            at = _anew(corpus, i, sentences, at, gists, half, seed, done)
            # Before every side has acts there is nothing to fall back on, however little they foretell.
            begun = all(best.joins[j] is not None for j, _ in sides)
            if not begun or at.worth is None or best.worth is None or at.worth > best.worth:
                best, gained = at, True
            elif number >= SURE:
                at = best
        same = _same(before.agent, at.agent) and _same(before.partner, at.partner)
        if len(sides) < 2 or (same and number < SURE) or (number >= SURE and not gained):
            break
        if at.worth is None and number + 1 > SURE:
            break
    return best


def _anew(
    corpus: Corpus,
    i: int,
    sentences: Sentences,
    at: Coding,
    gists: Gists,
    half: np.ndarray,
    seed: int,
    done: Callable[[str], None],
) -> Coding:
    """Side i (0: the agent) split anew, by the way that foretells more."""
    rows = np.arange(len(corpus)) if i == 0 else corpus.spoke
    contexts = around(corpus, i, at.agent, at.partner, gists)
    found: list[Coding] = []
    known: Known = {}
    for crossed in (False, True) if at.worth is not None else (False,):
        fine = split(sentences, contexts, half[rows], seed, crossed, known)[sentences.which]
        both = [at.finest[0], at.finest[1]]
        both[i] = np.zeros(len(corpus), np.int64)
        both[i][rows] = fine + i  # answer 0 is silence
        now = replace(at, **{("agent", "partner")[i]: both[i]})
        # Acts that mean the same are one before the other side sees them: columns of context that say
        # nothing new drown those that do.
        join = joined(
            asked(corpus, now.agent, now.partner)[i], fine, None, apart(corpus, i, now, gists, seed)
        )
        codes = np.zeros(len(corpus), np.int64)
        codes[rows] = join.number[fine] + i
        joins = (join, at.joins[1]) if i == 0 else (at.joins[0], join)
        now = replace(now, **{("agent", "partner")[i]: codes}, finest=(both[0], both[1]), joins=joins)
        found.append(replace(now, worth=foretold(corpus, now.agent, now.partner)))
        done(f"{int(codes.max()) + 1 - i} {'answers' if i else 'acts'}")
    return max(found, key=lambda c: -np.inf if c.worth is None else c.worth)


def apart(
    corpus: Corpus, i: int, at: Coding, gists: Gists, seed: int
) -> Callable[[np.ndarray, np.ndarray], bool]:
    """Whether what stands around tells two sets of a side's utterances apart."""
    contexts = around(corpus, i, at.agent, at.partner, gists)
    half = corpus.half if i == 0 else corpus.half[corpus.spoke]
    return lambda one, other: told_apart(one, other, contexts, half, seed)


def around(corpus: Corpus, i: int, agent: np.ndarray, partner: np.ndarray, gists: Gists) -> dict[str, Any]:
    """What stands around the utterances of side i (0: the agent), [n, G] each, in acts of both sides [N]."""
    if i == 0:
        return dict(around_agent(corpus, agent, partner, gists.heard, gists.begun))
    found = around_partner(corpus, agent, partner, gists.said, gists.begun)
    return {name: x[corpus.spoke] for name, x in found.items()}


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two codings differ in the numbers of their acts alone."""
    size = int(b.max()) + 1
    return len(np.unique(a)) == len(np.unique(b)) == len(np.unique(a * size + b))
