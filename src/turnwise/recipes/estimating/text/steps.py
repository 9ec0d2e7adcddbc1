"""Logged messages on the decision axis: what they earned, who would have said them how probably."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.run.errors import InputError


@dataclass(frozen=True)
class TurnSteps:
    """B conversations of up to A turns; numbers behind `mask` mean nothing."""

    dialogues: Sequence[Dialogue]
    rewards: np.ndarray
    """[B, A], in the units of the task"""
    mask: np.ndarray
    """[B, A] bool"""
    message_logp: np.ndarray
    """[B, A], ln P of the message as the log says it (`behavior_logp`); NaN where it does not"""
    cut: int
    """conversations that were cut"""
    besides: Sequence[Dialogue] = ()
    """other conversations of the logged agent, from which clones of it may learn too"""

    def padded(self, flat: np.ndarray) -> np.ndarray:
        """Numbers of all turns [M], conversation by conversation, as [B, A], 0 behind the end."""
        found = np.zeros(self.mask.shape, flat.dtype)
        found[self.mask] = flat
        return found


def turn_steps(dialogues: Sequence[Dialogue], besides: Sequence[Dialogue] = ()) -> TurnSteps:
    """`besides`: other conversations of the logged agent.

    InputError for a log-probability above 0 or of an impossible message, by the conversation's id."""
    rewards, logps, cut = [], [], 0
    for d in dialogues:
        turns = d.turns
        rewards.append([m.reward for m in turns])
        logp = [np.nan if m.behavior_logp is None else m.behavior_logp for m in turns]
        for k, x in enumerate(logp):
            if not (np.isnan(x) or (x <= 0 and np.isfinite(x))):
                raise InputError(
                    f"conversation {d.id!r}, message {k + 1} of the agent: behavior_logp: expected the log "
                    f"of a probability above 0: a finite number, 0 or below; found {x:g}"
                )
        logps.append(logp)
        cut += not d.terminated
    mask = np.arange(max(map(len, rewards))) < np.array([len(x) for x in rewards])[:, None]
    earned, known = np.zeros(mask.shape), np.zeros(mask.shape)
    earned[mask], known[mask] = (np.array([x for row in y for x in row]) for y in (rewards, logps))
    return TurnSteps(dialogues, earned, mask, known, cut, besides)
