"""A graph of beliefs with bounds, for `sarsop_kernels.py`: compiled where numba is installed.

Beliefs are sparse and lie in one pool; a belief that is reached twice is one node. Every node keeps the best
bounds seen at it and how much of the alpha vectors and of the sawtooth's points went into them, so that
looking again costs what was added since. Bounds at nodes only improve.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

try:
    import numba
except ImportError:
    numba = None


def compiled(f: F) -> F:
    """Machine code, kept on disk between runs; the function as it is where numba is not installed.

    What is kept knows only of changes to the function's own file: after a change to kernels that others call,
    `make clean` removes it.
    """
    if numba is None:
        return f
    fast: Any = numba.njit(cache=True, fastmath={"contract", "reassoc", "nsz", "arcp"}, error_model="numpy")
    return fast(f)


class Model(NamedTuple):
    """A problem for the kernels; rows a*S + s as in `POMDP`, transitions that go on only."""

    discount: float
    t_ptr: np.ndarray
    t_idx: np.ndarray
    t_val: np.ndarray
    o_ptr: np.ndarray
    o_idx: np.ndarray
    o_val: np.ndarray
    reward: np.ndarray  # [A, S]
    fib: np.ndarray  # [A, S] fast informed bound
    n_obs: int


class Nodes(NamedTuple):
    """Beliefs and what is known of them. Capacity is the length of the arrays; `count` says what is used."""

    count: np.ndarray  # [4]
    pool_idx: np.ndarray  # states of all beliefs, one after another
    pool_val: np.ndarray
    begin: np.ndarray  # [n]
    size: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    vector: np.ndarray  # alpha vector that attains `lower`, -1 unknown
    lower_seen: np.ndarray  # serial number of the first alpha vector not yet looked at
    upper_seen: np.ndarray  # the same for points
    point: np.ndarray  # this belief's own point, -1 none
    record: np.ndarray  # row in the arrays below once visited, else -1
    q_upper: np.ndarray  # [visited, A]
    q_lower: np.ndarray
    now: np.ndarray  # [visited, A] b.R_a
    kids: np.ndarray  # [visited, A] where its children begin, -1 not expanded
    n_kids: np.ndarray
    kid_node: np.ndarray
    kid_p: np.ndarray
    kid_o: np.ndarray
    table: np.ndarray  # hash table of nodes, -1 free


class Alphas(NamedTuple):
    """Alpha vectors, both ways round: one reads a vector, the other all vectors at a state."""

    count: np.ndarray  # [2]
    rows: np.ndarray  # [n, S]
    columns: np.ndarray  # [S, n]
    serial: np.ndarray  # [n], rising
    action: np.ndarray  # -1: at random
    follow: np.ndarray  # [n, O] the vector whose plan goes on after each observation


class Points(NamedTuple):
    """The sawtooth: corners and points, in lists by the smallest state of their belief, newest first."""

    count: np.ndarray  # [3]
    corner: np.ndarray  # [S]
    node: np.ndarray  # [n]
    value: np.ndarray
    depth: np.ndarray  # value less what corners give, at most 0; 0 is dead
    serial: np.ndarray  # rising
    follow: np.ndarray  # next in the list, -1 end
    head: np.ndarray  # [S]


class Work(NamedTuple):
    """Scratch."""

    dense: np.ndarray  # [S], zero between calls
    other: np.ndarray  # [S], zero between calls
    scores: np.ndarray  # [alpha capacity]
    touched: np.ndarray  # [S]
    mass: np.ndarray  # [O]
    fill: np.ndarray  # [O]
    path: np.ndarray  # [depth]


NODES, POOL, RECORDS, KIDS = range(4)
"""what `Nodes.count` counts"""
USED, SERIAL, DEAD = range(3)
"""what `count` of the vectors and points holds: how many, the next serial number, how many are dead"""
SAME = 1e-11
"""beliefs that differ by less in every state are one node"""
STEP = 1e-7
"""corners fall by more than this share of their value or not at all: every point's depth is measured anew"""
TINY = 1e-12
"""smaller changes, as a share of the value, are none"""


@compiled
def _hash(idx: np.ndarray, val: np.ndarray) -> Any:
    h = np.uint64(1469598103934665603)
    for i in range(len(idx)):
        h = (h ^ np.uint64(idx[i])) * np.uint64(1099511628211)
        h = (h ^ np.uint64(val[i] * 1e8 + 0.5)) * np.uint64(1099511628211)
    h ^= h >> np.uint64(29)
    return np.int64(h >> np.uint64(2))


@compiled
def find_node(m: Model, n: Nodes, idx: np.ndarray, val: np.ndarray) -> Any:
    """The node of a belief, made if there is none. Room must have been seen to."""
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
    """Fill the table again after it has grown."""
    n.table[:] = -1
    mask = len(n.table) - 1
    for i in range(n.count[NODES]):
        b = n.begin[i]
        slot = _hash(n.pool_idx[b : b + n.size[i]], n.pool_val[b : b + n.size[i]]) & mask
        while n.table[slot] >= 0:
            slot = (slot + 1) & mask
        n.table[slot] = i


@compiled
def look_below(n: Nodes, g: Alphas, w: Work, i: int) -> None:
    """Take in the alpha vectors added since: lower(i) = max over alpha of b.alpha."""
    used = g.count[USED]
    if n.lower_seen[i] >= g.count[SERIAL]:
        return
    lo = np.searchsorted(g.serial[:used], n.lower_seen[i])
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
def at_corners(n: Nodes, p: Points, i: int) -> float:
    """b.U, the upper bound that corners alone give."""
    total = 0.0
    for k in range(n.begin[i], n.begin[i] + n.size[i]):
        total += n.pool_val[k] * p.corner[n.pool_idx[k]]
    return total


