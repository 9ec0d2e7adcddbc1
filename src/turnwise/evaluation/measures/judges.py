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
from turnwise.evaluation.measures.calibration import both_directions, calibration_summary, log_loss
from turnwise.evaluation.measures.intervals import widened

WORST = 8
"""pairs kept on which it is most wrong"""
QUARTERS = (0.25, 0.5, 0.75, 1.0)
RESAMPLES = 2000
"""bootstrap resamples of an interval"""

ScoreRows = Callable[[Sequence[Tokens]], np.ndarray]
"""rewards [E, n] of n rows by E members"""
Statistic = Callable[[np.ndarray], float]
"""a number of n items, given how often each counts [n]; nan if it has no value"""
F = TypeVar("F", bound=Feedback)


def judge(score: ScoreRows, items: Sequence[Feedback], chat: ChatFormat) -> dict[str, Any]:
    """What to know about a reward model before it is trusted, by the kind of feedback.

    Pairs      accuracy with a 95% bootstrap interval over prompts (ties are not counted), log loss,
               calibration of sigmoid(r_chosen - r_rejected) with each pair counted in both directions,
               accuracy by the size of the difference and by length
    Rankings   Kendall's tau, and the accuracy over their pairs
    Likes      accuracy at r = 0, AUC, calibration of sigmoid(r)
    Scores     RMSE and R^2, with intervals

    An ensemble is measured by its mean. Its `disagreement` is the standard deviation over the members of
    r_best - r_worst (of r, if an item has a single reply), averaged over items.
    Raises ValueError if the feedback is of several kinds.
    """
    rows = [chat.reply(item.prompt, text) for item in items for text in item.replies]
    each = score(rows)  # [E, rows]
    # Rows of all items follow one another: the replies of item i are rows at[i] to at[i + 1].
    mean, at = each.mean(0), np.cumsum([0, *(len(item.replies) for item in items)])
    rewards = [mean[a:b] for a, b in pairwise(at)]
    number = {p: i for i, p in enumerate(dict.fromkeys(item.prompt for item in items))}
    prompts = np.array([number[item.prompt] for item in items])
    found: dict[str, Any] = {"items": len(items), "prompts": len(number), "members": len(each)}
    first = items[0]
    if isinstance(first, Pair):
        found |= pair_quality(rewards, _only(items, Pair), prompts)
    elif isinstance(first, Ranking):
        found |= ranking_quality(rewards, _only(items, Ranking), prompts)
    elif isinstance(first, Like):
        found |= like_quality(mean, np.array([item.liked for item in _only(items, Like)]), prompts)
    else:
        found |= score_quality(mean, np.array([item.score for item in _only(items, Score)]), prompts)
    lengths = np.array([len(text) for item in items for text in item.replies], np.float64)
    found["length_correlation"] = correlation(mean, lengths)
    if len(each) > 1:
        best, worst = (at[:-1] + np.array([_ends(item)[i] for item in items]) for i in (0, 1))
        # A constant added to a member's rewards changes no preference: compare differences if there are two.
        margins = each[:, best] - (each[:, worst] if len(first.replies) > 1 else 0.0)  # [E, items]
        found["disagreement"] = float(margins.std(0).mean())
    return found


def _ends(item: Feedback) -> tuple[int, int]:
    """Indices of the best and of the worst reply."""
    return (item.order[0], item.order[-1]) if isinstance(item, Ranking) else (0, len(item.replies) - 1)


