"""What lanes are given, held against what they promised: numbers that are none, symbols that are unknown.

An environment's fault is named where it comes in, with the lane and the step. Later it would be a loss that
is no number, or an index that no table has.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from turnwise.envs.protocol import Discrete, Space, Step, Vector
from turnwise.run.errors import InputError


def expect_first(observations: np.ndarray, space: Space, lanes: np.ndarray) -> np.ndarray:
    """First observations of the episodes that begin in `lanes` [n]. InputError for one that is none."""
    _expect_shape(observations, space, len(lanes))
    for i in np.flatnonzero(_wrong(observations, space))[:1]:
        _refuse("observation", observations[i], space, f"at the start of an episode (lane {lanes[i]})")
    return observations


def expect_step(step: Step, before: np.ndarray, idle: np.ndarray, ages: np.ndarray, space: Space) -> Step:
    """A step of N lanes. InputError for a reward or an observation that is none.

    What a true end shows is nobody's business, since nothing follows from it: if it is none, the observation
    `before` [N, ...] stands there. Neither is the reward of a step that only begins an episode (`idle` [N]).
    `ages` [N]: steps that the episodes have had.
    """
    _expect_shape(step.observations, space, len(before))
    if np.shape(step.rewards) != (len(before),) or np.asarray(step.rewards).dtype.kind not in "fiu":
        found = np.asarray(step.rewards)
        raise InputError(
            f"the environment's rewards are {found.dtype} of shape {found.shape}; expected numbers of shape "
            f"({len(before)},)"
        )
    wrong = ~np.isfinite(step.rewards) & ~idle
    for lane in np.flatnonzero(wrong)[:1]:
        _refuse("reward", step.rewards[lane], None, _where(lane, ages))
    wrong = _wrong(step.observations, space)
    if not wrong.any():
        return step
    over = step.terminated & ~idle
    for lane in np.flatnonzero(wrong & ~over)[:1]:
        _refuse("observation", step.observations[lane], space, _where(lane, ages))
    observations = step.observations.copy()
    observations[wrong] = before[wrong]
    return step._replace(observations=observations)


def _wrong(observations: np.ndarray, space: Space) -> np.ndarray:
    """[N] bool, where an observation is none of the space."""
    if isinstance(space, Discrete):
        return (observations < 0) | (observations >= space.n)
    if observations.dtype.kind != "f":
        return np.zeros(len(observations), bool)
    return np.logical_not(np.isfinite(observations).all(1))


def _expect_shape(observations: np.ndarray, space: Space, n: int) -> None:
    symbols = isinstance(space, Discrete)
    shape = (n, space.size) if isinstance(space, Vector) else (n,)
    if observations.shape != shape or observations.dtype.kind not in ("iu" if symbols else "fu"):
        found = f"{observations.dtype} of shape {observations.shape}"
        expected = f"{'symbols' if symbols else 'numbers'} of shape {shape}"
        raise InputError(f"the environment's observations are {found}; expected {expected}")


def _where(lane: int, ages: np.ndarray) -> str:
    return f"in step {ages[lane] + 1} of an episode (lane {lane})"


def _refuse(what: str, found: Any, space: Space | None, where: str) -> None:
    if isinstance(space, Discrete):
        expected = f"a symbol from 0 to {space.n - 1}"
    else:
        expected = "a finite number" if space is None else "finite numbers"
    raise InputError(f"the environment's {what} is {found}, {where}; expected {expected}")
