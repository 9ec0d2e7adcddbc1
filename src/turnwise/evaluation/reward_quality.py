"""How good a reward model is on feedback that it did not see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise, permutations
from typing import Any, TypeVar

import numpy as np

from turnwise.data.feedback import Feedback, Like, Pair, Ranking, Score
from turnwise.data.tokens import ChatFormat, Tokens
from turnwise.evaluation.calibration import both_ways, log_loss, summary
from turnwise.evaluation.intervals import widened

WORST = 8
"""items shown on which it is most wrong"""
QUARTERS = (0.25, 0.5, 0.75, 1.0)
RESAMPLES = 2000

ScoreRows = Callable[[Sequence[Tokens]], np.ndarray]
F = TypeVar("F", bound=Feedback)


def judge(score: ScoreRows, items: Sequence[Feedback], chat: ChatFormat) -> dict[str, Any]:
    """What to know of a reward model before it is trusted, by the kind of feedback.

    Pairs: accuracy with a 95% bootstrap interval over prompts (ties apart), log loss, calibration of
    sigmoid(r_chosen - r_rejected) with each pair counted in both directions, accuracy by the size of the
    difference and by length. Rankings: Kendall's tau and the accuracy of their pairs. Likes: accuracy at
    r = 0 and calibration of sigmoid(r). Scores: RMSE with its interval, and R^2. An ensemble is judged by its
    mean; its `disagreement` is the mean over items of the members' deviation, of r_best - r_worst or of a
    single r.
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
        "log_loss": log_loss(r, liked),
        "calibration": summary(1 / (1 + np.exp(-r)), said),
    }


def of_scores(r: np.ndarray, scores: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """R^2 against the mean score of these items: 0 for that mean, below 0 for what is worse than it.

    `low` and `high` are of the root mean squared error; `gain` is by how much the squared error is less than
    that of the mean score, in units of the variance, so that its mean is R^2.
    """
    error, spread = (scores - r) ** 2, (scores - scores.mean()) ** 2
    found: dict[str, Any] = {"rmse": float(error.mean()) ** 0.5, "r2": None}
    interval = prompt_interval(error, prompts, rng=np.random.default_rng(0))
    if interval is not None:
        found |= {"low": interval[0] ** 0.5, "high": interval[1] ** 0.5}
    if np.ptp(scores):
        less = (spread - error) / spread.mean()
        found |= {"r2": float(less.mean()), "gain": with_interval(less, prompts)}
    return found


def accuracy(right: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """Share of `right`, with its interval where there are two prompts or more.

    Where all are right, or none, that of Clopper & Pearson 1934 with a prompt for a trial.
    """
    if not len(right):
        return {}
    interval = prompt_interval(right.astype(float), prompts, rng=np.random.default_rng(0))
    if interval is not None and interval[0] == interval[1]:  # all alike, of which nothing can be drawn
        end = 0.025 ** (1 / len(np.unique(prompts)))
        interval = (end, 1.0) if right.all() else (0.0, 1 - end)
    return {"accuracy": float(right.mean())} | (
        {"low": interval[0], "high": interval[1]} if interval is not None else {}
    )


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
    return {name: float(rule.mean()), "gain": with_interval(more, prompts)}


def with_interval(values: np.ndarray, prompts: np.ndarray) -> dict[str, float | None]:
    """Their mean with its `prompt_interval`, None where there is one prompt."""
    low, high = prompt_interval(values, prompts, rng=np.random.default_rng(0)) or (None, None)
    return {"mean": float(values.mean()), "low": low, "high": high}


def prompt_interval(
    values: np.ndarray, prompts: np.ndarray, *, confidence: float = 0.95, rng: np.random.Generator
) -> tuple[float, float] | None:
    """Percentile bootstrap interval of the mean of `values` [n]; prompts are drawn, with all that is theirs.

    What was said of one prompt is not independent: drawing single values would make the interval too narrow
    (Field & Welsh 2007, the cluster bootstrap). With a prompt to each value it is the ordinary bootstrap.
    Widened where prompts are few, within what values can be; None for a single prompt.
    """
    _, index = np.unique(prompts, return_inverse=True)
    sums, counts = np.bincount(index, values), np.bincount(index)
    if len(sums) < 2:
        return None
    means = np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        drawn = rng.integers(0, len(sums), len(sums))
        means[i] = sums[drawn].sum() / counts[drawn].sum()
    ends = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = widened(ends, float(values.mean()), len(sums), confidence)
    return max(low, float(values.min())), min(high, float(values.max()))


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
