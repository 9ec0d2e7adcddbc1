"""Kernels of the belief graph: find or make a node, open it, make its children. `arrays` has the layout.

Beliefs are sparse, and most problems reach the same ones again and again, so a belief is looked up by hash
before it is made. What is known at it then serves every history that leads there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from turnwise.exact.compiled import compiled
from turnwise.exact.sarsop.arrays import CHILDREN, NODES, POOL, RECORDS, SAME, Model, Nodes, Work


@compiled
def _hash(idx: np.ndarray, val: np.ndarray) -> Any:
    # FNV-1a over states and rounded probabilities. Two beliefs within SAME that round differently at the
    # eighth digit become two nodes: that costs time and changes no bound.
    h = np.uint64(1469598103934665603)
    for i in range(len(idx)):
        h = (h ^ np.uint64(idx[i])) * np.uint64(1099511628211)
        h = (h ^ np.uint64(val[i] * 1e8 + 0.5)) * np.uint64(1099511628211)
    h ^= h >> np.uint64(29)  # the table takes the low bits, into which a product mixes nothing from above
    return np.int64(h >> np.uint64(2))  # two bits off, so that it is no negative int64


@compiled
def find_node(m: Model, n: Nodes, idx: np.ndarray, val: np.ndarray) -> Any:
    """The node of a belief (states `idx` rising, probabilities `val`), made if there is none.

    The caller has made sure of room. A new node has the fast informed bound above and -inf below.
    """
    mask = len(n.table) - 1
    slot = _hash(idx, val) & mask
    while n.table[slot] >= 0:
        i = n.table[slot]
        if n.size[i] == len(idx):
            b = n.begin[i]
            same = True
            for k in range(len(idx)):
                if n.pool_idx[b + k] != idx[k] or abs(n.pool_val[b + k] - val[k]) > SAME:
                    same = False
                    break
            if same:
                return i
        slot = (slot + 1) & mask
    i = n.count[NODES]
    n.table[slot] = i
    n.count[NODES] += 1
    b = n.count[POOL]
    n.count[POOL] += len(idx)
    n.begin[i], n.size[i] = b, len(idx)
    for k in range(len(idx)):
        n.pool_idx[b + k] = idx[k]
        n.pool_val[b + k] = val[k]
    best = -np.inf
    for a in range(m.reward.shape[0]):
        total = 0.0
        for k in range(len(idx)):
            total += val[k] * m.fib[a, idx[k]]
        best = max(best, total)
    n.upper[i] = best
    n.lower[i] = -np.inf
    n.vector[i] = -1
    n.lower_seen[i] = n.upper_seen[i] = 0
    n.point[i] = n.record[i] = -1
    return i


@compiled
def rehash(n: Nodes) -> None:
    """Enter all nodes into a table that has grown. They differ from each other, so none is compared."""
    n.table[:] = -1
    mask = len(n.table) - 1
    for i in range(n.count[NODES]):
        b = n.begin[i]
        slot = _hash(n.pool_idx[b : b + n.size[i]], n.pool_val[b : b + n.size[i]]) & mask
        while n.table[slot] >= 0:
            slot = (slot + 1) & mask
        n.table[slot] = i


@compiled
def open_record(m: Model, n: Nodes, i: int) -> int:
    """The record of a node; if it has none, one with R(b,a), the fast informed bound of Q and no children."""
    r = n.record[i]
    if r >= 0:
        return r
    r = n.count[RECORDS]
    n.count[RECORDS] += 1
    n.record[i] = r
    b = n.begin[i]
    for a in range(m.reward.shape[0]):
        upper, reward = 0.0, 0.0
        for k in range(b, b + n.size[i]):
            upper += n.pool_val[k] * m.fib[a, n.pool_idx[k]]
            reward += n.pool_val[k] * m.reward[a, n.pool_idx[k]]
        n.q_upper[r, a], n.q_lower[r, a], n.reward[r, a] = upper, -np.inf, reward
        n.first_child[r, a] = -1
        n.n_children[r, a] = 0
    return r


@compiled
def expand(m: Model, n: Nodes, w: Work, i: int, a: int) -> None:
    """Make the children of node i under action a, one for each observation that can follow.

    b_ao(s') = O(o|a,s') sum_s T(s'|s,a) b(s) / P(o|b,a)     Kaelbling, Littman & Cassandra 1998, section 3.3
    """
    S = m.reward.shape[1]
    # 1. Predict: w.other[s'] = sum_s T(s'|s,a) b(s). Only the states touched are visited and cleared again:
    #    a belief of 20 states in a problem of 12,000 must not cost 12,000.
    b = n.begin[i]
    many = 0
    for k in range(b, b + n.size[i]):
        row = a * S + n.pool_idx[k]
        for e in range(m.t_ptr[row], m.t_ptr[row + 1]):
            s = m.t_idx[e]
            if w.other[s] == 0.0:
                w.touched[many] = s
                many += 1
            w.other[s] += n.pool_val[k] * m.t_val[e]
    states = np.sort(w.touched[:many])  # rising, so that equal beliefs have equal hashes
    # 2. Count: mass[o] = P(o, goes on | b, a), and how many states each child has.
    w.mass[:] = 0.0
    w.fill[:] = 0
    for s in states:
        row = a * S + s
        for e in range(m.o_ptr[row], m.o_ptr[row + 1]):
            w.mass[m.o_idx[e]] += w.other[s] * m.o_val[e]
            w.fill[m.o_idx[e]] += 1
    # 3. Distribute: all children in one buffer, child o at starts[o] to starts[o+1] (a counting sort by o).
    starts = np.zeros(m.n_obs + 1, np.int64)
    for o in range(m.n_obs):
        starts[o + 1] = starts[o] + w.fill[o]
    idx = np.empty(starts[m.n_obs], np.int32)
    val = np.empty(starts[m.n_obs])
    w.fill[:] = 0
    for s in states:
        row = a * S + s
        for e in range(m.o_ptr[row], m.o_ptr[row + 1]):
            o = m.o_idx[e]
            at = starts[o] + w.fill[o]
            idx[at], val[at] = s, w.other[s] * m.o_val[e] / w.mass[o]
            w.fill[o] += 1
    # 4. Look up or make the nodes.
    r = n.record[i]
    first = n.count[CHILDREN]
    n.first_child[r, a] = first
    for o in range(m.n_obs):
        if w.mass[o] > 0:
            k = n.count[CHILDREN]
            n.count[CHILDREN] += 1
            n.child[k] = find_node(m, n, idx[starts[o] : starts[o + 1]], val[starts[o] : starts[o + 1]])
            n.child_p[k], n.child_o[k] = w.mass[o], o
    n.n_children[r, a] = n.count[CHILDREN] - first
    for s in states:
        w.other[s] = 0.0


@compiled
def has_room(m: Model, n: Nodes) -> bool:
    """Whether one more action of one more node can be expanded, whatever its children are."""
    return (
        n.count[NODES] + m.n_obs < len(n.begin)
        and n.count[POOL] + m.n_obs * m.reward.shape[1] < len(n.pool_idx)
        and n.count[RECORDS] + 1 < len(n.q_upper)
        and n.count[CHILDREN] + m.n_obs < len(n.child)
        and 2 * (n.count[NODES] + m.n_obs) < len(n.table)
    )
