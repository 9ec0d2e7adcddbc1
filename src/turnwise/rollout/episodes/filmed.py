"""Lanes of Gymnasium whose pictures, or texts, are kept as they are stepped."""

from __future__ import annotations

from typing import Any

import numpy as np

from turnwise.envs.gymnasium.lanes import GymnasiumLanes
from turnwise.envs.protocol import Step


class Filmed:
    """`lanes`, one of them, and what its environment rendered: at the beginning and after each step."""

    def __init__(self, lanes: GymnasiumLanes) -> None:
        self._lanes = lanes
        self.frames: list[Any] = []
        """pictures [height, width, 3] uint8, or texts"""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lanes, name)

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        """Begin an episode."""
        seen = self._lanes.reset(rng, lanes)
        self._keep()
        return seen

    def step(self, actions: np.ndarray) -> Step:
        """One step."""
        step = self._lanes.step(actions)
        self._keep()
        return step

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        """Begin anew. Nothing is kept of it: an episode is watched to its end, and the next one is reset."""
        return self._lanes.reset_lanes(mask)

    def _keep(self) -> None:
        shown = self._lanes.envs.render()
        for frame in (shown or ())[:1]:
            # Some environments draw into the array that they gave before.
            self.frames.append(frame.copy() if isinstance(frame, np.ndarray) else frame)
