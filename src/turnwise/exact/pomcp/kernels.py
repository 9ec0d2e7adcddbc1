"""Simulations of `pomcp.py` on a problem's tables, compiled where numba is installed and equal where not.

A node is a history seen from the root. Its children under an action are a list, newest first; a simulation
adds one node at most.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from turnwise.exact.compiled import compiled


class Model(NamedTuple):
    """A problem to draw from; rows a*S + s as in `POMDP`, probabilities summed up within each row."""

    states: int
    actions: int
    discount: float
    horizon: int  # steps that a simulation takes, at most
    exploration: float
    t_ptr: np.ndarray
    t_idx: np.ndarray
    t_sum: np.ndarray
    reward: np.ndarray  # of each transition
    ends: np.ndarray
    o_ptr: np.ndarray
    o_idx: np.ndarray
    o_sum: np.ndarray
    policy: np.ndarray  # [S, A] of rollouts, summed up along a row; no rows: uniform
    legal: np.ndarray  # [S, A] bool; no rows: all


class Tree(NamedTuple):
    """Capacity is the length of the arrays; `used` says how many nodes and particles there are."""

    used: np.ndarray  # [2]
    visits: np.ndarray  # [n] N(h)
    counts: np.ndarray  # [n, A] N(h, a)
    values: np.ndarray  # [n, A] V(h, a)
    first: np.ndarray  # [n, A] a child, -1 none
    sibling: np.ndarray  # [n] the next child under the same action, -1 none
    parent: np.ndarray  # [n]
    seen: np.ndarray  # [n] the observation that leads here
    particle: np.ndarray  # states that came by; no room: they are not kept
    place: np.ndarray  # node of each


NODES, PARTICLES = range(2)
"""what `Tree.used` counts"""


@compiled
def _drawn(sums: np.ndarray, begin: int, end: int, u: float) -> int:
    """The first place in [begin, end) whose sum is above u; the last one where rounding leaves none."""
    last = end - 1
    while begin < last:
        middle = (begin + last) // 2
        if sums[middle] > u:
            last = middle
        else:
            begin = middle + 1
    return begin


@compiled
def _chosen(m: Model, t: Tree, node: int, s: int, rng: np.random.Generator) -> int:
    """An action not tried, at random; else the largest V(h,a) + c sqrt(log N(h) / N(h,a))."""
    fresh, best, highest = 0, -1, -np.inf
    width = math.sqrt(math.log(max(t.visits[node], 1))) * m.exploration
    for a in range(m.actions):
        if len(m.legal) and not m.legal[s, a]:
            continue
        if t.counts[node, a] == 0:
            fresh += 1
            if fresh == 1 or rng.random() * fresh < 1.0:
                best = a
        elif fresh == 0:
            score = t.values[node, a] + width / math.sqrt(t.counts[node, a])
            if score > highest:
                best, highest = a, score
    return best


@compiled
def _rollout(m: Model, s: int, depth: int, rng: np.random.Generator) -> float:
    """What a policy that remembers nothing earns from here to the horizon."""
    total, weight = 0.0, 1.0
    while depth < m.horizon:
        if len(m.policy):
            a = _drawn(m.policy[s], 0, m.actions, rng.random())
        else:
            a = int(rng.random() * m.actions)
        row = a * m.states + s
        e = _drawn(m.t_sum, int(m.t_ptr[row]), int(m.t_ptr[row + 1]), rng.random())
        total += weight * m.reward[e]
        if m.ends[e]:
            break
        weight *= m.discount
        s = m.t_idx[e]
        depth += 1
    return total


@compiled
def simulate(
    m: Model,
    t: Tree,
    states: np.ndarray,
    sums: np.ndarray,
    simulations: int,
    rng: np.random.Generator,
) -> int:
    """Run simulations from states of the belief; how many were run before room for particles ended."""
    nodes, actions = np.zeros(m.horizon, np.int64), np.zeros(m.horizon, np.int64)
    rewards = np.zeros(m.horizon)
    kept = len(t.particle) > 0
    for i in range(simulations):
        if kept and t.used[PARTICLES] + m.horizon > len(t.particle):
            return i
        s = states[_drawn(sums, 0, len(sums), rng.random() * sums[-1])]
        node, depth, value = 0, 0, 0.0
        while node >= 0:
            a = _chosen(m, t, int(node), int(s), rng)
            row = a * m.states + s
            e = _drawn(m.t_sum, int(m.t_ptr[row]), int(m.t_ptr[row + 1]), rng.random())
            nodes[depth], actions[depth], rewards[depth] = node, a, m.reward[e]
            depth += 1
            if m.ends[e] or depth == m.horizon:
                break
            s = m.t_idx[e]
            row = a * m.states + s
            o = m.o_idx[_drawn(m.o_sum, int(m.o_ptr[row]), int(m.o_ptr[row + 1]), rng.random())]
            child = t.first[node, a]
            while child >= 0 and t.seen[child] != o:
                child = t.sibling[child]
            after = child
            if child < 0:
                child = t.used[NODES]
                t.used[NODES] += 1
                t.visits[child] = 0
                t.counts[child] = 0
                t.values[child] = 0.0
                t.first[child] = -1
                t.sibling[child] = t.first[node, a]
                t.first[node, a] = child
                t.parent[child], t.seen[child] = node, o
                value = _rollout(m, int(s), depth, rng)
            if kept:
                t.particle[t.used[PARTICLES]], t.place[t.used[PARTICLES]] = s, child
                t.used[PARTICLES] += 1
            node = after
        for d in range(depth - 1, -1, -1):
            node, a = nodes[d], actions[d]
            value = rewards[d] + m.discount * value
            t.visits[node] += 1
            t.counts[node, a] += 1
            t.values[node, a] += (value - t.values[node, a]) / t.counts[node, a]
    return simulations
