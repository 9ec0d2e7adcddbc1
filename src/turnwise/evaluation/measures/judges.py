"""How good a reward model is on feedback that it did not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, permutations
from typing import Any, TypeVar

import numpy as np

from turnwise.data.chat import ChatFormat
from turnwise.data.feedback import Feedback, Like, Pair, Ranking, Score
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.calibration import both_ways, log_loss, summary
from turnwise.evaluation.measures.intervals import widened

WORST = 8
"""items shown on which it is most wrong"""
QUARTERS = (0.25, 0.5, 0.75, 1.0)
RESAMPLES = 2000

ScoreRows = Callable[[Sequence[Tokens]], np.ndarray]
Statistic = Callable[[np.ndarray], float]
"""of items, each so many times [n]; not a number where that has no value"""
F = TypeVar("F", bound=Feedback)


def judge(score: ScoreRows, items: Sequence[Feedback], chat: ChatFormat) -> dict[str, Any]:
    """What to know of a reward model before it is trusted, by the kind of feedback.

    Pairs: accuracy with a 95% bootstrap interval over prompts (ties apart), log loss, calibration of
    sigmoid(r_chosen - r_rejected) with each pair counted in both directions, accuracy by the size of the
    difference and by length. Rankings: Kendall's tau and the accuracy of their pairs. Likes: accuracy at
    r = 0, `auc`, calibration of sigmoid(r). Scores: RMSE and R^2, with intervals. An ensemble is judged by
    its mean; its `disagreement` is the mean over items of the members' deviation, of r_best - r_worst or of
    a single r.
    """
    rows = [chat.reply(item.prompt, text) for item in items for text in item.replies]
    each = score(rows)
    mean, at = each.mean(0), np.cumsum([0, *(len(item.replies) for item in items)])
    worth = [mean[a:b] for a, b in pairwise(at)]
    number = {p: i for i, p in enumerate(dict.fromkeys(item.prompt for item in items))}
    prompts = np.array([number[item.prompt] for item in items])
    found: dict[str, Any] = {"items": len(items), "prompts": len(number), "members": len(each)}
    first = items[0]
    if isinstance(first, Pair):
        found |= of_pairs(worth, _only(items, Pair), prompts)
    elif isinstance(first, Ranking):
        found |= of_rankings(worth, _only(items, Ranking), prompts)
    elif isinstance(first, Like):
        found |= of_likes(mean, np.array([item.liked for item in _only(items, Like)]), prompts)
    else:
        found |= of_scores(mean, np.array([item.score for item in _only(items, Score)]), prompts)
    lengths = np.array([len(text) for item in items for text in item.replies], np.float64)
    found["length_correlation"] = correlation(mean, lengths)
    if len(each) > 1:
        best, worst = (at[:-1] + np.array([_ends(item)[i] for item in items]) for i in (0, 1))
        asked = each[:, best] - (each[:, worst] if len(first.replies) > 1 else 0.0)
        found["disagreement"] = float(asked.std(0).mean())
    return found


def _ends(item: Feedback) -> tuple[int, int]:
    """Places of the best and of the worst reply."""
    return (item.order[0], item.order[-1]) if isinstance(item, Ranking) else (0, len(item.replies) - 1)


def of_pairs(worth: Sequence[np.ndarray], pairs: Sequence[Pair], prompts: np.ndarray) -> dict[str, Any]:
    """`worth[i]` are the rewards of pair i, chosen first; `prompts[i]` is the number of its prompt."""
    decided = [i for i, p in enumerate(pairs) if not p.tie]
    if not decided:
        return {"ties": len(pairs)}
    margin = np.array([worth[i][0] - worth[i][1] for i in decided])
    longer = np.array([len(pairs[i].chosen) - len(pairs[i].rejected) for i in decided])
    right, size = margin > 0, np.abs(margin)
    p, happened = both_ways(margin)
    sure = quarters(size, right)
    for row in sure:
        inside = (size >= row["low"]) & (size <= row["high"])
        row["said"] = float((1 / (1 + np.exp(-size[inside]))).mean())
    return {
        "ties": len(pairs) - len(decided),
        **accuracy(right, prompts[decided]),
        **beside(right, "longer_wins", by_length(longer), prompts[decided]),
        "log_loss": log_loss(margin, np.ones(len(margin))),
        "calibration": summary(p, happened),
        "by_margin": sure,
        "by_length": quarters(longer, right),
        "worst": [
            {
                "prompt": pairs[decided[i]].prompt[-1].content if pairs[decided[i]].prompt else "",
                "chosen": pairs[decided[i]].chosen,
                "rejected": pairs[decided[i]].rejected,
                "margin": float(margin[i]),
            }
            for i in np.argsort(margin)[:WORST]
            if margin[i] < 0
        ],
    }


def of_rankings(
    worth: Sequence[np.ndarray], rankings: Sequence[Ranking], prompts: np.ndarray
) -> dict[str, Any]:
    """Kendall's tau of each ranking, (concordant - discordant) / (both), averaged; accuracy of its pairs.

    Replies of equal rank are no pair (so with ties it is Goodman & Kruskal's gamma, 1954).
    """
    taus, right, whose, longer = list[float](), list[bool](), list[int](), list[int]()
    for r, ranking, prompt in zip(worth, rankings, prompts, strict=True):
        # Each two replies of different rank, the better one first.
        two = [(i, j) for i, j in permutations(range(len(r)), 2) if ranking.ranks[i] < ranking.ranks[j]]
        signs = [float(np.sign(r[i] - r[j])) for i, j in two]
        longer += [len(ranking.replies[i]) - len(ranking.replies[j]) for i, j in two]
        if signs:
            taus.append(float(np.mean(signs)))
            right += [s > 0 for s in signs]
            whose += [int(prompt)] * len(signs)
    tau = float(np.mean(taus)) if taus else None
    so, whom = np.array(right, bool), np.array(whose, int)
    rule = by_length(np.array(longer, int))
    return {"tau": tau, **accuracy(so, whom), **beside(so, "longer_wins", rule, whom)}


def of_likes(r: np.ndarray, liked: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """r is the log-odds of a like."""
    said = liked.astype(float)
    right = (r > 0) == liked
    return {
        **accuracy(right, prompts),
        **beside(right, "base_rate", said if said.mean() >= 0.5 else 1 - said, prompts),
        "auc": auc(r, liked, prompts),
        "log_loss": log_loss(r, liked),
        "calibration": summary(1 / (1 + np.exp(-r)), said),
    }


def of_scores(r: np.ndarray, scores: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """Root mean squared error, and R^2 against the mean score of these items: 0 for that mean, below 0 for
    what is worse than it. `low` and `high` are of the error; `gain` is R^2 with its interval.
    """
    error = (scores - r) ** 2
    found: dict[str, Any] = {"rmse": float(error.mean()) ** 0.5, "r2": None}
    interval = prompt_interval(error, prompts, rng=np.random.default_rng(0))
    if interval is not None:
        found |= {"low": interval[0] ** 0.5, "high": interval[1] ** 0.5}
    if np.ptp(scores):

        def r2(times: np.ndarray) -> float:
            off = scores - times @ scores / times.sum()
            return 1 - (times @ error) / (times @ off**2) if (off[times > 0] != 0).any() else math.nan

        found |= {"r2": r2(np.ones(len(scores))), "gain": with_interval(r2, prompts, (-math.inf, 1.0))}
    return found


def auc(r: np.ndarray, liked: np.ndarray, prompts: np.ndarray) -> dict[str, float | None] | None:
    """How often, of a liked and a disliked reply, the liked one has the higher r, with its interval; equal
    ones count half. None where all are alike. Unlike accuracy it needs no r from which on a reply is liked.
    """
    if liked.all() or not liked.any():
        return None
    values, place = np.unique(r, return_inverse=True)

    def share(times: np.ndarray) -> float:
        likes, dislikes = (np.bincount(place, times * side, len(values)) for side in (liked, ~liked))
        pairs = likes.sum() * dislikes.sum()
        return float(likes @ (dislikes.cumsum() - dislikes / 2) / pairs) if pairs else math.nan

    return proportion(share, prompts)


def accuracy(right: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """Share of `right`, with its interval where there are two prompts or more."""
    if not len(right):
        return {}
    found = proportion(mean_of(right.astype(float)), prompts)
    ends = {} if found["low"] is None else {"low": found["low"], "high": found["high"]}
    return {"accuracy": found["mean"], **ends}


def proportion(statistic: Statistic, prompts: np.ndarray) -> dict[str, float | None]:
    """With its interval; where it is 0 or 1, of which nothing can be drawn, that of Clopper & Pearson 1934
    with a prompt for a trial.
    """
    found = with_interval(statistic, prompts, (0.0, 1.0))
    if found["low"] == found["high"] and found["low"] in (0.0, 1.0):
        end = 0.025 ** (1 / len(np.unique(prompts)))
        found |= {"low": end} if found["high"] == 1 else {"high": 1 - end}
    return found


def by_length(longer: np.ndarray) -> np.ndarray:
    """How right it is to choose the longer reply, which is so much longer: 1, 0, or 1/2 at equal lengths."""
    return (np.sign(longer) + 1) / 2


def beside(right: np.ndarray, name: str, rule: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """A rule that needs no model, right by `rule` [n] on the same items; and `gain`: by how much the model
    is right more often than the rule, or than its opposite where that is better, with the interval of that
    difference.
    """
    if not len(right):
        return {}
    more = right.astype(float) - (rule if rule.mean() >= 0.5 else 1 - rule)
    return {name: float(rule.mean()), "gain": with_interval(mean_of(more), prompts, (-1.0, 1.0))}


def mean_of(values: np.ndarray) -> Statistic:
    """The mean of `values` [n]."""
    return lambda times: float(times @ values / times.sum())


def with_interval(
    statistic: Statistic, prompts: np.ndarray, within: tuple[float, float]
) -> dict[str, float | None]:
    """Of all items, with the interval over prompts; None where there is one prompt."""
    low, high = interval_of(statistic, prompts, within, rng=np.random.default_rng(0)) or (None, None)
    return {"mean": statistic(np.ones(len(prompts))), "low": low, "high": high}


def prompt_interval(
    values: np.ndarray, prompts: np.ndarray, *, confidence: float = 0.95, rng: np.random.Generator
) -> tuple[float, float] | None:
    """`interval_of` the mean of `values` [n]."""
    within = float(values.min()), float(values.max())
    return interval_of(mean_of(values), prompts, within, confidence=confidence, rng=rng)


def interval_of(
    statistic: Statistic,
    prompts: np.ndarray,
    within: tuple[float, float],
    *,
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    """Percentile bootstrap interval; prompts are drawn, with all that is theirs.

    What was said of one prompt is not independent: drawing single items would make the interval too narrow
    (Field & Welsh 2007, the cluster bootstrap). With a prompt to each item it is the ordinary bootstrap.
    Widened where prompts are few, `within` what it can be; draws without a value are left out; None for a
    single prompt.
    """
    _, index = np.unique(prompts, return_inverse=True)
    n = int(index.max()) + 1
    if n < 2:
        return None
    draws = [
        statistic(np.bincount(rng.integers(0, n, n), minlength=n)[index].astype(float))
        for _ in range(RESAMPLES)
    ]
    ends = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = widened(ends, statistic(np.ones(len(prompts))), n, confidence)
    return max(low, within[0]), min(high, within[1])


def quarters(x: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """Accuracy where x is small, ... , large: quarters of the items, fewer where many x are equal."""
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
    """Pearson's, None where either is constant."""
    if len(x) < 2 or not x.std() or not y.std():
        return None
    return float(np.corrcoef(x, y)[0, 1])


def _only(items: Sequence[Feedback], kind: type[F]) -> list[F]:
    found = [item for item in items if isinstance(item, kind)]
    if len(found) != len(items):
        raise ValueError(f"feedback of several kinds; expected {kind.__name__.lower()}s alone")
    return found
