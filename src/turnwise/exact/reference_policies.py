"""Policies that do not look, to measure what looking is worth: the best open-loop policy, and QMDP.

Both come with bounds of their values that hold, like those of `sarsop.solve`.
"""

from __future__ import annotations

import heapq
import time
from dataclasses import replace

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import spsolve

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.exact.alpha_policy import RANDOM, AlphaPolicy
from turnwise.exact.bounds import mdp_q
from turnwise.exact.sarsop.search import Search
from turnwise.exact.sarsop.solve import Solution, solve


def without_observations(problem: POMDP) -> POMDP:
    """The same problem for an agent that sees nothing, whatever it does: its policies are open-loop."""
    S, A, _ = problem.shape
    nothing = Rows(np.arange(A * S + 1), np.zeros(A * S), np.ones(A * S), 1)
    return replace(problem, observations=("nothing",), emissions=nothing, seen_rewards=None, initial=None)


def best_open_loop(problem: POMDP, *, gap: float = 1e-3, deadline: float | None = 60.0) -> Solution:
    """The best sequence of actions that is chosen beforehand, by the same search as `solve`."""
    return solve(without_observations(problem), gap=gap, deadline=deadline)


def qmdp_value(
    problem: POMDP, *, gap: float, deadline: float, most: int = 100_000
) -> tuple[float, float] | None:
    """(lower, upper) bound of the value of QMDP, argmax_a b . Q_MDP(., a), which acts as if all were seen
    next.

    None at discount 1, and if `deadline` is over before Q_MDP is known. Littman, Cassandra & Kaelbling 1995,
    section 4.
    """
    if problem.discount == 1:
        return None
    began = time.perf_counter()
    q = mdp_q(problem, began + deadline)
    left = began + deadline - time.perf_counter()
    if left <= 0:  # it acts on Q_MDP, and this may not be it yet
        return None
    policy = AlphaPolicy(q, np.arange(len(q)), None)
    return policy_value(problem, policy, gap=gap, deadline=left, most=most)


def policy_value(
    problem: POMDP, policy: AlphaPolicy, *, gap: float, deadline: float, most: int = 100_000
) -> tuple[float, float] | None:
    """(lower, upper) bound of the value of acting by the best vector at each belief, whatever they promise.

    The beliefs that it reaches are followed, those of the largest weight first, until the rest weighs less
    than `gap`, or `most` are followed, or `deadline` seconds are over. In the rest the value lies between the
    least that rewards allow and the largest that an MDP allows. None at discount 1, where they allow
    anything, and for plans that draw actions at random.
    """
    if problem.discount == 1 or (policy.actions == RANDOM).any():
        return None
    g, r, began = problem.discount, problem.expected_rewards(), time.perf_counter()
    q = mdp_q(problem, began + deadline)
    least, most_value = min(r.min(), 0.0) / (1 - g), max(float(q.max()), 0.0)
    search = Search(problem, began + deadline)
    # The weight of a belief is its expected discounted number of visits, as far as ways to it are known.
    weight = {node: p for p, node in search.roots}
    queue = [(-p, node) for p, node in search.roots]
    steps: dict[int, tuple[float, np.ndarray, np.ndarray]] = {}
    left = sum(weight.values())
    while queue and len(steps) < most and left * (most_value - least) > gap:
        if time.perf_counter() - began > deadline:
            break
        w, i = heapq.heappop(queue)
        if i in steps or -w < weight[i] * 0.999:
            continue  # followed already, or an entry of before its weight grew: a newer one is in the queue
        now, p, kids = search.greedy_step(i, policy.alphas, policy.actions)
        steps[i] = (now, p, kids)
        left -= weight[i]
        for share, k in zip(p, kids.tolist(), strict=True):
            if k not in steps:  # a way back to a followed belief is part of the equations
                weight[k] = weight.get(k, 0.0) + g * weight[i] * share
                left += g * weight[i] * share
                heapq.heappush(queue, (-weight[k], k))
    # One linear system per bound: followed beliefs have equations, the rest the least or largest value.
    ends = (least, most_value)
    return tuple(_evaluated(search, steps, g, end) for end in ends)  # type: ignore[return-value]


def _evaluated(
    search: Search, steps: dict[int, tuple[float, np.ndarray, np.ndarray]], g: float, leaf: float
) -> float:
    """The value at the roots if each followed belief has its equation and all others are worth `leaf`."""
    place = {node: k for k, node in enumerate(steps)}
    n = len(place)
    constant = np.zeros(n)
    row, column, data = [], [], []
    for k, (now, p, kids) in enumerate(steps.values()):
        constant[k] = now
        for share, kid in zip(p, kids.tolist(), strict=True):
            if kid in place:
                row.append(k)
                column.append(place[kid])
                data.append(-g * share)
            else:
                constant[k] += g * share * leaf
    system = sparse.identity(n, format="csc") + sparse.csc_matrix((data, (row, column)), shape=(n, n))
    v = np.atleast_1d(np.asarray(spsolve(system, constant))) if n else np.zeros(0)
    return float(sum(p * (v[place[root]] if root in place else leaf) for p, root in search.roots))
