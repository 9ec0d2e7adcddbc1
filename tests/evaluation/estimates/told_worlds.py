"""Enumerated worlds: every way that an episode can go, with its probability, a behaviour and a target.

Both policies depend on the whole history.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.evaluation.estimates.logged import Logged
from turnwise.exact.histories import History, histories

Past = tuple[int, ...]
"""what was heard and done so far, in turn: something heard, then an action, ..."""
Policy = Callable[[Past], np.ndarray]


def together(heard: tuple[int, ...], actions: tuple[int, ...]) -> Past:
    """One thing heard more than there are actions."""
    return (*(x for pair in zip(heard, actions, strict=False) for x in pair), heard[-1])


def anything(seed: int, actions: int, sharpness: float) -> Policy:
    """A policy that draws its probabilities anew for each history."""

    def policy(past: Past) -> np.ndarray:
        x = np.random.default_rng([seed, *(p + 1 for p in past)]).normal(size=actions) * sharpness
        return np.exp(x) / np.exp(x).sum()

    return policy


@dataclass(frozen=True)
class Told:
    """One way that an episode can go."""

    heard: tuple[int, ...]
    actions: tuple[int, ...]
    rewards: tuple[float, ...]
    world: float
    """probability of all that the world did"""
    ended: bool = True
    """whether it ended by itself, else it was cut"""

    def past(self, k: int) -> Past:
        """What is known at decision k, from 0."""
        return together(self.heard[: k + 1], self.actions[:k])

    def chance(self, policy: Policy) -> float:
        return float(np.prod([policy(self.past(k))[a] for k, a in enumerate(self.actions)]))


@dataclass(frozen=True)
class World:
    """All ways that an episode can go, with a behaviour, a target, and the discount."""

    told: list[Told]
    behavior: Policy
    target: Policy
    discount: float

    @property
    def chances(self) -> np.ndarray:
        """[B], probability of each under the behaviour."""
        return np.array([t.world * t.chance(self.behavior) for t in self.told])

    @property
    def value(self) -> float:
        """The target's, summed over all that can happen to it."""
        return sum(t.world * t.chance(self.target) * self.paid(t, 0) for t in self.told)

    def paid(self, t: Told, k: int) -> float:
        return sum(self.discount**i * r for i, r in enumerate(t.rewards[k:]))

    def true_values(self) -> Callable[[Past, int], float]:
        """The target's own q: mean of what is paid from here over all that can follow."""
        mass, paid = defaultdict(float), defaultdict(float)
        for t in self.told:
            chance = t.world * t.chance(self.target)
            for k, a in enumerate(t.actions):
                mass[t.past(k), a] += chance
                paid[t.past(k), a] += chance * self.paid(t, k)
        return lambda past, a: paid[past, a] / mass[past, a]

    def logs(self, q: Callable[[Past, int], float], *, wrong: Policy | None = None) -> Logged:
        """Every way once; v is the expectation of q. `wrong`: what the behaviour is taken for."""
        n, width = len(self.told), max(len(t.actions) for t in self.told)
        x = {name: np.zeros((n, width)) for name in ("rewards", "logp", "behavior_logp", "q", "v")}
        mask = np.zeros((n, width), bool)
        for b, t in enumerate(self.told):
            for k, a in enumerate(t.actions):
                past = t.past(k)
                pi = self.target(past)
                mask[b, k], x["rewards"][b, k] = True, t.rewards[k]
                x["logp"][b, k] = np.log(pi[a])
                x["behavior_logp"][b, k] = np.log((wrong or self.behavior)(past)[a])
                x["q"][b, k] = q(past, a)
                x["v"][b, k] = sum(p * q(past, i) for i, p in enumerate(pi))
        return Logged(mask=mask, discount=self.discount, **x)


def problem() -> POMDP:
    """2 states, 2 actions, 2 observations, rewards of states and actions, ends."""
    rng = np.random.default_rng(3)
    return POMDP.from_arrays(
        rng.dirichlet(np.ones(2), (2, 2)),
        rng.dirichlet(np.ones(2), (2, 2)),
        np.array([[1.0, -2.0], [-1.0, 3.0]]),
        discount=0.8,
        start=np.array([0.4, 0.6]),
        ends=rng.random((2, 2, 2)) < 0.3,
    )


def pomdp(horizon: int = 3) -> World:
    behavior, target = anything(0, 2, 0.7), anything(1, 2, 1.5)
    told = []
    for x in histories(problem(), lambda h: behavior(seen(h)), horizon):
        t = Told(x.history.inputs, x.history.actions, x.history.rewards, 1.0, x.history.ended)
        told.append(replace(t, world=x.probability / t.chance(behavior)))
    return World(told, behavior, target, 0.8)


def seen(h: History) -> Past:
    return together(h.inputs, h.actions)


def dialogue() -> World:
    """At most two turns with a customer who is calm (.7) or cross, which nobody says.

    The agent asks (0), offers (1) or gives up (2), which ends it. An offer is taken by the calm with .8, by
    the cross with .3, by the cross who was asked before with .6: it pays 1 and ends. A question costs .1 and
    is answered kindly (1) by the calm with .9, by the cross with .4, else curtly (0), as a refused offer is.
    """
    told = []
    for cross, mood in ((False, 0.7), (True, 0.3)):
        for first in range(3):
            for heard, chance, paid, ended in answers(cross, first, asked=False):
                if ended:
                    told.append(Told((2,), (first,), (paid,), mood * chance))
                    continue
                for second in range(3):
                    for _, more, then, _ in answers(cross, second, asked=first == 0):
                        told.append(Told((2, heard), (first, second), (paid, then), mood * chance * more))
    return World(told, anything(2, 3, 0.8), anything(3, 3, 1.5), 0.9)


def answers(cross: bool, act: int, *, asked: bool) -> list[tuple[int, float, float, bool]]:
    """(heard, probability, reward, whether it ends)"""
    if act == 0:
        kind = 0.4 if cross else 0.9
        return [(1, kind, -0.1, False), (0, 1 - kind, -0.1, False)]
    if act == 1:
        taken = (0.6 if asked else 0.3) if cross else 0.8
        return [(0, taken, 1.0, True), (0, 1 - taken, 0.0, False)]
    return [(0, 1.0, 0.0, True)]
