"""What if the logged agent saw more than the logs hold?

A human agent heard the tone of a voice, and was kind where it would have gone well anyway. The logged
probabilities of its acts are then averages over what it saw, and weights made of them are wrong, however many
conversations there are. The marginal sensitivity model (Tan 2006) bounds by how much: the odds of every act,
given all that the agent saw, are within a factor Gamma of the odds given what the logs hold.

    1 / Gamma <= odds(true) / odds(nominal) <= Gamma,    odds(p) = p / (1 - p)

So the true inverse probability is from 1 + (1/p - 1) / Gamma to 1 + (1/p - 1) Gamma, which is within a factor
Gamma of 1/p. Over n decisions of a conversation the weight w is within [w / Gamma', w Gamma'] with
Gamma' <= Gamma^n. That is conservative in two ways: what was unseen would have had to push every decision as
far as it can, all in the direction that flatters the policy; and the weights may do so in each conversation
for itself, though true probabilities sum to one over acts. The worst case of long conversations is therefore
wide: per token it says nothing, per act something.
"""

from __future__ import annotations

import math

import numpy as np

LARGEST_GAMMA = 100.0
"""where the search for the strength that undoes a gain ends: odds a hundred times as high"""


def weight_bounds(
    logp: np.ndarray, behavior_logp: np.ndarray, mask: np.ndarray, gamma: float
) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the lowest and the highest weight of each conversation [B] under the model above.

    `logp`, `behavior_logp` [B, A]: of what was done, by the target and (nominally) by the behaviour; `mask`
    [B, A]. At gamma = 1 both are the logarithm of the importance weight.
    """
    if not gamma >= 1:
        raise ValueError(f"gamma is {gamma}; expected 1 or more")
    target, nominal = (np.where(mask, x, 0.0) for x in (logp, behavior_logp))
    ends = []
    for factor in (1 / gamma, gamma):
        # log(1 + f (1 - p) / p), in logarithms: 1/p may overflow.
        with np.errstate(divide="ignore"):
            odds = np.log(-np.expm1(nominal)) - nominal + math.log(factor)
        ends.append((target + np.logaddexp(0.0, odds)).sum(axis=1))
    return ends[0], ends[1]


def worst_value(returns: np.ndarray, log_low: np.ndarray, log_high: np.ndarray) -> float:
    """The lowest weighted mean of `returns` [B] that weights between their bounds can give.

        min_w sum w G / sum w,    low <= w <= high

    A fraction of linear functions is least at a corner, where returns below a threshold have their highest
    weight and those above it their lowest (Kallus & Zhou 2018, section 4; Aronow & Lee 2013): sorted returns
    and their partial sums try all thresholds. The highest mean is -worst_value(-returns, ...). nan if no
    conversation may have any weight.
    """
    order = np.argsort(returns, kind="stable")
    g = np.asarray(returns, dtype=np.float64)[order]
    low, high = (np.asarray(x, dtype=np.float64)[order] for x in (log_low, log_high))
    top = high.max()
    if np.isneginf(top):
        return math.nan
    low, high = np.exp(low - top), np.exp(high - top)
    # Returns count from the lowest: sums of what is left keep their sign.
    g0 = g - g[0]

    def sums(head: np.ndarray, tail: np.ndarray) -> np.ndarray:
        """head[:k].sum() + tail[k:].sum() for k = 0 .. B"""
        behind = np.concatenate([np.cumsum(tail[::-1])[::-1], [0.0]])
        return np.concatenate([[0.0], np.cumsum(head)]) + behind

    above, below = sums(high * g0, low * g0), sums(high, low)
    return float(g[0] + (above[below > 0] / below[below > 0]).min())


def gamma_to_undo(
    logp: np.ndarray,
    behavior_logp: np.ndarray,
    mask: np.ndarray,
    returns: np.ndarray,
    worth: float | None = None,
    *,
    tolerance: float = 1e-3,
) -> float:
    """How strong hidden confounding would have to be to undo the gain over the behaviour.

    The smallest Gamma at which the worst value is at most `worth` (the behaviour's: by default the mean of
    `returns` [B], which nothing hidden can bias), by bisection to a relative `tolerance`. 1 if there is no
    gain to undo; inf if `LARGEST_GAMMA` does not undo it. At 1.2 a small unseen influence is enough; at 3 the
    agent would have had to take acts with three times the odds because of what the logs do not show.
    The noise of few conversations is not in it: that is what intervals are for.
    """
    if worth is None:
        worth = float(np.mean(returns))

    def undone(gamma: float) -> bool:
        # A gain of rounding size is none.
        value = worst_value(returns, *weight_bounds(logp, behavior_logp, mask, gamma))
        return not value > worth + 1e-12 * max(1.0, abs(worth))

    if undone(1.0):
        return 1.0
    if not undone(LARGEST_GAMMA):
        return math.inf
    low, high = 0.0, math.log(LARGEST_GAMMA)
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (low, middle) if undone(math.exp(middle)) else (middle, high)
    return math.exp(high)
