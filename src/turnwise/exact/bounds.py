"""Bounds of the optimal value that cost little: QMDP, the fast informed bound, blind policies.

    Q_MDP(s,a) = R(s,a) + g sum_s' T(s'|s,a) max_a' Q_MDP(s',a')                    as if the state were seen
    Q_FIB(s,a) = R(s,a) + g sum_o max_a' sum_s' T(s'|s,a) O(o|a,s') Q_FIB(s',a')    one step of not seeing it
    blind_a(s) = R(s,a) + g sum_s' T(s'|s,a) blind_a(s')                            the same action for ever
    uniform(s) = mean over a of R(s,a) + g sum_s' T(s'|s,a) uniform(s')             actions at random

For every belief b: max_a b.blind_a and b.uniform <= V*(b) <= max_a b.Q_FIB(.,a) <= max_a b.Q_MDP(.,a).
Sources: Littman, Cassandra & Kaelbling 1995 (QMDP); Hauskrecht 1997, 2000 (blind policies, FIB).

Why iterates are bounds. At a discount below 1, iteration begins above the fixed point, the operators are
monotone (`_lowered` says why larger steps hold too), and `np.minimum` with the iterate before keeps rounding
from raising it: every iterate is an upper bound, also the one where iteration stops early. At discount 1
there is no finite constant above the fixed point, so iteration begins with the exact MDP optimum; `Unbounded`
is raised if that is not finite.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import MatrixRankWarning, spsolve

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.run.errors import InputError

RESIDUAL = 1e-10
"""iteration ends if no value moved by more than this share of the largest"""
MOST_SOLVED = 3000
"""states up to which policy iteration solves systems; beyond, values are iterated alone"""
CERTAIN = 1e-9
"""share of the largest value by which all must have fallen, for the larger step: rounding is far below it"""
ROUNDS = 50
"""of policy iteration, at most"""
SWEEPS = 20_000
"""largest number of sweeps; what they reach is a bound in any case"""


class Unbounded(InputError):
    """No bound can be given: the discount is 1 and rewards may go on for ever."""


def matrix(rows: Rows) -> sparse.csr_matrix:
    """The same table as a matrix of SciPy."""
    return sparse.csr_matrix((rows.data, rows.indices, rows.indptr), shape=(len(rows), rows.width))


def mdp_q(problem: POMDP, until: float = math.inf) -> np.ndarray:
    """[A, S], Q_MDP, on which QMDP acts; its maximum over a is the value if the state were seen.

    An upper bound of it if `until` (of `time.perf_counter`) comes first.
    """
    S, A, _ = problem.shape
    t, r = matrix(problem.continuing()), problem.expected_rewards()
    g = problem.discount
    # The largest reward for ever; not below 0, since an episode that ends is paid 0 for ever.
    v = np.full(S, max(r.max(), 0.0) / (1 - g)) if g < 1 else _best_proper(problem)
    if g < 1 and S <= MOST_SOLVED:
        v = np.minimum(v, _by_policy_iteration(t, r, g, until))

    def better(v: np.ndarray) -> np.ndarray:
        return (r + g * (t @ v).reshape(A, S)).max(0)

    v = _lowered(better, v, g, _least_sum(t), until)
    return r + g * (t @ v).reshape(A, S)


def _by_policy_iteration(t: Any, r: np.ndarray, g: float, until: float) -> np.ndarray:
    """[S], an upper bound of the MDP's value that is it up to rounding, unless `until` comes first.

    The value v of the last policy is raised to v + max(T v - v, 0) / (1 - g), which T does not raise:
    rounding, or an action that still improves, leaves a bound.
    """
    A, S = r.shape
    v, chosen = np.zeros(S), np.full(S, -1)
    for _ in range(ROUNDS):
        q = r + g * (t @ v).reshape(A, S)
        best = q.argmax(0)
        if (chosen >= 0).all():
            better = q.max(0) > q[chosen, np.arange(S)] + RESIDUAL * (1 + np.abs(v))
            if not better.any() or time.perf_counter() > until:
                break
            best = np.where(better, best, chosen)
        chosen = best
        step = t[chosen * S + np.arange(S)]
        v = np.atleast_1d(np.asarray(spsolve(sparse.identity(S, format="csc") - g * step.tocsc(),
                                             r[chosen, np.arange(S)])))  # fmt: skip
    q = r + g * (t @ v).reshape(A, S)
    return v + np.maximum(q.max(0) - v, 0.0).max() / (1 - g)


def _least_sum(t: Any) -> float:
    """The least chance that an episode goes on."""
    return float(np.asarray(t.sum(1)).min())


def _lowered(
    better: Callable[[np.ndarray], np.ndarray], v: np.ndarray, g: float, p: float, until: float
) -> np.ndarray:
    """An upper bound v, moved down by the operator T = `better` until it stays or time is over.

    If T v is below v everywhere, by d or more, then T lowers what it gives by g p d or more again, and so on
    for ever: it all may fall by d g p / (1 - g p) at once (MacQueen 1966). p is the least chance that an
    episode goes on. Where nothing ends this takes out what discounts near 1 make slow.
    """
    for _ in range(SWEEPS):
        new = np.minimum(better(v), v)
        fell = float((v - new).min())
        if g < 1 and fell > CERTAIN * max(1.0, float(np.abs(v).max())):
            new = new - fell * g * p / (1 - g * p)
        moved, v = np.abs(v - new).max(), new
        if moved <= RESIDUAL * max(1.0, np.abs(v).max()) or time.perf_counter() > until:
            break
    return v


def fib_q(problem: POMDP, q: np.ndarray | None = None, until: float = math.inf) -> np.ndarray:
    """[A, S], Q_FIB, by iteration from `q` [A, S], an upper bound of Q (default: Q_MDP).

    An upper bound of it if `until` (of `time.perf_counter`) comes first.
    """
    S, A, _ = problem.shape
    q = mdp_q(problem, until) if q is None else q
    if time.perf_counter() > until:
        return q
    steps, first = _joint(problem)
    r, g = problem.expected_rewards(), problem.discount
    filled = np.flatnonzero(
        np.diff(first)
    )  # (a, s) after which something can follow: reduceat needs one entry

    def better(q: np.ndarray) -> np.ndarray:
        best = np.asarray(steps @ q.T).max(1)  # [rows of (a, s, o), A'] -> max over a'
        total = np.zeros(A * S)
        total[filled] = np.add.reduceat(best, first[filled]) if len(filled) else 0.0
        return r + g * total.reshape(A, S)

    return _lowered(better, q, g, _least_sum(matrix(problem.continuing())), until)


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


def blind_plans(problem: POMDP, until: float = math.inf) -> tuple[np.ndarray, np.ndarray]:
    """(alpha vectors [n, S], actions [n]) of plans that never look; action -1 stands for actions at random.

    At a discount below 1 those that are not valued at `until` (of `time.perf_counter`) are left out, all but
    one.

    At a discount below 1 there is one for each action. At discount 1 there are those of finite value, among
    them maybe actions at random, which end in problems where no single action does. Raises `Unbounded` if
    none is finite.
    """
    S, A, _ = problem.shape
    t, r = matrix(problem.continuing()), problem.expected_rewards()
    plans = [(t[a * S : (a + 1) * S], r[a]) for a in range(A)]
    if problem.discount == 1:
        plans.append((sparse.csr_matrix(sum(m for m, _ in plans) / A), r.mean(0)))
    found: list[np.ndarray | None] = []
    for m, x in plans:
        if problem.discount < 1 and found and time.perf_counter() > until:
            break
        found.append(_policy_value(m, x, problem.discount))
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
