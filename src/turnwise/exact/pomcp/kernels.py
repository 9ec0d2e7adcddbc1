"""Simulations of PO-UCT on a problem's tables, as compiled loops. `planner` has algorithm and sources.

A node is a history seen from the root, node 0; all that is known of it are entries of flat arrays. The
children of a node under an action form a linked list, the newest first: most lists are short, and a list
needs no room for observations that never came. Every simulation adds one node at most, so a parent always has
a smaller number than its children.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from turnwise.exact.compiled import compiled


class Model(NamedTuple):
    """A problem to draw from. Rows are a*S + s as in `POMDP`; probabilities are summed up within each row."""

    states: int  # S
    actions: int  # A
    discount: float
    horizon: int  # steps that a simulation takes, at most
    exploration: float  # c, in units of the return
    t_ptr: np.ndarray  # [A*S + 1] T: row r is entries t_ptr[r] to t_ptr[r+1]
    t_idx: np.ndarray  # s' of each entry
    t_sum: np.ndarray  # its probability plus those before it in the row
    reward: np.ndarray  # of each entry of T
    ends: np.ndarray  # bool, of each entry of T
    o_ptr: np.ndarray  # [A*S + 1] O, row a*S + s' of the state reached
    o_idx: np.ndarray
    o_sum: np.ndarray
    policy: np.ndarray  # [S, A] of rollouts, summed up along a row; [0, A]: uniform
    legal: np.ndarray  # [S, A] bool; [0, A]: all are


class Tree(NamedTuple):
    """The tree. Lengths are capacities; `used` says how many nodes (n) and particles (k) there are."""

    used: np.ndarray  # [2]
    visits: np.ndarray  # [n] N(h) = sum over a of N(h, a)
    counts: np.ndarray  # [n, A] N(h, a)
    values: np.ndarray  # [n, A] V(h, a)
    first: np.ndarray  # [n, A] the newest child, -1 none
    sibling: np.ndarray  # [n] the next older child under the same action, -1 none
    parent: np.ndarray  # [n], -1 of the root
    seen: np.ndarray  # [n] the observation that leads here
    particle: np.ndarray  # [k] states that came by; of length 0 if the belief is exact: none are kept
    place: np.ndarray  # [k] the node where each came by


NODES, PARTICLES = range(2)
"""what `Tree.used` counts"""


@compiled
def _drawn(sums: np.ndarray, begin: int, end: int, u: float) -> int:
    """The first place in [begin, end) whose sum is above u, by bisection; the last one after rounding."""
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
    """An action that was not tried, at random; else the largest V(h,a) + c sqrt(log N(h) / N(h,a)), UCB1.

    The untried action is drawn in one pass without a list: the k-th one replaces the choice with probability
    1/k, so that each is as likely.
    """
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
    """The discounted return of a policy without memory, from state s at `depth` to the horizon."""
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
def _add_child(t: Tree, node: int, a: int, o: int) -> int:
    """A new node, at the head of the list of `node`'s children under a."""
    child = t.used[NODES]
    t.used[NODES] += 1
    t.visits[child] = 0
    t.counts[child] = 0
    t.values[child] = 0.0
    t.first[child] = -1
    t.sibling[child] = t.first[node, a]
    t.first[node, a] = child
    t.parent[child], t.seen[child] = node, o
    return child


@compiled
def simulate(
    m: Model,
    t: Tree,
    states: np.ndarray,
    sums: np.ndarray,
    simulations: int,
    rng: np.random.Generator,
) -> int:
    """Run simulations, each from one of `states` [k], drawn by weights that are summed up in `sums` [k].

    Returns how many were run: fewer than asked for if the next one might not find room for its particles.
    """
    # The way down, written over by each simulation: nodes, actions taken there, rewards that followed.
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
            after = child  # -1 ends the walk after the new node was made
            if child < 0:
                child = _add_child(t, int(node), a, int(o))
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
            t.values[node, a] += (value - t.values[node, a]) / t.counts[node, a]  # a running mean
    return simulations
