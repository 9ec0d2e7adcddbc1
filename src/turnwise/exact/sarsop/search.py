"""The arrays that the kernels of SARSOP work on, and their growth."""

from __future__ import annotations

import functools

import numpy as np

from turnwise.envs.pomdp import POMDP, pomdp_from_arrays
from turnwise.exact.alpha_policy import AlphaPolicy
from turnwise.exact.bounds import blind_plans, fib_q
from turnwise.exact.sarsop import graph_kernels as graph
from turnwise.exact.sarsop import kernels

KAPPA = 0.5
"""a belief is settled when its gap is below this share of what the root's gap asks of it"""
DEPTH = 2000
"""longest walk"""
CROSSED = 1e-9
"""share of the value by which rounding may put the lower bound above the upper"""
ROOM = 1024
"""first capacity"""

_INT, _FLOAT = np.int64, np.float64
_PER_NODE = {
    "begin": _INT, "size": _INT, "lower": _FLOAT, "upper": _FLOAT, "vector": _INT,
    "lower_seen": _INT, "upper_seen": _INT, "point": _INT, "record": _INT,
}  # fmt: skip
_PER_VISIT = {"q_upper": _FLOAT, "q_lower": _FLOAT, "now": _FLOAT, "kids": _INT, "n_kids": _INT}
_PER_KID = {"kid_node": _INT, "kid_p": _FLOAT, "kid_o": _INT}
_PER_STATE = {"pool_idx": np.int32, "pool_val": _FLOAT}
_PER_POINT = {"node": _INT, "value": _FLOAT, "depth": _FLOAT, "serial": _INT, "follow": _INT}
_PER_VECTOR = ("rows", "serial", "action", "follow")


