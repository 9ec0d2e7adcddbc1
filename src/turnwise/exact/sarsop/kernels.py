"""The inner loops of SARSOP: which action, which observation, how bounds improve (`sarsop.py` has the story).

Compiled where numba is installed and plain Python (slow, equal) where not.
"""

from __future__ import annotations

import numpy as np

from turnwise.exact.sarsop.graph_kernels import (
    SERIAL,
    TINY,
    USED,
    Alphas,
    Model,
    Nodes,
    Points,
    Work,
    add_point,
    compiled,
    expand,
    look_above,
    look_below,
    room,
    visit,
)

FINE, FULL = 0, 1
"""what a trial returns: FULL where an array must grow before it could go on"""


@compiled
def _bound(n: Nodes, p: Points, w: Work, discount: float, r: int, a: int) -> float:
    """Q_upper(b, a) from its children, looked at anew."""
    total = 0.0
    for k in range(n.kids[r, a], n.kids[r, a] + n.n_kids[r, a]):
        look_above(n, p, w, n.kid_node[k])
        total += n.kid_p[k] * n.upper[n.kid_node[k]]
    return n.now[r, a] + discount * total


@compiled
def choose(m: Model, n: Nodes, p: Points, w: Work, i: int) -> int:
    """The action with the largest upper bound, and with it upper(i). Only what could win is looked at anew.

    Upper bounds of before are upper bounds still, so the first that stays largest when looked at anew is it.
    -1 where there is no room to expand an action.
    """
    A = m.reward.shape[0]
    if not room(m, n):
        return -1
    r = visit(m, n, i)
    fresh = -1
    while True:
        a = 0
        for c in range(1, A):
            if n.q_upper[r, c] > n.q_upper[r, a]:
                a = c
        if a == fresh:
            break
        if n.kids[r, a] < 0:
            if not room(m, n):
                return -1
            expand(m, n, w, i, a)
        n.q_upper[r, a] = min(n.q_upper[r, a], _bound(n, p, w, m.discount, r, a))
        fresh = a
    n.upper[i] = min(n.upper[i], n.q_upper[r, a])
    return a


@compiled
def q_lowers(m: Model, n: Nodes, g: Alphas, w: Work, i: int) -> int:
    """Q_lower of all expanded actions that may be best, looked at anew; the best of them."""
    r = n.record[i]
    best = -1
    for a in range(m.reward.shape[0]):
        if n.kids[r, a] < 0 or n.q_upper[r, a] < n.lower[i]:
            continue
        total = 0.0
        for k in range(n.kids[r, a], n.kids[r, a] + n.n_kids[r, a]):
            look_below(n, g, w, n.kid_node[k])
            total += n.kid_p[k] * n.lower[n.kid_node[k]]
        n.q_lower[r, a] = n.now[r, a] + m.discount * total
        if best < 0 or n.q_lower[r, a] > n.q_lower[r, best]:
            best = a
    return best


@compiled
def backup(m: Model, n: Nodes, g: Alphas, w: Work, i: int, a: int) -> None:
    """A new alpha vector for the action `a` at node i, and its place among the vectors if it is better there.

    alpha(s) = R(s,a) + g sum_s' T(s'|s,a) sum_o O(o|a,s') best_o(s')
    """
    S = m.reward.shape[1]
    r = n.record[i]
    look_below(n, g, w, i)
    here = np.full(m.n_obs, n.vector[i], np.int64)
    for k in range(n.kids[r, a], n.kids[r, a] + n.n_kids[r, a]):
        here[n.kid_o[k]] = n.vector[n.kid_node[k]]
    new = g.rows[g.count[USED]]
    for s in range(S):
        row = a * S + s
        total = 0.0
        for e in range(m.o_ptr[row], m.o_ptr[row + 1]):
            total += m.o_val[e] * g.rows[here[m.o_idx[e]], s]
        w.dense[s] = total
    for s in range(S):
        row = a * S + s
        total = 0.0
        for e in range(m.t_ptr[row], m.t_ptr[row + 1]):
            total += m.t_val[e] * w.dense[m.t_idx[e]]
        new[s] = m.reward[a, s] + m.discount * total
    w.dense[:] = 0.0
    b = n.begin[i]
    value = 0.0
    for k in range(b, b + n.size[i]):
        value += n.pool_val[k] * new[n.pool_idx[k]]
    if value > n.lower[i] + TINY * max(1.0, abs(value)):
        j = g.count[USED]
        g.columns[:, j] = new
        g.serial[j], g.action[j] = g.count[SERIAL], a
        g.follow[j] = here
        g.count[USED] += 1
        g.count[SERIAL] += 1
        n.lower[i], n.vector[i] = value, j


