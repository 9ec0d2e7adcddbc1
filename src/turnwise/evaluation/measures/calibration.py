"""Whether predicted probabilities are observed: reliability curve, calibration error, Brier score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bin:
    """Predictions between `low` and `high`: how many, their mean, and how often the outcome was 1."""

    low: float
    high: float
    count: int
    predicted: float
    """mean of the predicted probabilities"""
    observed: float
    """share of the outcomes that were 1"""


def reliability(p: np.ndarray, outcomes: np.ndarray, bins: int = 10) -> list[Bin]:
    """Predictions p [n] of binary outcomes [n] in bins of equal width over [0, 1]; empty bins are left out.

    Niculescu-Mizil & Caruana 2005. A prediction on an edge belongs to the bin above, 1 to the last one.
    Raises ValueError for no predictions, unequal lengths, or a prediction outside [0, 1].
    """
    p, outcomes = _checked(p, outcomes)
    place = np.minimum((p * bins).astype(int), bins - 1)
    found = []
    for k in range(bins):
        inside = place == k
        if inside.any():
            predicted, observed = float(p[inside].mean()), float(outcomes[inside].mean())
            found.append(Bin(k / bins, (k + 1) / bins, int(inside.sum()), predicted, observed))
    return found


def calibration_error(curve: list[Bin]) -> float:
    """Expected calibration error: ECE = sum_b n_b / n |observed_b - predicted_b|, over the bins b.

    0 for perfect calibration; of a finite sample it is above 0 even then, because each bin errs by chance.
    Guo et al. 2017, arXiv:1706.04599, eq. 3.
    """
    total = sum(b.count for b in curve)
    return sum(b.count * abs(b.observed - b.predicted) for b in curve) / total


def brier(p: np.ndarray, outcomes: np.ndarray) -> float:
    """Mean of (p - outcome)^2: 1/4 for a coin. Brier 1950."""
    p, outcomes = _checked(p, outcomes)
    return float(((p - outcomes) ** 2).mean())


def log_loss(margin: np.ndarray, outcomes: np.ndarray) -> float:
    """Mean of -log p(outcome) with p = sigmoid(margin), in nats: log 2 = 0.693 for a coin."""
    # -log sigmoid(m) = log(1 + e^-m), and 1 - sigmoid(m) = sigmoid(-m). logaddexp does not overflow.
    signed = np.where(np.asarray(outcomes, bool), margin, -np.asarray(margin, np.float64))
    return float(np.logaddexp(0.0, -signed).mean())


def both_directions(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs counted in both directions: sigmoid(m) with outcome 1 and sigmoid(-m) with outcome 0.

    `margin` [n] is r_chosen - r_rejected; the results are [2n]. Counted once, every outcome would be 1 and
    the curve flat. Counted twice, the order of a pair carries nothing and the curve is symmetric about
    (1/2, 1/2).
    """
    m = np.concatenate([margin, -np.asarray(margin, np.float64)])
    return 1 / (1 + np.exp(-m)), np.repeat([1.0, 0.0], len(margin))


def calibration_summary(p: np.ndarray, outcomes: np.ndarray, bins: int = 10) -> dict[str, Any]:
    """Reliability curve, ECE and Brier score of predictions p [n], as plain JSON values."""
    curve = reliability(p, outcomes, bins)
    return {
        "ece": calibration_error(curve),
        "brier": brier(p, outcomes),
        "curve": [vars(b) for b in curve],
    }


def _checked(p: np.ndarray, outcomes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, outcomes = np.asarray(p, np.float64), np.asarray(outcomes, np.float64)
    if p.shape != outcomes.shape or p.ndim != 1 or not len(p):
        raise ValueError(
            f"{p.shape} predictions of {outcomes.shape} outcomes; expected as many, at least one"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a prediction is no probability; expected numbers from 0 to 1")
    return p, outcomes
