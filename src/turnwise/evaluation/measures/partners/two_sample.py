"""Can talks with a partner be told from logged ones? A classifier tries, and says what gives them away.

It learns on one half of the talks of either kind and is scored on the other: its AUC is the probability that
a held talk looks more like one than a logged talk does, .5 if nobody can tell (Lopez-Paz & Oquab 2017,
arXiv:1610.06545). The p-value is by permutation of the labels in the half that it never saw, so that it holds
whatever the classifier is.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

PERMUTATIONS = 2000
GIVEAWAYS = 6
"""signs that are named, at most"""
RARE = 5
"""talks in which a sign has to be, at least"""
_WORD = re.compile(r"[^\W_]+(?:'\w+)?", re.UNICODE)


@dataclass(frozen=True)
class Turn:
    """A message of either side."""

    agent: bool
    text: str
    act: str | None = None
    """what it means, if codebooks have read it"""


Talk = Sequence[Turn]


def two_sample(held: Sequence[Talk], logged: Sequence[Talk], seed: int = 0) -> dict[str, Any]:
    """`auc` with its 95% bootstrap interval, `p` by permutation, and `signs`: what gives the talks away.

    A sign is a word or two of a side, a word of the partner right after one of the agent, an act after
    another (right after it, or later), a number of turns, a length of the partner's message. Each has the
    share of `held` and of `logged` talks with it, in the half that nothing was learnt from. ValueError for
    fewer than 20 talks of either kind.
    """
    if min(len(held), len(logged)) < 20:
        raise ValueError(f"{len(held)} and {len(logged)} talks; expected 20 or more of either kind")
    rng = np.random.default_rng(seed)
    talks = [*held, *logged]
    y = np.repeat([1, 0], [len(held), len(logged)])
    learns = np.zeros(len(talks), bool)
    for kind in (0, 1):
        places = np.flatnonzero(y == kind)
        learns[rng.permutation(places)[: len(places) // 2]] = True
    signs = [dict.fromkeys(signs_of(talk), 1.0) for talk in talks]
    common = Counter(s for found, here in zip(signs, learns, strict=True) if here for s in found)
    signs = [{s: x for s, x in found.items() if common[s] >= RARE} for found in signs]
    vectorizer = DictVectorizer()
    x = vectorizer.fit_transform(signs)
    # Its strength is chosen inside the half that it learns on.
    grid = {"C": [0.003, 0.03, 0.3]}
    chosen = GridSearchCV(LogisticRegression(max_iter=500), grid, cv=3, scoring="roc_auc")
    model = chosen.fit(x[learns], y[learns]).best_estimator_
    scores, truth = model.decision_function(x[~learns]), y[~learns]
    value = auc(scores, truth)
    permuted = np.array([auc(scores, rng.permutation(truth)) for _ in range(PERMUTATIONS)])
    return {
        "auc": value,
        **_interval(scores, truth, rng),
        "p": float((1 + (permuted >= value).sum()) / (1 + PERMUTATIONS)),
        "talks": [len(held), len(logged)],
        "signs": _giveaways(x[~learns], truth, vectorizer.get_feature_names_out(), model.coef_[0]),
    }


def auc(scores: np.ndarray, y: np.ndarray) -> float:
    """P(score of a 1 > score of a 0) + P(equal) / 2, of scores [n] and labels [n] 0 or 1."""
    ones = int(y.sum())
    ranks = rankdata(scores)
    return float((ranks[y == 1].sum() - ones * (ones + 1) / 2) / (ones * (len(y) - ones)))


def _interval(scores: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Percentiles of the AUC when talks of either kind are drawn anew."""
    kinds, found = [np.flatnonzero(y == k) for k in (0, 1)], []
    for _ in range(500):
        drawn = np.concatenate([rng.choice(places, len(places)) for places in kinds])
        found.append(auc(scores[drawn], y[drawn]))
    low, high = np.quantile(found, [0.025, 0.975])
    return {"low": float(low), "high": float(high)}


def signs_of(talk: Talk) -> Iterator[str]:
    """Everything that may give a talk away, in words."""
    acts: list[str] = []
    yield f"{sum(t.agent for t in talk)} turns of the agent"
    yield f"the last word is {'the agent' if talk[-1].agent else 'the partner'}'s"
    before: list[str] = []
    for previous, turn in zip([None, *talk[:-1]], talk, strict=True):
        words = [w.lower() for w in _WORD.findall(turn.text)]
        who = "the agent" if turn.agent else "the partner"
        for n in (1, 2):
            for k in range(len(words) - n + 1):
                yield f"{who} says “{' '.join(words[k : k + n])}”"
        if not turn.agent:
            yield f"the partner takes {min(len(words), 30)} words"
            if previous is not None and previous.agent:
                yield from (f"the partner says “{w}” to “{v}”" for v, w in _pairs(before, words))
        if turn.act is not None:
            if acts:
                yield f"“{acts[-1]}”, then “{turn.act}”"
                yield from (f"“{act}”, and later “{turn.act}”" for act in set(acts))
            acts.append(turn.act)
        before = words


def _pairs(one: Sequence[str], two: Sequence[str]) -> Iterator[tuple[str, str]]:
    return itertools.product(dict.fromkeys(one), dict.fromkeys(two))


def _giveaways(x: Any, y: np.ndarray, names: np.ndarray, weights: np.ndarray) -> list[dict[str, Any]]:
    """Signs that the classifier goes by and that are there more often in one kind, the strongest first."""
    shares = [np.asarray(x[y == kind].mean(0)).ravel() for kind in (0, 1)]
    strength = weights * (shares[1] - shares[0])
    order = np.argsort(-strength, kind="stable")
    found: list[dict[str, Any]] = []
    for i in order.tolist():
        if strength[i] <= 0 or len(found) == GIVEAWAYS:
            break
        found.append({"sign": str(names[i]), "held": float(shares[1][i]), "logged": float(shares[0][i])})
    return found


def sentence(found: dict[str, Any], what: str) -> str:
    """The test in words."""
    told = "can be told" if found["p"] < 0.05 else "cannot be told"
    text = (
        f"{what} {told} from logged ones: AUC {found['auc']:.3f} ({found['low']:.3f} to {found['high']:.3f}; "
        f"a coin has .5), p {found['p']:.4f}"
    )
    if found["p"] >= 0.05 or not found["signs"]:
        return text
    signs = [f"{s['sign']} ({s['held']:.0%}, logged {s['logged']:.0%})" for s in found["signs"][:3]]
    return f"{text}; it shows by: {'; '.join(signs)}"
