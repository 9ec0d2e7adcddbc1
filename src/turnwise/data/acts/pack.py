"""Talks of acts on the decision axis: a decision per act of the agent, in rows as environments have them.

What the agent sees at each turn is one symbol: an answer, or before its first act what it knows beforehand.
So a talk is an episode of a discrete environment, and whatever learns from the one learns from the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from turnwise.data.acts.talks import ActLogs, ActTalk, Codes
from turnwise.data.batch import Batch
from turnwise.data.episode import Episode
from turnwise.data.steps import pack_steps


@dataclass(frozen=True)
class ActSymbols:
    """How many symbols there are: `acts` that the agent does, and what it sees, `answers` and `openings`.

    Answer i is the symbol i, with silence as 0; opening i is the symbol `answers` + i.
    """

    acts: int
    answers: int
    openings: int

    @staticmethod
    def of(logs: ActLogs | Codes) -> ActSymbols:
        """Those of codebooks, or of what was read with them."""
        return ActSymbols(len(logs.acts), len(logs.answers), len(logs.openings))

    @property
    def seen(self) -> int:
        """How many different symbols the agent may see."""
        return self.answers + self.openings

    def observations(self, first: int, answers: np.ndarray) -> np.ndarray:
        """[K+1], what was seen: the opening, then the answer to each of K acts."""
        return np.append(self.answers + first, answers).astype(np.int64)


def act_episode(talk: ActTalk, symbols: ActSymbols) -> Episode:
    """A talk as an episode: K acts, and K+1 symbols that were seen.

    A talk that was cut right behind the agent's own words may have had an answer: what its last act led to is
    unknown then, and is not learnt from. ValueError for a talk without an act. The log-probabilities are
    those of the messages, which say more than their acts.
    """
    return Episode(
        observations=symbols.observations(talk.first, talk.answers),
        actions=np.asarray(talk.acts, np.int64),
        rewards=np.asarray(talk.rewards, np.float64),
        terminated=talk.terminated,
        truncated=not talk.terminated,
        behavior_logp=None if np.isnan(talk.behavior_logp).any() else talk.behavior_logp,
        next_known=talk.terminated or (len(talk) > 0 and bool(talk.answers[-1] != 0)),
    )


def act_episodes(logs: ActLogs) -> list[Episode]:
    """All talks as episodes, in their order."""
    symbols = ActSymbols.of(logs)
    return [act_episode(talk, symbols) for talk in logs]


def pack_acts(episodes: Sequence[Episode], *, gamma: float, dtype: torch.dtype = torch.float32) -> Batch:
    """Rows of acts: what `pack_steps` makes of the episodes, without the previous rewards among the inputs.

    How a conversation went is often known at its end alone, and to others than the agent: what decides by
    rewards that nobody tells it would be lost at play. `gamma` is per act of the agent.
    """
    batch = pack_steps(episodes, gamma=gamma, dtype=dtype)
    unpaid = torch.zeros_like(batch.inputs.previous_reward)
    return replace(batch, inputs=batch.inputs._replace(previous_reward=unpaid))
