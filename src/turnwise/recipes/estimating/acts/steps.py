"""Logged conversations as the decisions that an estimate stands on: acts, rewards, and who would do what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from turnwise.data.acts.talks import ActLogs, ActTalk, Codes
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
    without: tuple[np.ndarray, ...] = ()
    """[B, A, K] each, `target.probabilities` without parts of the replies in which they were counted"""
    besides: Sequence[ActTalk] = ()
    """other talks of the logged agent, from which models of it may learn too"""

    @property
    def talks(self) -> Sequence[ActTalk]:
        """[B]"""
        return self.logs.talks

    @property
    def target_logp(self) -> np.ndarray:
        """[B, A], log-probability of what was done under the policy; -inf where it would not do that."""
        return logged_logp(self.target.probabilities, self.acts)


def act_steps(
    agent: ActAgent,
    dialogues: Sequence[Dialogue],
    *,
    seed: int,
    samples: int,
    quiet: bool,
    besides: Sequence[Dialogue] = (),
) -> ActSteps:
    """Read conversations with the agent's codebooks, and ask it what it would do at each decision; `besides`
    are other conversations of the logged agent (`taught`).

    InputError for a log-probability above 0, by the conversation's id.
    """
    logs = agent.codes.talks(dialogues)
    expect_act_logp(logs)
    with Progress("asking the policy", len(dialogues), quiet=quiet) as bar:
        target = logged_chances(agent, dialogues, seed=seed, samples=samples, progress=bar.at)
    return taught(steps_of(dialogues, logs, target), agent.codes, besides)


def taught(steps: ActSteps, codes: Codes, besides: Sequence[Dialogue]) -> ActSteps:
    """The same with what other conversations of the logged agent teach. If the logs say how probable all acts
    were, nobody has to learn it from others."""
    if not len(besides) or not np.isnan(steps.act_logp[steps.mask]).any():
        return steps
    return replace(steps, besides=codes.talks(besides).talks)


def expect_act_logp(logs: ActLogs) -> None:
    """InputError for a logged log-probability above 0 or of an impossible act, by the conversation's id."""
    for t in logs:
        known = t.act_logp[~np.isnan(t.act_logp)]
        if ((known <= 0) & np.isfinite(known)).all():
            continue
        k = int(np.argmax(~(np.isnan(t.act_logp) | ((t.act_logp <= 0) & np.isfinite(t.act_logp)))))
        raise InputError(
            f"conversation {t.id!r}, message {k + 1} of the agent: act_logp: expected the log of a "
            f"probability above 0: a finite number, 0 or below; found {t.act_logp[k]:g}"
        )


def steps_of(
    dialogues: Sequence[Dialogue], logs: ActLogs, target: Chances, without: tuple[np.ndarray, ...] = ()
) -> ActSteps:
    """What was logged beside what a policy would do."""
    mask = _padded([np.ones(len(t), bool) for t in logs])
    return ActSteps(
        dialogues,
        logs,
        target,
        _padded([t.acts for t in logs]),
        _padded([t.rewards for t in logs]),
        mask,
        _padded([t.act_logp for t in logs]),
        _padded(_kinds(logs)),
        without,
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
