"""The step curve: from the behaviour to the policy, what each step is worth, and how far the logs vouch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.pointwise import Pointwise
from turnwise.evaluation.estimates.step_curve import ModelCheck, Way, farthest
from turnwise.evaluation.estimates.support import Evidence
from turnwise.evaluation.estimates.verdict import vouches
from turnwise.recipes.estimating.estimators import (
    Others,
    Sampling,
    leading,
    of_logs,
    possible,
    row_of,
    spread_of,
)
from turnwise.run.progress import Progress


@dataclass(frozen=True)
class Promises:
    """What learnt models say of each step."""

    values: np.ndarray
    """[S], means over models"""
    spread: np.ndarray
    """[S], half of a 95% interval over models, and of the chance of simulating"""
    beside: np.ndarray
    """[S], values less (1 - t) times that of the first step, which is a model of the logged agent"""
    beside_spread: np.ndarray
    """[S], half intervals of these"""


@dataclass(frozen=True)
class Curve:
    """S steps of the way."""

    way: Way
    rows: list[dict[str, Any]]
    """of each step: t, distance, support, whether the logs vouch for it, estimates, what models promise"""
    evidence: tuple[Evidence, ...]
    check: ModelCheck | None
    reached: float | None
    """the farthest step that the logs vouch for; None if there is none"""
    safe: float
    """of the steps up to there that are better than the behaviour with certainty, the one of the highest
    estimate; 0, the behaviour itself, if there is none"""
    gains: tuple[Pointwise, ...]
    """[S], the leading estimate of each step less what the logs earned"""
    spread: tuple[float, ...]
    """[S], what estimated propensities may have done to it (`spread_of`)"""


def curve_of(
    way: Way,
    at: Sequence[float],
    ways: Sequence[Logged],
    distances: np.ndarray,
    held: Callable[[int, tuple[float, float]], Evidence],
    sampling: Sampling,
    seen: Sequence[Others] = (),
) -> Curve:
    """The steps `at`, which see the logs as `ways`; `seen` [S] is how each might be seen, if
    probabilities are estimated or counted.

    `held` says what the logs hold of a step, given its number and the interval of its value.
    """
    logs, leads = of_logs(ways[0]), leading(ways[-1]).name
    rows, evidence, gains, spread = [], [], [], []
    with Progress("estimating steps", len(at), quiet=sampling.quiet) as bar:
        for i, (t, x) in enumerate(zip(at, ways, strict=True)):
            made = possible(x)
            points = [e.of(x) for e in made]
            # The first step is the logged agent itself, whatever its probabilities were.
            apart = [spread_of(e, seen[i]) if seen and t else 0.0 for e in made]
            values = sampling.intervals(points, spread=apart)
            lead = [e.name for e in made].index(leads)
            gains.append(points[lead].minus(logs))
            spread.append(apart[lead])
            gain = row_of(sampling.gains(gains[-1:], spread=spread[-1:]), 0)
            found = held(i, (values.low[lead], values.high[lead]))
            evidence.append(found)
            row: dict[str, Any] = {"t": t, "distance": number(distances[i]), "vouched": vouches(found)}
            row |= {"worth": row_of(values, lead) | {"gain": gain}, "promised": None}
            even = found.evenness
            row |= {"effective": even.effective, "largest_share": number(even.largest_share)}
            row["coverage"] = None if found.coverage is None else found.coverage.overall
            row["estimates"] = [{"name": e.name} | row_of(values, k) for k, e in enumerate(made)]
            rows.append(row)
            bar.at(i + 1)
    reached = reached_by(rows)
    asked = vouched_steps(rows)
    best = surely_best(
        [rows[i]["worth"]["value"] for i in asked],
        [gains[i] for i in asked],
        [spread[i] for i in asked],
        sampling,
    )
    safe = 0.0 if best is None else float(rows[asked[best[0]]]["t"])
    return Curve(way, rows, tuple(evidence), None, reached, safe, tuple(gains), tuple(spread))


def reached_by(rows: Sequence[dict[str, Any]]) -> float | None:
    """The farthest step that the logs vouch for, and for all before it."""
    known = {row["t"]: row["vouched"] for row in rows}
    return farthest(lambda t: known[t], tuple(known))


def vouched_steps(rows: Sequence[dict[str, Any]]) -> list[int]:
    """The numbers of the steps up to there, but for the logged agent itself."""
    reached = reached_by(rows) or 0.0
    return [i for i, r in enumerate(rows) if 0 < r["t"] <= reached and r["worth"]["value"] is not None]


def surely_best(
    values: Sequence[float], gains: Sequence[Pointwise], spread: Sequence[float], sampling: Sampling
) -> tuple[int, dict[str, float | None]] | None:
    """The number of the highest of `values` among those whose gain over the logs is above 0 for certain, and
    that gain; None if there is none.

    The intervals of all these gains hold together, so that the best of many is not chosen for its luck.
    """
    if not values:
        return None
    found = sampling.gains(gains, simultaneous=True, spread=spread)
    better = np.flatnonzero(found.low > 0).tolist()
    if not better:
        return None
    best = max(better, key=lambda i: values[i])
    return best, row_of(found, best)


def number(x: float) -> float | None:
    """As JSON has it: None for nan and infinity."""
    return float(x) if np.isfinite(x) else None
