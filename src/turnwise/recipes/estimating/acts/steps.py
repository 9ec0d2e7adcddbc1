"""Logged conversations as the decisions that an estimate stands on: acts, rewards, and who would do what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.data.acts.talks import ActLogs, ActTalk
from turnwise.data.dialogue import Dialogue
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.logged import Chances, logged_chances
from turnwise.run.errors import InputError
from turnwise.run.progress import Progress


@dataclass(frozen=True)
class ActSteps:
    """B conversations of up to A decisions among K acts. Numbers behind `mask` mean nothing."""

    dialogues: Sequence[Dialogue]
    logs: ActLogs
    target: Chances
    """what the policy would do at each of the logged decisions"""
    acts: np.ndarray
    """[B, A] int, what was done"""
    rewards: np.ndarray
    """[B, A], in the units of the task"""
    mask: np.ndarray
    """[B, A] bool"""
    act_logp: np.ndarray
    """[B, A], log-probability of what was done, as the log says it; NaN where it does not"""
    histories: np.ndarray
    """[B, A] int, equal for the same turn behind the same last acts of both sides"""

    @property
    def talks(self) -> Sequence[ActTalk]:
        """[B]"""
        return self.logs.talks

    @property
    def target_logp(self) -> np.ndarray:
        """[B, A], log-probability of what was done under the policy; -inf where it would not do that."""
        return logged_logp(self.target.probabilities, self.acts)


def act_steps(
    agent: ActAgent, dialogues: Sequence[Dialogue], *, seed: int, samples: int, quiet: bool
) -> ActSteps:
    """Read conversations with the agent's codebooks, and ask it what it would do at each decision.

    InputError for a log-probability above 0, by the conversation's id.
    """
    logs = agent.codes.talks(dialogues)
    mask = _padded([np.ones(len(t), bool) for t in logs])
    act_logp = _padded([t.act_logp for t in logs])
    impossible = mask & ~np.isnan(act_logp) & ~((act_logp <= 0) & np.isfinite(act_logp))
    if impossible.any():
        b, k = np.argwhere(impossible)[0]
        expected = "the log of a probability above 0: a finite number, 0 or below"
        raise InputError(
            f"conversation {dialogues[b].id!r}, message {k + 1} of the agent: act_logp: expected {expected}; "
            f"found {act_logp[b, k]:g}"
        )
    with Progress("asking the policy", len(dialogues), quiet=quiet) as bar:
        target = logged_chances(agent, dialogues, seed=seed, samples=samples, progress=bar.at)
    return ActSteps(
        dialogues,
        logs,
        target,
        _padded([t.acts for t in logs]),
        _padded([t.rewards for t in logs]),
        mask,
        act_logp,
        _padded(_kinds(logs)),
    )


def logged_logp(probabilities: np.ndarray, acts: np.ndarray) -> np.ndarray:
    """[B, A], logarithms of those of the `acts` [B, A] among probabilities [B, A, K]."""
    with np.errstate(divide="ignore"):
        return np.log(np.take_along_axis(probabilities, acts[:, :, None], axis=2)[:, :, 0])


def _kinds(logs: ActLogs) -> list[np.ndarray]:
    """Of each talk, the kind of history before each of its decisions."""
    acts, seen = len(logs.acts) + 1, len(logs.answers) + len(logs.openings)
    found = []
    for t in logs:
        last = np.append(len(logs.acts), t.acts[:-1])  # none yet at the first turn
        heard = np.append(len(logs.answers) + t.first, t.answers[:-1])
        found.append((np.arange(len(t)) * acts + last) * seen + heard)
    return found


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    found = np.zeros((len(rows), max(map(len, rows))), rows[0].dtype)
    for b, row in enumerate(rows):
        found[b, : len(row)] = row
    return found
