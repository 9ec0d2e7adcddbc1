"""A policy stepped by hand through a written-out POMDP, beside the belief that its history warrants.

    walk = Walk(problem, agent)
    walk.belief()                              # [("tiger-left", 0.5), ("tiger-right", 0.5)]
    walk.choices()                             # [("listen", 0.97), ...]: what the agent would do
    walk.observations("listen")                # [("growl-left", 0.5), ...]: what would be seen then
    walk.step("listen", "growl-left")          # or walk.step(): the agent acts, and the world answers

Whoever walks may act in the agent's place, and may say what is seen. The hidden state is drawn, and is drawn
anew from the belief if what is seen was said: P(s, s' | b, a, o) is as b(s) T(s'|s,a) O(o|a,s').
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from turnwise.envs.pomdp import POMDP
from turnwise.envs.tabular import SeenRewards
from turnwise.exact.beliefs import BeliefFilter
from turnwise.models.agents.program import StepProgram
from turnwise.run.errors import InputError

Named = list[tuple[str, float]]


@dataclass(frozen=True)
class Walked:
    """What a step came to."""

    action: str
    observation: str
    reward: float
    ended: bool


class Walk:
    """One episode, step by step."""

    def __init__(self, problem: POMDP, agent: Any, *, seed: int = 0, greedy: bool = False) -> None:
        """`agent`: the module that acts. `greedy`: it takes its likeliest action instead of drawing."""
        self.problem, self.greedy = problem, greedy
        self._filter, self._rewards = BeliefFilter(problem), SeenRewards(problem)
        self._program, self._rng = StepProgram(agent).eval(), np.random.default_rng(seed)
        self.values = self._program.gives == "q"
        """Whether `choices` are the worth of actions and no probabilities."""
        self.begin()

    def begin(self) -> None:
        """A new episode."""
        p, rng = self.problem, self._rng
        self._state = int(rng.choice(len(p.start), p=p.start))
        self.seen: str | None = None
        """What was seen last; None before anything was."""
        symbol = len(p.observations)
        if p.initial is not None:
            symbols, chances = p.initial.row(self._state)
            symbol = int(rng.choice(symbols, p=chances / chances.sum()))
            self.seen = p.observations[symbol]
        self._belief = self._filter.first(np.array([symbol]))
        self._memory = torch.zeros(1, self._program.state_size)
        self.rewards: list[float] = []
        self.over = False
        self._look(symbol, 0, 0.0, start=True)

    def belief(self) -> Named:
        """States and their probabilities, the likeliest first; those of probability 0 are left out."""
        b = self._belief
        return sorted(
            ((self.problem.states[s], float(p)) for s, p in zip(b.indices, b.data, strict=True)),
            key=lambda x: -x[1],
        )

    @property
    def state(self) -> str:
        """The hidden state."""
        return self.problem.states[self._state]

    def choices(self) -> Named:
        """Actions and their probabilities (of an agent of values: their worth), the best first."""
        return sorted(zip(self.problem.actions, self._numbers.tolist(), strict=True), key=lambda x: -x[1])

    def observations(self, action: str | None = None) -> Named:
        """What would be seen after an action (None: the agent's), with probabilities; the likeliest first."""
        _, joint, symbols = self._outcomes(self._action(action))
        mass = np.bincount(symbols, joint, minlength=len(self.problem.observations))
        found = [(self.problem.observations[o], float(mass[o] / mass.sum())) for o in np.flatnonzero(mass)]
        return sorted(found, key=lambda x: -x[1])

    @property
    def intended(self) -> str:
        """What the agent does in this step, if nobody acts in its place."""
        return self.problem.actions[self._intended]

    def step(self, action: str | None = None, observation: str | None = None) -> Walked:
        """One step. None: the agent's own action; what the hidden state shows.

        InputError for names that the problem does not have, for what cannot be seen at this belief, and for a
        step after the end.
        """
        if self.over:
            raise InputError("the episode is over; expected begin() before another step")
        p, a = self.problem, self._action(action)
        entries, joint, symbols = self._outcomes(a, None if observation is not None else self._state)
        if observation is not None:
            joint = joint * (symbols == _place("observation", observation, p.observations))
            if not joint.sum() > 0:
                raise InputError(
                    f"{observation} cannot be seen after {p.actions[a]} here; expected one of "
                    f"{', '.join(name for name, _ in self.observations(p.actions[a]))}"
                )
        k = int(self._rng.choice(len(joint), p=joint / joint.sum()))
        entry, symbol = entries[k : k + 1], symbols[k : k + 1]
        reward, self.over = float(self._rewards.of(entry, symbol)[0]), bool(p.ends[entry[0]])
        self._state, o = int(p.transitions.indices[entry[0]]), int(symbol[0])
        self.seen = p.observations[o]
        self.rewards.append(reward)
        if not self.over:
            self._belief = self._filter.update(self._belief, np.array([a]), np.array([o]))
            self._look(o, a, reward, start=False)
        return Walked(p.actions[a], self.seen, reward, self.over)

    def _action(self, name: str | None) -> int:
        return self._intended if name is None else _place("action", name, self.problem.actions)

    def _outcomes(self, a: int, state: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(transitions, weights, observations), each [outcomes], of the belief, or of one state alone."""
        p, S = self.problem, len(self.problem.states)
        states = self._belief.indices if state is None else np.array([state])
        weights = self._belief.data if state is None else np.ones(1)
        of, entries = p.transitions.entries_of(a * S + states)
        chance = weights[of] * p.transitions.data[entries]
        which, seen = p.emissions.entries_of(a * S + p.transitions.indices[entries])
        return entries[which], chance[which] * p.emissions.data[seen], p.emissions.indices[seen]

    @torch.no_grad()
    def _look(self, symbol: int, action: int, reward: float, *, start: bool) -> None:
        """Let the agent read what is seen now, and choose."""
        numbers, best, self._memory = self._program(
            torch.tensor([symbol]),
            torch.tensor([action]),
            torch.tensor([reward], dtype=torch.float32),
            torch.tensor([start]),
            self._memory,
        )
        self._numbers = numbers[0].double().numpy()
        self._intended = int(best[0])
        if not self.values:
            self._numbers = np.exp(self._numbers)
            if not self.greedy:
                chances = self._numbers / self._numbers.sum()
                self._intended = int(self._rng.choice(len(chances), p=chances))


def _place(what: str, name: str, names: Sequence[str]) -> int:
    """Which one has that name, or that number. InputError if none has."""
    if name in names:
        return list(names).index(name)
    if name.isdigit() and int(name) < len(names):
        return int(name)
    raise InputError(f"no {what} is called {name!r}; expected one of {', '.join(names)}")
