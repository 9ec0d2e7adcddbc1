"""The arrays that SARSOP's kernels work on: what each holds, how it is laid out, how it grows.

Compiled loops know no objects, so a graph of beliefs is a few NamedTuples of flat arrays, and a belief, an
alpha vector or a point is an index into them. Letters of the shapes:

    S, A, O   states, actions, observations of the problem
    N         nodes: beliefs that were reached
    L         states of all nodes' beliefs, end to end
    R         records: nodes that a walk stood on
    C         children of all records under all actions, end to end
    M         alpha vectors
    J         points of the sawtooth

The lengths of N, R, L, C, M and J are capacities. The `count` of each tuple says how much is in use, and what
is behind that is garbage. Kernels never allocate in these arrays: they report that one is full, and
`Search` replaces it by a longer copy (the tuples are frozen, the arrays in them are not).

Invariants
- A belief's states rise and have positive probabilities. Beliefs equal to within `SAME` are one
  node, unless their hashes differ (`graph._hash`).
- `lower` of a node only rises and `upper` only falls: each is the best bound that was ever proved there.
- A node has seen all alpha vectors (points) whose serial number is below its `lower_seen` (`upper_seen`).
  Serial numbers rise with age 0, 1, 2, ... and are never given twice, so refreshing a bound costs only what
  is new.
- Alpha vectors are never removed or reordered during a search; successors refer to them by index.
- `Alphas.columns` is the transpose of `Alphas.rows`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.exact.bounds import blind_plans

NODES, POOL, RECORDS, CHILDREN = range(4)
"""what `Nodes.count` counts: N, L, R and C in use"""
USED, SERIAL, DEAD = range(3)
"""what `count` of alpha vectors and points holds: how many, the next serial number, how many are dead"""
SAME = 1e-11
"""Largest difference in any state between two beliefs that are one node. Equal beliefs that come by different
ways differ by rounding, some 1e-16, and the bounds of one hold for the other up to as much."""
FIRST_ROOM = 1024
"""first capacity of nodes and points"""
DEPTH = 2000
"""longest walk of a trial"""


class Model(NamedTuple):
    """The problem: sparse rows in CSR, row a*S + s as in `POMDP`; only transitions after which it goes on."""

    discount: float
    t_ptr: np.ndarray  # [A*S + 1] T(s'|s,a): row r is entries t_ptr[r] to t_ptr[r+1]
    t_idx: np.ndarray  # s' of each entry
    t_val: np.ndarray  # its probability; a row sums to less than 1 where the episode may end
    o_ptr: np.ndarray  # [A*S + 1] O(o|a,s'), row a*S + s' of the state reached
    o_idx: np.ndarray
    o_val: np.ndarray
    reward: np.ndarray  # [A, S] R(s,a)
    fib: np.ndarray  # [A, S] the fast informed bound of Q, which every upper bound begins with
    n_obs: int  # O


class Nodes(NamedTuple):
    """Beliefs, the bounds known at them, and the graph between them."""

    count: np.ndarray  # [4], see NODES ... CHILDREN
    # Beliefs. Node i is the states pool_idx[begin[i] : begin[i] + size[i]] with probabilities pool_val[...].
    pool_idx: np.ndarray  # [L]
    pool_val: np.ndarray  # [L]
    begin: np.ndarray  # [N]
    size: np.ndarray  # [N]
    table: np.ndarray  # [power of 2] open-addressing hash table of nodes, -1 free; at most half full
    # Bounds of V*(b).
    lower: np.ndarray  # [N]
    upper: np.ndarray  # [N]
    vector: np.ndarray  # [N] the alpha vector that attains `lower`; -1 before the first refresh
    lower_seen: np.ndarray  # [N] serial number of the first alpha vector that did not go into `lower` yet
    upper_seen: np.ndarray  # [N] the same of points and `upper`
    point: np.ndarray  # [N] the point of the sawtooth at this belief, -1 none
    # Records: what is kept of the few nodes that walks stand on, not of all that they look at.
    record: np.ndarray  # [N] row in the arrays [R, A], -1 none
    q_upper: np.ndarray  # [R, A] bounds of Q*(b,a)
    q_lower: np.ndarray  # [R, A]
    reward: np.ndarray  # [R, A] R(b,a) = b . R(., a)
    first_child: np.ndarray  # [R, A] where the children begin in the arrays [C], -1 not expanded
    n_children: np.ndarray  # [R, A]
    child: np.ndarray  # [C] node of b_ao
    child_p: np.ndarray  # [C] P(o, the episode goes on | b, a)
    child_o: np.ndarray  # [C] o


class Alphas(NamedTuple):
    """The lower bound: alpha vectors, each the value of a plan that can be followed.

    They are stored both ways round. A backup reads one vector over all states (`rows`); a refresh reads all
    new vectors at the few states of a belief (`columns`). Each is then one run through memory.
    """

    count: np.ndarray  # [3]
    rows: np.ndarray  # [M, S]
    columns: np.ndarray  # [S, M]
    serial: np.ndarray  # [M], rising
    action: np.ndarray  # [M] the plan's first action; -1: one at random
    successor: np.ndarray  # [M, O] the vector whose plan goes on after each observation


class Points(NamedTuple):
    """The upper bound: the sawtooth through the corners (one for each state) and through points at beliefs.

        upper(b) = b . corner + min over j of phi_j(b) depth_j,  phi_j(b) = min over s in b_j of b(s) / b_j(s)

    Hauskrecht 2000 ("interpolation-extrapolation"). phi_j is positive only if b has all states of b_j, so
    points hang in linked lists by the smallest state of their belief, the newest first: who refreshes b walks
    the lists of b's states.
    """

    count: np.ndarray  # [3]
    corner: np.ndarray  # [S] upper bound of V* where the state is known
    head: np.ndarray  # [S] first point of each list, -1 none
    next: np.ndarray  # [J] next point of the list, -1 end
    node: np.ndarray  # [J] the belief b_j
    value: np.ndarray  # [J] upper bound at b_j
    depth: np.ndarray  # [J] value - b_j . corner, negative; 0: dead, because replaced or above its corners
    serial: np.ndarray  # [J], rising


class Work(NamedTuple):
    """Scratch that the kernels share."""

    dense: np.ndarray  # [S], all zero between calls
    other: np.ndarray  # [S], all zero between calls
    scores: np.ndarray  # [M]
    touched: np.ndarray  # [S]
    mass: np.ndarray  # [O]
    fill: np.ndarray  # [O]
    path: np.ndarray  # [DEPTH] nodes of the walk


_INT, _FLOAT = np.int64, np.float64
_PER_NODE = {
    "begin": _INT, "size": _INT, "lower": _FLOAT, "upper": _FLOAT, "vector": _INT,
    "lower_seen": _INT, "upper_seen": _INT, "point": _INT, "record": _INT,
}  # fmt: skip
_PER_RECORD = {
    "q_upper": _FLOAT, "q_lower": _FLOAT, "reward": _FLOAT, "first_child": _INT, "n_children": _INT,
}  # fmt: skip
_PER_CHILD = {"child": _INT, "child_p": _FLOAT, "child_o": _INT}
_PER_POOL = {"pool_idx": np.int32, "pool_val": _FLOAT}
_PER_POINT = {"node": _INT, "value": _FLOAT, "depth": _FLOAT, "serial": _INT, "next": _INT}
_PER_ALPHA = ("rows", "serial", "action", "successor")


def model_of(problem: POMDP, fib: np.ndarray) -> Model:
    """The problem with the fast informed bound [A, S] of it."""
    t, e = problem.continuing(), problem.emissions
    return Model(
        float(problem.discount), t.indptr, t.indices, t.data, e.indptr, e.indices, e.data,
        problem.expected_rewards(), fib, e.width,
    )  # fmt: skip


def no_nodes(actions: int) -> Nodes:
    """An empty graph."""
    return Nodes(
        count=np.zeros(4, _INT),
        table=np.full(FIRST_ROOM, -1, _INT),
        **{f: np.zeros(FIRST_ROOM, d) for f, d in {**_PER_NODE, **_PER_CHILD, **_PER_POOL}.items()},
        **{f: np.zeros((FIRST_ROOM, actions), d) for f, d in _PER_RECORD.items()},
    )


def blind_alphas(problem: POMDP, until: float = math.inf) -> Alphas:
    """The plans that never look, to begin with; each is its own successor."""
    S, _, O = problem.shape
    values, actions = blind_plans(problem, until)
    k = len(values)
    room = max(64, 2 * k)
    g = Alphas(
        count=np.array([k, k, 0]),
        rows=np.zeros((room, S)),
        columns=np.zeros((S, room)),
        serial=np.zeros(room, _INT),
        action=np.zeros(room, _INT),
        successor=np.zeros((room, O), np.int32),
    )
    g.rows[:k], g.columns[:, :k], g.serial[:k], g.action[:k] = values, values.T, np.arange(k), actions
    g.successor[:k] = np.arange(k)[:, None]
    return g


def no_points(corner: np.ndarray) -> Points:
    """A sawtooth of corners [S] alone."""
    return Points(
        count=np.zeros(3, _INT),
        corner=corner,
        head=np.full(len(corner), -1, _INT),
        **{f: np.zeros(FIRST_ROOM, d) for f, d in _PER_POINT.items()},
    )


def scratch(states: int, observations: int, alphas: int) -> Work:
    """Scratch for a capacity of `alphas` vectors."""
    return Work(
        dense=np.zeros(states), other=np.zeros(states), scores=np.zeros(alphas),
        touched=np.zeros(states, _INT), mass=np.zeros(observations), fill=np.zeros(observations, _INT),
        path=np.zeros(DEPTH, _INT),
    )  # fmt: skip


def with_room_for_children(n: Nodes, states: int, observations: int) -> tuple[Nodes, bool]:
    """Nodes with room for one more expansion, whatever it finds; and whether the hash table is new and empty.

    One expansion makes at most O children of at most S states each, and one record. One node more is for a
    root.
    """
    S, O, used = states, observations, n.count
    wants = [
        (_PER_NODE, used[NODES] + O + 1),
        (_PER_POOL, used[POOL] + (O + 1) * S),
        (_PER_RECORD, used[RECORDS] + 2),
        (_PER_CHILD, used[CHILDREN] + O),
    ]
    grown = {f: _grown(getattr(n, f), want) for fields, want in wants for f in fields}
    half = 2 * (used[NODES] + O + 1)  # a table more than half full has long probes
    full = len(n.table) <= half
    if full:
        grown["table"] = np.full(1 << int(half).bit_length() + 1, -1, _INT)
    return n._replace(**grown), full


def with_room_for_alpha(g: Alphas, more: int = 1) -> Alphas:
    """Alpha vectors with room for `more` of them."""
    room = len(g.serial)
    if g.count[USED] + more + 1 < room:
        return g
    grown = {f: _grown(getattr(g, f), max(room + 1, int(g.count[USED]) + more + 1)) for f in _PER_ALPHA}
    columns = np.zeros((g.rows.shape[1], len(grown["serial"])))
    columns[:, :room] = g.columns
    return g._replace(columns=columns, **grown)


def with_room_for_point(p: Points) -> Points:
    """Points with room for one more."""
    return p._replace(**{f: _grown(getattr(p, f), p.count[USED] + 2) for f in _PER_POINT})


def _grown(array: np.ndarray, want: int) -> np.ndarray:
    """The same array, at least doubled if it has no more than `want` places."""
    if len(array) > want:
        return array
    longer = np.zeros((max(2 * len(array), int(want) + 1), *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer
