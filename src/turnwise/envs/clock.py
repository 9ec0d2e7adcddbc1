"""The bookkeeping of N lanes: which are under way, how old they are, when they are cut."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from turnwise.envs.protocol import Discrete, Space, Vector


class Clock:
    """Ages and ends of N lanes, and the generator that they draw from. ValueError for calls out of order."""

    def __init__(self, horizon: int | None) -> None:
        """`horizon`: steps after which an episode is truncated; None: never."""
        if horizon is not None and horizon < 1:
            raise ValueError(f"horizon is {horizon}; expected at least 1 step, or None")
        self.horizon = horizon
        self.ages = np.zeros(0, np.int64)
        """[N], steps since the episode of each lane began"""
        self.ended = np.zeros(0, bool)
        """[N], lanes that have to begin anew before the next step"""
        self._rng: np.random.Generator | None = None

    @property
    def rng(self) -> np.random.Generator:
        """The generator of the last reset. ValueError before the first one."""
        if self._rng is None:
            raise ValueError("no episode is under way; reset comes first")
        return self._rng

    def begin(self, rng: np.random.Generator, lanes: int) -> None:
        """Begin an episode in each of N lanes."""
        if lanes < 1:
            raise ValueError(f"lanes is {lanes}; expected at least 1")
        self._rng = rng
        self.ages, self.ended = np.zeros(lanes, np.int64), np.zeros(lanes, bool)

    def begin_lanes(self, mask: np.ndarray) -> np.ndarray:
        """Begin anew where `mask` [N] bool is True. Returns the indices [n] of those lanes."""
        _, mask = self.rng, np.asarray(mask)  # `rng` refuses if no episode is under way
        if mask.shape != self.ages.shape or mask.dtype != np.bool_:
            raise ValueError(
                f"mask is {mask.dtype} of shape {mask.shape}; expected bool of shape {self.ages.shape}"
            )
        where = np.flatnonzero(mask)
        self.ages[where] = 0
        self.ended[where] = False
        return where

    def check(self, actions: np.ndarray, space: Space) -> np.ndarray:
        """`actions` as an array. ValueError if some lane cannot take its own."""
        _, actions = self.rng, np.asarray(actions)
        n = len(self.ages)
        if isinstance(space, Discrete):
            if actions.shape != (n,) or actions.dtype.kind not in "iu":
                raise ValueError(
                    f"actions are {actions.dtype} of shape {actions.shape}; expected integers of shape ({n},)"
                )
            if actions.min() < 0 or actions.max() >= space.n:
                raise ValueError(
                    f"actions run from {actions.min()} to {actions.max()}; expected 0 to {space.n - 1}"
                )
        else:
            size = space.size if isinstance(space, Vector) else len(space.sizes)
            if actions.shape != (n, size) or actions.dtype.kind not in "fiu":
                raise ValueError(
                    f"actions are {actions.dtype} of shape {actions.shape}; expected numbers of shape "
                    f"({n}, {size})"
                )
        if self.ended.any():
            over = np.flatnonzero(self.ended)
            raise ValueError(f"lane {over[0]} has ended ({len(over)} have); reset_lanes comes before a step")
        return actions

    def tick(self, terminated: np.ndarray) -> np.ndarray:
        """Count a step. Returns [N] bool: the horizon cuts the lane, and it did not end by itself."""
        self.ages += 1
        if self.horizon is None:
            truncated = np.zeros_like(terminated)
        else:
            truncated = (self.ages >= self.horizon) & ~terminated
        self.ended = terminated | truncated
        return truncated

    def state(self, **arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Ages and ends to go on from, and copies of what else an environment stands in: `arrays` by name."""
        arrays = {"ages": self.ages, "ended": self.ended, **arrays}
        return {name: array.copy() for name, array in arrays.items()}

    def load(self, state: Mapping[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Go on from `state`, drawing from `rng`; copies of the environment's own arrays, by name."""
        arrays = {name: array.copy() for name, array in state.items()}
        self._rng, self.ages, self.ended = rng, arrays.pop("ages"), arrays.pop("ended")
        return arrays
