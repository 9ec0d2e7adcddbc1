"""One search under way: the graph of beliefs, its trials, its bounds, and the policy that it has found."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.exact.alpha_policy import AlphaPolicy
from turnwise.exact.bounds import fib_q
from turnwise.exact.sarsop import arrays, graph, node_bounds, trials

KAPPA = 0.5
"""A belief is deep enough when its gap is below this share of what the root's gap asks of it. Below 1, walks
go a little deeper than they must, and the root improves by more at each."""
SHALLOW = 40
"""steps of the first walks, if there is a deadline"""
LONGEST = 0.25
"""seconds that a walk should take at most, if there is a deadline"""
CROSSED = 1e-9
"""share of the value by which rounding may put the lower bound above the upper"""


class Search:
    """A belief graph with bounds, rooted at the start (or at the beliefs after each first observation)."""

    def __init__(self, problem: POMDP, until: float = math.inf):
        """`until` (of `time.perf_counter`): first bounds stay as they are by then."""
        S, A, O = problem.shape
        fib = fib_q(problem, until=until)  # [A, S]
        self.model = arrays.model_of(problem, fib)
        self.nodes = arrays.no_nodes(A)
        self.alphas = arrays.blind_alphas(problem, until)
        self.points = arrays.no_points(fib.max(0))
        self.work = arrays.scratch(S, O, len(self.alphas.serial))
        self.roots = [(p, self._node(b)) for p, b in first_beliefs(problem)]
        self._depth = SHALLOW

    def _node(self, belief: np.ndarray) -> int:
        self._make_room()
        states = np.flatnonzero(belief).astype(np.int32)
        return graph.find_node(self.model, self.nodes, states, belief[states])

    @property
    def beliefs(self) -> int:
        """Number of nodes so far."""
        return int(self.nodes.count[arrays.NODES])

    def bounds(self) -> tuple[float, float]:
        """(lower, upper) bound of the optimal value at the start."""
        found = []
        for p, root in self.roots:
            node_bounds.refresh_lower(self.nodes, self.alphas, self.work, root)
            node_bounds.refresh_upper(self.nodes, self.points, self.work, root)
            found.append((p * self.nodes.lower[root], p * self.nodes.upper[root]))
        lower, upper = (float(x) for x in np.sum(found, 0))
        # Both are sums of thousands of rounded products. Once they meet, the lower one may come out above by
        # a rounding error; a larger crossing is a fault, and `solve` raises.
        crossed = 0 < lower - upper <= CROSSED * max(1.0, abs(upper))
        return (upper if crossed else lower), upper

    def trial(self, precision: float, seconds: float | None = None) -> None:
        """One walk from the root whose gap weighs most, with backups on the way back.

        The gap of the start should come to `precision`, in units of the return. `seconds` are left: a loop
        that is compiled cannot look at the clock, so walks are as deep as the last ones had time for.
        """
        began = time.perf_counter()
        deep = arrays.DEPTH if seconds is None else self._depth
        self._walk(precision, deep)
        if seconds is not None:
            took = time.perf_counter() - began
            wanted = min(LONGEST, 0.1 * seconds)
            self._depth = int(min(max(2, deep * min(2.0, wanted / max(took, 1e-6))), arrays.DEPTH))

    def _walk(self, precision: float, deep: int) -> None:
        n = self.nodes
        _, root = max(self.roots, key=lambda r: r[0] * (n.upper[r[1]] - n.lower[r[1]] - KAPPA * precision))
        work = self.work._replace(path=self.work.path[:deep])
        args = (self.model, n, self.alphas, self.points, work, root, precision, KAPPA)
        if trials.trial(*args) == trials.FULL:
            self._make_room()
        p = self.points.count
        if 2 * p[arrays.DEAD] > p[arrays.USED] + 100:  # more than half are dead: walking past them costs more
            node_bounds.compact_points(self.nodes, self.points)

    def add_plans(self, policy: AlphaPolicy) -> None:
        """Take in the plans of another policy of the same problem: their values must hold."""
        self.alphas = arrays.with_room_for_alpha(self.alphas, len(policy) + 1)
        self._make_room()
        g, first, n = self.alphas, int(self.alphas.count[arrays.USED]), len(policy)
        here = slice(first, first + n)
        g.rows[here], g.columns[:, here] = policy.alphas, policy.alphas.T
        g.serial[here] = g.count[arrays.SERIAL] + np.arange(n)
        assert policy.successors is not None
        g.action[here], g.successor[here] = policy.actions, first + policy.successors
        g.count[arrays.USED] += n
        g.count[arrays.SERIAL] += n

    def lower_roots(self, uppers: Sequence[float]) -> None:
        """Take in upper bounds that were proved elsewhere, one of each root."""
        for (_, root), value in zip(self.roots, uppers, strict=True):
            self.nodes.upper[root] = min(self.nodes.upper[root], value)

    def greedy_step(
        self, node: int, vectors: np.ndarray, actions: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """(R(b,a), probabilities [k], child nodes [k]) of the action of the largest b . vector.

        `vectors` [n, S], `actions` [n].
        """
        self._make_room()
        n, k = self.nodes, self.nodes.begin[node]
        here = slice(k, k + n.size[node])
        a = int(actions[(vectors[:, n.pool_idx[here]] @ n.pool_val[here]).argmax()])
        r = graph.open_record(self.model, n, node)
        if n.first_child[r, a] < 0:
            graph.expand(self.model, n, self.work, node, a)
        children = slice(n.first_child[r, a], n.first_child[r, a] + n.n_children[r, a])
        return float(n.reward[r, a]), n.child_p[children].copy(), n.child[children].copy()

    def policy(self) -> AlphaPolicy:
        """The best plan of each root and all plans that they go on with.

        A plan that another one beats in every state is replaced by it, also as a successor: values can only
        rise. Not at discount 1, where putting off for ever what is free looks as good as doing it; there
        every plan goes on with older ones only, down to plans that are sure to end.
        """
        g = self.alphas
        used = int(g.count[arrays.USED])
        # by[j]: the plan that stands for plan j
        by = trials.dominating(g.rows[:used]) if self.model.discount < 1 else np.arange(used)
        waiting = [int(by[self.nodes.vector[root]]) for _, root in self.roots]
        keep = dict.fromkeys(waiting)  # a set in the order of discovery, so that plan 0 is a root's
        while waiting:
            for j in np.unique(by[g.successor[waiting.pop()]]).tolist():
                if j not in keep:
                    keep[j] = None
                    waiting.append(j)
        kept = np.array(list(keep))
        rank = np.zeros(len(g.serial), np.int32)  # index among all vectors -> index among the kept ones
        rank[kept] = np.arange(len(kept))
        return AlphaPolicy(g.rows[kept].copy(), g.action[kept].copy(), rank[by[g.successor[kept]]])

    def _make_room(self) -> None:
        """Room for one more expansion and one more vector and point; what is full doubles."""
        S = self.model.reward.shape[1]
        self.nodes, table_is_new = arrays.with_room_for_children(self.nodes, S, self.model.n_obs)
        if table_is_new:
            graph.rehash(self.nodes)
        self.alphas = arrays.with_room_for_alpha(self.alphas)
        if len(self.work.scores) < len(self.alphas.serial):
            self.work = self.work._replace(scores=np.zeros(len(self.alphas.serial)))
        self.points = arrays.with_room_for_point(self.points)


@functools.cache
def compile_kernels() -> None:
    """Compile (once on a machine, some 15 seconds) or load the kernels, on a problem of two states."""
    see = np.array([[[0.8, 0.2], [0.2, 0.8]]] * 2)
    stay = np.array([np.eye(2), np.full((2, 2), 0.5)])
    reward = np.array([[-0.1, -0.1], [1.0, -1.0]])
    search = Search(POMDP.from_arrays(stay, see, reward, discount=0.9, start=np.full(2, 0.5)))
    for _ in range(3):
        search.trial(0.01)
    node_bounds.compact_points(search.nodes, search.points)
    search.policy()


def first_beliefs(problem: POMDP) -> list[tuple[float, np.ndarray]]:
    """(probability, belief [S]) before the first action: the start, or one for each first observation."""
    if problem.initial is None:
        return [(1.0, problem.start)]
    joint = problem.start[:, None] * problem.initial.dense()  # [S, O]
    return [(float(column.sum()), column / column.sum()) for column in joint.T if column.sum() > 0]
