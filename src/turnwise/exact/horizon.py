"""Finite horizons: the optimal value of a POMDP with h steps to go, as vectors whose maximum it is.

V_h(b) = max over alpha in Gamma_h of b . alpha, with Gamma_0 = {0} and

    Gamma_h = prune( union over a of  R(., a) + sum over o of  G(a, o) )
    G(a, o) = { gamma sum_{s'} T(s'|., a) O(o|a, s') alpha(s')  for alpha in Gamma_{h-1} }

where the sum over o is the cross-sum of sets, one vector from each. Pruning keeps those that are best
somewhere and is done after each o, which is incremental pruning. T leaves out what ends the episode.

Sources: Smallwood & Sondik 1973; Cassandra, Littman & Zhang 1997 ("Incremental pruning: a simple, fast, exact
method for POMDPs") with the filter of Lark (in White 1991). We differ in one thing: the linear programs of
many vectors are solved as one, since they share no variables and a call costs more than they do.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import block_diag, csr_matrix, eye_array, kron

from turnwise.envs.pomdp import POMDP
from turnwise.run.errors import InputError

MOST_VECTORS = 50_000
"""largest number of vectors in a set before it is pruned"""
SLACK = 1e-9
"""By how much a vector must be better somewhere to be kept, as a share of the largest value. Each pruning
loses at most that, so the vectors of h steps are below the exact value by at most some h (O + 1) times as
much."""


def finite_horizon(problem: POMDP, horizon: int, most: int = MOST_VECTORS) -> list[np.ndarray]:
    """[h] -> [n, S], the vectors of the optimal value with h steps to go, for h from 0 to `horizon`.

    Raises InputError if a set grows beyond `most` vectors: their number can grow doubly exponentially.
    """
    if horizon < 0:
        raise InputError(f"horizon is {horizon}; expected at least 0 steps")
    S, A, O = problem.shape
    t = problem.discount * problem.continuing().dense().reshape(A, S, S)
    o = problem.emissions.dense().reshape(A, S, O)
    rewards = problem.expected_rewards()
    found = [np.zeros((1, S))]
    for _ in range(horizon):
        of_actions = [rewards[a] + _after(t[a], o[a], found[-1], most) for a in range(A)]
        found.append(prune(np.concatenate(of_actions)))
    return found


def horizon_value(problem: POMDP, horizon: int, belief: np.ndarray | None = None) -> float:
    """The optimal expected return of `horizon` steps from a belief [S].

    The belief includes all that has been shown. Without one, it is the value at the start: if the problem
    shows a first observation, in expectation over it.
    """
    vectors = finite_horizon(problem, horizon)[-1]
    if belief is not None:
        return float((vectors @ belief).max())
    if problem.initial is None:
        return float((vectors @ problem.start).max())
    shown = problem.start[:, None] * problem.initial.dense()  # [S, O], P(s_0, o_0)
    return float((vectors @ shown).max(0).sum())


def _after(t: np.ndarray, o: np.ndarray, vectors: np.ndarray, most: int) -> np.ndarray:
    """[n, S], the vectors of what follows one action: the cross-sum over observations, pruned after each.

    `t` [S, S] is discounted, `o` [S, O] are the emissions of the action.
    """
    total = np.zeros((1, t.shape[0]))
    for seen in o.T:
        if not seen.any():
            continue
        of_one = prune(vectors @ (t * seen).T)  # G(a, o)
        if len(total) * len(of_one) > most:
            raise InputError(
                f"{len(total)} vectors times {len(of_one)} are more than {most:,}; expected a shorter "
                "horizon: so many steps cannot be valued exactly, but maybe bounded (`sarsop.solve`)"
            )
        total = prune((total[:, None] + of_one[None]).reshape(-1, t.shape[0]))
    return total


def prune(vectors: np.ndarray) -> np.ndarray:
    """[n, S], the vectors that are best at some belief; of equal vectors one stays.

    Lark's filter. `kept` are vectors known to be best somewhere. A vector that exceeds all of `kept` at some
    belief (its witness) proves that the best vector *at that belief* belongs to them; one without is dropped.
    """
    scale = max(float(np.abs(vectors).max()), 1e-300)
    left = _undominated(vectors[_first_of_equals(vectors, scale)], SLACK * scale)
    S = left.shape[1]
    inside = np.random.default_rng(0).dirichlet(
        np.ones(S), 16 * S
    )  # whatever wins at a sample needs no linear program; the seed changes no result
    winners = np.unique([*(_best(left, b) for b in np.eye(S)), *(left @ inside.T).argmax(0)])
    kept, left = left[winners], np.delete(left, winners, 0)
    while len(left):
        better, belief = _witnesses(left, kept, scale)
        left, belief = left[better], belief[better]
        winners = np.unique([_best(left, b) for b in belief]).astype(np.int64)
        kept, left = np.concatenate([kept, left[winners]]), np.delete(left, winners, 0)
    return kept


def _first_of_equals(vectors: np.ndarray, scale: float) -> np.ndarray:
    """Indices of vectors that differ by more than rounding, the first of each kind."""
    return np.sort(np.unique(np.round(vectors / scale, 12), axis=0, return_index=True)[1])


def _undominated(vectors: np.ndarray, slack: float) -> np.ndarray:
    """The vectors that no other one exceeds in all states: the cheap test before linear programs."""
    vectors = vectors[np.argsort(-vectors.sum(1), kind="stable")]  # what exceeds a vector has a larger sum
    kept = vectors[:1]
    for v in vectors[1:]:
        if not (kept >= v - slack).all(1).any():
            kept = np.concatenate([kept, v[None]])
    return kept


def _best(vectors: np.ndarray, belief: np.ndarray) -> int:
    """The index of the best vector at a belief.

    Of equals it is the lexicographically greatest: it is the best at some belief nearby, where others that
    tie here might be best nowhere.
    """
    values = vectors @ belief
    tied = np.flatnonzero(values >= values.max() - 1e-12 * np.abs(values).max())
    return int(tied[np.lexsort(vectors[tied].T[::-1])[-1]])


def _witnesses(left: np.ndarray, kept: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """(whether each of `left` exceeds all of `kept` at some belief [n] bool, the belief where it does most
    [n, S]).

    For each v of `left`: maximise d over beliefs b and d, so that b . (v - k) >= d for all k of `kept`.
    """
    size = max(1, 20_000 // len(kept))  # vectors per program, so that one has at most some 20,000 constraints
    parts = [_solve(left[i : i + size], kept, scale) for i in range(0, len(left), size)]
    return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])


def _solve(left: np.ndarray, kept: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """`_witnesses` for a few vectors in one linear program, their variables (b, d) side by side."""
    n, S = left.shape
    blocks = [
        csr_matrix(np.hstack([(kept - v) / scale, np.ones((len(kept), 1))])) for v in left
    ]  # b . (k - v) + d <= 0
    sums = kron(eye_array(n), np.append(np.ones(S), 0.0)[None])
    result = linprog(
        np.tile(np.append(np.zeros(S), -1.0), n),
        A_ub=block_diag(blocks, format="csr"),
        b_ub=np.zeros(n * len(kept)),
        A_eq=csr_matrix(sums),
        b_eq=np.ones(n),
        bounds=[*[(0.0, None)] * S, (None, None)] * n,
        method="highs",
        options={"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10},
    )
    if result.status != 0:
        raise ArithmeticError(f"a linear program of pruning failed: {result.message}")
    # The margin is computed anew from the belief: the program's own d is right to its tolerance only.
    belief = np.maximum(result.x.reshape(n, S + 1)[:, :S], 0.0)
    belief /= belief.sum(1, keepdims=True)
    margin = ((left * belief).sum(1)[:, None] - belief @ kept.T).min(1)
    return margin > SLACK * scale, belief
