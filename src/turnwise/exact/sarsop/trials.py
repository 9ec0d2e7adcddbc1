"""Kernels of the search: a trial walks down to where bounds are far apart and improves them on the way back.

    Q_upper(b,a) = R(b,a) + g sum over o of P(o|b,a) upper(b_ao)          Q_lower likewise
    upper(b) <- max over a of Q_upper(b,a),    lower(b) <- alpha . b of the backup of the best Q_lower

Kurniawati, Hsu & Lee, RSS 2008, section III; `solve` says how we differ. Every function takes the arrays that
it reads: m the model, n nodes, g alpha vectors (Gamma), p points, w scratch (`arrays`). i, r, k are indices
of a node, a record and a child.
"""

from __future__ import annotations

import numpy as np

from turnwise.exact.compiled import compiled
from turnwise.exact.sarsop.arrays import SERIAL, USED, Alphas, Model, Nodes, Points, Work
from turnwise.exact.sarsop.graph import expand, has_room, open_record
from turnwise.exact.sarsop.node_bounds import add_point, refresh_lower, refresh_upper

DONE, FULL = 0, 1
"""What a trial returns. FULL: an array must grow before it can go on; what it improved until then stands."""
TINY = 1e-12
"""smaller improvements, as a share of the value, are rounding: a vector or point for them would be wasted"""


@compiled
def _refreshed_q_upper(n: Nodes, p: Points, w: Work, discount: float, r: int, a: int) -> float:
    """Q_upper(b, a) from its children's bounds, each refreshed."""
    total = 0.0
    for k in range(n.first_child[r, a], n.first_child[r, a] + n.n_children[r, a]):
        refresh_upper(n, p, w, n.child[k])
        total += n.child_p[k] * n.upper[n.child[k]]
    return n.reward[r, a] + discount * total


@compiled
def best_action(m: Model, n: Nodes, p: Points, w: Work, i: int) -> int:
    """The action with the largest upper bound; upper(i) becomes that bound. -1 if there is no room to expand
    it.

    Old upper bounds are upper bounds still. So it suffices to refresh the action that is largest now until
    one stays largest after its refresh: actions that cannot win are neither refreshed nor expanded.
    """
    A = m.reward.shape[0]
    if not has_room(m, n):
        return -1
    r = open_record(m, n, i)
    fresh = -1
    while True:
        a = 0
        for c in range(1, A):
            if n.q_upper[r, c] > n.q_upper[r, a]:
                a = c
        if a == fresh:
            break
        if n.first_child[r, a] < 0:
            if not has_room(m, n):
                return -1
            expand(m, n, w, i, a)
        n.q_upper[r, a] = min(n.q_upper[r, a], _refreshed_q_upper(n, p, w, m.discount, r, a))
        fresh = a
    n.upper[i] = min(n.upper[i], n.q_upper[r, a])
    return a


@compiled
def refresh_q_lower(m: Model, n: Nodes, g: Alphas, w: Work, i: int) -> int:
    """Refresh Q_lower of the actions that may still be the best; the best of them, -1 if there is none.

    An action whose upper bound is below lower(i) is worse than a plan that is known. One that was never
    expanded had no upper bound that was largest, and gets its turn when it has.
    """
    r = n.record[i]
    best = -1
    for a in range(m.reward.shape[0]):
        if n.first_child[r, a] < 0 or n.q_upper[r, a] < n.lower[i]:
            continue
        total = 0.0
        for k in range(n.first_child[r, a], n.first_child[r, a] + n.n_children[r, a]):
            refresh_lower(n, g, w, n.child[k])
            total += n.child_p[k] * n.lower[n.child[k]]
        n.q_lower[r, a] = n.reward[r, a] + m.discount * total
        if best < 0 or n.q_lower[r, a] > n.q_lower[r, best]:
            best = a
    return best


