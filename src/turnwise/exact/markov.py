"""Markov chains with rewards: values, expected visits, and what is infinite without a discount.

A chain of n nodes is a matrix P [n, n] whose rows sum to 1 or less (what is missing is the chance to end; a
discount is part of P) and rewards r [n], paid on being in a node. Matrices are dense: n is at most some
thousands.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

from turnwise.run.errors import InputError

MOST_VISITS = 1e12
"""Largest expected number of visits to one node before the end. Beyond it less than four digits are right."""


def solve_chain(
    P: np.ndarray, r: np.ndarray, first: np.ndarray, solved: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(W [n], visits [n]): W = r + P W and visits = first + P^T visits in the nodes `solved` [n] bool, else
    0.

    W is the value of each node, visits the expected discounted number of times that the chain is there. The
    second system is the adjoint of the first, so that first . W = visits . r.
    """
    W, visits = np.zeros((2, len(r)))
    matrix = np.eye(solved.sum()) - P[np.ix_(solved, solved)]
    try:
        W[solved] = np.linalg.solve(matrix, r[solved])
        visits[solved] = np.linalg.solve(matrix.T, first[solved])
        lost = not np.abs(visits).max(initial=0.0) < MOST_VISITS  # written so that NaN counts as lost
    except np.linalg.LinAlgError:
        lost = True
    if lost:
        raise InputError("the controller ends so rarely that its value at discount 1 is lost in rounding")
    return W, visits


def finite_part(P: np.ndarray, r: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
    """(nodes [n] bool of an undiscounted chain to solve for, its value if that is inf or -inf, else 0).

    I - P is singular if the chain can stay somewhere for ever. So nodes are left out that are not reached
    from `start` [n] bool, and the closed classes (sets of nodes that the chain never leaves) if nothing is
    paid there: their value is 0. A closed class with rewards is worth infinity with the sign of their mean
    under its stationary distribution. An end whose probability is below 1e-12 counts as none.
    """
    reached = _reachable(P, start)
    count, label = connected_components(csr_matrix(P > 0), connection="strong")
    leaves = (P > 0) & (label[:, None] != label[None, :])
    ends = leaves.any(1) | (
        P.sum(1) < 1 - 1e-12
    )  # nodes from which the class can be left, or the episode ends
    closed = np.ones(count, bool)
    closed[label[ends]] = False
    solved, found = reached.copy(), 0.0
    for one in np.unique(label[reached & closed[label]]):
        here = np.flatnonzero(label == one)
        solved[here] = False
        if (r[here] == 0).all():
            continue
        mean = _stationary(P[np.ix_(here, here)]) @ r[here]
        if abs(mean) < 1e-12 * np.abs(r[here]).max() or mean * found < 0:
            raise InputError(
                "rewards go on for ever in both signs, so that their sum is undefined at discount 1"
            )
        found = float(np.copysign(np.inf, mean))
    return solved, found


def _reachable(P: np.ndarray, start: np.ndarray) -> np.ndarray:
    """[n] bool, the nodes that can be reached from those of `start`, these included."""
    n = len(P)
    graph = np.zeros((n + 1, n + 1), bool)  # one node more, which leads to all of `start`
    graph[:n, :n] = P > 0
    graph[n, :n] = start
    found = np.zeros(n + 1, bool)
    found[breadth_first_order(csr_matrix(graph), n, return_predecessors=False)] = True
    return found[:n]


def _stationary(P: np.ndarray) -> np.ndarray:
    """[n], the stationary distribution of an irreducible stochastic matrix: x P = x, sum of x = 1."""
    n = len(P)
    matrix = np.vstack([(P.T - np.eye(n)), np.ones(n)])
    return np.linalg.lstsq(matrix, np.append(np.zeros(n), 1.0))[0]
