"""A solved problem's policy in action: it keeps the belief, or the controller's memory, and gives actions.

    player = Player(problem, policy)
    action = player.act(observation)      # of the first observation; None if nothing is shown at first
    action = player.act(observation)      # after the next one
    player.reset()                        # a new episode

The interface is that of a trained agent's player, so that the same loop of an environment plays both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from turnwise.envs.pomdp import POMDP
from turnwise.exact.alpha_policy import RANDOM, AlphaPolicy
from turnwise.exact.beliefs import BeliefFilter
from turnwise.exact.controllers import Controller
from turnwise.run.errors import InputError


class Player:
    """Acts in one episode, or in N at a time; the belief, or the memory, is inside."""

    def __init__(
        self, problem: POMDP, policy: AlphaPolicy | Controller, lanes: int | None = None, *, seed: int = 0
    ) -> None:
        """`lanes`: episodes at a time; None: one, without an axis for it. `seed`: of drawn actions."""
        self.problem, self.policy, self.lanes = problem, policy, lanes
        self._n = lanes or 1
        self._filter, self._rng = BeliefFilter(problem), np.random.default_rng(seed)
        self._number = {name: i for i, name in enumerate(problem.observations)}
        self._shown: POMDP | None = problem if problem.initial is not None else None
        self._actions = np.zeros(self._n, np.int64)
        self._plans = np.zeros(self._n, np.int64)
        self.reset()

    def reset(self, lanes: np.ndarray | None = None) -> None:
        """Begin a new episode, in all lanes or in those of a mask [N]."""
        where = np.ones(self._n, bool) if lanes is None else np.asarray(lanes, bool)
        if lanes is None:
            self._begun = np.zeros(self._n, bool)
            self._beliefs: Any = np.tile(self.problem.start, (self._n, 1))
        self._begun[where] = False
        self._beliefs[where] = self.problem.start
        self._plans[where] = 0

    @property
    def belief(self) -> np.ndarray:
        """P(state), given all that was done and seen: [S], or [N, S] of several lanes."""
        return self._beliefs[0].copy() if self.lanes is None else self._beliefs.copy()

    def act(self, observation: Any = None, reward: Any = 0.0) -> Any:
        """The number of the next action (of N lanes [N]), after one more observation.

        An observation is its number or its name; None, or the number behind the last, stands for "nothing
        yet" before the first action. Rewards are not looked at. InputError for what cannot be seen.
        """
        seen = self._read([observation] if self.lanes is None else observation)
        first = ~self._begun
        if first.any():
            self._begin(np.flatnonzero(first), seen[first])
        if self._begun.any():
            self._follow(np.flatnonzero(self._begun), seen[self._begun])
        self._choose(seen)
        self._begun[:] = True
        return int(self._actions[0]) if self.lanes is None else self._actions.copy()

    def _read(self, observations: Any) -> np.ndarray:
        """[N], numbers of observations; O for nothing."""
        O = len(self.problem.observations)
        given = [None] * self._n if observations is None else list(observations)
        if len(given) != self._n:
            raise InputError(f"{len(given)} observations; expected {self._n}, one for each lane")
        found = []
        for x in given:
            at = O if x is None else self._number.get(x) if isinstance(x, str) else _whole(x)
            if at is None or not 0 <= at <= O:
                names = ", ".join(self.problem.observations[:6]) + (" ..." if O > 6 else "")
                raise InputError(
                    f"observation {x!r}; expected a number from 0 to {O - 1}, or a name: {names}"
                )
            found.append(at)
        return np.array(found, np.int64)

    def _begin(self, at: np.ndarray, seen: np.ndarray) -> None:
        """The first beliefs, given what was shown first, if anything was."""
        O = len(self.problem.observations)
        shown = seen < O
        if not shown.any():
            return
        if self._shown is None:
            try:
                self._shown = self.problem.showing_initial()
            except ValueError as e:
                raise InputError(f"the first observation: expected none, since {e}") from e
        assert self._shown.initial is not None
        chance = self._shown.initial.dense()[:, seen[shown]].T  # [n, S]
        joint = self.problem.start * chance
        mass = joint.sum(1)
        if (mass <= 0).any():
            o = self.problem.observations[seen[shown][int(np.argmin(mass))]]
            raise InputError(f"observation {o} cannot be shown at the start of {self.problem.name}")
        self._beliefs[at[shown]] = joint / mass[:, None]

    def _follow(self, at: np.ndarray, seen: np.ndarray) -> None:
        """Beliefs and plans after the actions taken and what was seen."""
        if (seen >= len(self.problem.observations)).any():
            raise InputError("no observation after an action; expected one (reset() begins a new episode)")
        beliefs = self._beliefs_of(at)
        for a in np.unique(self._actions[at]):
            here = np.flatnonzero(self._actions[at] == a)
            if (np.asarray(self._filter.predict(beliefs[here], int(a)).sum(1)) <= 0).any():
                name = self.problem.actions[a]
                raise InputError(f"{name} ended the episode for sure; expected reset() after it")
        try:
            after = self._filter.update(beliefs, self._actions[at], seen)
        except ValueError as e:
            raise InputError(str(e)) from e
        self._beliefs[at] = after.toarray()
        if isinstance(self.policy, AlphaPolicy) and self.policy.successors is not None:
            mine = self._plans[at] > 0
            follow = self.policy.successors[self._plans[at] - 1, seen]
            self._plans[at] = np.where(mine, 1 + follow, 0)

    def _beliefs_of(self, at: np.ndarray) -> Any:
        return sparse.csr_matrix(self._beliefs[at])

    def _choose(self, seen: np.ndarray) -> None:
        """Set the actions."""
        A = len(self.problem.actions)
        if isinstance(self.policy, Controller):
            self._draw(seen)
            return
        # At discount 1 a plan is followed to its end (`AlphaPolicy` says why), if it says how it goes on.
        follows = self.problem.discount == 1 and self.policy.successors is not None
        at = np.flatnonzero(self._plans == 0) if follows else np.arange(self._n)
        self._plans[at] = 1 + self.policy.best(self._beliefs[at])
        chosen = self.policy.actions[self._plans - 1]
        self._actions = np.where(chosen == RANDOM, self._rng.integers(A, size=self._n), chosen)

    def _draw(self, seen: np.ndarray) -> None:
        """Actions and next memories of a controller, drawn given the memories and what was seen."""
        p = self.policy.probabilities  # type: ignore[union-attr]
        if (seen >= p.shape[1]).any():
            raise InputError(
                "nothing was shown at first; expected the first observation, which the policy reads"
            )
        memory = np.where(self._begun, self._plans, 0)
        rows = p[memory, seen].reshape(self._n, -1)
        drawn = (self._rng.random((self._n, 1)) > np.cumsum(rows, 1)[:, :-1]).sum(1)
        self._actions, self._plans = np.divmod(drawn, p.shape[3])


def _whole(x: Any) -> int | None:
    """A whole number, as Python or NumPy has it; None for anything else."""
    try:
        return int(x) if np.ndim(x) == 0 and int(x) == x else None
    except (TypeError, ValueError, OverflowError):
        return None
