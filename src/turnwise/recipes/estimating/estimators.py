"""All estimates of one policy from the same logs, each with its interval and beside what the logs earned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from turnwise.evaluation.estimates import doubly_robust, importance
from turnwise.evaluation.estimates.intervals import (
    Choice,
    Intervals,
    choose,
    jointly,
    studentised_intervals,
)
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.magic import magic
from turnwise.evaluation.estimates.pointwise import Pointwise
from turnwise.evaluation.estimates.step_curve import STEPS, mixed
from turnwise.evaluation.estimates.support import evenness

OF_LOGS = "logs"
"""the estimate of the behaviour: the mean of the logged returns"""


@dataclass(frozen=True)
class Estimator:
    """One way to estimate."""

    name: str
    words: str
    """what it is, for people"""
    of: Callable[[Logged], Pointwise]
    model: bool = False
    """whether it needs values of a model"""


ESTIMATORS = (
    Estimator("is", "importance sampling", importance.importance_sampling),
    Estimator("wis", "weighted importance sampling", importance.weighted),
    Estimator("pdis", "per-decision importance sampling", importance.per_decision),
    Estimator("wpdis", "weighted per-decision importance sampling", importance.weighted_per_decision),
    Estimator("fqe", "fitted Q evaluation, uncorrected", doubly_robust.direct, model=True),
    Estimator("dr", "doubly robust", doubly_robust.doubly_robust, model=True),
    Estimator("wdr", "weighted doubly robust", doubly_robust.weighted, model=True),
    Estimator("magic", "MAGIC: fitted Q for the far future, logs for the near one", magic, model=True),
)
WHOLE, EACH = "wis", "wpdis"
"""the two that may lead (`leading`): if the policy is the logged agent they are the mean of the logs, and no
model is in them that may be wrong"""
EVEN = 0.5
"""share of the conversations that the logs must be worth to a step for its errors to be compared"""


@dataclass(frozen=True)
class Sampling:
    """How intervals are drawn."""

    within: tuple[float, float]
    """lowest and highest return that is possible"""
    clusters: np.ndarray | None
    resamples: int
    seed: int
    quiet: bool = True
    """whether no progress is shown"""

    def intervals(
        self,
        estimates: Sequence[Pointwise],
        *,
        simultaneous: bool = False,
        spread: Sequence[float] | None = None,
    ) -> Intervals:
        """95% intervals of values, widened by the `spread` of each (`spread_of`).

        A value outside what is possible is moved to its end, which is nearer to the truth: an unbiased
        estimate from a few conversations may be many times the highest return.
        """
        found = _widened(self._intervals(estimates, self.within, simultaneous), spread, self.within)
        return replace(found, values=np.clip(found.values, *self.within))

    def gains(
        self,
        estimates: Sequence[Pointwise],
        *,
        simultaneous: bool = False,
        spread: Sequence[float] | None = None,
    ) -> Intervals:
        """95% intervals of differences of two values."""
        width = self.within[1] - self.within[0]
        return _widened(self._intervals(estimates, (-width, width), simultaneous), spread, (-width, width))

    def choice(self, gains: Sequence[Pointwise], spread: Sequence[float]) -> Choice:
        """How sure it is which of several is best; the first of the `gains` is the logged agent's own, 0."""
        width = self.within[1] - self.within[0]
        found = choose(
            jointly(gains, self.clusters),
            len(gains[0].parts),
            0,
            clusters=self.clusters,
            within=(-width, width),
            resamples=self.resamples,
            rng=np.random.default_rng((self.seed, 9)),
            spread=spread,
        )
        return replace(found, gains=_widened(found.gains, spread, (-width, width)))

    def _intervals(
        self, estimates: Sequence[Pointwise], within: tuple[float, float], simultaneous: bool
    ) -> Intervals:
        return studentised_intervals(
            jointly(estimates, self.clusters),
            len(estimates[0].parts),
            clusters=self.clusters,
            within=within,
            simultaneous=simultaneous,
            resamples=self.resamples,
            rng=np.random.default_rng((self.seed, 6)),
        )


@dataclass(frozen=True)
class Others:
    """The same logs as they would be seen with other numbers than those that an estimate is made of."""

    models: tuple[Logged, ...] = ()
    """by each of several models of the behaviour, if its propensities are estimated"""
    draws: tuple[Logged, ...] = ()
    """without each of several parts of the replies in which the policy's own probabilities are counted"""


def spread_of(estimator: Estimator, others: Others) -> float:
    """What estimated and counted probabilities may have done to an estimate, as a standard deviation.

    Of estimated propensities it is the deviation over the models of the behaviour, each of which has not
    learnt from another part of the logs; 0 if there are none. The estimate itself is made of their mean,
    which varies less than one of them; but what all of them have wrong alike shows in none. On HelpDesk
    intervals that are widened by this hold the truth in 90 to 100% of sets of logs (the standard error of a
    jackknife over the parts is 1.8 times as large, and too much). Of counted probabilities it is the
    `jackknife` over parts of the replies. Both join as the root of the sum of squares.
    """
    models = [estimator.of(x).value for x in others.models]
    apart = float(np.std(models, ddof=1)) if len(models) > 1 else 0.0
    return float(np.hypot(apart, jackknife([estimator.of(x).value for x in others.draws])))


