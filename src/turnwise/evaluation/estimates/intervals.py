"""Intervals of estimates from logs: studentised bootstrap, for one estimate or for the best of many.

Estimates by importance weights are skewed: a few conversations carry most of the weight, and a resample
without them has both another value and a smaller error. Percentiles of resampled values miss that on one
side; percentiles of the studentised values do not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from turnwise.evaluation.estimates.pointwise import Pointwise

_DRAWS_AT_ONCE = 2**21  # entries of `counts` in memory at once: 16 MiB, whatever the number of conversations

Resampled = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""counts [R, B], how often each conversation counts in each of R samples -> values [R, M] of M estimates and
their standard errors [R, M], or [R] both for M = 1; nan where a sample has no value"""

ANYWHERE = (-np.inf, np.inf)

TRUSTED = 2.0
"""resampled values may be this many errors away from the value (root of the mean square) for the error to be
believed; the two are within a few percent of each other unless one conversation outweighs all the others"""


@dataclass(frozen=True)
class Intervals:
    """M estimates with intervals that hold one by one, or all at once (`simultaneous`)."""

    values: np.ndarray
    """[M]"""
    errors: np.ndarray
    """[M] standard errors"""
    low: np.ndarray
    """[M]"""
    high: np.ndarray
    """[M]"""
    truths: np.ndarray
    """[R, M] values - t* errors, t* a draw: where the truths may be, jointly; inside the range of what is
    possible. Resampled values where the errors are not to be believed (`TRUSTED`)"""


