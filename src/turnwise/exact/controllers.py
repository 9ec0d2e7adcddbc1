"""Policies of limited memory with their exact values and exact gradients.

A controller has K memories. In memory m, having read input i, it takes action a and moves to memory m' with
probability pi(a, m' | m, i). An input is the last observation, or the symbol `null` if nothing has been seen
yet. One memory makes a memoryless policy.

The future depends on the memory, on the state reached, and on how that will be seen. The last depends on the
action that led there, but only by its emissions: actions with equal emissions O_c form a class c(a). With C
classes the system is C / A times as large as one over (memory, action, state). So

    W[m, c, s]  = sum_i O_c(i|s) sum_{a, m'} pi(a, m' | m, i) Q[m', a, s]
    Q[m', a, s] = R(s, a) + gamma sum_{s'} T(s'|s, a) W[m', c(a), s']
    J           = sum_{s, i} P(s_0 = s, i_0 = i) sum_{a, m'} pi(a, m' | 0, i) Q[m', a, s],

one linear system of K * C * S unknowns W = r + P W (`Chain.systems`). T leaves out transitions that end the
episode. With lambda[m, c, s] the expected discounted number of visits (the adjoint system: lambda = first
visits + P^T lambda),

    dJ / d pi(a, m' | m, i) = sum_{c, s} lambda[m, c, s] O_c(i|s) Q[m', a, s],

and as much again from the first step at m = 0.

Sources: Singh, Jaakkola & Jordan 1994 ("Learning without state-estimation") for memoryless policies; Meuleau,
Kim, Kaelbling & Cassandra 1999 ("Solving POMDPs by searching the space of finite policies") for values and
gradients of finite-state controllers. They write the system over (m, s); here the observation comes between,
so that next memory and action are drawn together. `markov` solves the systems, `controller_search` looks for
the best controllers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from turnwise.envs.pomdp import POMDP
from turnwise.exact.markov import finite_part, solve_chain
from turnwise.run.errors import InputError

MOST_UNKNOWNS = 4000
"""largest number of unknowns of the linear system, which is solved densely"""


@dataclass(frozen=True)
class Controller:
    """A policy of K memories: probabilities of (action, next memory). It starts in memory 0."""

    probabilities: np.ndarray
    """[K, I, A, K], P(action, next memory | memory, input). I is O, plus one (the last, `null`) if nothing is
    seen before the first action"""

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
    """The expected return J of a controller from the start, exactly.

    At discount 1 it is -inf (or inf) if the controller may go on collecting rewards for ever. InputError if
    the controller does not fit the problem, or the system has more than MOST_UNKNOWNS unknowns.
    """
    chain = Chain(problem)
    return chain.value(chain.probabilities_of(controller))


def controller_gradient(problem: POMDP, controller: Controller) -> np.ndarray:
    """[K, I, A, K], partial derivatives of J by each probability, as if rows did not have to sum to one."""
    chain = Chain(problem)
    return chain.value_and_gradient(chain.probabilities_of(controller))[1]


def logit_gradient(problem: POMDP, controller: Controller) -> np.ndarray:
    """[K, I, A, K], the gradient of J by logits whose softmax over (action, next memory) is pi."""
    return through_softmax(controller.probabilities, controller_gradient(problem, controller))


def through_softmax(p: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """[K, I, A, K], the gradient by logits from the gradient g by probabilities: p (g - sum of p g)."""
    return p * (gradient - (p * gradient).sum((2, 3), keepdims=True))


@dataclass(frozen=True)
class Chain:
    """The Markov chain over (memory, class, state reached) that a controller makes of a problem.

    Policies are arrays [K, I, A, K], or a batch of them [B, K, I, A, K] for `systems` and `q`. Nodes of the
    chain are numbered (m, c, s), the last fastest: n = K * C * S.
    """

    problem: POMDP

    @property
    def discount(self) -> float:
        """The problem's discount."""
        return self.problem.discount

    @cached_property
    def inputs(self) -> int:
        """I: the number of observations, plus one for `null` if nothing is shown first."""
        return self.problem.shape[2] + (self.problem.initial is None)

    @cached_property
    def transitions(self) -> np.ndarray:
        """[A, S, S], discount times P(s', the episode goes on | s, a)."""
        S, A, _ = self.problem.shape
        return self.discount * self.problem.continuing().dense().reshape(A, S, S)

    @cached_property
    def rewards(self) -> np.ndarray:
        """[A, S], R(s,a)."""
        return self.problem.expected_rewards()

    @cached_property
    def _emission_classes(self) -> tuple[np.ndarray, np.ndarray]:
        """(class of each action [A], emissions of each class [C, S, I])."""
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
        """[A], c(a): actions of one class have equal emissions."""
        return self._emission_classes[0]

    @property
    def emissions(self) -> np.ndarray:
        """[C, S, I], O_c(i|s); the probability of `null` is 0."""
        return self._emission_classes[1]

    @cached_property
    def first(self) -> np.ndarray:
        """[S, I], P(s_0, i_0); without a first observation, i_0 is `null`."""
        start, initial = self.problem.start, self.problem.initial
        if initial is not None:
            return start[:, None] * initial.dense()
        return np.pad(start[:, None], ((0, 0), (self.inputs - 1, 0)))

    def probabilities_of(self, controller: Controller) -> np.ndarray:
        """[K, I, A, K], the controller's probabilities; an InputError if it does not fit or is too large."""
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
        """(P [B, n, n], r [B, n]) of the systems W = r + P W of a batch of policies. P is discounted.

        P[(m,c,s), (m',d,s')] = sum over i and over actions a of class d of O_c(i|s) pi(a,m'|m,i) T(s'|s,a)
        """
        B, K = p.shape[:2]
        C, S, _ = self.emissions.shape
        x = np.einsum("csi,bmiak->sbmcka", self.emissions, p, optimize=True)  # P(a, m' | m, c, s)
        # For each state s a matrix product over the actions of class d: [BKCK, A_d] @ [A_d, S'].
        # s stands first since NumPy's matmul batches over leading axes.
        P = np.empty((S, B * K * C * K, C, S))
        for d in range(C):
            here = self.classes == d
            P[:, :, d] = x.reshape(S, -1, x.shape[-1])[:, :, here] @ self.transitions[here].swapaxes(0, 1)
        # [S, B, K, C, K', C', S'] -> [B, (K, C, S), (K', C', S')]
        P = P.reshape(S, B, K, C, K, C, S).transpose(1, 2, 3, 0, 4, 5, 6).reshape(B, K * C * S, K * C * S)
        r = np.einsum("sbmcka,as->bmcs", x, self.rewards).reshape(B, -1)
        return P, r

    def q(self, W: np.ndarray) -> np.ndarray:
        """Q [B, K, A, S] from W [B, n]; its K is the memory *after* the action."""
        C, S, _ = self.emissions.shape
        after = W.reshape(len(W), -1, C, S)[:, :, self.classes]  # [B, K, A, S']
        return self.rewards + np.einsum("ast,bkat->bkas", self.transitions, after, optimize=True)

    def visits_after_first(self, p: np.ndarray) -> np.ndarray:
        """[n], discounted P(memory, class, state) after the first step; p is [K, I, A, K]."""
        acts = np.einsum("si,iak->kas", self.first, p[0])  # P(next memory, action, s_0)
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
            solved, endless = finite_part(P, r, self.visits_after_first(p) > 0)
            if endless:
                return endless
        visits = solve_chain(P, r, self.visits_after_first(p), solved)[1]
        return float(np.einsum("si,iak,as->", self.first, p[0], self.rewards, optimize=True) + visits @ r)

    def value_and_gradient(self, p: np.ndarray, solved: np.ndarray | None = None) -> tuple[float, np.ndarray]:
        """J and dJ/dp [K, I, A, K] of one policy p [K, I, A, K].

        `solved` is what `solvable` says for policies of the same support; ascent computes it once.
        """
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
        """[n] bool, the nodes where W is an unknown. Elsewhere nothing is ever paid, whatever is done: W = 0.

        Raises InputError at discount 1 if a policy of this support may go on for ever in a node that pays,
        since the derivative by an action that leads there does not exist.
        """
        P = self.systems(p[None])[0][0]
        if self.discount < 1:
            return np.ones(len(P), bool)
        # Derivatives exist for actions of probability 0 too, so nodes count that any policy reaches.
        uniform = np.full_like(p, 1 / (p.shape[2] * p.shape[3]))
        P_uniform = self.systems(uniform[None])[0][0]
        pays = np.broadcast_to(np.abs(self.rewards).sum(0), (len(p), *self.emissions.shape[:2])).reshape(-1)
        solved, endless = finite_part(P_uniform, pays, self.visits_after_first(uniform) > 0)
        if endless or finite_part(P, solved.astype(float), solved)[1]:
            raise InputError(
                "at discount 1 a gradient exists only if the episode ends however it is played; "
                "give every action a chance, or take a discount below 1"
            )
        return solved