def jackknife(without: Sequence[float]) -> float:
    """Standard error of a number, from what it is without each of G parts of what it was drawn from.

        sqrt((G - 1) / G sum_g (x_g - mean x)^2)      (Efron & Tibshirani 1993, equation 11.5)

    0 if there are fewer than two parts. Without one of 1, 2, 3 their mean is 2.5, 2 or 1.5: sqrt(1/3) = .577.
    """
    G = len(without)
    return float(np.sqrt((G - 1) * np.var(without))) if G > 1 else 0.0


def _widened(found: Intervals, spread: Sequence[float] | None, within: tuple[float, float]) -> Intervals:
    """Half widths joined with 1.96 `spread`, as the root of the sum of squares; all of `within` where the
    spread is no number."""
    if spread is None or not np.any(spread):
        return found
    s = np.asarray(spread)
    low = found.values - np.hypot(found.values - found.low, 1.96 * s)
    high = found.values + np.hypot(found.high - found.values, 1.96 * s)
    known = np.isfinite(low) & np.isfinite(high)
    bottom, top = within
    low, high = np.where(known, low, bottom), np.where(known, high, top)
    low, high = (np.clip(x, bottom, top) for x in (low, high))
    return replace(found, errors=np.hypot(found.errors, s), low=low, high=high)


def of_logs(logged: Logged) -> Pointwise:
    """The mean of the logged returns: the estimate of what the behaviour is worth."""
    plain = replace(logged, logp=logged.behavior_logp, q=None, v=None)
    return importance.importance_sampling(plain)


def possible(logged: Logged) -> tuple[Estimator, ...]:
    """Those that can be made of what is there."""
    return tuple(e for e in ESTIMATORS if logged.q is not None or not e.model)


def leading(logged: Logged) -> Estimator:
    """The one that leads: weighted importance sampling of whole conversations, or that of each decision.

    The weights of a whole conversation hold all that follows a reward, which is noise; but with them each
    return is held against the value, not each reward against its mean at that turn. Where one outcome ends a
    talk sooner or later the first has the smaller error (HelpDesk, a T-maze), where rewards come along the
    way or talks are long the second (experiments/estimates_pomdps.md). So their standard errors are compared;
    not of the policy itself, whose errors hang on a few weights, but of the farthest step towards it, by a
    coin, in which the weights are even (`EVEN`).
    """
    step = mixed(logged, STEPS[1])
    for t in STEPS[2:]:
        further = mixed(logged, t)
        if not evenness(further.log_weights).effective >= EVEN * len(logged.mask):
            break
        step = further
    of = {e.name: e for e in ESTIMATORS}
    whole, each = (of[name].of(step).standard_error() for name in (WHOLE, EACH))
    return of[WHOLE if whole < each else EACH]


def estimates_of(logged: Logged, sampling: Sampling, others: Others | None = None) -> list[dict[str, Any]]:
    """A row for the logs themselves, and one for each estimate: value, 95% interval, gain over the logs.

    `others`: the same logs as they might be seen, if probabilities are estimated or counted.
    """
    others = Others() if others is None else others
    logs, ways = of_logs(logged), possible(logged)
    points = [e.of(logged) for e in ways]
    spread = [spread_of(e, others) for e in ways]
    values = sampling.intervals([logs, *points], spread=[0.0, *spread])
    gains = sampling.gains([p.minus(logs) for p in points], spread=spread)
    rows: list[dict[str, Any]] = [{"name": OF_LOGS, "words": "what the logs earned"} | row_of(values, 0)]
    for i, e in enumerate(ways):
        value, gain = row_of(values, i + 1), row_of(gains, i)
        if (
            e.name == "fqe"
        ):  # what it may be off by is the model's error, of which these intervals know nothing
            value, gain = (x | {"low": None, "high": None, "error": None} for x in (value, gain))
        rows.append({"name": e.name, "words": e.words} | value | {"gain": gain})
    return rows


def row_of(found: Intervals, i: int) -> dict[str, float | None]:
    """One estimate of several as JSON has it: None where there is no number."""
    names = {"value": found.values, "low": found.low, "high": found.high, "error": found.errors}
    return {name: float(x[i]) if np.isfinite(x[i]) else None for name, x in names.items()}


def mean_weight(logged: Logged, clusters: np.ndarray | None) -> dict[str, Any]:
    """Mean weight of a whole conversation, with its standard error: 1, if the behaviour's probabilities are
    right and the policy does nothing that the behaviour never does."""
    one = replace(logged, rewards=np.zeros_like(logged.rewards), q=None, v=None)
    first = np.zeros_like(logged.rewards)
    first[:, 0] = 1.0
    found = importance.importance_sampling(replace(one, rewards=first, discount=0.0))
    error = found.standard_error(clusters)
    return {"value": float(found.value), "error": float(error) if np.isfinite(error) else None}


def part_of(logged: Logged, rows: np.ndarray) -> Logged:
    """The logs of some conversations."""
    q, v = (None if x is None else x[rows] for x in (logged.q, logged.v))
    return replace(
        logged,
        rewards=logged.rewards[rows],
        mask=logged.mask[rows],
        logp=logged.logp[rows],
        behavior_logp=logged.behavior_logp[rows],
        q=q,
        v=v,
    )