@compiled
def look_above(n: Nodes, p: Points, w: Work, i: int) -> None:
    """Take in the points added since: upper(i) = min over points of the sawtooth through them."""
    if n.upper_seen[i] >= p.count[SERIAL]:
        return
    b, size = n.begin[i], n.size[i]
    base = at_corners(n, p, i)
    for k in range(size):
        w.dense[n.pool_idx[b + k]] = n.pool_val[b + k]
    best = min(n.upper[i] - base, 0.0)
    seen = n.upper_seen[i]
    for k in range(size):
        j = p.head[n.pool_idx[b + k]]
        while j >= 0 and p.serial[j] >= seen:
            depth = p.depth[j]
            if depth < best:
                c = n.begin[p.node[j]]
                least = best / depth  # the share of the point from which on it would be news
                share = 1.0
                for q in range(c, c + n.size[p.node[j]]):
                    here = w.dense[n.pool_idx[q]]
                    if here < share * n.pool_val[q]:
                        share = here / n.pool_val[q]
                        if share <= least:
                            break
                if share > least:
                    best = share * depth
            j = p.follow[j]
    for k in range(size):
        w.dense[n.pool_idx[b + k]] = 0.0
    n.upper[i] = min(n.upper[i], base + best)
    n.upper_seen[i] = p.count[SERIAL]


@compiled
def lower_corner(n: Nodes, p: Points, s: int, value: float) -> None:
    """The upper bound at a state falls to `value`, and with it what every point's depth is measured from."""
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
                if p.depth[j] >= 0:
                    p.depth[j] = 0.0
                    p.count[DEAD] += 1


@compiled
def add_point(n: Nodes, p: Points, i: int) -> None:
    """upper(i) becomes a point of the sawtooth, or a lower corner."""
    b = n.begin[i]
    if n.size[i] == 1:
        lower_corner(n, p, int(n.pool_idx[b]), n.upper[i])
    else:
        base = at_corners(n, p, i)
        if n.upper[i] >= base:
            return
        if n.point[i] >= 0:
            p.depth[n.point[i]] = 0.0
            p.count[DEAD] += 1
        j = p.count[USED]
        p.count[USED] += 1
        p.node[j], p.value[j], p.depth[j] = i, n.upper[i], n.upper[i] - base
        p.serial[j] = p.count[SERIAL]
        p.count[SERIAL] += 1
        p.follow[j] = p.head[n.pool_idx[b]]
        p.head[n.pool_idx[b]] = j
        n.point[i] = j


@compiled
def tidy_points(n: Nodes, p: Points) -> None:
    """Depths by the corners of now; dead points go."""
    kept = 0
    p.head[:] = -1
    for j in range(p.count[USED]):
        i = p.node[j]
        b = n.begin[i]
        base = at_corners(n, p, i)
        alive = n.point[i] == j and p.value[j] < base
        if n.point[i] == j:
            n.point[i] = kept if alive else -1
        if alive:
            p.node[kept], p.value[kept], p.serial[kept] = i, p.value[j], p.serial[j]
            p.depth[kept] = p.value[j] - base
            p.follow[kept] = p.head[n.pool_idx[b]]
            p.head[n.pool_idx[b]] = kept
            kept += 1
    p.count[USED] = kept
    p.count[DEAD] = 0


@compiled
def visit(m: Model, n: Nodes, i: int) -> int:
    """The record of a node, made with the fast informed bound if there is none."""
    r = n.record[i]
    if r >= 0:
        return r
    r = n.count[RECORDS]
    n.count[RECORDS] += 1
    n.record[i] = r
    b = n.begin[i]
    for a in range(m.reward.shape[0]):
        upper, now = 0.0, 0.0
        for k in range(b, b + n.size[i]):
            upper += n.pool_val[k] * m.fib[a, n.pool_idx[k]]
            now += n.pool_val[k] * m.reward[a, n.pool_idx[k]]
        n.q_upper[r, a], n.q_lower[r, a], n.now[r, a] = upper, -np.inf, now
        n.kids[r, a] = -1
        n.n_kids[r, a] = 0
    return r


@compiled
def expand(m: Model, n: Nodes, w: Work, i: int, a: int) -> None:
    """Make the children of a node under an action: b_ao(s') ~ O(o|a,s') sum_s T(s'|s,a) b(s)."""
    S = m.reward.shape[1]
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
    states = np.sort(w.touched[:many])
    w.mass[:] = 0.0
    w.fill[:] = 0
    for s in states:
        row = a * S + s
        for e in range(m.o_ptr[row], m.o_ptr[row + 1]):
            w.mass[m.o_idx[e]] += w.other[s] * m.o_val[e]
            w.fill[m.o_idx[e]] += 1
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
    r = n.record[i]
    first = n.count[KIDS]
    n.kids[r, a] = first
    for o in range(m.n_obs):
        if w.mass[o] > 0:
            k = n.count[KIDS]
            n.count[KIDS] += 1
            n.kid_node[k] = find_node(m, n, idx[starts[o] : starts[o + 1]], val[starts[o] : starts[o + 1]])
            n.kid_p[k], n.kid_o[k] = w.mass[o], o
    n.n_kids[r, a] = n.count[KIDS] - first
    for s in states:
        w.other[s] = 0.0


@compiled
def room(m: Model, n: Nodes) -> bool:
    """Whether one more action of one more node can be expanded, whatever its children are."""
    return (
        n.count[NODES] + m.n_obs < len(n.begin)
        and n.count[POOL] + m.n_obs * m.reward.shape[1] < len(n.pool_idx)
        and n.count[RECORDS] + 1 < len(n.q_upper)
        and n.count[KIDS] + m.n_obs < len(n.kid_node)
        and 2 * (n.count[NODES] + m.n_obs) < len(n.table)
    )