@compiled
def backup(m: Model, n: Nodes, g: Alphas, w: Work, i: int, a: int) -> None:
    """The alpha vector of "a now, then the best known plan after each o"; it is kept if it is better at node
    i.

    alpha(s) = R(s,a) + g sum_s' T(s'|s,a) sum_o O(o|a,s') alpha_o(s'),   alpha_o the best vector at b_ao

    The sum over o comes first, since it needs no s: the cost is that of the entries of T plus those of O.
    """
    S = m.reward.shape[1]
    r = n.record[i]
    refresh_lower(n, g, w, i)
    # Observations that cannot follow here may follow in states outside of b. Any plan after them makes alpha
    # the value of some plan, hence a lower bound everywhere; the best one at b itself is a fair guess.
    successor = np.full(m.n_obs, n.vector[i], np.int64)
    for k in range(n.first_child[r, a], n.first_child[r, a] + n.n_children[r, a]):
        successor[n.child_o[k]] = n.vector[n.child[k]]
    new = g.rows[g.count[USED]]  # written in place, and counted below only if it is kept
    for s in range(S):
        row = a * S + s
        total = 0.0
        for e in range(m.o_ptr[row], m.o_ptr[row + 1]):
            total += m.o_val[e] * g.rows[successor[m.o_idx[e]], s]
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
        g.successor[j] = successor
        g.count[USED] += 1
        g.count[SERIAL] += 1
        n.lower[i], n.vector[i] = value, j


@compiled
def trial(
    m: Model, n: Nodes, g: Alphas, p: Points, w: Work, root: int, precision: float, kappa: float
) -> int:
    """One walk down from `root`, then backups on the way up; DONE or FULL.

    `precision` is the gap that the root should come to; `kappa` is explained in `_descend`.
    """
    depth, status = _descend(m, n, g, p, w, root, precision, kappa)
    for d in range(depth - 1, -1, -1):
        i = w.path[d]
        if g.count[USED] + 1 >= len(g.serial) or p.count[USED] + 1 >= len(p.node):
            return FULL
        before = n.upper[i]
        if best_action(m, n, p, w, i) < 0:
            status = FULL
        refresh_upper(n, p, w, i)
        if n.upper[i] < before - TINY * max(1.0, abs(before)) or n.point[i] < 0:
            add_point(n, p, i)
        best = refresh_q_lower(m, n, g, w, i)
        if best >= 0 and n.q_lower[n.record[i], best] > n.lower[i]:
            backup(m, n, g, w, i, best)
    return status


@compiled
def _descend(
    m: Model, n: Nodes, g: Alphas, p: Points, w: Work, root: int, precision: float, kappa: float
) -> tuple[int, int]:
    """Follow the largest upper bound and the observation with the largest excess; (depth, status).

    A node at depth t is deep enough if its gap is below kappa * precision / g^t: then the root's gap is
    `precision` or less once all of its successors are. It also is if even its upper bound cannot lift the
    root's value above `low`. The targets [low, high] go down by solving Bellman's equation for the one child
    that is walked to, with the other children at their bounds (SARSOP, section III.C).
    """
    i, depth, wanted = root, 0, precision
    refresh_lower(n, g, w, i)
    low = n.lower[i]
    high = low + precision
    while depth < len(w.path):
        refresh_lower(n, g, w, i)
        refresh_upper(n, p, w, i)
        upper, lower = n.upper[i], n.lower[i]
        if upper - lower <= kappa * wanted or (upper <= low and upper <= max(high, lower + wanted)):
            break
        a = best_action(m, n, p, w, i)
        if a < 0:
            return depth, FULL
        w.path[depth] = i
        depth += 1
        best = refresh_q_lower(m, n, g, w, i)
        r = n.record[i]
        low = max(low, n.q_lower[r, best])
        high = max(high, n.q_lower[r, best] + wanted)
        wanted /= m.discount
        first, end = n.first_child[r, a], n.first_child[r, a] + n.n_children[r, a]
        pick, excess, mean_lower, mean_upper = -1, -np.inf, 0.0, 0.0
        for k in range(first, end):
            c = n.child[k]
            mean_lower += n.child_p[k] * n.lower[c]
            mean_upper += n.child_p[k] * n.upper[c]
            e = n.child_p[k] * (n.upper[c] - n.lower[c] - wanted)
            if e > excess:
                pick, excess = k, e
        if pick < 0:  # the episode ends here for sure
            break
        # low = R + g (sum over other children of p lower + p_pick low'), solved for low'; high with `upper`.
        i, share = n.child[pick], n.child_p[pick]
        low = n.lower[i] + ((low - n.reward[r, a]) / m.discount - mean_lower) / share
        high = n.upper[i] + ((high - n.reward[r, a]) / m.discount - mean_upper) / share
    return depth, DONE


@compiled
def dominating(rows: np.ndarray) -> np.ndarray:
    """[n], for each vector of `rows` [n, S] one that is as large in every state and that none is larger than.

    It may be the vector itself. Of two equal vectors the first stands for both.
    """
    n, S = rows.shape
    total = np.empty(n)
    for i in range(n):
        total[i] = -rows[i].sum()
    # Sorted by falling sum, a vector is beaten by earlier ones only. mergesort keeps the order of equals.
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
