"""A plan in a learnt model as a playbook reads it: values, and beliefs over the states that are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from turnwise.data.acts.talks import ActTalk
from turnwise.exact.learning.model import LearntModel


class Values(Protocol):
    """What actions are worth at beliefs of a model, if the plan follows."""

    @property
    def model(self) -> LearntModel:
        """The model that the plan was made in."""
        ...

    def q(self, beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
        """[N, A], at beliefs [N, S] after `times` [N] steps; -inf for actions that the plan may not take."""
        ...


@dataclass(frozen=True)
class Plan:
    """Its model has `copies` times the states that are shown: state s of each copy is shown as one."""

    values: Values
    copies: int = 1

    @property
    def model(self) -> LearntModel:
        """The model that the plan was made in."""
        return self.values.model

    @property
    def states(self) -> int:
        """How many are shown."""
        return self.model.shape[0] // self.copies

    def shown(self, beliefs: np.ndarray) -> np.ndarray:
        """[..., S shown] of beliefs [..., S]."""
        return beliefs.reshape(*beliefs.shape[:-1], self.copies, -1).sum(-2)

    def given_shown(self, table: np.ndarray) -> np.ndarray:
        """[S shown, ...]: rows [S, ...] of the model's states averaged over those that are shown as one."""
        weights = self.model.start.reshape(self.copies, -1)
        weights = np.where(weights.sum(0) > 0, weights, 1.0)
        weights = weights / weights.sum(0)
        rows = table.reshape(self.copies, self.states, *table.shape[1:])
        return np.einsum("cs,cs...->s...", weights, rows)

    def best(self, beliefs: np.ndarray, times: np.ndarray) -> np.ndarray:
        """[N], what the plan does."""
        return self.values.q(beliefs, times).argmax(1)

    def follow(self, talks: Sequence[ActTalk]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Beliefs [K + 1, S] of each talk of K turns, and how likely each answer was beforehand [K].

        The last belief is the one after the last answer, as if the talk went on.
        """
        m = self.model
        beliefs = [np.empty((len(t) + 1, m.shape[0])) for t in talks]
        chances = [np.empty(len(t)) for t in talks]
        if not talks:
            return beliefs, chances
        now = m.first(np.array([t.first for t in talks])).copy()
        for i, rows in enumerate(beliefs):
            rows[0] = now[i]
        for k in range(max(map(len, talks))):
            here = np.array([i for i, t in enumerate(talks) if len(t) > k])
            acts = np.array([talks[i].acts[k] for i in here])
            answers = np.array([talks[i].answers[k] for i in here])
            times = np.full(len(here), k)
            heard = m.predict(now[here], acts, times)[np.arange(len(here)), answers]
            # A talk that goes on was not ended by the clock, however long it is.
            now[here] = m.update(now[here], acts, answers)[0]
            for i, p in zip(here.tolist(), heard.tolist(), strict=True):
                beliefs[i][k + 1], chances[i][k] = now[i], p
        return beliefs, chances
