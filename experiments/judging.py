"""What experiments on estimates from logs share: the estimators, nuisances in tables, and scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from turnwise.evaluation.estimates import doubly_robust, importance
from turnwise.evaluation.estimates.cross_fit import cross_fitted
from turnwise.evaluation.estimates.fitted_q import Played, Values, fit_tables
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.magic import magic
from turnwise.evaluation.estimates.pointwise import Pointwise

BY_LOGS: dict[str, Callable[[Logged], Pointwise]] = {
    "importance sampling": importance.importance_sampling,
    "per decision": importance.per_decision,
    "weighted": importance.weighted,
    "weighted per decision": importance.weighted_per_decision,
}
BY_BOTH: dict[str, Callable[[Logged], Pointwise]] = {
    "direct": doubly_robust.direct,
    "doubly robust": doubly_robust.doubly_robust,
    "weighted doubly robust": doubly_robust.weighted,
    "MAGIC": magic,
}
FREE = ("importance sampling", "per decision", "doubly robust", "weighted doubly robust", "MAGIC")
"""these may leave the range of returns, and their intervals are not cut to it"""


def number(x: float) -> float | None:
    """As JSON has it: None where there is none."""
    return float(x) if np.isfinite(x) else None


def chances_of(p: np.ndarray, acts: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """[B, A], of what was done among probabilities [B, A, K]; 1 behind the end."""
    return np.where(mask, np.take_along_axis(p, acts[:, :, None], 2)[:, :, 0], 1.0)


def frequencies(kind: np.ndarray, acts: np.ndarray, mask: np.ndarray, size: int) -> np.ndarray:
    """[B, A], how often what was done was done among histories of the same kind [B, A]; 1 behind the end."""
    names = np.unique(kind[mask], return_inverse=True)[1].reshape(-1)
    counts = np.zeros((names.max() + 1, size))
    np.add.at(counts, (names, acts[mask]), 1.0)
    found = np.ones(mask.shape)
    found[mask] = counts[names, acts[mask]] / counts[names].sum(1)
    return found


def fitted_values(played: Played, keys: Sequence[np.ndarray], discount: float, seed: int) -> Values:
    """Values of the target, by tables that were fitted on the other half; `keys` [B, A+1]."""

    def fit(learnt: np.ndarray) -> Callable[[np.ndarray], Values]:
        tables = fit_tables([k[learnt] for k in keys], played.some(learnt), discount)
        return lambda asked: tables.values([k[asked] for k in keys], played.some(asked))

    return cross_fitted(len(played.mask), fit, seed=seed)


def add(lines: list[str], head: str, *columns: str) -> None:
    """The head of a table."""
    lines += [f"\n## {head}\n", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]


def score(found: list[list[Any]], truth: float) -> dict[str, Any]:
    """Of (value, low, high), one for each set of logs. An end without a number is endless."""
    values = np.array([v for v, *_ in found if v is not None])
    held = [
        (low is None or low <= truth) and (high is None or truth <= high)
        for v, low, high in found
        if v is not None
    ]
    widths = [
        np.inf if low is None or high is None else high - low for v, low, high in found if v is not None
    ]
    if not len(values):
        return {"sets": len(found), "missing": len(found)}
    return {
        "sets": len(found),
        "missing": len(found) - len(values),
        "bias": float(values.mean() - truth),
        "deviation": float(values.std()),
        "rmse": float(np.sqrt(((values - truth) ** 2).mean())),
        "covered": float(np.mean(held)),
        "width": number(float(np.median(widths))),
    }


def confident_and_wrong(
    target: dict[str, Any], truth: float, how: str = "", estimator: str = "weighted"
) -> bool:
    """Whether "vouch" was said, and the interval misses by more than half its width. `how`: of which
    propensities, if they are estimated."""
    if target["verdict" + how] != "vouch":
        return False
    _, low, high = target["estimates"][estimator + how]
    half = (high - low) / 2
    return not low - half <= truth <= high + half
