"""What happened in lanes during one collection, and the rows of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from turnwise.data.episode import Episode


class Before(NamedTuple):
    """What stood before the first step of a collection, in each of N lanes."""

    ages: np.ndarray
    """[N], steps that the lane's episode has had"""
    actions: np.ndarray
    """[N] or [N, d], the previous action"""
    rewards: np.ndarray
    """[N], the previous reward"""
    memory: np.ndarray | None
    """[N, K]; None for an agent that carries nothing"""


@dataclass
class Track:
    """Arrays [steps, N, ...] of one collection."""

    observations: np.ndarray
    next_observations: np.ndarray
    """what the action led to; in a lane that ended, the last observation of its episode"""
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    """False where a lane only began anew"""
    logp: np.ndarray
    states: np.ndarray | None
    next_states: np.ndarray | None

    @staticmethod
    def empty(steps: int, observations: np.ndarray, actions: np.ndarray, states: np.ndarray | None) -> Track:
        """Room for `steps` steps of lanes that show and do things of these shapes and kinds [N, ...]."""
        lanes = len(observations)

        def like(x: np.ndarray) -> np.ndarray:
            return np.zeros((steps, *x.shape), x.dtype)

        def flags() -> np.ndarray:
            return np.zeros((steps, lanes), bool)

        return Track(
            observations=like(observations),
            next_observations=like(observations),
            actions=like(actions),
            rewards=np.zeros((steps, lanes)),
            terminated=flags(),
            truncated=flags(),
            valid=flags(),
            logp=np.zeros((steps, lanes)),
            states=None if states is None else like(states),
            next_states=None if states is None else like(states),
        )

    @property
    def ended(self) -> np.ndarray:
        """[steps, N], where an episode ended or was cut by its environment."""
        return self.terminated | self.truncated


def rows_of(track: Track, lane: int, before: Before) -> list[Episode]:
    """The rows of one lane: cut where an episode ended, and where the collection did."""
    steps = len(track.valid)
    ends = np.flatnonzero(track.ended[:, lane]) + 1
    rows, start = [], 0
    for stop in [*ends, steps]:
        while start < stop and not track.valid[start, lane]:  # the lane was only beginning anew
            start += 1
        if start == stop:
            continue
        # Only the first row can be the rest of an episode that an earlier collection began.
        goes_on = start == 0 and before.ages[lane] > 0
        rows.append(segment(track, lane, start, stop, before if goes_on else None))
        start = stop
    return rows


def segment(track: Track, lane: int, start: int, stop: int, before: Before | None = None) -> Episode:
    """Steps start .. stop-1 of a lane as a row; `before` unless they begin an episode."""
    here = slice(start, stop), lane
    # A row of n steps has n+1 observations (and states): the last one is what the last action led to.
    last = slice(stop - 1, stop), lane
    terminated = bool(track.terminated[stop - 1, lane])
    states = None
    if track.states is not None and track.next_states is not None:
        states = np.concatenate([track.states[here], track.next_states[last]])
    earlier: dict[str, Any] = {}
    if before is not None:
        earlier = {
            "age": int(before.ages[lane]),
            "previous_action": before.actions[lane],
            "previous_reward": float(before.rewards[lane]),
            "memory": None if before.memory is None else before.memory[lane],
        }
    return Episode(
        observations=np.concatenate([track.observations[here], track.next_observations[last]]),
        actions=track.actions[here],
        rewards=track.rewards[here],
        terminated=terminated,
        truncated=not terminated,
        behavior_logp=track.logp[here],
        states=states,
        **earlier,
    )
