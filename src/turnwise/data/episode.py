"""One episode of an environment, or a part of one, as a frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Episode:
    """T actions and T+1 observations; the last observation is what the final action led to.

    `observations` [T+1, ...], `actions` [T, ...], `rewards` [T] (reward that followed each action),
    `behavior_logp` [T] or None, `states` [T+1, ...] or None (hidden, privileged). Exactly one of `terminated`
    and `truncated` holds: a true end, or a cut after which the episode could have gone on.

    A segment begins at the step `age` of its episode; then `previous_action` and `previous_reward` are those
    that led to its first observation, and `memory` [K] is the agent's memory *before* it read that
    observation (None: a memory of nothing). Decisions before `learn_from` are read and not learnt from, and
    neither is the last one if `next_known` is False: what it led to was never logged.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    truncated: bool
    behavior_logp: np.ndarray | None = None
    states: np.ndarray | None = None
    age: int = 0
    previous_action: Any = None
    previous_reward: float = 0.0
    memory: Any = None
    learn_from: int = 0
    next_known: bool = True

    def __post_init__(self) -> None:
        n = len(self.actions)
        if n == 0:
            raise ValueError("an episode has at least one action")
        if len(self.observations) != n + 1:
            raise ValueError(f"{len(self.observations)} observations for {n} actions; expected {n + 1}")
        if self.states is not None and len(self.states) != n + 1:
            raise ValueError(f"{len(self.states)} states for {n} actions; expected {n + 1}")
        if len(self.rewards) != n:
            raise ValueError(f"{len(self.rewards)} rewards for {n} actions")
        if self.behavior_logp is not None and len(self.behavior_logp) != n:
            raise ValueError(f"{len(self.behavior_logp)} behaviour log-probabilities for {n} actions")
        if self.terminated == self.truncated:
            raise ValueError("exactly one of terminated and truncated must hold")
        if (self.age > 0) != (self.previous_action is not None):
            raise ValueError("a segment has an age above 0 and a previous action, a whole episode neither")
        if self.age == 0 and self.memory is not None:
            raise ValueError("a memory before the first observation of an episode is a memory of nothing")
        if not 0 <= self.learn_from < n:
            raise ValueError(f"learn_from is {self.learn_from}; expected 0 to {n - 1}")
        if self.terminated and not self.next_known:
            raise ValueError("an episode that came to its end leads nowhere: nothing of it is unknown")

    def __len__(self) -> int:
        """T, the number of actions."""
        return len(self.actions)
