"""Shares and other statistics of judged replies, with intervals over the prompts that they answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from turnwise.evaluation.measures.intervals import widened

QUARTERS = (0.25, 0.5, 0.75, 1.0)
RESAMPLES = 2000
"""bootstrap resamples of an interval"""

Statistic = Callable[[np.ndarray], float]
"""a number of n items, given how often each counts [n]; nan if it has no value"""


def auc(r: np.ndarray, liked: np.ndarray, prompts: np.ndarray) -> dict[str, float | None] | None:
    """Area under the ROC curve: the share of pairs of a liked and a disliked reply in which the liked one has
    the higher r, with its interval. Equal r count half.

    Unlike accuracy it needs no threshold on r. None if all replies are liked, or none is. The rarer side
    decides how much is known: its prompts are the n of the interval, which a single one leaves without. Of
    few replies the bootstrap draws the same few values again and again, so the interval is never inside that
    of `score_interval`.
    """
    if liked.all() or not liked.any():
        return None
    found = proportion(auc_statistic(r, liked), prompts, rarer_prompts(liked, prompts))
    if found["low"] is not None and found["high"] is not None and found["mean"] is not None:
        low, high = score_interval(found["mean"], *(len(np.unique(prompts[s])) for s in (liked, ~liked)))
        found |= {"low": min(found["low"], low), "high": max(found["high"], high)}
    return found


def score_interval(area: float, m: int, n: int) -> tuple[float, float]:
    """95% interval of an AUC of m liked and n disliked replies that are independent.

    All t with |area - t| <= 1.96 sd(t), where

        sd(t)^2 = t (1 - t) (1 + k (1 - t) / (2 - t) + k t / (1 + t)) / (m n),    k = (m + n) / 2 - 1

    Newcombe 2006, Statistics in Medicine 25:559, method 5, to three decimals.
    """
    t, k = np.linspace(0, 1, 2001), (m + n) / 2 - 1
    variance = t * (1 - t) * (1 + k * (1 - t) / (2 - t) + k * t / (1 + t)) / (m * n)
    inside = t[np.abs(area - t) <= 1.959964 * np.sqrt(variance) + 1e-12]
    return (float(inside.min()), float(inside.max())) if len(inside) else (area, area)


def auc_statistic(r: np.ndarray, liked: np.ndarray) -> Statistic:
    """`auc` as a statistic of how often each reply counts; nan if only one side was drawn."""
    # Over the sorted values of r: a like at place k beats the dislikes below it, and half of those at it.
    values, place = np.unique(r, return_inverse=True)

    def share(times: np.ndarray) -> float:
        likes, dislikes = (np.bincount(place, times * side, len(values)) for side in (liked, ~liked))
        pairs = likes.sum() * dislikes.sum()
        return float(likes @ (dislikes.cumsum() - dislikes / 2) / pairs) if pairs else math.nan

    return share


def rarer_prompts(liked: np.ndarray, prompts: np.ndarray) -> int:
    """Prompts with a liked reply, or with a disliked one: the smaller number."""
    return min(len(np.unique(prompts[side])) for side in (liked, ~liked))


def accuracy(right: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """Share of `right` [n], with its interval if there are two prompts or more; empty for no items."""
    if not len(right):
        return {}
    found = proportion(weighted_mean(right.astype(float)), prompts)
    ends = {} if found["low"] is None else {"low": found["low"], "high": found["high"]}
    return {"accuracy": found["mean"], **ends}


def proportion(
    statistic: Statistic, prompts: np.ndarray, count: int | None = None
) -> dict[str, float | None]:
    """A share with its interval; `count` as in `cluster_interval`.

    If the share is 0 or 1, so is every resample's, and the bootstrap has no width. The interval is then that
    of Clopper & Pearson 1934, with each of n prompts as one trial: 0.025^(1/n) to 1, or 0 to 1 - 0.025^(1/n).
    """
    found = estimate(statistic, prompts, (0.0, 1.0), count)
    if found["low"] is not None and found["low"] == found["high"] and found["low"] in (0.0, 1.0):
        end = 0.025 ** (1 / (count or len(np.unique(prompts))))
        found |= {"low": end} if found["high"] == 1 else {"high": 1 - end}
    return found


def weighted_mean(values: np.ndarray) -> Statistic:
    """The mean of `values` [n], as a statistic of how often each counts."""
    return lambda times: float(times @ values / times.sum())


def estimate(
    statistic: Statistic, prompts: np.ndarray, within: tuple[float, float], count: int | None = None
) -> dict[str, float | None]:
    """The statistic of all items with its interval over prompts; `low`, `high` None for a single prompt.

    `count` as in `cluster_interval`.
    """
    rng = np.random.default_rng(0)
    low, high = cluster_interval(statistic, prompts, within, count=count, rng=rng) or (None, None)
    return {"mean": statistic(np.ones(len(prompts))), "low": low, "high": high}


def prompt_interval(
    values: np.ndarray, prompts: np.ndarray, *, confidence: float = 0.95, rng: np.random.Generator
) -> tuple[float, float] | None:
    """`cluster_interval` of the mean of `values` [n]."""
    within = float(values.min()), float(values.max())
    return cluster_interval(weighted_mean(values), prompts, within, confidence=confidence, rng=rng)


def cluster_interval(
    statistic: Statistic,
    prompts: np.ndarray,
    within: tuple[float, float],
    *,
    count: int | None = None,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    """Cluster bootstrap (Field & Welsh 2007): a percentile interval that draws prompts with all their items.

    Judgements of one prompt are not independent: drawing single items would make the interval too narrow.
    With one item a prompt it is the ordinary bootstrap. The interval is widened if prompts are few
    (`intervals.widening`) and cut to `within`, the values that the statistic can take. Draws without a value
    are left out. `count`: the prompts that decide how much is known, if not all do. None for a single one.
    """
    _, index = np.unique(prompts, return_inverse=True)
    n = int(index.max()) + 1
    known = n if count is None else count
    if known < 2:
        return None
    # A draw says how often each prompt was drawn [prompts]; its items count as often [n].
    draws = [
        statistic(np.bincount(rng.integers(0, n, n), minlength=n)[index].astype(float))
        for _ in range(RESAMPLES)
    ]
    ends = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = widened(ends, statistic(np.ones(len(prompts))), known, confidence)
    return max(low, within[0]), min(high, within[1])


def accuracy_by_quarter(x: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy by size of x [n], from small to large: by quarters of the items, fewer if many x are equal."""
    tops = np.unique(np.quantile(x, QUARTERS, method="inverted_cdf"))
    place = np.searchsorted(tops, x)
    return [
        {
            "low": float(x[place == k].min()),
            "high": float(top),
            "pairs": int((place == k).sum()),
            "accuracy": float(right[place == k].mean()),
        }
        for k, top in enumerate(tops)
    ]


def correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    """Pearson's correlation of x [n] and y [n]; None if either is constant."""
    if len(x) < 2 or not x.std() or not y.std():
        return None
    return float(np.corrcoef(x, y)[0, 1])
