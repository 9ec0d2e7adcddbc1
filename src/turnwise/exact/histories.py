"""All histories of a small POMDP, each with its probability: expectations without sampling.

A policy here is any function of what has happened, so whatever an agent remembers, computes or estimates
along the way has an exact expectation: the policy's value, an estimate of its gradient, a critic's target.

    P(h, s') = P(h) pi(a | h) sum_s P(s | h) T(s'|s, a) O(o|a, s'),   h' = h, a, reward, o

Sums over states are carried along as beliefs, so the tree branches over actions and over what is seen, never
over states. The number of histories is still exponential in their length; `most` turns a wait of hours into
an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.exact.controllers import Controller
from turnwise.run.errors import InputError

MOST_HISTORIES = 200_000
"""largest number of histories, by default"""
MOST_NUMBERS = 20_000_000
"""largest size of a problem, S * S * A * O: its branches are full matrices"""


@dataclass(frozen=True)
class History:
    """The experience of an agent: what it saw, did and was paid."""

    inputs: tuple[int, ...]
    """What was seen: an observation before each action, and one after the last. The first is O (`null`, as in
    `controllers`) if nothing is shown before the first action."""
    actions: tuple[int, ...] = ()
    rewards: tuple[float, ...] = ()
    """the reward of each action"""
    ended: bool = False
    """whether the episode has ended"""

    def discounted(self, discount: float) -> float:
        """The discounted return: the sum of discount^k rewards[k]."""
        return sum(discount**k * r for k, r in enumerate(self.rewards))


Policy = Callable[[History], Sequence[float] | np.ndarray]
"""from a history to P(action | history) [A]"""


@dataclass(frozen=True)
class Outcome:
    """A history with its probability under a policy, and the belief after it."""

    probability: float
    history: History
    belief: np.ndarray
    """[S], P(state | history)"""


@dataclass(frozen=True)
class _Branch:
    """One way that an action can turn out, as the agent sees it: all transitions that look the same to it."""

    seen: int
    """the observation"""
    ended: bool
    joint: np.ndarray
    """[S, S'], P(s', this observation, this end, this reward | s, action)"""
    paid: np.ndarray
    """[S], E[reward; this branch | s, action]: the reward times the probability of the branch"""


def histories(
    problem: POMDP,
    policy: Policy,
    horizon: int,
    *,
    rewards_seen: bool = True,
    most: int = MOST_HISTORIES,
) -> Iterator[Outcome]:
    """Every history of positive probability that has ended or has `horizon` actions; probabilities sum to
    one.

    If `rewards_seen`, rewards are part of what is known: histories differ if their rewards do, and beliefs
    take rewards in. Otherwise `rewards[k]` is the mean reward given all that was seen up to the observation
    after it, and beliefs are those of actions and observations alone. More than `most` histories are an
    InputError.
    """
    if horizon < 0:
        raise InputError(f"horizon is {horizon}; expected at least 0 actions")
    branches = [_branches(problem, a, rewards_seen) for a in range(problem.shape[1])]
    for count, outcome in enumerate(_walk(_beginnings(problem), branches, policy, horizon), 1):
        if count > most:
            raise InputError(
                f"{problem.name or 'the problem'} has more than {most:,} histories of up to {horizon} "
                "actions under this policy; expected at most that many: take a shorter horizon, or sample"
            )
        yield outcome


def history_value(
    problem: POMDP, policy: Policy, horizon: int, *, rewards_seen: bool = True, most: int = MOST_HISTORIES
) -> float:
    """The expected discounted return of the first `horizon` actions of a policy, over all histories."""
    found = histories(problem, policy, horizon, rewards_seen=rewards_seen, most=most)
    return sum(x.probability * x.history.discounted(problem.discount) for x in found)


def controller_policy(controller: Controller) -> Policy:
    """A controller as a function of histories: its memory is filtered from what it has read and done.

    P(m_0) = 1 at memory 0;  P(m' | h, a) proportional to sum_m P(m | h) pi(a, m' | m, i).
    """
    p = controller.probabilities

    def policy(history: History) -> np.ndarray:
        memory = np.eye(len(p))[0]
        for seen, action in zip(
            history.inputs, history.actions, strict=False
        ):  # the last input has no action yet
            memory = memory @ p[:, seen, action]
            memory /= memory.sum()
        return memory @ p[:, history.inputs[-1]].sum(-1)

    return policy


def _beginnings(problem: POMDP) -> list[Outcome]:
    """The histories before the first action: one, or one for each first observation."""
    if problem.initial is None:
        return [Outcome(1.0, History((problem.shape[2],)), problem.start)]
    shown = problem.start[:, None] * problem.initial.dense()
    masses = shown.sum(0)
    return [
        Outcome(float(masses[o]), History((int(o),)), shown[:, o] / masses[o]) for o in np.flatnonzero(masses)
    ]


def _walk(
    nodes: list[Outcome], branches: list[list[_Branch]], policy: Policy, horizon: int
) -> Iterator[Outcome]:
    """All leaves below `nodes`, depth first, in the order of actions and then of branches."""
    stack = nodes[::-1]
    while stack:
        node = stack.pop()
        if node.history.ended or len(node.history.actions) == horizon:
            yield node
            continue
        chances = np.asarray(policy(node.history), np.float64)
        if chances.shape != (len(branches),) or (chances < 0).any() or abs(chances.sum() - 1) > 1e-9:
            raise ValueError(
                f"the policy gives {chances} after {node.history}; expected {len(branches)} "
                "probabilities that sum to 1"
            )
        after = [
            _after(node, int(a), float(chances[a]), b) for a in np.flatnonzero(chances) for b in branches[a]
        ]
        stack += [x for x in after[::-1] if x is not None]  # reversed, as the last one is popped first


def _after(node: Outcome, action: int, chance: float, branch: _Branch) -> Outcome | None:
    """The node after an action and one of its branches; None if its probability is 0."""
    reached = node.belief @ branch.joint  # [S], not normalised
    mass = float(reached.sum())
    if mass <= 0:
        return None
    h = node.history
    reward = float(node.belief @ branch.paid) / mass
    history = History((*h.inputs, branch.seen), (*h.actions, int(action)), (*h.rewards, reward), branch.ended)
    return Outcome(node.probability * chance * mass, history, reached / mass)


def _branches(problem: POMDP, action: int, rewards_seen: bool) -> list[_Branch]:
    """The branches of an action, by observation, end and (if `rewards_seen`) reward."""
    S, A, O = problem.shape
    if S * S * A * O > MOST_NUMBERS:
        raise InputError(
            f"{problem.name or 'the problem'} has {S} states, {A} actions and {O} observations; "
            f"expected a small problem, S * S * A * O at most {MOST_NUMBERS:,}"
        )
    t, e = problem.transitions, problem.emissions
    here = slice(int(t.indptr[action * S]), int(t.indptr[(action + 1) * S]))
    state, reached = t.of_entries()[here] - action * S, t.indices[here]
    chance, ended = t.data[here], problem.ends[here]
    ways: dict[tuple[int, bool, float], list[tuple[int, int, float, float]]] = {}
    for i, (s, s2) in enumerate(zip(state, reached, strict=True)):
        expected = float(problem.rewards[here][i])
        rewards = np.full(O, expected)
        if problem.seen_rewards is not None:
            columns, values = problem.seen_rewards.row(here.start + i)
            rewards = np.zeros(O)
            rewards[columns] = values
        for o, p in zip(*e.row(action * S + s2), strict=True):
            reward = float(rewards[o])
            key = (
                int(o),
                bool(ended[i]),
                round(reward, 12) if rewards_seen else 0.0,
            )  # equal but for rounding
            ways.setdefault(key, []).append((int(s), int(s2), float(chance[i] * p), reward))
    return [_branch(S, seen, over, ways[seen, over, paid]) for seen, over, paid in sorted(ways)]


def _branch(S: int, seen: int, ended: bool, ways: list[tuple[int, int, float, float]]) -> _Branch:
    joint, paid = np.zeros((S, S)), np.zeros(S)
    for s, s2, p, reward in ways:
        joint[s, s2] += p
        paid[s] += p * reward
    return _Branch(seen, ended, joint, paid)
