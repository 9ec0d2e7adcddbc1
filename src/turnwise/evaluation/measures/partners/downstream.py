"""What policies earn with a partner and in the true task: does the partner rank them rightly?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from turnwise.evaluation.measures.intervals import bootstrap_interval

RESAMPLES = 2000


def downstream_gap(
    with_partner: Mapping[str, Sequence[float]], in_task: Mapping[str, Sequence[float]], seed: int = 0
) -> dict[str, Any]:
    """Returns of the same policies, by name, in conversations with the partner and in the true task.

    `policies`: mean and 95% interval in both, and `gap`, the partner's less the task's. `error`: mean of the
    gaps' absolute values, `bias` their mean. `rank`: Spearman's correlation of the means, with the interval
    of what resampled conversations give; None for fewer than three policies. ValueError if names differ.
    """
    if with_partner.keys() != in_task.keys() or not with_partner:
        raise ValueError(f"{sorted(with_partner)} and {sorted(in_task)}; expected the same policies in both")
    rng = np.random.default_rng(seed)
    rows, means, draws = [], [], []
    for name in with_partner:
        both = [np.asarray(x[name], np.float64) for x in (with_partner, in_task)]
        told = [{"mean": float(r.mean()), **_ends(r, rng), "conversations": len(r)} for r in both]
        rows.append({"policy": name, "partner": told[0], "task": told[1],
                     "gap": told[0]["mean"] - told[1]["mean"]})  # fmt: skip
        means.append([r.mean() for r in both])
        draws.append([r[rng.integers(0, len(r), (RESAMPLES, len(r)))].mean(1) for r in both])
    gaps = np.array([row["gap"] for row in rows])
    found: dict[str, Any] = {"policies": rows, "error": float(abs(gaps).mean()), "bias": float(gaps.mean())}
    if len(rows) < 3:
        return found | {"rank": None}
    p, t = np.array(means).T
    drawn = np.array(draws)  # [policies, 2, RESAMPLES]
    ranks = np.array([_rank(drawn[:, 0, i], drawn[:, 1, i]) for i in range(RESAMPLES)])
    low, high = np.nanquantile(ranks, [0.025, 0.975])
    return found | {"rank": {"mean": _rank(p, t), "low": float(low), "high": float(high)}}


def _rank(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _ends(returns: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    low, high = bootstrap_interval(returns, rng=rng)
    return {"low": low, "high": high}


def sentence(found: Mapping[str, Any]) -> str:
    """The comparison in words."""
    text = f"{len(found['policies'])} policies: their returns are off by {found['error']:.3f} on average"
    text += f" ({found['bias']:+.3f} in the mean)"
    if (rank := found["rank"]) is None:
        return text
    return f"{text}; rank correlation {rank['mean']:.2f} ({rank['low']:.2f} to {rank['high']:.2f})"
