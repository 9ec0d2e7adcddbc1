"""How good a reward model is on feedback that it did not see."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise, permutations
from typing import Any, TypeVar

import numpy as np

from turnwise.data.cards.feedback import FEW
from turnwise.data.cards.length import Rule, length_rule
from turnwise.data.chat.format import ChatFormat
from turnwise.data.feedback import Feedback, Like, Pair, Ranking, Score, kind_of
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.calibration import both_directions, calibration_summary, log_loss
from turnwise.evaluation.measures.shares import (
    accuracy,
    accuracy_by_quarter,
    auc,
    auc_statistic,
    correlation,
    estimate,
    prompt_interval,
    rarer_prompts,
    weighted_mean,
)
from turnwise.evaluation.measures.words import worth_by_words

WORST = 8
"""pairs kept on which it is most wrong"""

ScoreRows = Callable[[Sequence[Tokens]], np.ndarray]
"""rewards [E, n] of n rows by E members"""
F = TypeVar("F", bound=Feedback)


def judge(
    score: ScoreRows, items: Sequence[Feedback], chat: ChatFormat, learnt: Sequence[Feedback]
) -> dict[str, Any]:
    """What to know about a reward model before it is trusted, by the kind of feedback.

    Pairs      accuracy with a 95% bootstrap interval over prompts (ties are not counted), log loss,
               calibration of sigmoid(r_chosen - r_rejected) with each pair counted in both directions,
               accuracy by the size of the difference and by length
    Rankings   Kendall's tau, and the accuracy over their pairs
    Likes      AUC; accuracy at r = 0, calibration of sigmoid(r)
    Scores     RMSE and R^2, with intervals

    `items` are held out. `learnt`, the feedback that was learnt from, decides with which rule that needs no
    model it is compared: were the rule picked with the answers of `items`, it would be too good. What cannot
    be told from `items` is left out, and `cautions` comes first. An ensemble is measured by its mean. Its
    `disagreement` is the standard deviation over the members of r_best - r_worst (of r, if an item has a
    single reply), averaged over items. Raises ValueError if the feedback is of several kinds.
    """
    rows = [chat.reply(item.prompt, text) for item in items for text in item.replies]
    each = score(rows)  # [E, rows]
    # Rows of all items follow one another: the replies of item i are rows at[i] to at[i + 1].
    mean, at = each.mean(0), np.cumsum([0, *(len(item.replies) for item in items)])
    rewards = [mean[a:b] for a, b in pairwise(at)]
    number = {p: i for i, p in enumerate(dict.fromkeys(item.prompt for item in items))}
    prompts = np.array([number[item.prompt] for item in items])
    found: dict[str, Any] = {"cautions": cautions(items), "few": telling(items) < FEW}
    found |= {"items": len(items), "prompts": len(number), "members": len(each)}
    first, rule = items[0], length_rule(learnt)
    if isinstance(first, Pair):
        found |= pair_quality(rewards, _only(items, Pair), prompts, rule)
    elif isinstance(first, Ranking):
        found |= ranking_quality(rewards, _only(items, Ranking), prompts, rule)
    elif isinstance(first, Like):
        found |= like_quality(mean, _only(items, Like), prompts, _only(learnt, Like))
    else:
        found |= score_quality(mean, np.array([item.score for item in _only(items, Score)]), prompts)
    by_words = worth_by_words(learnt, items)
    if by_words is not None and telling(items):
        found["words"] = _share_of_words(items, [by_words[a:b] for a, b in pairwise(at)], prompts)
    lengths = np.array([len(text) for item in items for text in item.replies], np.float64)
    found["length_correlation"] = correlation(mean, lengths)
    if len(each) > 1:
        best, worst = (at[:-1] + np.array([_ends(item)[i] for item in items]) for i in (0, 1))
        # A constant added to a member's rewards changes no preference: compare differences if there are two.
        margins = each[:, best] - (each[:, worst] if len(first.replies) > 1 else 0.0)  # [E, items]
        found["disagreement"] = float(margins.std(0).mean())
    return found


def telling(items: Sequence[Feedback]) -> int:
    """How many of the items tell good from bad: those that are no ties; of likes, those of the rarer side."""
    likes = [item.liked for item in items if isinstance(item, Like)]
    if likes:
        return min(sum(likes), len(likes) - sum(likes))
    return sum(not (isinstance(item, Pair | Ranking) and item.tie) for item in items)


def cautions(items: Sequence[Feedback]) -> list[str]:
    """What makes held-out feedback of one kind unfit to judge by, one sentence each; empty for none of it."""
    if not items:
        return []
    n, clear, kind = len(items), telling(items), kind_of(items[0])[:-1]
    if isinstance(items[0], Like):
        liked = sum(item.liked for item in items if isinstance(item, Like))
        if not clear:
            all_, are = (f"All {n:,}", "replies are") if n > 1 else ("The one", "reply is")
            side = "liked" if liked else "disliked"
            return [f"{all_} held-out {are} {side}: no AUC can be computed, and no accuracy means anything."]
        few = f"Only {liked:,} liked and {n - liked:,} disliked replies are held out"
    elif not clear:
        all_, are = (f"All {n:,}", f"{kind}s are ties") if n > 1 else ("The one", f"{kind} is a tie")
        return [f"{all_} held-out {are}: no accuracy can be computed."]
    else:
        few = f"Only {clear:,} {kind}{'' if clear == 1 else 's'}"
        few += f" {'is' if clear == 1 else 'are'} held out"
        few += (
            "" if clear == n else f" that {'is' if clear == 1 else 'are'} no tie{'' if clear == 1 else 's'}"
        )
    found = [f"{few}: what is measured on so few may be chance."] if clear < FEW else []
    if n > 1 and len({item.prompt for item in items}) == 1:
        found.append("All held-out items answer one prompt: nothing is known of others.")
    return found


def _share_of_words(
    items: Sequence[Feedback], worth: Sequence[np.ndarray], prompts: np.ndarray
) -> dict[str, float | None]:
    """What a bag of words reaches: AUC of likes, R^2 of scores, else accuracy; with its interval."""
    first, one = items[0], np.array([x[0] for x in worth])
    if isinstance(first, Like):
        return auc(one, np.array([x.liked for x in _only(items, Like)]), prompts) or {}
    if isinstance(first, Score):
        return score_quality(one, np.array([x.score for x in _only(items, Score)]), prompts).get("gain", {})
    if isinstance(first, Pair):
        found = pair_quality(worth, _only(items, Pair), prompts)
    else:
        found = ranking_quality(worth, _only(items, Ranking), prompts)
    return {"mean": found["accuracy"], "low": found.get("low"), "high": found.get("high")}


def _ends(item: Feedback) -> tuple[int, int]:
    """Indices of the best and of the worst reply."""
    return (item.order[0], item.order[-1]) if isinstance(item, Ranking) else (0, len(item.replies) - 1)


def pair_quality(
    rewards: Sequence[np.ndarray], pairs: Sequence[Pair], prompts: np.ndarray, rule: Rule = "longer"
) -> dict[str, Any]:
    """`rewards[i]` belong to pair i, the chosen reply's first; `prompts[i]` is the number of its prompt.

    `rule` is the rule that needs no model."""
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
        "compared": len(decided),
        **accuracy(right, prompts[decided]),
        **against_rule(right, longer, rule, prompts[decided]),
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
    rewards: Sequence[np.ndarray], rankings: Sequence[Ranking], prompts: np.ndarray, rule: Rule = "longer"
) -> dict[str, Any]:
    """Kendall's tau, averaged over rankings, and the accuracy over all pairs of their replies.

    tau = (concordant - discordant) / (concordant + discordant), 1 for the very order and -1 for its reverse.
    Replies of equal rank form no pair: with ties this is Goodman & Kruskal's gamma (1954). `rule` is the rule
    that needs no model.
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
    found: dict[str, Any] = {"tau": float(np.mean(taus)) if taus else None, "compared": len(right)}
    found["ties"] = len(rankings) - len(taus)
    correct, of_prompt = np.array(right, bool), np.array(whose, int)
    return (
        found | accuracy(correct, of_prompt) | against_rule(correct, np.array(longer, int), rule, of_prompt)
    )


