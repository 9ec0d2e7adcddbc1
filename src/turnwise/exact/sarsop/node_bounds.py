"""Kernels of the bounds at a node: refreshed by what is new among alpha vectors and points; points added.

    lower(b) = max over i of alpha_i . b                            the value of a plan, so it can be attained
    upper(b) = b . corner + min over j of phi_j(b) (v_j - b_j . corner)      the sawtooth (`arrays.Points`)

Why the sawtooth is an upper bound. V* is convex, b = phi b_j + (1 - phi) c for some belief c, so that
V*(b) <= phi V*(b_j) + (1 - phi) V*(c) <= phi v_j + (1 - phi) c . corner, which is the formula above.

Why bounds stay bounds although corners move and not all is computed anew: `lower` and `upper` of a node are
values that were proved once. A refresh takes the better of the old and the new one, so leaving a refresh out,
or leaving out a point that could have improved it, makes a bound looser and never wrong.
"""

from __future__ import annotations

import numpy as np

from turnwise.exact.compiled import compiled
from turnwise.exact.sarsop.arrays import DEAD, SERIAL, USED, Alphas, Nodes, Points, Work

STEP = 1e-7
"""A corner falls by more than this share of its value or not at all. Each fall costs a pass over all points,
and adds one rounding error to each depth."""


@compiled
def refresh_lower(n: Nodes, g: Alphas, w: Work, i: int) -> None:
    """Take in the alpha vectors added since the last time: lower(b) = max over alpha of b . alpha."""
    used = g.count[USED]
    if n.lower_seen[i] >= g.count[SERIAL]:
        return
    lo = np.searchsorted(g.serial[:used], n.lower_seen[i])
    # State by state over all new vectors, not vector by vector over all states: `columns` [S, M] makes the
    # inner loop a run through memory, which becomes vector instructions.
    acc = w.scores
    acc[lo:used] = 0.0
    b = n.begin[i]
    for k in range(n.size[i]):
        p, column = n.pool_val[b + k], g.columns[n.pool_idx[b + k]]
        for j in range(lo, used):
            acc[j] += p * column[j]
    best, at = n.lower[i], n.vector[i]
    for j in range(lo, used):
        if acc[j] > best:
            best, at = acc[j], j
    n.lower[i], n.vector[i] = best, at
    n.lower_seen[i] = g.count[SERIAL]


@compiled
def corner_value(n: Nodes, p: Points, i: int) -> float:
    """b . corner, the upper bound that corners alone give."""
    total = 0.0
    for k in range(n.begin[i], n.begin[i] + n.size[i]):
        total += n.pool_val[k] * p.corner[n.pool_idx[k]]
    return total


@compiled
def refresh_upper(n: Nodes, p: Points, w: Work, i: int) -> None:
    """Take in the points added since the last time, and the corners as they are now."""
    if n.upper_seen[i] >= p.count[SERIAL]:
        return
    b, size = n.begin[i], n.size[i]
    base = corner_value(n, p, i)
    for k in range(size):
        w.dense[n.pool_idx[b + k]] = n.pool_val[b + k]
    best = min(n.upper[i] - base, 0.0)
    seen = n.upper_seen[i]
    for k in range(size):
        j = p.head[n.pool_idx[b + k]]
        while j >= 0 and p.serial[j] >= seen:  # the list has the newest first: the rest is known
            depth = p.depth[j]
            if depth < best:
                # phi_j must exceed this share for the point to improve on `best`. As phi_j is a minimum over
                # states, the loop can stop at the first state that falls below; most points end at the first
                # few.
                least = best / depth
                c = n.begin[p.node[j]]
                share = 1.0  # phi_j is at most 1, since both beliefs sum to 1
                for q in range(c, c + n.size[p.node[j]]):
                    here = w.dense[n.pool_idx[q]]
                    if here < share * n.pool_val[q]:
                        share = here / n.pool_val[q]
                        if share <= least:
                            break
                if share > least:
                    best = share * depth
            j = p.next[j]
    for k in range(size):
        w.dense[n.pool_idx[b + k]] = 0.0
    n.upper[i] = min(n.upper[i], base + best)
    n.upper_seen[i] = p.count[SERIAL]


@compiled
def lower_corner(n: Nodes, p: Points, s: int, value: float) -> None:
    """The upper bound at a state falls to `value`, and with it what every point's depth is measured from.

    A depth is updated by what b_j . corner falls, not computed anew: all points, but one state of each.
    """
    drop = p.corner[s] - value
    if drop <= STEP * max(1.0, abs(value)):
        return
    p.corner[s] = value
    for j in range(p.count[USED]):
        if p.depth[j] < 0:
            k = n.begin[p.node[j]]
            end = k + n.size[p.node[j]]
            while k < end and n.pool_idx[k] < s:
                k += 1
            if k < end and n.pool_idx[k] == s:
                p.depth[j] += n.pool_val[k] * drop
                if p.depth[j] >= 0:  # the corners alone say as much now
                    p.depth[j] = 0.0
                    p.count[DEAD] += 1


@compiled
def add_point(n: Nodes, p: Points, i: int) -> None:
    """upper(i) becomes a point of the sawtooth, or, where the state is known, a lower corner."""
    b = n.begin[i]
    if n.size[i] == 1:
        lower_corner(n, p, int(n.pool_idx[b]), n.upper[i])
    else:
        base = corner_value(n, p, i)
        if n.upper[i] >= base:
            return
        if n.point[i] >= 0:  # the belief's earlier point is above the new one everywhere
            p.depth[n.point[i]] = 0.0
            p.count[DEAD] += 1
        j = p.count[USED]
        p.count[USED] += 1
        p.node[j], p.value[j], p.depth[j] = i, n.upper[i], n.upper[i] - base
        p.serial[j] = p.count[SERIAL]
        p.count[SERIAL] += 1
        p.next[j] = p.head[n.pool_idx[b]]
        p.head[n.pool_idx[b]] = j
        n.point[i] = j


@compiled
def compact_points(n: Nodes, p: Points) -> None:
    """Remove dead points and compute depths anew, which ends the rounding errors that they have gathered.

    Oldest first, each put at the head of its list, so that lists have the newest first again.
    """
    kept = 0
    p.head[:] = -1
    for j in range(p.count[USED]):
        i = p.node[j]
        b = n.begin[i]
        base = corner_value(n, p, i)
        alive = n.point[i] == j and p.value[j] < base
        if n.point[i] == j:
            n.point[i] = kept if alive else -1
        if alive:
            p.node[kept], p.value[kept], p.serial[kept] = i, p.value[j], p.serial[j]
            p.depth[kept] = p.value[j] - base
            p.next[kept] = p.head[n.pool_idx[b]]
            p.head[n.pool_idx[b]] = kept
            kept += 1
    p.count[USED] = kept
    p.count[DEAD] = 0
