"""Lower bounds that hold for any number of conversations: no resampling, no large numbers, only a range."""

from __future__ import annotations

import math

import numpy as np


def bernstein_bound(
    parts: np.ndarray,
    within: tuple[float, float],
    *,
    clusters: np.ndarray | None = None,
    confidence: float = 0.95,
) -> float:
    """Lower bound of the expected part of a conversation: right with probability `confidence` or more.

        mean - sqrt(2 V ln(2 / d) / n) - 7 spread ln(2 / d) / (3 (n - 1)),    d = 1 - confidence

    V is the sample variance. Maurer & Pontil 2009, theorem 4, for n `parts` [B] that are independent and lie
    `within` a range, whose width is the spread and which was known before the parts were. For importance
    weights that range is the largest possible weight times the range of possible returns: with ten turns and
    acts that the target takes three times as often, 3^10 = 59,000 ranges. `cautious_value` is made for them.

    With `clusters` [B] the clusters are independent, and n counts them. A part is then what a cluster's sum
    is over the mean size; its spread grows with the largest cluster (sizes are taken as given).

    -inf for a single conversation or cluster. ValueError for parts outside `within`.
    """
    low, high = within
    x = np.asarray(parts, dtype=np.float64) - low
    spread = high - low
    if x.ndim != 1 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"parts of shape {x.shape}; expected finite numbers, one a conversation")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1")
    if x.min() < -1e-9 * spread or x.max() > spread * (1 + 1e-9):
        raise ValueError(f"parts from {x.min() + low} to {x.max() + low}; expected them within {within}")
    if clusters is not None:
        index, sizes = np.unique(clusters, return_inverse=True, return_counts=True)[1:]
        x = np.bincount(index, x) / sizes.mean()
        spread *= sizes.max() / sizes.mean()
    n = len(x)
    if n < 2:
        return -math.inf
    log = math.log(2 / (1 - confidence))
    return float(low + x.mean() - math.sqrt(2 * x.var(ddof=1) * log / n) - 7 * spread * log / (3 * (n - 1)))


def cautious_value(
    weights: np.ndarray,
    returns: np.ndarray,
    within: tuple[float, float],
    *,
    clusters: np.ndarray | None = None,
    confidence: float = 0.95,
) -> float:
    """Lower bound of what the target is worth, from importance weights of any size, even where logs end.

        low + max_c bound(min(w, c) (G - low)),    c = 1, 2, 4, ... up to the number of conversations

    G - low is 0 or more, so what a cap c takes from the weights w [B], and what the target does that the
    behaviour never did, can only make the bound lower: it stays a bound, of a narrower range (Thomas,
    Theocharous & Ghavamzadeh 2015, theorem 1, with one cap for all). Each of the L caps is given 1/L of the
    doubt, so that the best of them may be picked after looking. `within` (low, high) are the returns that are
    possible, not those that were seen; the bound is never below the lowest of them.
    """
    w, g = (np.asarray(x, dtype=np.float64) for x in (weights, returns))
    low, high = within
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1")
    if w.shape != g.shape or not (np.isfinite(w).all() and (w >= 0).all()):
        raise ValueError("weights are not finite numbers of 0 or more, one for each return")
    if g.min() < low or g.max() > high:
        raise ValueError(f"returns from {g.min()} to {g.max()}; expected them within {within}")
    caps = 2.0 ** np.arange(int(math.log2(len(w))) + 1)
    each = 1 - (1 - confidence) / len(caps)
    return low + max(
        0.0,
        *(
            bernstein_bound(
                np.minimum(w, cap) * (g - low),
                (0.0, cap * (high - low)),
                clusters=clusters,
                confidence=each,
            )
            for cap in caps
        ),
    )
