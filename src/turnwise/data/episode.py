"""One episode of an environment as a frozen value."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Episode:
    """T actions and T+1 observations; the last observation is what the final action led to.

    `observations` [T+1, ...], `actions` [T, ...], `rewards` [T] (reward that followed each action),
    `behavior_logp` [T] or None. Exactly one of `terminated` and `truncated` holds: a true end, or a cut
    after which the episode could have gone on.
    """

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool
    truncated: bool
    behavior_logp: np.ndarray | None = None

    def __post_init__(self) -> None:
        n = len(self.actions)
        if n == 0:
            raise ValueError("an episode has at least one action")
        if len(self.observations) != n + 1:
            raise ValueError(f"{len(self.observations)} observations for {n} actions; expected {n + 1}")
        if len(self.rewards) != n:
            raise ValueError(f"{len(self.rewards)} rewards for {n} actions")
        if self.behavior_logp is not None and len(self.behavior_logp) != n:
            raise ValueError(f"{len(self.behavior_logp)} behaviour log-probabilities for {n} actions")
        if self.terminated == self.truncated:
            raise ValueError("exactly one of terminated and truncated must hold")
