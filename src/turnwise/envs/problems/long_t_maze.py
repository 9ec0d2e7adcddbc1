"""A T-maze of any length, without a table: a sign at the start, a turn to take at the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from turnwise.envs.clock import Clock
from turnwise.envs.protocol import Discrete, Step


class LongTMaze:
    """A sign at the start says which way to turn at the far end of a corridor of `length` cells.

    Shown are the sign (0: N, 1: S) in the first cell only, 2 in the corridor, 3 at the junction. Actions are
    N, S, E, W. The right turn pays 1, the wrong one -1, and the episode ends; a step into a wall stays and
    costs 1 / (length + 1). The maximum is 1, undiscounted; without memory the turn is a coin's, worth 0. An
    episode is cut after 4 (length + 2) steps. What it takes: one bit, kept for length + 1 steps. The agent's
    own actions cannot carry the bit, because only E leads on.
    Source: Bakker 2001, whose rewards are 4, -0.1 and -0.1 (`classics.t_maze` pays 4, -0.1 and 0).
    """

    def __init__(self, length: int = 100, *, horizon: int | None = None) -> None:
        """`horizon`: steps after which an episode is truncated, if it is not cut earlier."""
        if length < 0:
            raise ValueError(f"a corridor of {length} cells; expected 0 or more")
        limit = 4 * (length + 2)
        self._clock = Clock(limit if horizon is None else min(limit, horizon))
        self.length = length
        self._place = self._sign = np.zeros(0, np.int64)

    @property
    def observation_space(self) -> Discrete:
        """Sign N, sign S, corridor, junction."""
        return Discrete(4)

    @property
    def action_space(self) -> Discrete:
        """N, S, E, W."""
        return Discrete(4)

    @property
    def state_space(self) -> Discrete:
        """2 * place + sign; place 0 is the start, length + 1 the junction."""
        return Discrete(2 * (self.length + 2))

    @property
    def states(self) -> np.ndarray:
        """[N]; after the turn: the junction."""
        return 2 * self._place + self._sign

    autoresets = False
    """False: lanes begin anew by `reset_lanes`."""
    resumes = True
    """See `Resumable`."""

    def state(self) -> dict[str, Any]:
        """Where the lanes stand."""
        return self._clock.state(place=self._place, sign=self._sign)

    def load(self, state: dict[str, Any], rng: np.random.Generator) -> None:
        """Stand there, and draw from `rng` from now on."""
        arrays = self._clock.load(state, rng)
        self._place, self._sign = arrays["place"], arrays["sign"]

    @property
    def maximum(self) -> float:
        """Return of perfect play, undiscounted: 1, or 0 if the horizon cuts before the turn."""
        return float((self._clock.horizon or 0) >= self.length + 2)

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        """Begin an episode in each of N lanes, drawing from `rng` until the next reset. Observations [N]."""
        self._clock.begin(rng, lanes)
        self._place, self._sign = np.zeros(lanes, np.int64), rng.integers(2, size=lanes)
        return self._seen()

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        """Begin anew where `mask` [N] bool is True. Observations of those lanes, in order."""
        where = self._clock.begin_lanes(mask)
        self._place[where] = 0
        self._sign[where] = self._clock.rng.integers(2, size=len(where))
        return self._seen()[where]

    def step(self, actions: np.ndarray) -> Step:
        """Walk or turn, [N] integers."""
        actions, last = self._clock.check(actions, self.action_space), self.length + 1
        turned = (self._place == last) & (actions < 2)
        place = np.clip(self._place + (actions == 2) - (actions == 3), 0, last)
        rewards = np.where(place == self._place, -1 / last, 0.0)
        rewards[turned] = np.where(actions == self._sign, 1.0, -1.0)[turned]
        self._place = place
        truncated = self._clock.tick(turned)
        return Step(self._seen(), rewards, turned, truncated)

    def _seen(self) -> np.ndarray:
        inner = np.where(self._place == self.length + 1, 3, 2)
        return np.where(self._place == 0, self._sign, inner)
