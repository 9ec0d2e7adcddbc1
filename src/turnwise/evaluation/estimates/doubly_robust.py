"""A model's values corrected by what the logs say against them: direct, doubly robust, and weighted.

With the model's q of what was done and v of each history, ratios rho as in `importance`, and what the model
did not foresee, the error d_k = r_k + g v_{k+1} - q_k (v = 0 behind the end; g the discount):

    direct          mean_b v_1
    doubly_robust   mean_b v_1 + mean_b sum_k g^(k-1) rho_{1:k} d_k
    weighted        mean_b v_1 + sum_k g^(k-1) (sum_b rho_{1:k} d_k / sum_b rho_{1:k})

Jiang & Li 2016 write the second as a recursion from the end (eq. 10),

    V_k = v_k + rho_k (r_k + g V_{k+1} - q_k),

which unrolled is the sum of g^(k-1) (rho_{1:k} (r_k - q_k) + rho_{1:k-1} v_k); Thomas & Brunskill 2016
normalise the weights of that sum. Each v_{k+1}, put to the decision that led there, gives the
form above.

`doubly_robust` is unbiased for *any* q of history and action, if v is its expectation under the target and
the behaviour's probabilities are right; and for any probabilities of the behaviour, if q is right. `weighted`
is biased by the order of 1/B. With q = v = 0 they are the per-decision estimates. If target and behaviour are
the same, they are near the mean return and not equal to it: v is an expectation over actions, of which the
logs hold draws.

Two episodes, discount 1: A ratios 2, 1/2, rewards 1, 3, q 2, 2, v 3, 1; B ratio 1/2, reward 2, q 1, v 3. Then
d is 1 + 1 - 2 = 0 and 3 - 2 = 1 in A, 2 - 1 = 1 in B.

    direct          (3 + 3) / 2 = 3
    doubly_robust   3 + (2*0 + 1*1 + .5*1) / 2 = 3.75
    weighted        3 + (2*0 + .5*1) / 2.5 + 1*1 / 1.5 = 3.867      (B keeps its weight .5)
"""

from __future__ import annotations

import numpy as np

from turnwise.evaluation.estimates.decisions import Weighted
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.pointwise import Pointwise, of_means, pointwise


def direct(logged: Logged) -> Pointwise:
    """The model's word: its mean value at the first decision. Its intervals hold no error of the model."""
    return of_means(logged.model[1][:, :1], lambda means: (means[:, 0], np.ones_like(means)))


def doubly_robust(logged: Logged) -> Pointwise:
    """Jiang & Li 2016, eq. 10; unbiased whatever the model says."""
    terms = logged.model[1][:, 0] + (logged.ratios * unforeseen(logged)).sum(1)
    return of_means(terms[:, None], lambda means: (means[:, 0], np.ones_like(means)))


def weighted(logged: Logged) -> Pointwise:
    """Weighted doubly robust, Thomas & Brunskill 2016.

    An episode that has ended keeps its last weight, as in `importance.weighted_per_decision`. From a decision
    at which no episode has any weight the model speaks alone: the correction stops there.
    """
    first = logged.model[1][:, 0]
    decisions = Weighted(logged.scaled_ratios, unforeseen(logged))

    def again(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        terms, means = decisions.terms(counts)
        corrections = np.where(means > 0, terms, 0.0).sum(1)
        values = counts @ first / counts.sum(1) + corrections
        return values, corrections[:, None] + first + decisions.influences(terms, means)

    return pointwise(again, len(first))


def unforeseen(logged: Logged) -> np.ndarray:
    """[B, A], g^(k-1) (r_k + g v_{k+1} - q_k): what the model did not foresee, as of the start."""
    q, v = logged.model
    after = np.concatenate([v[:, 1:], np.zeros((len(v), 1))], axis=1)
    return logged.powers * (logged.rewards + logged.discount * after - q)