@compiled
def trial(
    m: Model, n: Nodes, g: Alphas, p: Points, w: Work, root: int, precision: float, kappa: float
) -> int:
    """One walk down the tree, then backups on the way up; FULL where an array must grow first."""
    depth, status = _descend(m, n, g, p, w, root, precision, kappa)
    for d in range(depth - 1, -1, -1):
        i = w.path[d]
        if g.count[USED] + 1 >= len(g.serial) or p.count[USED] + 1 >= len(p.node):
            return FULL
        before = n.upper[i]
        if choose(m, n, p, w, i) < 0:
            status = FULL
        look_above(n, p, w, i)
        if n.upper[i] < before - TINY * max(1.0, abs(before)) or n.point[i] < 0:
            add_point(n, p, i)
        best = q_lowers(m, n, g, w, i)
        if best >= 0 and n.q_lower[n.record[i], best] > n.lower[i]:
            backup(m, n, g, w, i, best)
    return status


@compiled
def _descend(
    m: Model, n: Nodes, g: Alphas, p: Points, w: Work, root: int, precision: float, kappa: float
) -> tuple[int, int]:
    """Follow the largest upper bound and the observation with the largest excess; (depth, status).

    A node is deep enough when its gap is below kappa precision g^-t, or when even its upper bound cannot lift
    the root above `low`: targets [low, high] go down through the Bellman equation (SARSOP, section III.C).
    """
    i, depth, wanted = root, 0, precision
    look_below(n, g, w, i)
    low = n.lower[i]
    high = low + precision
    while depth < len(w.path):
        look_below(n, g, w, i)
        look_above(n, p, w, i)
        upper, lower = n.upper[i], n.lower[i]
        if upper - lower <= kappa * wanted or (upper <= low and upper <= max(high, lower + wanted)):
            break
        a = choose(m, n, p, w, i)
        if a < 0:
            return depth, FULL
        w.path[depth] = i
        depth += 1
        best = q_lowers(m, n, g, w, i)
        r = n.record[i]
        low = max(low, n.q_lower[r, best])
        high = max(high, n.q_lower[r, best] + wanted)
        wanted /= m.discount
        first, end = n.kids[r, a], n.kids[r, a] + n.n_kids[r, a]
        pick, excess, mean_lower, mean_upper = -1, -np.inf, 0.0, 0.0
        for k in range(first, end):
            c = n.kid_node[k]
            mean_lower += n.kid_p[k] * n.lower[c]
            mean_upper += n.kid_p[k] * n.upper[c]
            e = n.kid_p[k] * (n.upper[c] - n.lower[c] - wanted)
            if e > excess:
                pick, excess = k, e
        if pick < 0:
            break
        i, share = n.kid_node[pick], n.kid_p[pick]
        low = n.lower[i] + ((low - n.now[r, a]) / m.discount - mean_lower) / share
        high = n.upper[i] + ((high - n.now[r, a]) / m.discount - mean_upper) / share
    return depth, FINE


@compiled
def beaten(rows: np.ndarray) -> np.ndarray:
    """[n], for each vector one, maybe itself, that is as large in every state and is beaten by none."""
    n, S = rows.shape
    total = np.empty(n)
    for i in range(n):
        total[i] = -rows[i].sum()
    order = np.argsort(total, kind="mergesort")
    by = np.arange(n)
    kept = np.empty(n, np.int64)
    many = 0
    for i in order:
        for k in range(many - 1, -1, -1):
            j = kept[k]
            s = 0
            while s < S and rows[j, s] >= rows[i, s]:
                s += 1
            if s == S:
                by[i] = j
                break
        if by[i] == i:
            kept[many] = i
            many += 1
    return by
