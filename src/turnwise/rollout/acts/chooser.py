"""What to mean next: the protocol of whatever chooses acts, and the simplest chooser, a frequency table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from turnwise.data.acts.talks import ActLogs


@dataclass(frozen=True)
class Prefix:
    """A conversation under way as acts: K turns of the agent are over, and the next one is to be chosen.

    `first` is the act of the opening; `acts` [K] are what the agent's messages were read as, `answers` [K]
    what followed each (0 is silence). `distances` [K + 1] are how far the opening, and then each answer, is
    from what its act stands for; 1 or more is like nothing that was logged. `rewards` [K] are 0 where nobody
    says what a turn earned, which is so wherever the agent is talked to: no chooser may need them.

    `evidence` [K] of [O]: what an answer's words say of each answer, P(words | answer) up to a factor, for
    words that were never logged; None for an answer that is surely what it was read as. Whoever weighs
    nothing takes `answers`.
    """

    first: int
    acts: np.ndarray
    answers: np.ndarray
    distances: np.ndarray
    rewards: np.ndarray
    evidence: tuple[np.ndarray | None, ...] = ()

    def __len__(self) -> int:
        """K, the agent's turns so far."""
        return len(self.acts)

    @classmethod
    def of(
        cls,
        first: int,
        acts: Sequence[int] | np.ndarray = (),
        answers: Sequence[int] | np.ndarray = (),
        distances: Sequence[float] | np.ndarray | None = None,
    ) -> Prefix:
        """One without rewards; without distances everything was heard before."""
        k = len(acts)
        far = np.zeros(k + 1) if distances is None else np.asarray(distances, np.float64)
        said, heard = np.asarray(acts, np.int64), np.asarray(answers, np.int64)
        return cls(first, said, heard, far, np.zeros(k), (None,) * k)


@dataclass(frozen=True)
class Choice:
    """An act, and why.

    `probabilities` [A] are those that it was drawn with, None if nobody knows them. `trace` is what a reader
    of the conversation should see (numbers, texts, lists and dicts of them). `strange` are what the chooser
    could make nothing of: 0 is the opening, k the answer to the k-th turn.
    """

    act: int
    probabilities: np.ndarray | None = None
    trace: Mapping[str, Any] = field(default_factory=dict)
    strange: tuple[int, ...] = ()


class Chooser(Protocol):
    """Chooses acts. It remembers nothing: each call is given the whole talks, which are short."""

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        """The next act in each talk; chances of a talk come from its own generator."""
        ...


@dataclass(frozen=True)
class LoggedActs:
    """Draws acts as the logged agent did after the same answer: a clone of it that remembers one answer.

    `after` [O, A] is P(act | last answer), in which row 0 is silence; `begin` [F, A] is P(act | opening)
    before the first turn.
    """

    begin: np.ndarray
    after: np.ndarray

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        """Draw one act for each talk."""
        found = []
        for talk, rng in zip(talks, rngs, strict=True):
            p = self.after[talk.answers[-1]] if len(talk) else self.begin[talk.first]
            found.append(Choice(draw(p, rng), p))
        return found


STRENGTH = 10.0
"""turns that the overall frequencies of acts count for beside those after one answer"""


def logged_acts(logs: ActLogs, allowed: np.ndarray | None = None) -> LoggedActs:
    """Frequencies of acts in logs, those after one answer drawn towards the overall ones.

        p(a | o) = (c(o, a) + STRENGTH p(a)) / (c(o) + STRENGTH),    p(a) = c(a) / c

    `allowed` [A] bool are the acts that may be drawn: those that somebody can say.
    """
    A, O, F = len(logs.acts), len(logs.answers), len(logs.openings)
    begin, after = np.zeros((F, A)), np.zeros((O, A))
    for talk in logs:
        begin[talk.first, talk.acts[0]] += 1
        np.add.at(after, (talk.answers[:-1], talk.acts[1:]), 1)
    total = begin.sum(0) + after.sum(0)
    if allowed is not None:
        total, begin, after = (np.where(allowed, x, 0.0) for x in (total, begin, after))
    p = total / total.sum()
    begin, after = ((c + STRENGTH * p) / (c.sum(1, keepdims=True) + STRENGTH) for c in (begin, after))
    return LoggedActs(begin, after)


def draw(p: np.ndarray, rng: np.random.Generator) -> int:
    """An index drawn with probabilities `p` [A]."""
    return int(min(np.searchsorted(np.cumsum(p), rng.random() * p.sum(), side="right"), len(p) - 1))