def jointly(estimates: Sequence[Pointwise], clusters: np.ndarray | None = None) -> Resampled:
    """M estimates from the same conversations, resampled together; errors are over `clusters` [B], if any."""

    def resampled(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [estimate.resampled(counts, clusters) for estimate in estimates]
        values, errors = (np.stack(columns, axis=1) for columns in zip(*found, strict=True))
        return values, errors

    return resampled


def studentised_intervals(
    estimate: Resampled,
    conversations: int,
    *,
    clusters: np.ndarray | None = None,
    within: tuple[float, float] = ANYWHERE,
    simultaneous: bool = False,
    confidence: float = 0.95,
    resamples: int = 2000,
    rng: np.random.Generator,
) -> Intervals:
    """Bootstrap-t intervals (Efron 1979; Hall 1988) of estimates over conversations, or over clusters.

        t* = (v* - v) / error*         low = v - q(t*, (1 + confidence)/2) error
                                       high = v - q(t*, (1 - confidence)/2) error

    Samples draw conversations with replacement, or whole clusters (`clusters` [B]: customers, mirrored talks)
    with all that belongs to them. `within` are the values that the truth can have: the intervals are cut to
    it. A sample in which the error is 0 and the value another one, or which has no value, lies beyond every
    quantile, on both sides if it has no value. An end is never inside the same quantile of the resampled
    values v*: if one conversation holds nearly all the weight, the error is nearly 0 and the value as good as
    unknown. Nor does an interval leave out the value itself, which lies beyond nearly all resampled ones if a
    few conversations hold most of the weight.

    simultaneous: the intervals hold for all M estimates at once, so for whichever is picked after looking
    (the max-t bootstrap of Romano & Wolf 2005, with the quantiles balanced as by Beran 1988: all estimates
    take the quantiles of their own t* at one common level, at which all t* are inside together in the share
    `confidence` of samples, with half of what is missing on each side). With balance, a candidate
    that the logs say nothing about does not widen the intervals of the others by more than one more fair
    candidate would. `resamples` is best at 200 M or more.

    Where all parts are alike the error is 0, and nothing is to be resampled. What was never seen in C
    clusters may still have the mass p = 1 - ((1 - confidence)/2)^(1/C) (Clopper & Pearson 1934): the interval
    reaches from v the part p of the way to the ends of `within`. With one cluster it is all of `within`.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1")
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}; expected at least 1")
    index, groups = _clusters(clusters, conversations)
    values, errors = _columns(estimate(np.ones((1, conversations))))
    value, error = values[0], errors[0]
    if groups == 1:
        error = np.full_like(value, np.nan)
        draws = t = np.full((1, len(value)), np.nan)
    else:
        blocks = _resampled(index, groups, resamples, rng)
        found = [_columns(estimate(counts)) for counts in blocks]
        draws = np.concatenate([values for values, _ in found])
        t = _studentised(draws, np.concatenate([errors for _, errors in found]), value, error)
    tail = (1 - confidence) / 2
    rank = _common_rank(t, tail) if simultaneous else int(tail * len(t))
    return _from_quantiles(value, error, draws, t, max(rank, 1), within, 1 - tail ** (1 / groups))


@dataclass(frozen=True)
class Choice:
    """M candidates, the behaviour among them, whose values come from the same logs."""

    gains: Intervals
    """of each candidate's value over the behaviour's, all at once; 0 for the behaviour"""
    best: np.ndarray
    """[M] probability that the candidate is the best of all, the behaviour included"""
    worse: np.ndarray
    """[M] probability that the candidate is worse than the behaviour"""


def choose(
    gains: Resampled,
    conversations: int,
    behavior: int,
    *,
    clusters: np.ndarray | None = None,
    within: tuple[float, float] = ANYWHERE,
    confidence: float = 0.95,
    resamples: int = 4000,
    rng: np.random.Generator,
    spread: Sequence[float] | None = None,
) -> Choice:
    """How sure the choice of one of M candidates is.

    `gains` estimates what each is worth more than the behaviour, which stands at column `behavior`, with the
    errors of these differences (`Pointwise.minus`); `within` are the gains that are possible. Probabilities
    are shares of the joint draws of the truths that the intervals are made of, not of resampled values: a
    candidate whose value hangs on two conversations has nearly the same value in all samples that hold them,
    and looks certain there. `spread` [M] are standard deviations of what else may be wrong with each, alone:
    the draws have it in them, the intervals do not.
    """
    found = studentised_intervals(
        gains,
        conversations,
        clusters=clusters,
        within=within,
        simultaneous=True,
        confidence=confidence,
        resamples=resamples,
        rng=rng,
    )
    truths = found.truths.copy()
    if spread is not None:
        s = np.asarray(spread, dtype=np.float64)
        noise = rng.standard_normal(truths.shape) * np.where(np.isfinite(s), s, 0.0)
        # Of one whose error has no number nothing is known: the cautious draw is the lowest.
        truths = np.where(np.isfinite(s), truths + noise, within[0])
    truths[:, behavior] = 0.0
    low, high, errors = found.low.copy(), found.high.copy(), found.errors.copy()
    low[behavior] = high[behavior] = errors[behavior] = 0.0
    # Ties share: two names of one policy are each the best with half of the probability.
    top = truths == truths.max(axis=1, keepdims=True)
    best = (top / top.sum(axis=1, keepdims=True)).mean(axis=0)
    # A gain of exactly 0 is half a loss: a coin between equals.
    worse = (truths < 0).mean(axis=0) + (truths == 0).mean(axis=0) / 2
    worse[behavior] = 0.0
    return Choice(Intervals(found.values, errors, low, high, truths), best, worse)


def _clusters(clusters: np.ndarray | None, conversations: int) -> tuple[np.ndarray, int]:
    """Index of the cluster of each conversation [B], and how many there are."""
    if conversations < 1:
        raise ValueError("no conversations; expected at least one")
    if clusters is None:
        return np.arange(conversations), conversations
    if np.shape(clusters) != (conversations,):
        raise ValueError(f"clusters of shape {np.shape(clusters)}; expected one for each of {conversations}")
    index = np.unique(clusters, return_inverse=True)[1]
    return index, int(index.max()) + 1


def _columns(found: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors as [R, M], of which one estimate may give [R]."""
    values, errors = (np.asarray(x, dtype=np.float64).reshape(len(x), -1) for x in found)
    # Of parts that are all alike, rounding is left and no spread.
    return values, np.where(errors <= 1e-12 * np.abs(values), 0.0, errors)


def _resampled(
    index: np.ndarray, groups: int, resamples: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Blocks of counts [r, B], `resamples` rows in all: clusters are drawn with replacement."""
    rows = max(1, _DRAWS_AT_ONCE // len(index))
    for start in range(0, resamples, rows):
        r = min(rows, resamples - start)
        drawn = rng.integers(0, groups, (r, groups)) + groups * np.arange(r)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=r * groups).reshape(r, groups)
        yield counts if groups == len(index) and (index == np.arange(groups)).all() else counts[:, index]


def _studentised(values: np.ndarray, errors: np.ndarray, value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """t* [R, M]: infinite where only the error vanished, nan where a sample has no value."""
    away = values - value
    # What is left of equal values is rounding.
    away = np.where(np.abs(away) <= 1e-12 * np.maximum(np.abs(value), error), 0.0, away)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = away / errors
    return np.where(away == 0, 0.0, t)


def _common_rank(t: np.ndarray, tail: float) -> int:
    """The rank, from either end, at which all t* [R, M] are inside their quantiles together often enough."""
    draws = len(t)
    low = np.stack([np.searchsorted(np.sort(c), c, side="right") for c in _from_below(t).T], axis=1)
    high = np.stack([np.searchsorted(np.sort(c), c, side="left") for c in _from_above(t).T], axis=1)
    ranks = (np.quantile(r.min(axis=1), tail, method="inverted_cdf") for r in (low, draws - high))
    return int(min(ranks))


def _from_below(t: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(t), -np.inf, t)


def _from_above(t: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(t), np.inf, t)


def _from_quantiles(
    value: np.ndarray,
    error: np.ndarray,
    draws: np.ndarray,
    t: np.ndarray,
    rank: int,
    within: tuple[float, float],
    unseen: float,
) -> Intervals:
    """Intervals from draws [R, M] of a rank from either end; `unseen`: mass that may never have been seen."""
    known = error > 0
    # 0 times infinity is no number; of an error of 0 the ends come from what was never seen.
    step = np.where(known, error, 1.0)
    low = value - np.sort(_from_above(t), axis=0)[-rank] * step
    high = value - np.sort(_from_below(t), axis=0)[rank - 1] * step
    bottom, top = (np.full(len(value), float(end)) for end in within)
    low, high = (
        np.where(known, end, np.where(value == far, value, value + unseen * (far - value)))
        for end, far in ((low, bottom), (high, top))
    )
    low = np.minimum(low, np.sort(_from_below(draws), axis=0)[rank - 1])
    high = np.maximum(high, np.sort(_from_above(draws), axis=0)[-rank])
    low, high = np.minimum(low, value), np.maximum(high, value)
    missing = ~np.isfinite(value) | np.isnan(error)  # no value, or one cluster: nothing is known
    low, high = np.where(missing, bottom, low), np.where(missing, top, high)
    # Where a draw has no value the truth may be anything: the cautious draw is the lowest.
    truths = np.where(t == 0, value, value - step * np.where(np.isnan(t), np.inf, t))
    away = np.sqrt(np.where(np.isnan(draws), 0.0, (draws - value) ** 2).mean(axis=0))
    truths = np.where(away > TRUSTED * error, _from_below(draws), truths)
    truths = np.where(missing, bottom, truths)
    return Intervals(value, error, *(np.clip(x, bottom, top) for x in (low, high, truths)))
