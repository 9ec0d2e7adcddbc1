"""A written-out POMDP as an environment: N lanes stepped at once by array operations.

A step costs one uniform draw per lane: the outcomes (s', o, reward, ends) of each pair (a, s) stand in one
alias table (`Joint`). If there are more than `joint_limit` of them, s' and o are drawn one after the other
from two tables no larger than the problem (`Staged`). Which of the two it is depends on the problem alone,
never on the machine, so that a seed gives the same episodes anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from turnwise.envs.alias import Alias
from turnwise.envs.clock import Clock
from turnwise.envs.pomdp import POMDP
from turnwise.envs.protocol import Discrete, Step

JOINT_LIMIT = 1 << 20
"""joint outcomes in one table, at most; a slot takes 49 bytes and there are fewer than two per outcome"""


class Outcomes(Protocol):
    """A sampler of what follows each pair of action and state."""

    def draw(self, rng: np.random.Generator, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """s', o, reward, ends, each [N], for rows a*S + s [N]."""
        ...


@dataclass(frozen=True)
class Joint:
    """All outcomes in one table; a draw takes one uniform number."""

    table: Alias
    states: np.ndarray
    """[slots], s'"""
    seen: np.ndarray
    """[slots], o"""
    rewards: np.ndarray
    """[slots]"""
    ends: np.ndarray
    """[slots] bool"""

    @staticmethod
    def of(problem: POMDP) -> Joint:
        """The product of transitions and emissions: every s' that follows (a, s), with every o seen there."""
        t, e = problem.transitions, problem.emissions
        reached = _reached_rows(problem)
        many = np.diff(e.indptr)[reached]  # observations that can follow each transition
        # One entry for each (transition, observation): its transition, and its place in `emissions`.
        transition = np.repeat(np.arange(len(many)), many)
        emission = np.arange(len(transition)) - np.repeat(np.cumsum(many) - many - e.indptr[reached], many)
        per_row = np.bincount(t.of_entries(), many, minlength=len(t)).astype(np.int64)
        table = Alias.of(np.append(0, np.cumsum(per_row)), t.data[transition] * e.data[emission])
        # A draw hits a slot, so everything that it returns is laid out by slots, aliases resolved.
        transition, emission = transition[table.entries], emission[table.entries]
        seen = e.indices[emission].astype(np.int64)
        rewards = SeenRewards(problem).of(transition, seen)
        return Joint(table, t.indices[transition].astype(np.int64), seen, rewards, problem.ends[transition])

    def draw(self, rng: np.random.Generator, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """s', o, reward, ends, each [N]."""
        slot = self.table.slots(rng, rows)
        return self.states[slot], self.seen[slot], self.rewards[slot], self.ends[slot]


class Staged:
    """s' first, then o. A draw takes two uniform numbers; the tables are no larger than the problem."""

    def __init__(self, problem: POMDP) -> None:
        t, e = problem.transitions, problem.emissions
        self.transitions, self.emissions = Alias.of(t.indptr, t.data), Alias.of(e.indptr, e.data)
        self.states = t.indices.astype(np.int64)
        self.reached = _reached_rows(problem)
        self.seen = e.indices.astype(np.int64)
        self.rewards, self.ends = SeenRewards(problem), problem.ends

    def draw(self, rng: np.random.Generator, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """s', o, reward, ends, each [N]."""
        transition = self.transitions.draw(rng, rows)
        seen = self.seen[self.emissions.draw(rng, self.reached[transition])]
        return self.states[transition], seen, self.rewards.of(transition, seen), self.ends[transition]


class SeenRewards:
    """Rewards of transitions, which may depend on the observation that follows."""

    def __init__(self, problem: POMDP) -> None:
        self.rewards, self.seen, self.width = problem.rewards, problem.seen_rewards, len(problem.observations)
        if self.seen is not None:
            # (transition, observation) as one number: sorted, so that binary search finds its reward.
            self.keys = self.seen.of_entries() * self.width + self.seen.indices

    def of(self, transition: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """[N], the rewards of transitions [N] (indices into `transitions.data`) with observations [N]."""
        if self.seen is None:
            return self.rewards[transition]
        if len(self.keys) == 0:
            return np.zeros(len(transition))
        key = transition * self.width + seen
        place = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        return np.where(self.keys[place] == key, self.seen.data[place], 0.0)


def _reached_rows(problem: POMDP) -> np.ndarray:
    """[entries of `transitions`], the row a*S + s' of `emissions` that each entry leads to."""
    t, S = problem.transitions, len(problem.states)
    return t.of_entries() // S * S + t.indices


def joint_outcomes(problem: POMDP) -> int:
    """The number of outcomes (s', o), summed over pairs (a, s)."""
    return int(np.diff(problem.emissions.indptr)[_reached_rows(problem)].sum())


class TabularEnv:
    """N lanes of one problem, each in an episode of its own.

    If the problem shows nothing first (`initial` is None), the observation before the first action is an
    extra symbol O, `null`. A lane that ended has to begin anew (`reset_lanes`) before the next step. Lanes
    draw from one generator: what happens is a function of the seed, of N and of the calls so far.
    """

    def __init__(self, problem: POMDP, horizon: int | None = None, *, joint_limit: int = JOINT_LIMIT) -> None:
        """`horizon`: steps after which an episode is truncated; None: never."""
        self.problem, self._clock = problem, Clock(horizon)
        small = joint_outcomes(problem) <= joint_limit
        self._outcomes: Outcomes = Joint.of(problem) if small else Staged(problem)
        self._possible = np.flatnonzero(problem.start)
        self._start = Alias.of(np.array([0, len(self._possible)]), problem.start[self._possible])
        first = problem.initial
        self._initial = None if first is None else Alias.of(first.indptr, first.data)

    @property
    def horizon(self) -> int | None:
        """Steps after which an episode is truncated; None: never."""
        return self._clock.horizon

    @property
    def null(self) -> int | None:
        """The symbol that stands for "nothing seen yet"; None if the problem shows something first."""
        return len(self.problem.observations) if self._initial is None else None

    @property
    def symbols(self) -> int:
        """The number of observations, `null` included."""
        return len(self.problem.observations) + (self._initial is None)

    @property
    def observation_space(self) -> Discrete:
        """The observations, `null` included."""
        return Discrete(self.symbols)

    @property
    def action_space(self) -> Discrete:
        """The actions."""
        return Discrete(len(self.problem.actions))

    @property
    def state_space(self) -> Discrete:
        """The states."""
        return Discrete(len(self.problem.states))

    autoresets = False
    """False: lanes begin anew by `reset_lanes`."""
    resumes = True
    """See `Resumable`."""

    def state(self) -> dict[str, Any]:
        """Where the lanes stand."""
        return self._clock.state(states=self._states)

    def load(self, state: dict[str, Any], rng: np.random.Generator) -> None:
        """Stand there, and draw from `rng` from now on."""
        arrays = self._clock.load(state, rng)
        self._states = arrays["states"]

    @property
    def lanes(self) -> int:
        """N, since the last reset."""
        return len(self._states)

    @property
    def states(self) -> np.ndarray:
        """[N] int64, the hidden states: privileged. In a lane that ended, the state reached."""
        shown = self._states.view()
        shown.setflags(write=False)
        return shown

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        """Begin an episode in each of N lanes, drawing from `rng` until the next reset. Observations [N]."""
        self._clock.begin(rng, lanes)
        self._states, observations = self._begin(rng, lanes)
        return observations

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        """Begin anew where `mask` [N] bool is True. Observations of those lanes, in order."""
        where = self._clock.begin_lanes(mask)
        begun, observations = self._begin(self._clock.rng, len(where))
        self._states = self._states.copy()  # callers may hold the array that `states` returned
        self._states[where] = begun
        return observations

    def step(self, actions: np.ndarray) -> Step:
        """Take `actions` [N] (integers below A), one in each lane."""
        actions = self._clock.check(actions, self.action_space)
        rows = actions.astype(np.int64)  # a*S + s, computed in place: the only copy of a step
        rows *= len(self.problem.states)
        rows += self._states
        self._states, observations, rewards, terminated = self._outcomes.draw(self._clock.rng, rows)
        return Step(observations, rewards, terminated, self._clock.tick(terminated))

    def _begin(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """First states and observations, both [n]."""
        states = self._possible[self._start.draw(rng, np.zeros(n, np.int64))]
        if self.problem.initial is None or self._initial is None:
            return states, np.full(n, len(self.problem.observations), np.int64)
        return states, self.problem.initial.indices[self._initial.draw(rng, states)].astype(np.int64)
