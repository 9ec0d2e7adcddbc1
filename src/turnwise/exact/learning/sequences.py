"""What tabular models learn from: episodes as flat arrays of actions and of what was seen after them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Sequences:
    """N episodes of M steps in all; step k of an episode is an action, what was seen after it, and its pay.

    `firsts` [N] is what was seen before the first action (all 0 with `first_symbols` 1: nothing was).
    `actions`, `observations` [M] are symbols below `action_symbols` and `observation_symbols`, `rewards` [M]
    are in the units of the problem; None if nobody said what anything was worth. Episode i has the steps
    `offsets[i]` to `offsets[i + 1]` (at least one). `ended` [N] is True after a true end, False after a cut.
    """

    actions: np.ndarray
    observations: np.ndarray
    rewards: np.ndarray | None
    offsets: np.ndarray
    ended: np.ndarray
    firsts: np.ndarray
    action_symbols: int
    observation_symbols: int
    first_symbols: int = 1

    def __post_init__(self) -> None:
        kinds = {
            "actions": np.int32,
            "observations": np.int32,
            "offsets": np.int64,
            "ended": np.bool_,
            "firsts": np.int32,
        }
        for field, kind in kinds.items():
            object.__setattr__(self, field, np.ascontiguousarray(getattr(self, field), kind))
        if self.rewards is not None:
            object.__setattr__(self, "rewards", np.ascontiguousarray(self.rewards, np.float64))
        n, m = len(self.ended), len(self.actions)
        if self.offsets.shape != (n + 1,) or self.offsets[0] != 0 or self.offsets[-1] != m:
            raise ValueError(f"offsets is {self.offsets}; expected {n + 1} numbers from 0 to {m}")
        if n and not (np.diff(self.offsets) > 0).all():
            raise ValueError("an episode without a step; expected at least one in each")
        if len(self.observations) != m or len(self.firsts) != n:
            raise ValueError("arrays of different lengths; expected one entry per step, or per episode")
        if self.rewards is not None and (len(self.rewards) != m or not np.isfinite(self.rewards).all()):
            raise ValueError(f"rewards has {len(self.rewards)} entries; expected {m} finite numbers")
        for field, size in (
            ("actions", self.action_symbols),
            ("observations", self.observation_symbols),
            ("firsts", self.first_symbols),
        ):
            found = getattr(self, field)
            if len(found) and not (found.min() >= 0 and found.max() < size):
                raise ValueError(
                    f"{field} has symbols from {found.min()} to {found.max()}; expected 0 to {size - 1}"
                )

    def __len__(self) -> int:
        """N, the number of episodes."""
        return len(self.ended)

    @property
    def lengths(self) -> np.ndarray:
        """[N], steps of each episode."""
        return np.diff(self.offsets)

    def returns(self) -> np.ndarray:
        """[N], undiscounted; ValueError if nothing was paid for anything."""
        if self.rewards is None:
            raise ValueError("sequences without rewards have no returns")
        return np.add.reduceat(self.rewards, self.offsets[:-1]) if len(self) else np.zeros(0)

    def select(self, episodes: Sequence[int] | np.ndarray) -> Sequences:
        """Those episodes, in that order; one may be there several times (a bootstrap resample)."""
        chosen = np.asarray(episodes, np.int64)
        lengths = self.lengths[chosen]
        offsets = np.append(0, np.cumsum(lengths))
        steps = np.repeat(self.offsets[chosen] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return replace(
            self,
            actions=self.actions[steps],
            observations=self.observations[steps],
            rewards=None if self.rewards is None else self.rewards[steps],
            offsets=offsets,
            ended=self.ended[chosen],
            firsts=self.firsts[chosen],
        )