def pair_quality(rewards: Sequence[np.ndarray], pairs: Sequence[Pair], prompts: np.ndarray) -> dict[str, Any]:
    """`rewards[i]` belong to pair i, the chosen reply's first; `prompts[i]` is the number of its prompt."""
    decided = [i for i, p in enumerate(pairs) if not p.tie]
    if not decided:
        return {"ties": len(pairs)}
    margin = np.array([rewards[i][0] - rewards[i][1] for i in decided])
    longer = np.array([len(pairs[i].chosen) - len(pairs[i].rejected) for i in decided])
    right, size = margin > 0, np.abs(margin)
    by_margin = accuracy_by_quarter(size, right)
    for row in by_margin:
        inside = (size >= row["low"]) & (size <= row["high"])
        # The accuracy that the model expects of itself at margins of this size.
        row["predicted"] = float((1 / (1 + np.exp(-size[inside]))).mean())
    return {
        "ties": len(pairs) - len(decided),
        **accuracy(right, prompts[decided]),
        **against_rule(right, "longer_wins", longer_is_right(longer), prompts[decided]),
        "log_loss": log_loss(margin, np.ones(len(margin))),
        "calibration": calibration_summary(*both_directions(margin)),
        "by_margin": by_margin,
        "by_length": accuracy_by_quarter(longer, right),
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


def ranking_quality(
    rewards: Sequence[np.ndarray], rankings: Sequence[Ranking], prompts: np.ndarray
) -> dict[str, Any]:
    """Kendall's tau, averaged over rankings, and the accuracy over all pairs of their replies.

    tau = (concordant - discordant) / (concordant + discordant), 1 for the very order and -1 for its reverse.
    Replies of equal rank form no pair: with ties this is Goodman & Kruskal's gamma (1954).
    """
    taus, right, whose, longer = list[float](), list[bool](), list[int](), list[int]()
    for r, ranking, prompt in zip(rewards, rankings, prompts, strict=True):
        # Each two replies of different rank, the better one first.
        two = [(i, j) for i, j in permutations(range(len(r)), 2) if ranking.ranks[i] < ranking.ranks[j]]
        signs = [float(np.sign(r[i] - r[j])) for i, j in two]
        longer += [len(ranking.replies[i]) - len(ranking.replies[j]) for i, j in two]
        if signs:
            taus.append(float(np.mean(signs)))
            right += [s > 0 for s in signs]
            whose += [int(prompt)] * len(signs)
    tau = float(np.mean(taus)) if taus else None
    correct, of_prompt = np.array(right, bool), np.array(whose, int)
    rule = longer_is_right(np.array(longer, int))
    found = accuracy(correct, of_prompt) | against_rule(correct, "longer_wins", rule, of_prompt)
    return {"tau": tau, **found}


def like_quality(r: np.ndarray, liked: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """Quality on likes and dislikes [n]; r [n] is the log-odds of a like."""
    likes = liked.astype(float)
    right = (r > 0) == liked
    return {
        **accuracy(right, prompts),
        **against_rule(right, "base_rate", likes if likes.mean() >= 0.5 else 1 - likes, prompts),
        "auc": auc(r, liked, prompts),
        "log_loss": log_loss(r, liked),
        "calibration": calibration_summary(1 / (1 + np.exp(-r)), likes),
    }


def score_quality(r: np.ndarray, scores: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """Root mean squared error, and R^2, of predictions r [n] of scores [n].

        R^2 = 1 - sum (score - r)^2 / sum (score - mean)^2

    1 is perfect, 0 as good as always giving the mean of these scores, below 0 worse than that. `low` and
    `high` are the error's interval; `gain` is R^2 with its interval. R^2 is None if all scores are the same.
    """
    error = (scores - r) ** 2
    found: dict[str, Any] = {"rmse": float(error.mean()) ** 0.5, "r2": None}
    interval = prompt_interval(error, prompts, rng=np.random.default_rng(0))
    if interval is not None:
        found |= {"low": interval[0] ** 0.5, "high": interval[1] ** 0.5}
    if np.ptp(scores):
        # Each resample has a mean of its own: an interval of the error over a fixed variance would be far too
        # wide, because the errors and the variance of a resample go up together.
        def r2(times: np.ndarray) -> float:
            off = scores - times @ scores / times.sum()
            return 1 - (times @ error) / (times @ off**2) if (off[times > 0] != 0).any() else math.nan

        found |= {"r2": r2(np.ones(len(scores))), "gain": estimate(r2, prompts, (-math.inf, 1.0))}
    return found


def auc(r: np.ndarray, liked: np.ndarray, prompts: np.ndarray) -> dict[str, float | None] | None:
    """Area under the ROC curve: the share of pairs of a liked and a disliked reply in which the liked one has
    the higher r, with its interval. Equal r count half.

    Unlike accuracy it needs no threshold on r. None if all replies are liked, or none is.
    """
    if liked.all() or not liked.any():
        return None
    # Over the sorted values of r: a like at place k beats the dislikes below it, and half of those at it.
    values, place = np.unique(r, return_inverse=True)

    def share(times: np.ndarray) -> float:
        likes, dislikes = (np.bincount(place, times * side, len(values)) for side in (liked, ~liked))
        pairs = likes.sum() * dislikes.sum()
        return float(likes @ (dislikes.cumsum() - dislikes / 2) / pairs) if pairs else math.nan

    return proportion(share, prompts)


def accuracy(right: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """Share of `right` [n], with its interval if there are two prompts or more; empty for no items."""
    if not len(right):
        return {}
    found = proportion(weighted_mean(right.astype(float)), prompts)
    ends = {} if found["low"] is None else {"low": found["low"], "high": found["high"]}
    return {"accuracy": found["mean"], **ends}


def proportion(statistic: Statistic, prompts: np.ndarray) -> dict[str, float | None]:
    """A share with its interval.

    If the share is 0 or 1, so is every resample's, and the bootstrap has no width. The interval is then that
    of Clopper & Pearson 1934, with each of n prompts as one trial: 0.025^(1/n) to 1, or 0 to 1 - 0.025^(1/n).
    """
    found = estimate(statistic, prompts, (0.0, 1.0))
    if found["low"] == found["high"] and found["low"] in (0.0, 1.0):
        end = 0.025 ** (1 / len(np.unique(prompts)))
        found |= {"low": end} if found["high"] == 1 else {"high": 1 - end}
    return found


def longer_is_right(longer: np.ndarray) -> np.ndarray:
    """How right the rule "choose the longer reply" is on each pair: 1, 0, or 1/2 at equal lengths.

    `longer` [n] is the length of the preferred reply minus that of the other.
    """
    return (np.sign(longer) + 1) / 2


def against_rule(right: np.ndarray, name: str, rule: np.ndarray, prompts: np.ndarray) -> dict[str, Any]:
    """Compare with a rule that needs no model, under `name`. `rule[i]` says how right it is on item i.

    `gain` is the model's accuracy minus that of the rule (or of its opposite, if better), with a paired
    interval: the difference is taken item by item, because both are right on the easy items.
    """
    if not len(right):
        return {}
    more = right.astype(float) - (rule if rule.mean() >= 0.5 else 1 - rule)
    return {name: float(rule.mean()), "gain": estimate(weighted_mean(more), prompts, (-1.0, 1.0))}


def weighted_mean(values: np.ndarray) -> Statistic:
    """The mean of `values` [n], as a statistic of how often each counts."""
    return lambda times: float(times @ values / times.sum())


def estimate(
    statistic: Statistic, prompts: np.ndarray, within: tuple[float, float]
) -> dict[str, float | None]:
    """The statistic of all items with its interval over prompts; `low`, `high` None for a single prompt."""
    low, high = cluster_interval(statistic, prompts, within, rng=np.random.default_rng(0)) or (None, None)
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
    confidence: float = 0.95,
    rng: np.random.Generator,
) -> tuple[float, float] | None:
    """Cluster bootstrap (Field & Welsh 2007): a percentile interval that draws prompts with all their items.

    Judgements of one prompt are not independent: drawing single items would make the interval too narrow.
    With one item a prompt it is the ordinary bootstrap. The interval is widened if prompts are few
    (`intervals.widening`) and cut to `within`, the values that the statistic can take. Draws without a value
    are left out. None for a single prompt.
    """
    _, index = np.unique(prompts, return_inverse=True)
    n = int(index.max()) + 1
    if n < 2:
        return None
    # A draw says how often each prompt was drawn [prompts]; its items count as often [n].
    draws = [
        statistic(np.bincount(rng.integers(0, n, n), minlength=n)[index].astype(float))
        for _ in range(RESAMPLES)
    ]
    ends = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    low, high = widened(ends, statistic(np.ones(len(prompts))), n, confidence)
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


def _only(items: Sequence[Feedback], kind: type[F]) -> list[F]:
    found = [item for item in items if isinstance(item, kind)]
    if len(found) != len(items):
        raise ValueError(f"feedback of several kinds; expected {kind.__name__.lower()}s alone")
    return found
