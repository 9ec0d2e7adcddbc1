"""Whether probabilities are what they say: reliability curve, expected calibration error, Brier score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Bin:
    """Predictions between `low` and `high`: how many, what they said on average, how often it was so."""

    low: float
    high: float
    count: int
    said: float
    happened: float


def reliability(p: np.ndarray, happened: np.ndarray, bins: int = 10) -> list[Bin]:
    """Predictions p [n] of binary outcomes [n] in bins of equal width over [0, 1]; empty bins are left out.

    Niculescu-Mizil & Caruana 2005. A prediction on an edge belongs to the bin above, 1 to the last one.
    """
    p, happened = _checked(p, happened)
    place = np.minimum((p * bins).astype(int), bins - 1)
    found = []
    for k in range(bins):
        inside = place == k
        if inside.any():
            said, was = float(p[inside].mean()), float(happened[inside].mean())
            found.append(Bin(k / bins, (k + 1) / bins, int(inside.sum()), said, was))
    return found


def calibration_error(curve: list[Bin]) -> float:
    """ECE = sum_b n_b / n |happened_b - said_b|. Guo et al. 2017, arXiv:1706.04599, eq. 3."""
    total = sum(b.count for b in curve)
    return sum(b.count * abs(b.happened - b.said) for b in curve) / total


def brier(p: np.ndarray, happened: np.ndarray) -> float:
    """Mean of (p - outcome)^2: 1/4 for a coin. Brier 1950."""
    p, happened = _checked(p, happened)
    return float(((p - happened) ** 2).mean())


def log_loss(margin: np.ndarray, happened: np.ndarray) -> float:
    """Mean of -log p(outcome) with p = sigmoid(margin), nats: log 2 for a coin."""
    signed = np.where(np.asarray(happened, bool), margin, -np.asarray(margin, np.float64))
    return float(np.logaddexp(0.0, -signed).mean())


def both_ways(margin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs counted in both directions: sigmoid(m) with outcome 1 and sigmoid(-m) with outcome 0.

    `margin` [n] is r_chosen - r_rejected. Which side stood first then carries nothing, and the curve is
    symmetric about (1/2, 1/2).
    """
    m = np.concatenate([margin, -np.asarray(margin, np.float64)])
    return 1 / (1 + np.exp(-m)), np.repeat([1.0, 0.0], len(margin))


def summary(p: np.ndarray, happened: np.ndarray, bins: int = 10) -> dict[str, Any]:
    """The curve and both numbers as plain JSON values."""
    curve = reliability(p, happened, bins)
    return {
        "ece": calibration_error(curve),
        "brier": brier(p, happened),
        "curve": [vars(b) for b in curve],
    }


def _checked(p: np.ndarray, happened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, happened = np.asarray(p, np.float64), np.asarray(happened, np.float64)
    if p.shape != happened.shape or p.ndim != 1 or not len(p):
        raise ValueError(
            f"{p.shape} predictions of {happened.shape} outcomes; expected as many, at least one"
        )
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a prediction is no probability; expected numbers from 0 to 1")
    return p, happened
