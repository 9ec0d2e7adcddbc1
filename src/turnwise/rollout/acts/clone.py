"""A language model that speaks for an agent of acts: in its own words, or several proposals for an act."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.models.lm.parts import context_of
from turnwise.rollout.acts.voice import Said, Talk
from turnwise.rollout.agent import Agent


@dataclass(frozen=True)
class Clone:
    """A cloned policy."""

    agent: Agent

    def reply(self, talks: Sequence[Talk], rngs: Sequence[np.random.Generator]) -> list[Said | None]:
        """What the clone itself would say; None if it says nothing, or if its context is full."""
        found = [own[0] if own else None for own in self.proposals(talks, rngs, 1)]
        return [None if text is None else Said(text, "clone") for text in found]

    def proposals(
        self, talks: Sequence[Talk], rngs: Sequence[np.random.Generator], each: int
    ) -> list[list[str]]:
        """`each` sampled replies in each talk, less what is empty; none where the context is full."""
        read = [self.agent.read(tuple(talk)) for talk in talks]
        room = [i for i, ids in enumerate(read) if len(ids) < context_of(self.agent.lm)]
        found: list[list[str]] = [[] for _ in talks]
        # Drawn for all talks, so that what fits beside it changes no talk's chances.
        seeds = [rng.integers(2**63, size=each).tolist() for rng in rngs]
        if not room:
            return found
        model = self.agent.lane_model(len(room) * each, self.agent.chat.stop)
        for lane in range(len(room) * each):
            i = room[lane // each]
            model.reset(lane, seeds[i][lane % each])
            model.submit(lane, read[i])
        said: dict[int, str] = {}
        while len(said) < len(room) * each:
            for u in model.collect():
                said[u.lane] = "" if u.out_of_context else self.agent.chat.text(u.ids)
        for lane in sorted(said):
            if said[lane].strip():
                found[room[lane // each]].append(said[lane])
        return found