class Search:
    """A belief graph with bounds, rooted at the start (or at the beliefs after each first observation)."""

    def __init__(self, problem: POMDP):
        S, A, O = problem.shape
        t, e = problem.continuing(), problem.emissions
        fib = fib_q(problem)
        self.model = graph.Model(
            float(problem.discount), t.indptr, t.indices, t.data, e.indptr, e.indices, e.data,
            problem.expected_rewards(), fib, O,
        )  # fmt: skip
        self.nodes = graph.Nodes(
            count=np.zeros(4, _INT),
            table=np.full(ROOM, -1, _INT),
            **{f: np.zeros(ROOM, d) for f, d in {**_PER_NODE, **_PER_KID, **_PER_STATE}.items()},
            **{f: np.zeros((ROOM, A), d) for f, d in _PER_VISIT.items()},
        )
        self.alphas = _first_vectors(problem)
        self.points = graph.Points(
            count=np.zeros(3, _INT),
            corner=fib.max(0),
            head=np.full(S, -1, _INT),
            **{f: np.zeros(ROOM, d) for f, d in _PER_POINT.items()},
        )
        self.work = graph.Work(
            dense=np.zeros(S), other=np.zeros(S), scores=np.zeros(len(self.alphas.serial)),
            touched=np.zeros(S, _INT), mass=np.zeros(O), fill=np.zeros(O, _INT), path=np.zeros(DEPTH, _INT),
        )  # fmt: skip
        self.roots = [(p, self._node(b)) for p, b in first_beliefs(problem)]

    def _node(self, belief: np.ndarray) -> int:
        self._make_room()
        states = np.flatnonzero(belief).astype(np.int32)
        return graph.find_node(self.model, self.nodes, states, belief[states])

    @property
    def beliefs(self) -> int:
        """Nodes so far."""
        return int(self.nodes.count[graph.NODES])

    def bounds(self) -> tuple[float, float]:
        """(lower, upper) of the optimal value at the start."""
        found = []
        for p, root in self.roots:
            graph.look_below(self.nodes, self.alphas, self.work, root)
            graph.look_above(self.nodes, self.points, self.work, root)
            found.append((p * self.nodes.lower[root], p * self.nodes.upper[root]))
        lower, upper = (float(x) for x in np.sum(found, 0))
        crossed = 0 < lower - upper <= CROSSED * max(1.0, abs(upper))
        return (upper if crossed else lower), upper

    def trial(self, precision: float) -> None:
        """One walk from the root whose gap weighs most, with backups on the way back."""
        n = self.nodes
        _, root = max(self.roots, key=lambda r: r[0] * (n.upper[r[1]] - n.lower[r[1]] - KAPPA * precision))
        args = (self.model, n, self.alphas, self.points, self.work, root, precision, KAPPA)
        if kernels.trial(*args) == kernels.FULL:
            self._make_room()
        p = self.points.count
        if 2 * p[graph.DEAD] > p[graph.USED] + 100:
            graph.tidy_points(self.nodes, self.points)

    def follow(self, node: int, q: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """(R(b,a), probabilities, children) of the action that is best at a node by `q` [A, S]."""
        self._make_room()
        n, k = self.nodes, self.nodes.begin[node]
        here = slice(k, k + n.size[node])
        a = int((q[:, n.pool_idx[here]] @ n.pool_val[here]).argmax())
        r = graph.visit(self.model, n, node)
        if n.kids[r, a] < 0:
            graph.expand(self.model, n, self.work, node, a)
        kids = slice(n.kids[r, a], n.kids[r, a] + n.n_kids[r, a])
        return float(n.now[r, a]), n.kid_p[kids].copy(), n.kid_node[kids].copy()

    def policy(self) -> AlphaPolicy:
        """The best plan of each root and all that they go on with.

        A plan that another one beats in every state gives way to it, wherever it is gone on with: values can
        only rise. Not at discount 1, where putting off for ever what is free looks as good as doing it; there
        every plan goes on with older ones only, down to plans that are sure to end.
        """
        g = self.alphas
        used = int(g.count[graph.USED])
        by = kernels.beaten(g.rows[:used]) if self.model.discount < 1 else np.arange(used)
        waiting = [int(by[self.nodes.vector[root]]) for _, root in self.roots]
        keep = dict.fromkeys(waiting)
        while waiting:
            for j in np.unique(by[g.follow[waiting.pop()]]).tolist():
                if j not in keep:
                    keep[j] = None
                    waiting.append(j)
        kept = np.array(list(keep))
        rank = np.zeros(len(g.serial), np.int32)
        rank[kept] = np.arange(len(kept))
        return AlphaPolicy(g.rows[kept].copy(), g.action[kept].copy(), rank[by[g.follow[kept]]])

    def _make_room(self) -> None:
        """Room for one more expansion and one more vector and point; what is full doubles."""
        n, O = self.nodes, self.model.n_obs
        S = self.model.reward.shape[1]
        used = n.count
        wants = [
            (_PER_NODE, used[graph.NODES] + O + 1),
            (_PER_STATE, used[graph.POOL] + (O + 1) * S),
            (_PER_VISIT, used[graph.RECORDS] + 2),
            (_PER_KID, used[graph.KIDS] + O),
        ]
        grown = {}
        for fields, want in wants:
            for f in fields:
                grown[f] = _grown(getattr(n, f), want)
        table = 2 * (used[graph.NODES] + O + 1)
        if len(n.table) <= table:
            grown["table"] = np.full(1 << int(table).bit_length() + 1, -1, _INT)
        self.nodes = n._replace(**grown)
        if "table" in grown:
            graph.rehash(self.nodes)
        g = self.alphas
        if g.count[graph.USED] + 2 >= len(g.serial):
            new = {f: _grown(getattr(g, f), len(g.serial) + 1) for f in _PER_VECTOR}
            columns = np.zeros((S, len(new["serial"])))
            columns[:, : len(g.serial)] = g.columns
            self.alphas = g._replace(columns=columns, **new)
            self.work = self.work._replace(scores=np.zeros(len(new["serial"])))
        p = self.points
        want = p.count[graph.USED] + 2
        self.points = p._replace(**{f: _grown(getattr(p, f), want) for f in _PER_POINT})


@functools.cache
def compile_kernels() -> None:
    """Compile (once on a machine, some 15 seconds) or load the kernels, on a problem of two states."""
    see = np.array([[[0.8, 0.2], [0.2, 0.8]]] * 2)
    stay = np.array([np.eye(2), np.full((2, 2), 0.5)])
    reward = np.array([[-0.1, -0.1], [1.0, -1.0]])
    search = Search(pomdp_from_arrays(stay, see, reward, discount=0.9, start=np.full(2, 0.5)))
    for _ in range(3):
        search.trial(0.01)
    graph.tidy_points(search.nodes, search.points)
    search.policy()


def first_beliefs(problem: POMDP) -> list[tuple[float, np.ndarray]]:
    """(probability, belief [S]) before the first action: the start, or one for each first observation."""
    if problem.initial is None:
        return [(1.0, problem.start)]
    joint = problem.start[:, None] * problem.initial.dense()
    return [(float(column.sum()), column / column.sum()) for column in joint.T if column.sum() > 0]


def _grown(array: np.ndarray, want: int) -> np.ndarray:
    """The same array, at least doubled if it has no more than `want` places."""
    if len(array) > want:
        return array
    longer = np.zeros((max(2 * len(array), int(want) + 1), *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


def _first_vectors(problem: POMDP) -> graph.Alphas:
    """Plans that never look; each goes on with itself."""
    S, _, O = problem.shape
    values, actions = blind_plans(problem)
    k = len(values)
    n = max(64, 2 * k)
    rows, columns, serial = np.zeros((n, S)), np.zeros((S, n)), np.zeros(n, _INT)
    action, follow = np.zeros(n, _INT), np.zeros((n, O), np.int32)
    rows[:k], columns[:, :k], serial[:k], action[:k] = values, values.T, np.arange(k), actions
    follow[:k] = np.arange(k)[:, None]
    return graph.Alphas(np.array([k, k]), rows, columns, serial, action, follow)
