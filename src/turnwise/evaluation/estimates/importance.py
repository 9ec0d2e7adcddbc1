"""Importance sampling: logged episodes, weighed by how much likelier the target makes them.

With rho_{1:k} = prod_{i<=k} target(a_i | h_i) / behaviour(a_i | h_i), rewards r_k, discount g, T decisions:

    importance_sampling        mean_b rho_{1:T} G                    G = sum_k g^(k-1) r_k
    per_decision               mean_b sum_k g^(k-1) rho_{1:k} r_k
    weighted                   sum_b rho_{1:T} G / sum_b rho_{1:T}
    weighted_per_decision      sum_k g^(k-1) (sum_b rho_{1:k} r_k / sum_b rho_{1:k})

Precup, Sutton & Singh 2000; the last in the consistent form of Thomas 2015 (thesis; CWPDIS), since
Precup's divides by the weights of all decisions together. The first two are unbiased if the behaviour's
probabilities are right, and positive wherever the target's are; they may leave the range of all rewards. The
weighted ones stay inside and vary less; they are biased by the order of 1/B, and right in the limit.

Of the histories nothing is asked: both policies may depend on all that was said. If target and behaviour are
the same, all four are the mean return of the logs, whatever their number.

Three episodes with ratios (rewards): A 2, 1/2 (1, 3); B 1/2 (2), then it ended; C 0 (5), the target would not
have done this. With discount 1 the weights of the whole are 1, 1/2, 0, and the returns are 4, 2, 5:

    importance_sampling        (1*4 + .5*2 + 0*5) / 3 = 1.667
    weighted                   (1*4 + .5*2 + 0*5) / 1.5 = 3.333
    per_decision               (2*1 + 1*3 + .5*2 + 0*5) / 3 = 2
    weighted_per_decision      (2*1 + .5*2 + 0*5) / 2.5 + 1*3 / (1 + .5) = 1.2 + 2 = 3.2
"""

from __future__ import annotations

import numpy as np

from turnwise.evaluation.estimates.decisions import Weighted
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.pointwise import Pointwise, of_means


def importance_sampling(logged: Logged) -> Pointwise:
    """Mean of returns times the ratio of the whole episode; unbiased, and the widest of all."""
    return _mean(logged.ratios[:, -1] * logged.returns)


def per_decision(logged: Logged) -> Pointwise:
    """Each reward weighed by the decisions up to it, and by no later one; unbiased."""
    return _mean((logged.ratios * logged.rewards) @ logged.powers)


def weighted(logged: Logged) -> Pointwise:
    """Importance sampling whose weights sum to one: a mean of logged returns, never outside their range."""
    weights = logged.scaled_ratios[:, -1]
    return of_means(np.stack([weights * logged.returns, weights], axis=1), _quotient)


def weighted_per_decision(logged: Logged) -> Pointwise:
    """Per-decision importance sampling, with weights that sum to one at each decision over *all* episodes.

    An episode that has ended keeps its last weight (Thomas 2015: it stays in a state where one thing
    can be done, and nothing is paid). The mean of all rho_{1:k} then tends to 1. To normalise over
    the episodes that still run looks alike and is wrong even with endless logs: their mean weight tends to
    P(the target's episode still runs), and the estimate to sum_k E[r_k | it still runs]. In the example of
    this file it would say 1.2 + 3 = 4.2; if half of all episodes end after one decision and the others pay 1
    at their second, it says 1 for a value of 1/2.
    """
    return Weighted(logged.scaled_ratios, logged.rewards * logged.powers).estimate()


def _mean(terms: np.ndarray) -> Pointwise:
    return of_means(terms[:, None], lambda means: (means[:, 0], np.ones_like(means)))


def _quotient(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """N / W and its gradient (1, -N/W) / W; nan if nothing has weight."""
    slopes = np.full(len(means), np.nan)
    np.divide(1.0, means[:, 1], out=slopes, where=means[:, 1] > 0)
    values = means[:, 0] * slopes
    return values, np.stack([slopes, -values * slopes], axis=1)
