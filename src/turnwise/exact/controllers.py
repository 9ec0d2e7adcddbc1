"""Policies of limited memory with their exact values and exact gradients.

A controller has K memories. In memory m, having read input i, it takes action a and moves to memory m' with
probability pi(a, m' | m, i). An input is what was seen last, or the symbol `null` where nothing has been seen
yet. One memory makes a memoryless policy. The future depends on what is remembered, on the state reached and
on how it will be seen, so with c(a) the class of actions that are seen alike (equal emissions O_c)

    W[m, c, s]  = sum_i O_c(i|s) sum_{a, m'} pi(a, m' | m, i) Q[m', a, s]
    Q[m', a, s] = R(s, a) + gamma sum_{s'} T(s'|s, a) W[m', c(a), s']
    J           = sum_{s, i} P(s_0 = s, i_0 = i) sum_{a, m'} pi(a, m' | 0, i) Q[m', a, s],

one linear system of K * C * S unknowns. T leaves out transitions that end the episode. With lambda[m, c, s]
the expected discounted number of visits (the adjoint system: lambda = first visits + P^T lambda),

    dJ / d pi(a, m' | m, i) = sum_{c, s} lambda[m, c, s] O_c(i|s) Q[m', a, s],

and as much again from the first step at m = 0.

Sources: Singh, Jaakkola & Jordan 1994 ("Learning without state-estimation") for memoryless policies; Meuleau,
Kim, Kaelbling & Cassandra 1999 ("Solving POMDPs by searching the space of finite policies") for values and
gradients of finite-state controllers. They write the system over (m, s); here what is seen comes between, so
that next memory and action are drawn together. `controller_search` looks for the best ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

from turnwise.envs.pomdp import POMDP
from turnwise.run.errors import InputError

MOST_UNKNOWNS = 4000
"""of the linear system, which is solved densely"""
MOST_VISITS = 1e12
"""of one place before the end: beyond them less than four digits are right"""


@dataclass(frozen=True)
class Controller:
    """A policy of K memories: probabilities of what it does and remembers next. It starts in memory 0."""

    probabilities: np.ndarray
    """[K, I, A, K], P(action, next memory | memory, input); I = O, and one more (the last, `null`) where
    nothing is seen before the first action"""

    def __post_init__(self) -> None:
        p = np.ascontiguousarray(self.probabilities, np.float64)
        p.setflags(write=False)
        object.__setattr__(self, "probabilities", p)
        if p.ndim != 4 or p.shape[0] != p.shape[3]:
            raise ValueError(
                f"probabilities have shape {p.shape}; expected (memories, inputs, actions, memories)"
            )
        if not (p >= 0).all() or np.abs(p.sum((2, 3)) - 1).max() > 1e-9:
            raise ValueError("probabilities of (action, next memory) must sum to 1 for each memory and input")

    @property
    def memories(self) -> int:
        """K"""
        return len(self.probabilities)

    @staticmethod
    def memoryless(policy: np.ndarray) -> Controller:
        """P(action | input) as a controller of one memory, from [I, A]."""
        return Controller(np.asarray(policy, np.float64)[None, :, :, None])

    @staticmethod
    def from_logits(logits: np.ndarray) -> Controller:
        """Softmax over (action, next memory) of logits [K, I, A, K]."""
        exp = np.exp(logits - logits.max((2, 3), keepdims=True))
        return Controller(exp / exp.sum((2, 3), keepdims=True))


def controller_value(problem: POMDP, controller: Controller) -> float:
    """Expected return J of a controller from the start, exactly.

    At discount 1 it is -inf (or inf) where the controller may go on collecting rewards for ever.
    """
    chain = Chain(problem)
    return chain.value(chain.checked(controller))


def controller_gradient(problem: POMDP, controller: Controller) -> np.ndarray:
    """[K, I, A, K], partial derivatives of J by each probability, as if rows need not sum to one."""
    chain = Chain(problem)
    return chain.value_and_gradient(chain.checked(controller))[1]


def logit_gradient(problem: POMDP, controller: Controller) -> np.ndarray:
    """[K, I, A, K], gradient of J by logits whose softmax over (action, next memory) is the controller.

    dJ/dlogit = pi (g - sum pi g), with g the gradient by probabilities.
    """
    return through_softmax(controller.probabilities, controller_gradient(problem, controller))


def through_softmax(p: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """The gradient by logits from the gradient by probabilities [K, I, A, K]."""
    return p * (gradient - (p * gradient).sum((2, 3), keepdims=True))


@dataclass(frozen=True)
class Chain:
    """The Markov chain over (memory, class, state reached) that a controller makes of a problem.

    Policies are arrays [K, I, A, K], or a batch of them [B, K, I, A, K] for `systems` and `q`.
    """

    problem: POMDP

    @property
    def discount(self) -> float:
        """Of the problem."""
        return self.problem.discount

    @cached_property
    def inputs(self) -> int:
        """I: the observations, and `null` where nothing is shown first."""
        return self.problem.shape[2] + (self.problem.initial is None)

    @cached_property
    def transitions(self) -> np.ndarray:
        """[A, S, S], discount times P(s' and the episode goes on | s, a)"""
        S, A, _ = self.problem.shape
        return self.discount * self.problem.continuing().dense().reshape(A, S, S)

    @cached_property
    def rewards(self) -> np.ndarray:
        """[A, S]"""
        return self.problem.expected_rewards()

    @cached_property
    def _seen(self) -> tuple[np.ndarray, np.ndarray]:
        S, A, O = self.problem.shape
        emissions = self.problem.emissions.dense().reshape(A, S, O)
        kinds: list[np.ndarray] = []
        of = np.zeros(A, np.int64)
        for a in range(A):
            same = [c for c, kind in enumerate(kinds) if np.allclose(kind, emissions[a], rtol=0, atol=1e-12)]
            of[a] = same[0] if same else len(kinds)
            if not same:
                kinds.append(emissions[a])
        return of, np.pad(np.array(kinds), ((0, 0), (0, 0), (0, self.inputs - O)))

    @property
    def classes(self) -> np.ndarray:
        """[A], c(a): which actions are seen alike"""
        return self._seen[0]

    @property
    def emissions(self) -> np.ndarray:
        """[C, S, I], O_c(i|s); `null` has probability 0"""
        return self._seen[1]

    @cached_property
    def first(self) -> np.ndarray:
        """[S, I], P(s_0, i_0)"""
        start, initial = self.problem.start, self.problem.initial
        if initial is not None:
            return start[:, None] * initial.dense()
        return np.pad(start[:, None], ((0, 0), (self.inputs - 1, 0)))

    def checked(self, controller: Controller) -> np.ndarray:
        """Its probabilities, if it fits the problem."""
        S, A, _ = self.problem.shape
        K, I, actions, _ = controller.probabilities.shape
        if (I, actions) != (self.inputs, A):
            raise InputError(
                f"the controller has {I} inputs and {actions} actions; "
                f"{self.problem.name or 'the problem'} has {self.inputs} and {A}"
            )
        unknowns = K * len(self.emissions) * S
        if unknowns > MOST_UNKNOWNS:
            raise InputError(
                f"a controller of {K} memories makes a linear system of {unknowns} unknowns here; at most "
                f"{MOST_UNKNOWNS} are solved exactly"
            )
        return controller.probabilities

    def systems(self, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(P [B, n, n], r [B, n]) with W = r + P W, n = K * C * S in the order (m, c, s). P is discounted."""
        B, K = p.shape[:2]
        C, S, _ = self.emissions.shape
        x = np.einsum("csi,bmiak->sbmcka", self.emissions, p, optimize=True)  # does (a, k) from (m, c, s)
        P = np.empty((S, B * K * C * K, C, S))
        for d in range(C):
            here = self.classes == d
            P[:, :, d] = x.reshape(S, -1, x.shape[-1])[:, :, here] @ self.transitions[here].swapaxes(0, 1)
        P = P.reshape(S, B, K, C, K, C, S).transpose(1, 2, 3, 0, 4, 5, 6).reshape(B, K * C * S, K * C * S)
        r = np.einsum("sbmcka,as->bmcs", x, self.rewards).reshape(B, -1)
        return P, r

    def q(self, W: np.ndarray) -> np.ndarray:
        """Q [B, K, A, S] of W [B, n]."""
        C, S, _ = self.emissions.shape
        after = W.reshape(len(W), -1, C, S)[:, :, self.classes]  # [B, K, A, S']
        return self.rewards + np.einsum("ast,bkat->bkas", self.transitions, after, optimize=True)

    def visits_after_first(self, p: np.ndarray) -> np.ndarray:
        """[n], discounted P(memory, class, state) once the first step is made; p is [K, I, A, K]."""
        acts = np.einsum("si,iak->kas", self.first, p[0])
        arrive = np.einsum("kas,ast->kat", acts, self.transitions)
        found = np.zeros((len(p), *self.emissions.shape[:2]))
        for a, c in enumerate(self.classes):
            found[:, c] += arrive[:, a]
        return found.reshape(-1)

    def value(self, p: np.ndarray) -> float:
        """J of one policy [K, I, A, K]."""
        P, r = (x[0] for x in self.systems(p[None]))
        solved = np.ones(len(r), bool)
        if self.discount == 1:
            solved, endless = settle(P, r, self.visits_after_first(p) > 0)
            if endless:
                return endless
        visits = solve_chain(P, r, self.visits_after_first(p), solved)[1]
        return float(np.einsum("si,iak,as->", self.first, p[0], self.rewards, optimize=True) + visits @ r)

    def value_and_gradient(self, p: np.ndarray, solved: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """J and dJ/dp [K, I, A, K] of one policy; `solved` is from `solvable` for its support."""
        P, r = (x[0] for x in self.systems(p[None]))
        if solved is None:
            solved = self.solvable(p)
        W, visits = solve_chain(P, r, self.visits_after_first(p), solved)
        Q = self.q(W[None])[0]
        seen = np.einsum("mcs,csi->msi", visits.reshape(len(p), *self.emissions.shape[:2]), self.emissions)
        seen[0] += self.first
        gradient = np.einsum("msi,kas->miak", seen, Q, optimize=True)
        return float(np.einsum("si,iak,kas->", self.first, p[0], Q, optimize=True)), gradient

    def solvable(self, p: np.ndarray) -> np.ndarray:
        """[n] bool, where W is an unknown; elsewhere nothing is ever paid, whatever is done, and W = 0.

        Raises InputError at discount 1 where a policy of this support may go on for ever from a place that
        pays, since a derivative by an action that leads there does not exist.
        """
        P = self.systems(p[None])[0][0]
        if self.discount < 1:
            return np.ones(len(P), bool)
        anything = np.full_like(p, 1 / (p.shape[2] * p.shape[3]))
        wide = self.systems(anything[None])[0][0]
        pays = np.broadcast_to(np.abs(self.rewards).sum(0), (len(p), *self.emissions.shape[:2])).reshape(-1)
        solved, endless = settle(wide, pays, self.visits_after_first(anything) > 0)
        if endless or settle(P, solved.astype(float), solved)[1]:
            raise InputError(
                "at discount 1 a gradient exists only where the episode ends however it is played; "
                "give every action a chance, or take a discount below 1"
            )
        return solved


def solve_chain(
    P: np.ndarray, r: np.ndarray, first: np.ndarray, solved: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(W [n], visits [n]): W = r + P W and visits = first + P^T visits where `solved`, 0 elsewhere."""
    W, visits = np.zeros((2, len(r)))
    matrix = np.eye(solved.sum()) - P[np.ix_(solved, solved)]
    try:
        W[solved] = np.linalg.solve(matrix, r[solved])
        visits[solved] = np.linalg.solve(matrix.T, first[solved])
        lost = not np.abs(visits).max(initial=0.0) < MOST_VISITS
    except np.linalg.LinAlgError:
        lost = True
    if lost:
        raise InputError("the controller ends so rarely that its value at discount 1 is lost in rounding")
    return W, visits


def settle(P: np.ndarray, r: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, float]:
    """Which nodes of an undiscounted chain to solve for, and inf or -inf where its value is that (else 0).

    Nodes are left out if they are not reached from `start` [n] bool, or lie where the chain stays for ever
    (a closed class) and is paid nothing. Staying for ever with rewards has their mean's sign times infinity.
    An end whose probability is below 1e-12 counts as none.
    """
    reached = _reachable(P, start)
    count, label = connected_components(csr_matrix(P > 0), connection="strong")
    leaves = (P > 0) & (label[:, None] != label[None, :])
    ends = leaves.any(1) | (P.sum(1) < 1 - 1e-12)
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
    """[n] bool, nodes that are reached from those of `start`."""
    n = len(P)
    graph = np.zeros((n + 1, n + 1), bool)
    graph[:n, :n] = P > 0
    graph[n, :n] = start
    found = np.zeros(n + 1, bool)
    found[breadth_first_order(csr_matrix(graph), n, return_predecessors=False)] = True
    return found[:n]


def _stationary(P: np.ndarray) -> np.ndarray:
    """The stationary distribution of an irreducible stochastic matrix."""
    n = len(P)
    matrix = np.vstack([(P.T - np.eye(n)), np.ones(n)])
    return np.linalg.lstsq(matrix, np.append(np.zeros(n), 1.0))[0]
