"""What an agent of acts would do at every decision of logged conversations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from turnwise.data.acts.talks import Codes
from turnwise.data.dialogue import Dialogue
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Choice, Chooser, Prefix
from turnwise.rollout.acts.reading import read_talks

AT_ONCE = 2048
"""decisions that are asked for in one go"""


@dataclass(frozen=True)
class Chances:
    """Probabilities of K acts at the decisions of B talks, of A decisions at most."""

    probabilities: np.ndarray
    """[B, A, K], 0 behind the end of a talk"""
    drawn: np.ndarray
    """[B, A] bool, where they were counted in samples"""
    prefixes: tuple[tuple[Prefix, ...], ...]
    """[B] of each talk's decisions: what was known there"""

    @property
    def flat(self) -> list[Prefix]:
        """All decisions, talk by talk."""
        return [p for talk in self.prefixes for p in talk]


@dataclass(frozen=True)
class Remembering:
    """A chooser that is not asked twice about the same talk."""

    chooser: Chooser
    known: dict[tuple[bytes, ...], Choice] = field(default_factory=dict, repr=False)

    def choose(self, talks: Sequence[Prefix], rngs: Sequence[np.random.Generator]) -> list[Choice]:
        """What the chooser says; the act itself is drawn once for all talks that are alike."""
        keys = [_key(talk) for talk in talks]
        new = {key: i for i, key in enumerate(keys) if key not in self.known}
        if new:
            places = list(new.values())
            found = self.chooser.choose([talks[i] for i in places], [rngs[i] for i in places])
            self.known.update((key, _bare(c)) for key, c in zip(new, found, strict=True))
        return [self.known[key] for key in keys]


def chances(chooser: Chooser, prefixes: Sequence[Prefix], size: int) -> np.ndarray:
    """[N, K], probabilities with which a chooser takes each of `size` acts after each prefix."""
    found = np.zeros((len(prefixes), size))
    remembering = chooser if isinstance(chooser, Remembering) else Remembering(chooser)
    for at in range(0, len(prefixes), AT_ONCE):
        part = prefixes[at : at + AT_ONCE]
        for i, choice in enumerate(remembering.choose(part, [np.random.default_rng(0)] * len(part)), at):
            if choice.probabilities is None:
                found[i, choice.act] = 1
            else:
                found[i] = choice.probabilities
    return found


def logged_chances(
    agent: ActAgent,
    dialogues: Sequence[Dialogue],
    *,
    seed: int = 0,
    samples: int = 32,
    progress: Callable[[int], None] | None = None,
) -> Chances:
    """How probable each act is for the agent at every decision of whole conversations (`probabilities`)."""
    quick = replace(agent, chooser=Remembering(agent.chooser))
    if agent.fallback is not None:
        quick = replace(quick, fallback=Remembering(agent.fallback))
    found, drawn, prefixes = [], [], []
    rows = max(1, AT_ONCE // 4)
    for at in range(0, len(dialogues), rows):
        part = dialogues[at : at + rows]
        read = [grown(x) for x in read_whole(agent.codes, part)]
        talks = [d.messages[:k] for d in part for k in _turns(d)]
        rngs = [np.random.default_rng((seed, at + i, k)) for i, x in enumerate(read) for k in range(len(x))]
        p, counted = quick.probabilities(talks, [x for talk in read for x in talk], rngs, samples)
        ends = np.cumsum([len(x) for x in read])[:-1]
        found += np.split(p, ends)
        drawn += np.split(counted, ends)
        prefixes += [tuple(x) for x in read]
        if progress is not None:
            progress(at + len(part))
    return Chances(_padded(found), _padded(drawn), tuple(prefixes))


def read_whole(codes: Codes, dialogues: Sequence[Dialogue]) -> list[Prefix]:
    """Whole conversations as an agent with these codebooks reads them."""
    roles = {d.agent_role for d in dialogues}
    if len(roles) == 1:
        return read_talks(codes, [d.messages for d in dialogues], agent_role=roles.pop())
    return [read_talks(codes, [d.messages], agent_role=d.agent_role)[0] for d in dialogues]


def grown(whole: Prefix) -> list[Prefix]:
    """What was known at each decision of a whole talk."""
    return [
        Prefix(
            whole.first,
            whole.acts[:k],
            whole.answers[:k],
            whole.distances[: k + 1],
            whole.rewards[:k],
            whole.evidence[:k],
        )
        for k in range(len(whole))
    ]


def _turns(d: Dialogue) -> list[int]:
    """Places of the agent's messages."""
    return [i for i, m in enumerate(d.messages) if m.role == d.agent_role]


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of different lengths as one array, with zeros behind their ends."""
    longest = max(map(len, rows))
    found = np.zeros((len(rows), longest, *rows[0].shape[1:]), rows[0].dtype)
    for b, row in enumerate(rows):
        found[b, : len(row)] = row
    return found


def _bare(choice: Choice) -> Choice:
    """Without its trace, which nobody reads."""
    return replace(choice, trace={})


def _key(talk: Prefix) -> tuple[bytes, ...]:
    """Equal for talks that no chooser tells apart."""
    told = [b"" if x is None else x.tobytes() for x in talk.evidence]
    parts = (np.int64(talk.first), talk.acts, talk.answers, talk.distances, talk.rewards)
    return (*(x.tobytes() for x in parts), *told)
