"""What every environment is to the rest of the library: N lanes stepped at once by arrays.

An observation is a symbol (`Discrete`: int64 [N]) or a vector (`Vector`: float32 [N, d]); whatever else an
environment shows is made one of the two at the door.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Discrete:
    """Integers 0 .. n-1; arrays [N] int64."""

    n: int


@dataclass(frozen=True)
class Vector:
    """Numbers; arrays [N, size] float32. Of actions: each from `low` to `high`."""

    size: int
    low: float = -float("inf")
    high: float = float("inf")


Space = Discrete | Vector


class Step(NamedTuple):
    """What follows one action in each lane; arrays are the caller's to keep."""

    observations: np.ndarray
    """[N] or [N, d]: what the action led to, in a lane that ended its last observation"""
    rewards: np.ndarray
    """[N] float64, of the transition that was sampled"""
    terminated: np.ndarray
    """[N] bool, True: the transition ended the episode"""
    truncated: np.ndarray
    """[N] bool, True: the episode was cut, and did not end by itself"""


@runtime_checkable
class LaneEnv(Protocol):
    """N episodes at once. What happens is a function of the generator, N and all that was asked."""

    @property
    def observation_space(self) -> Space:
        """Of what the agent sees."""
        ...

    @property
    def action_space(self) -> Space:
        """Of what it does."""
        ...

    @property
    def state_space(self) -> Space | None:
        """Of `states`; None where the environment does not tell them."""
        ...

    @property
    def states(self) -> np.ndarray | None:
        """[N] or [N, d], the hidden states: privileged. In a lane that ended: the state reached."""
        ...

    @property
    def begins_while_stepping(self) -> bool:
        """How a lane that ended begins anew. False: by `reset_lanes`. True: in the next step, which ignores
        that lane's action, and whose observation is the first of the new episode; nothing else there counts.
        """
        ...

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        """Begin an episode in each of N lanes, drawing from `rng` until the next one. First observations."""
        ...

    def step(self, actions: np.ndarray) -> Step:
        """Take `actions` [N] or [N, d], one in each lane."""
        ...

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        """Begin anew where `mask` [N] bool is True. First observations of those lanes, in order."""
        ...
