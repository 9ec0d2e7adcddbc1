"""The environment protocol: N lanes, each in an episode of its own, stepped at once by arrays.

An observation is a symbol (`Discrete`: int64 [N]) or a vector (`Vector`: float32 [N, d], parts of which may
be images). An action is one of these, or several symbols at once (`MultiDiscrete`: int64 [N, d]). The
Gymnasium adapters (`envs/gymnasium`) turn whatever else an environment shows and takes into one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Discrete:
    """The integers 0 .. n-1, as arrays [N] int64."""

    n: int


@dataclass(frozen=True)
class MultiDiscrete:
    """Several symbols at once, as arrays [N, len(sizes)] int64; entry i is one of 0 .. sizes[i]-1."""

    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Image:
    """A part of a vector that lies in a plane: numbers `at` and after, as an array of this `shape`."""

    at: int
    shape: tuple[int, ...]
    """(height, width), (height, width, channels), (channels, height, width), or one of the latter two for
    each of several frames"""
    channels_last: bool
    low: float
    """of any pixel"""
    high: float

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width."""
        one = self.shape[-3:]
        height, width = one if len(one) == 2 else one[:2] if self.channels_last else one[1:]
        return height, width

    @property
    def channels(self) -> int:
        """Numbers of a pixel, those of all frames together."""
        if len(self.shape) == 2:
            return 1
        frames = self.shape[0] if len(self.shape) == 4 else 1
        return frames * self.shape[-1 if self.channels_last else -3]


@dataclass(frozen=True)
class Vector:
    """Vectors of numbers, as arrays [N, size] float32 (uint8, if they are nothing but images of bytes).

    Actions have each number between `low` and `high`: one number for all entries, or one for each.
    """

    size: int
    low: float | tuple[float, ...] = -float("inf")
    high: float | tuple[float, ...] = float("inf")
    images: tuple[Image, ...] = ()
    """of an observation; they do not overlap"""

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest numbers, [size] each."""
        low, high = (np.broadcast_to(np.asarray(x, np.float64), self.size) for x in (self.low, self.high))
        return low, high


Space = Discrete | MultiDiscrete | Vector


def no_actions(space: Space, lanes: int) -> np.ndarray:
    """What stands for the previous action where there was none: zeros, [N] or [N, d]."""
    if isinstance(space, Discrete):
        return np.zeros(lanes, np.int64)
    if isinstance(space, MultiDiscrete):
        return np.zeros((lanes, len(space.sizes)), np.int64)
    return np.zeros((lanes, space.size), np.float32)


class Step(NamedTuple):
    """The result of one action in each lane. The caller may keep the arrays."""

    observations: np.ndarray
    """[N] or [N, d], what the action led to; in a lane that ended, the last observation of the episode"""
    rewards: np.ndarray
    """[N] float64, the reward of the transition that was sampled"""
    terminated: np.ndarray
    """[N] bool, True if the transition ended the episode"""
    truncated: np.ndarray
    """[N] bool, True if the episode was cut and did not end by itself; never True beside `terminated`"""


@runtime_checkable
class LaneEnv(Protocol):
    """N episodes at once. What happens is a function of the generator, of N and of the calls so far."""

    @property
    def observation_space(self) -> Space:
        """The space of observations."""
        ...

    @property
    def action_space(self) -> Space:
        """The space of actions."""
        ...

    @property
    def state_space(self) -> Space | None:
        """The space of `states`; None if the environment does not show them."""
        ...

    @property
    def states(self) -> np.ndarray | None:
        """[N] or [N, d], the hidden states: privileged. In a lane that ended, the state reached."""
        ...

    @property
    def autoresets(self) -> bool:
        """Whether a lane that ended begins anew in the next step. If not, `reset_lanes` does it.

        The step that begins an episode ignores the lane's action. Its observation is the first one of the new
        episode; its reward and flags mean nothing.
        """
        ...

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        """Begin an episode in each of N lanes. First observations. Later steps draw from `rng` too."""
        ...

    def step(self, actions: np.ndarray) -> Step:
        """Take `actions` [N] or [N, d], one in each lane."""
        ...

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        """Begin anew where `mask` [N] bool is True. First observations of those lanes, in order."""
        ...


@runtime_checkable
class Resumable(Protocol):
    """Lanes that can say where they stand, so that a stopped run goes on in the middle of their episodes.

    An environment that lacks this begins its episodes anew then: the run goes on, but not to the same bits.
    """

    @property
    def resumes(self) -> bool:
        """Whether it can; what wraps another environment learns it from that one."""
        ...

    def state(self) -> dict[str, Any]:
        """Where the lanes stand: arrays, numbers, texts, dicts of them. The generator is no part of it."""
        ...

    def load(self, state: dict[str, Any], rng: np.random.Generator) -> None:
        """Stand where `state` says, in a fresh environment of the same kind, and draw from `rng` from now on.

        NotReproduced if the environment did not come to stand there.
        """
        ...


class NotReproduced(Exception):
    """An environment did not come to stand where it had stood: it does not follow from seed and actions."""
