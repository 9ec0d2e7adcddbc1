"""A clone of the logged agent that counts: what it meant after the same answer, as late in the talk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.data.acts.pack import ActSymbols
from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.rollout.acts.chooser import STRENGTH, Choice, Prefix, draw

UNSEEN = 0.5
"""times that every act counts as logged beside what was: nothing is impossible because it was not seen"""


@dataclass(frozen=True)
class TimedActs:
    """Draws acts as the logged agent did after the same answer at the same turn.

    `table` [T, O + F, A] is P(act | turn, what was seen last), which before the first turn is an opening;
    turns behind the last one are as the last one.
    """

    table: np.ndarray
    symbols: ActSymbols

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        """Draw one act for each talk."""
        found = []
        for talk, rng in zip(talks, rngs, strict=True):
            seen = self.symbols.observations(talk.first, talk.answers)[-1]
            p = self.table[min(len(talk), len(self.table) - 1), seen]
            found.append(Choice(draw(p, rng), p))
        return found


def timed_acts(logs: ActLogs, talks: Sequence[ActTalk] | None = None) -> TimedActs:
    """Frequencies of acts in `talks` of logs (all of them, if None), each drawn towards coarser ones.

    p(a)       = (c(a) + UNSEEN) / (c + UNSEEN A)
    p(a | o)   = (c(o, a) + STRENGTH p(a)) / (c(o) + STRENGTH)
    p(a | t,o) = (c(t, o, a) + STRENGTH p(a | o)) / (c(t, o) + STRENGTH)
    """
    symbols = ActSymbols.of(logs)
    some = logs.talks if talks is None else talks
    longest = max((len(t) for t in some), default=1)
    counts = np.zeros((max(longest, 1), symbols.seen, symbols.acts))
    for t in some:
        seen = symbols.observations(t.first, t.answers)[:-1]
        np.add.at(counts, (np.arange(len(t)), seen, t.acts), 1)
    total = counts.sum((0, 1)) + UNSEEN
    after = _towards(counts.sum(0), total / total.sum())  # [O + F, A]
    return TimedActs(_towards(counts, after), symbols)


def _towards(counts: np.ndarray, coarse: np.ndarray) -> np.ndarray:
    """Frequencies [..., A] of counts, drawn towards coarser ones with the weight of `STRENGTH` turns."""
    return (counts + STRENGTH * coarse) / (counts.sum(-1, keepdims=True) + STRENGTH)
