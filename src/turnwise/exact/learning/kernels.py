"""The loops of EM over episodes: forwards with scaling, and forwards and backwards with counts.

Rabiner 1989, equations 20, 25 and 90 to 96, with actions, ends and rewards. alpha_k(s) is P(s_k = s | what
was seen before step k), c_k is the probability of what was seen at a step given all before it, and the
sum of ln c_k is the log-likelihood. Tables have the state last, so that inner loops run over neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from turnwise.exact.compiled import compiled


class Tables(NamedTuple):
    """The parameters as the loops read them."""

    start: np.ndarray
    """[S]"""
    firsts: np.ndarray
    """[F, S]"""
    transitions: np.ndarray
    """[A, S, S]; [A, 0, 0] if the state never changes within an episode"""
    emissions: np.ndarray
    """[A, O, S]"""
    ends: np.ndarray
    """[A, S]"""
    lasts: np.ndarray
    """[2, A, O, S]"""
    bins: np.ndarray
    """[3, A, B, S]"""


class Counts(NamedTuple):
    """Expected counts, added up by `expect`; shapes as in `Tables`."""

    firsts: np.ndarray
    """[F, S]: its sum over F counts the starts"""
    transitions: np.ndarray
    """[A, S, S], of which the factor P(s'|s,a) is left out: the caller multiplies once; [A, 0, 0] as there"""
    emissions: np.ndarray
    lasts: np.ndarray
    """their sums over o count the ends, by themselves and by the clock"""
    bins: np.ndarray
    paid: np.ndarray
    """[3, A, S], expected sum of rewards"""
    late: np.ndarray
    """[2, A, S, H], expected ends of each kind by step (H is 1 without a clock)"""
    late_paid: np.ndarray
    """[2, A, S, H], expected sum of their rewards"""


class Steps(NamedTuple):
    """`Sequences` as the loops read them."""

    actions: np.ndarray
    observations: np.ndarray
    bins: np.ndarray
    rewards: np.ndarray
    offsets: np.ndarray
    ended: np.ndarray
    firsts: np.ndarray
    longest: int
    """0: there is no clock"""


@compiled
def forward(steps: Steps, tables: Tables, begin: int, end: int, alpha: np.ndarray, scale: np.ndarray, i: int):
    """Fill alpha [K+1, S] and scale [K+1] of episode i (steps `begin` to `end`); ln P of what was seen.

    After an end, alpha[K] holds P(s_K-1 | everything) instead, since there is no state after it.
    """
    S = len(tables.start)
    f = steps.firsts[i]
    total = 0.0
    for s in range(S):
        alpha[0, s] = tables.start[s] * tables.firsts[f, s]
        total += alpha[0, s]
    if not total > 0.0:
        return -np.inf
    for s in range(S):
        alpha[0, s] /= total
    scale[0] = total
    likelihood = np.log(total)
    K = end - begin
    stays = tables.transitions.shape[1] == 0
    for k in range(K):
        a, o, r = steps.actions[begin + k], steps.observations[begin + k], steps.bins[begin + k]
        total = 0.0
        if k == K - 1 and steps.ended[i]:
            clock = steps.longest == K
            for s in range(S):
                e = tables.ends[a, s]
                p = e * tables.lasts[0, a, o, s] * tables.bins[1, a, r, s]
                if clock:
                    p += (1.0 - e) * tables.lasts[1, a, o, s] * tables.bins[2, a, r, s]
                alpha[k + 1, s] = alpha[k, s] * p
                total += alpha[k + 1, s]
        else:
            for t in range(S):
                alpha[k + 1, t] = 0.0
            for s in range(S):
                u = alpha[k, s] * (1.0 - tables.ends[a, s]) * tables.bins[0, a, r, s]
                if stays:
                    alpha[k + 1, s] = u
                elif u > 0.0:
                    for t in range(S):
                        alpha[k + 1, t] += u * tables.transitions[a, s, t]
            for t in range(S):
                alpha[k + 1, t] *= tables.emissions[a, o, t]
                total += alpha[k + 1, t]
        if not total > 0.0:
            return -np.inf
        for t in range(S):
            alpha[k + 1, t] /= total
        scale[k + 1] = total
        likelihood += np.log(total)
    return likelihood


@compiled
def score(steps: Steps, tables: Tables, first: int, last: int, likelihoods: np.ndarray):
    """Fill likelihoods[first:last] with ln P of each episode."""
    S = len(tables.start)
    longest = 0
    for i in range(first, last):
        longest = max(longest, steps.offsets[i + 1] - steps.offsets[i])
    alpha, scale = np.empty((longest + 1, S)), np.empty(longest + 1)
    for i in range(first, last):
        likelihoods[i] = forward(steps, tables, steps.offsets[i], steps.offsets[i + 1], alpha, scale, i)


@compiled
def expect(steps: Steps, tables: Tables, first: int, last: int, counts: Counts, likelihoods: np.ndarray):
    """The E-step over episodes `first` to `last`: add to `counts`, and fill their `likelihoods`.

    An episode of probability 0 adds nothing.
    """
    S = len(tables.start)
    stays = tables.transitions.shape[1] == 0
    H = counts.late.shape[3]
    most = 0
    for i in range(first, last):
        most = max(most, steps.offsets[i + 1] - steps.offsets[i])
    alpha, scale = np.empty((most + 1, S)), np.empty(most + 1)
    beta, x, go = np.empty(S), np.empty(S), np.empty(S)
    for i in range(first, last):
        begin, end = steps.offsets[i], steps.offsets[i + 1]
        likelihoods[i] = forward(steps, tables, begin, end, alpha, scale, i)
        if likelihoods[i] == -np.inf:
            continue
        K = end - begin
        k = K - 1
        if steps.ended[i]:
            a, o, r = steps.actions[begin + k], steps.observations[begin + k], steps.bins[begin + k]
            reward = steps.rewards[begin + k]
            time = k if k < H else H - 1
            clock = steps.longest == K
            for s in range(S):
                e = tables.ends[a, s]
                own = e * tables.lasts[0, a, o, s] * tables.bins[1, a, r, s] / scale[K]
                cut = 0.0
                if clock:
                    cut = (1.0 - e) * tables.lasts[1, a, o, s] * tables.bins[2, a, r, s] / scale[K]
                beta[s] = own + cut
                for kind in range(2):
                    p = alpha[k, s] * (own if kind == 0 else cut)
                    if p > 0.0:
                        counts.lasts[kind, a, o, s] += p
                        counts.bins[kind + 1, a, r, s] += p
                        counts.paid[kind + 1, a, s] += p * reward
                        counts.late[kind, a, s, time] += p
                        counts.late_paid[kind, a, s, time] += p * reward
            k -= 1
        else:
            for s in range(S):
                beta[s] = 1.0
        while k >= 0:
            a, o, r = steps.actions[begin + k], steps.observations[begin + k], steps.bins[begin + k]
            reward = steps.rewards[begin + k]
            for t in range(S):
                counts.emissions[a, o, t] += alpha[k + 1, t] * beta[t]
                x[t] = tables.emissions[a, o, t] * beta[t] / scale[k + 1]
            for s in range(S):
                go[s] = (1.0 - tables.ends[a, s]) * tables.bins[0, a, r, s]
                u = alpha[k, s] * go[s]
                total = x[s] if stays else 0.0
                if not stays:
                    for t in range(S):
                        counts.transitions[a, s, t] += u * x[t]
                        total += tables.transitions[a, s, t] * x[t]
                beta[s] = go[s] * total
                p = alpha[k, s] * beta[s]
                counts.bins[0, a, r, s] += p
                counts.paid[0, a, s] += p * reward
            k -= 1
        f = steps.firsts[i]
        for s in range(S):
            counts.firsts[f, s] += alpha[0, s] * beta[s]
