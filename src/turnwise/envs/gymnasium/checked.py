"""One environment of a stranger, each of whose answers is checked where it comes in."""

from __future__ import annotations

import math
import warnings
from typing import Any

import gymnasium
import numpy as np

from turnwise.envs.gymnasium.faults import beyond, fault_in
from turnwise.run.errors import InputError

RESET = "a tuple (observation, info)"
STEP = "a tuple (observation, reward, terminated, truncated, info)"


class Checked(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Answers as the environment does. InputError for what it did not promise, with the lane and the step.

    What is seen after a true end is not looked at, since nothing follows from it: the observation before it
    stands there if it is none. A number outside the bounds of its Box is learnt from like any other, and told
    once as a warning.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], lane: int) -> None:
        super().__init__(env)
        self.lane, self._step = lane, 0
        self._last: Any = None
        self._told = lane > 0  # the lanes are alike: the first one tells

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """First observation and info."""
        self._step = 0
        found = self.env.reset(seed=seed, options=options)
        if not isinstance(found, tuple) or len(found) != 2:
            raise self._fault("answer to reset", f"{_words(found)}; expected {RESET}")
        self._see(found[0])
        return found

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, info."""
        self._step += 1
        found: Any = self.env.step(action)
        if not isinstance(found, tuple) or len(found) != 5:
            raise self._fault("answer to step", f"{_words(found)}; expected {STEP}")
        observation, reward, terminated, truncated, info = found
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if flag is None or np.ndim(flag) or flag not in (0, 1):
                raise self._fault(name, f"{flag!r}; expected True or False")
        earned = _number(reward)
        if earned is None:
            raise self._fault("reward", f"{reward!r}; expected a finite number")
        if terminated and fault_in(self.observation_space, observation) is not None:
            observation = self._last
        elif not terminated:
            self._see(observation)
        return observation, earned, bool(terminated), bool(truncated), info

    def _see(self, observation: Any) -> None:
        fault = fault_in(self.observation_space, observation)
        if fault is not None:
            raise self._fault("observation", fault)
        self._last = observation
        if self._told or (found := beyond(self.observation_space, observation)) is None:
            return
        self._told = True
        warnings.warn(
            f"the environment shows the number {found} ({self._where()})", RuntimeWarning, stacklevel=2
        )

    def _fault(self, what: str, fault: str) -> InputError:
        found, _, expected = fault.partition("; ")
        return InputError(f"the environment's {what} is {found}, {self._where()}; {expected}")

    def _where(self) -> str:
        step = f"in step {self._step}" if self._step else "at the start"
        return f"{step} of an episode (lane {self.lane})"


def _number(reward: Any) -> float | None:
    """A reward as a finite number; an array of one number is one too. None if it is none."""
    if isinstance(reward, np.ndarray) and reward.size == 1:
        reward = reward.item()
    if isinstance(reward, str | bytes):
        return None
    try:
        found = float(reward)
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def _words(found: Any) -> str:
    """What came in place of a tuple of so many parts."""
    return f"a tuple of {len(found)}" if isinstance(found, tuple) else f"one {type(found).__name__}"