def like_quality(
    r: np.ndarray, likes: Sequence[Like], prompts: np.ndarray, learnt: Sequence[Like]
) -> dict[str, Any]:
    """Quality on likes and dislikes; r [n] is the log-odds of a like. Counts alone if one side is missing.

    The AUC stands beside that of the length of the reply (`rules`, `rule`, `gain`), the accuracy beside that
    of always giving the commoner answer of `learnt` (`base_rate`), the log loss beside that of always giving
    the share of likes in `learnt`, with one more of either (`base_log_loss`).
    """
    liked = np.array([item.liked for item in likes])
    known = {"liked": int(liked.sum()), "disliked": int((~liked).sum())}
    counted: dict[str, Any] = {**known, "compared": known["liked"] * known["disliked"]}
    counted["auc"] = auc(r, liked, prompts)
    if counted["auc"] is None:
        return counted
    rule, size = length_rule(learnt), np.array([len(item.completion) for item in likes], np.float64)
    model, longer = auc_statistic(r, liked), auc_statistic(size, liked)
    shares = _rules(longer(np.ones(len(r))))
    sign = 1.0 if rule == "longer" else -1.0

    def gain(times: np.ndarray) -> float:
        return model(times) - (0.5 + sign * (longer(times) - 0.5))

    share = (sum(item.liked for item in learnt) + 1) / (len(learnt) + 2)
    right = (r > 0) == liked
    return {
        **counted,
        "rules": shares,
        "rule": rule,
        "gain": estimate(gain, prompts, (-1.0, 1.0), rarer_prompts(liked, prompts)),
        **accuracy(right, prompts),
        "base_rate": float((liked == (share >= 0.5)).mean()),
        "log_loss": log_loss(r, liked),
        "base_log_loss": log_loss(np.full(len(r), math.log(share / (1 - share))), liked),
        "calibration": calibration_summary(1 / (1 + np.exp(-r)), liked.astype(float)),
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


def against_rule(right: np.ndarray, longer: np.ndarray, rule: Rule, prompts: np.ndarray) -> dict[str, Any]:
    """Compare with choosing the longer, or the shorter, of two replies; empty for no items.

    `longer` [n] is the length of the preferred reply minus that of the other; of two replies of one length
    either choice is half right. `rules`: how often each of the two rules is right. `gain` is the accuracy
    minus that of `rule`, with a paired interval: the difference is taken item by item, because both are right
    on the easy items.
    """
    if not len(right):
        return {}
    by_rule = (np.sign(longer) * (1 if rule == "longer" else -1) + 1) / 2
    gain = estimate(weighted_mean(right - by_rule), prompts, (-1.0, 1.0))
    return {"rules": _rules(float(((np.sign(longer) + 1) / 2).mean())), "rule": rule, "gain": gain}


def _rules(longer: float) -> dict[str, float]:
    return {"longer": longer, "shorter": 1 - longer}


def _only(items: Sequence[Feedback], kind: type[F]) -> list[F]:
    found = [item for item in items if isinstance(item, kind)]
    if len(found) != len(items):
        raise ValueError(f"feedback of several kinds; expected {kind.__name__.lower()}s alone")
    return found
