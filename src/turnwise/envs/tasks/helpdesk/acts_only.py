"""HelpDesk without words: policies of acts, and many conversations of one of them at once, as arrays.

An answer tells "broken" or "fine" of the part that was tested, whatever its wording, so nothing is lost. What
is made here has exact probabilities, and `exact.PolicyValues` says what each policy is truly worth: the
ground on which estimates from logs are tried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from turnwise.envs.tasks.helpdesk.exact import Game, Net, OptimalDesk, Policy, behavior_acts
from turnwise.envs.tasks.helpdesk.rules import ACTS, PARTS

_TIED = 1e-12
"""values of the optimum that differ by less are equal: what is between them is rounding"""


def tilted(beta: float, desk: OptimalDesk | None = None, behavior: Policy = behavior_acts) -> Policy:
    """behavior x exp(beta Q*), normalised; `beta` per unit of return. 0 is the behaviour."""
    best = desk if desk is not None else OptimalDesk()

    def policy(net: Net, last: int | None, turn: int) -> list[float]:
        q = best.action_values(net, turn)
        top = max(q)
        weights = [p * math.exp(beta * (x - top)) for p, x in zip(behavior(net, last, turn), q, strict=True)]
        return [w / math.fsum(weights) for w in weights]

    return policy


def optimal(desk: OptimalDesk | None = None) -> Policy:
    """The best acts, all alike if there are several."""
    best = desk if desk is not None else OptimalDesk()

    def policy(net: Net, last: int | None, turn: int) -> list[float]:
        q = best.action_values(net, turn)
        among = [float(x >= max(q) - _TIED) for x in q]
        return [a / math.fsum(among) for a in among]

    return policy


def mixed(share: float, first: Policy, second: Policy) -> Policy:
    """At each turn the second policy by a coin that falls so in `share` of cases, else the first."""

    def policy(net: Net, last: int | None, turn: int) -> list[float]:
        pairs = zip(first(net, last, turn), second(net, last, turn), strict=True)
        return [(1 - share) * a + share * b for a, b in pairs]

    return policy


@dataclass(frozen=True)
class Talks:
    """`B` conversations of up to `A` turns, all of which ended truly."""

    acts: np.ndarray
    """[B, A] int, indices into `ACTS`; 0 behind the end"""
    broken: np.ndarray
    """[B, A] int, 1 if the answer to the act was "broken", else 0"""
    rewards: np.ndarray
    """[B, A]"""
    mask: np.ndarray
    """[B, A] bool"""
    states: tuple[tuple[Net, int | None, int], ...]
    """different (net, part tested last, turn) before a turn"""
    state: np.ndarray
    """[B, A], index into `states`; 0 behind the end"""

    def probabilities(self, policy: Policy) -> np.ndarray:
        """[B, A, K] of each of `ACTS` at each turn; of the first state behind the end."""
        return np.array([policy(*s) for s in self.states])[self.state]

    @property
    def before(self) -> np.ndarray:
        """[B, A] int: turn, part tested last and its answer, a number for each such kind of history."""
        turns, kinds = np.arange(self.acts.shape[1]), 2 * len(ACTS)
        return turns * (kinds + 1) + self.seen[:, :-1]

    @property
    def seen(self) -> np.ndarray:
        """[B, A+1] int, the last act and its answer before each turn, as one number; 0 before any."""
        after = 1 + 2 * self.acts + self.broken
        return np.concatenate([np.zeros((len(after), 1), int), np.where(self.mask, after, 0)], axis=1)


def converse_without_words(
    policy: Policy, conversations: int, rng: np.random.Generator, game: Game | None = None
) -> Talks:
    """Conversations of a policy. Each reward follows its act: -cost of a test, 1 or -1 of a fix; in the last
    turn the conversation ends whatever is done."""
    rules = game if game is not None else Game()
    N, A, tests = conversations, rules.horizon, len(PARTS)
    fault, net = rng.integers(tests, size=N), np.zeros((N, tests), int)
    last, running = np.full(N, -1), np.ones(N, bool)
    acts, broken, state = (np.zeros((N, A), int) for _ in range(3))
    rewards, mask = np.zeros((N, A)), np.zeros((N, A), bool)
    states: list[tuple[Net, int | None, int]] = []
    for turn in range(A):
        rows = np.flatnonzero(running)
        if not len(rows):
            break
        mask[rows, turn] = True
        kinds, kind = np.unique(np.column_stack([net, last])[rows], axis=0, return_inverse=True)
        kind = kind.reshape(-1)
        here = [(tuple(k[:-1]), None if k[-1] < 0 else k[-1], turn) for k in kinds.tolist()]
        state[rows, turn] = len(states) + kind
        states += here
        below = np.cumsum([policy(*s) for s in here], axis=1)[kind]  # [rows, K]
        drawn = rng.random(len(rows)) * below[:, -1]
        did = (drawn[:, None] >= below).sum(1)
        acts[rows, turn] = did
        tested = did < tests
        part = np.where(tested, did, did - tests)
        right = part == fault[rows]
        rewards[rows, turn] = np.where(tested, -rules.test_cost, np.where(right, 1.0, -1.0))
        says = rng.random(len(rows)) < np.where(right, rules.reliability, 1 - rules.reliability)
        asked = rows[tested]
        broken[asked, turn] = says[tested]
        net[asked, part[tested]] += np.where(says[tested], 1, -1)
        last[asked] = part[tested]
        running[rows[~tested]] = False
    return Talks(acts, broken, rewards, mask, tuple(states), state)
