"""Bounds of the optimal value that cost little: QMDP, the fast informed bound, blind policies.

    Q_MDP(s,a) = R(s,a) + g sum_s' T(s'|s,a) max_a' Q_MDP(s',a')                    as if the state were seen
    Q_FIB(s,a) = R(s,a) + g sum_o max_a' sum_s' T(s'|s,a) O(o|a,s') Q_FIB(s',a')    one step of not seeing it
    blind_a(s) = R(s,a) + g sum_s' T(s'|s,a) blind_a(s')                            the same action for ever
    uniform(s) = mean over a of R(s,a) + g sum_s' T(s'|s,a) uniform(s')             actions at random

For every belief b: max_a b.blind_a and b.uniform <= V*(b) <= max_a b.Q_FIB(.,a) <= max_a b.Q_MDP(.,a).
Sources: Littman, Cassandra & Kaelbling 1995 (QMDP); Hauskrecht 1997, 2000 (blind policies, FIB).

Why iterates are bounds. At a discount below 1, iteration begins above the fixed point, the operators are
monotone, and `np.minimum` with the iterate before keeps rounding from raising it: every iterate is an upper
bound, also the one where iteration stops early. At discount 1 there is no finite constant above the fixed
point, so iteration begins with the exact MDP optimum; `Unbounded` is raised if that is not finite.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import MatrixRankWarning, spsolve

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.run.errors import InputError

RESIDUAL = 1e-10
"""iteration ends if no value moved by more than this share of the largest"""
SWEEPS = 20_000
"""largest number of sweeps; what they reach is a bound in any case"""


class Unbounded(InputError):
    """No bound can be given: the discount is 1 and rewards may go on for ever."""


def matrix(rows: Rows) -> sparse.csr_matrix:
    """The same table as a matrix of SciPy."""
    return sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=(len(rows), rows.width))


def mdp_q(problem: POMDP) -> np.ndarray:
    """[A, S], Q_MDP, on which QMDP acts; its maximum over a is the value if the state were seen."""
    S, A, _ = problem.shape
    t, r = matrix(problem.continuing()), problem.expected_rewards()
    g = problem.discount
    # The largest reward for ever; not below 0, since an episode that ends is paid 0 for ever.
    v = np.full(S, max(r.max(), 0.0) / (1 - g)) if g < 1 else _best_proper(problem)
    for _ in range(SWEEPS):
        q = r + g * (t @ v).reshape(A, S)
        new = np.minimum(q.max(0), v)
        moved, v = np.abs(v - new).max(), new
        if moved <= RESIDUAL * max(1.0, np.abs(v).max()):
            break
    return r + g * (t @ v).reshape(A, S)


def fib_q(problem: POMDP, q: np.ndarray | None = None) -> np.ndarray:
    """[A, S], Q_FIB, by iteration from `q` [A, S], an upper bound of Q (default: Q_MDP)."""
    S, A, _ = problem.shape
    steps, first = _joint(problem)
    r, g = problem.expected_rewards(), problem.discount
    q = mdp_q(problem) if q is None else q
    filled = np.flatnonzero(
        np.diff(first)
    )  # (a, s) after which something can follow: reduceat needs one entry
    for _ in range(SWEEPS):
        best = np.asarray(steps @ q.T).max(1)  # [rows of (a, s, o), A'] -> max over a'
        total = np.zeros(A * S)
        total[filled] = np.add.reduceat(best, first[filled]) if len(filled) else 0.0
        new = np.minimum(r + g * total.reshape(A, S), q)
        moved, q = np.abs(q - new).max(), new
        if moved <= RESIDUAL * max(1.0, np.abs(q).max()):
            break
    return q


def _joint(problem: POMDP) -> tuple[sparse.csr_matrix, np.ndarray]:
    """(P(s', o, goes on | s, a) as rows (a, s, o), only those that can occur [n, S]; first row of each (a,
    s)).

    The second has A*S + 1 entries, the last one n. Rows are in the order of a*S + s, then o.
    """
    S, A, O = problem.shape
    t, e = problem.continuing(), problem.emissions
    action = t.of_entries() // S
    seen = action * S + t.indices  # row of emissions of each transition
    entry, at = e.entries_of(seen)  # each transition once for each observation that can follow it
    key = t.of_entries()[entry].astype(np.int64) * O + e.indices[at]
    keys, row = np.unique(key, return_inverse=True)
    data = t.data[entry] * e.data[at]
    steps = sparse.csr_matrix((data, (row, t.indices[entry])), shape=(len(keys), S))
    first = np.zeros(A * S + 1, np.int64)
    np.cumsum(np.bincount(keys // O, minlength=A * S), out=first[1:])
    return steps, first


def blind_plans(problem: POMDP) -> tuple[np.ndarray, np.ndarray]:
    """(alpha vectors [n, S], actions [n]) of plans that never look; action -1 stands for actions at random.

    At a discount below 1 there is one for each action. At discount 1 there are those of finite value, among
    them maybe actions at random, which end in problems where no single action does. Raises `Unbounded` if
    none is finite.
    """
    S, A, _ = problem.shape
    t, r = matrix(problem.continuing()), problem.expected_rewards()
    plans = [(t[a * S : (a + 1) * S], r[a]) for a in range(A)]
    if problem.discount == 1:
        plans.append((sparse.csr_matrix(sum(m for m, _ in plans) / A), r.mean(0)))
    found = [_policy_value(m, x, problem.discount) for m, x in plans]
    finite = [(v, a if a < A else -1) for a, v in enumerate(found) if v is not None]
    if not finite:
        raise Unbounded(
            f"{problem.name or 'problem'}: at discount 1 no plan that never looks is sure to end; expected a "
            "problem that ends, or a discount below 1"
        )
    return np.array([v for v, _ in finite]), np.array([a for _, a in finite])


def _policy_value(t: sparse.csr_matrix, r: np.ndarray, discount: float) -> np.ndarray | None:
    """[S], the v with v = r + discount t v; None if there is no finite one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MatrixRankWarning)
        system = sparse.identity(len(r), format="csc") - discount * t.tocsc()
        try:
            v: Any = spsolve(system, r)
            time: Any = spsolve(system, np.ones(len(r))) if discount == 1 else np.ones(len(r))
        except RuntimeError:  # the system is singular: some states are never left
            return None
        v, time = np.atleast_1d(v), np.atleast_1d(time)
    # At discount 1 a nearly singular system gives numbers too. They are a value only if the expected time to
    # the end, from the same system, is finite and positive everywhere.
    fine = np.isfinite(v).all() and np.isfinite(time).all() and (time > 0).all() and (time < 1e12).all()
    return v if fine else None


def _best_proper(problem: POMDP) -> np.ndarray:
    """[S], the MDP's optimal value at discount 1, by policy iteration from the uniform policy.

    This is the stochastic shortest path problem: right if every policy that never ends loses without limit,
    and policy iteration then stays among policies that end (Bertsekas & Tsitsiklis 1991). `Unbounded`
    otherwise.
    """
    S, A, _ = problem.shape
    t, r = matrix(problem.continuing()), problem.expected_rewards()
    weights = np.full((A, S), 1.0 / A)
    for _ in range(1000):
        mixed = sum(sparse.diags_array(weights[a]) @ t[a * S : (a + 1) * S] for a in range(A))
        v = _policy_value(sparse.csr_matrix(mixed), (weights * r).sum(0), 1.0)
        if v is None:
            raise Unbounded(
                f"{problem.name or 'problem'}: at discount 1 a policy that never ends is as good as any; "
                "expected a problem that ends, or a discount below 1"
            )
        q = r + (t @ v).reshape(A, S)
        if (q.max(0) <= v + RESIDUAL * max(1.0, np.abs(v).max())).all():
            return v
        weights = np.zeros((A, S))
        weights[q.argmax(0), np.arange(S)] = 1.0
    return v
