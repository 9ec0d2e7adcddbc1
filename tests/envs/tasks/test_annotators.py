"""Annotators say what their probabilities say; rows are in TRL's columns."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from typing import Any, get_args

import numpy as np
import pytest

from turnwise.envs.tasks.annotators import (
    PANEL,
    Annotator,
    Kind,
    label,
)
from turnwise.envs.tasks.postcards.rules import FITS, worths
from turnwise.envs.tasks.postcards.task import Postcards
from turnwise.envs.tasks.postcards.words import KIND_OF, WORDS, ZEAL, ask_of

TASK = Postcards()
WORDY = Annotator("wordy", temperature=0.5, length_bias=0.2, lapse=0.1)


def test_preferences_by_hand() -> None:
    """One temperature apart: 1 / (1 + 1/e) = .731. Half a temperature worse but five words longer at .2 each:
    sigmoid(-.5 + 1) = .622; a lapse of .1 leaves .9 of it and adds .05."""
    assert Annotator("", 2.0).prefer_probability((3, 1), (4, 9)) == pytest.approx(math.e / (1 + math.e))
    assert WORDY.prefer_probability((1, 1.25), (10, 5)) == pytest.approx(0.9 / (1 + math.exp(-0.5)) + 0.05)
    assert WORDY.prefer_probability((0, 1e6), (1, 1)) == pytest.approx(0.05)
    assert Annotator("", 1e-9, lapse=1).prefer_probability((5, 0)) == 0.5


@pytest.mark.parametrize("golds", [(0.3, 1.0), (-2.0, 0.5), (1.0, 1.0)])
def test_both_orders_have_probability_one(golds: tuple[float, float]) -> None:
    one = WORDY.prefer_probability(golds, (7, 9)) + WORDY.prefer_probability(golds[::-1], (9, 7))
    assert one == pytest.approx(1)


def test_frequencies_of_preferences() -> None:
    """20,000 answers: a standard error of .0035; the tolerance is four of them."""
    rng = np.random.default_rng(0)
    p = WORDY.prefer_probability((0.2, 0.5), (9, 6))
    share = np.mean([WORDY.prefers_first((0.2, 0.5), (9, 6), rng) for _ in range(20_000)])
    assert share == pytest.approx(p, abs=0.014)


def test_rankings_by_hand() -> None:
    """Worths e^u of 4, 2 and 1 without a lapse: 4/7 * 2/3 for the order, 1/7 * 2/6 for its reverse."""
    who = Annotator("", 1.0)
    golds = [math.log(4), math.log(2), 0.0]
    assert who.rank_probability(golds, [0] * 3, (0, 1, 2)) == pytest.approx(8 / 21)
    assert who.rank_probability(golds, [0] * 3, (2, 1, 0)) == pytest.approx(1 / 21)


def test_rankings_are_a_distribution_and_contain_the_preferences() -> None:
    """All orders sum to one, and those that put reply 0 above reply 1 sum to the probability of the pair."""
    golds, lengths = [0.3, 0.8, -0.4, 0.0], [9, 4, 8, 12]
    orders = list(itertools.permutations(range(4)))
    p = {order: WORDY.rank_probability(golds, lengths, order) for order in orders}
    assert sum(p.values()) == pytest.approx(1)
    above = sum(v for order, v in p.items() if order.index(0) < order.index(1))
    assert above == pytest.approx(WORDY.prefer_probability((0.3, 0.8), (9, 4)))


def test_frequencies_of_rankings() -> None:
    """20,000 rankings of three: each order's share within four standard errors (at most .014)."""
    rng = np.random.default_rng(1)
    golds, lengths = [0.3, 0.1, -0.4], [5, 4, 8]
    seen = Counter(WORDY.rank(golds, lengths, rng) for _ in range(20_000))
    for order in itertools.permutations(range(3)):
        p = WORDY.rank_probability(golds, lengths, order)
        assert seen[order] / 20_000 == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 20_000))


def test_two_replies_are_a_ranking_of_two() -> None:
    p = WORDY.prefer_probability((0.3, 0.1), (5, 4))
    assert WORDY.rank_probability([0.3, 0.1], [5, 4], (0, 1)) == pytest.approx(p)


def test_likes() -> None:
    """At the threshold one half; one temperature above .9 * .731 + .05. Frequencies as above."""
    assert WORDY.like_probability(0.7, 0.7) == pytest.approx(0.5)
    p = WORDY.like_probability(1.2, 0.7)
    assert p == pytest.approx(0.9 * math.e / (1 + math.e) + 0.05)
    rng = np.random.default_rng(2)
    assert np.mean([WORDY.likes(1.2, 0.7, rng) for _ in range(20_000)]) == pytest.approx(p, abs=0.013)


def test_scores() -> None:
    """Mean gold, sd T pi / sqrt(6) = .641 for T = .5; 20,000 scores: standard errors of .0045 and .005. A
    lapse of a quarter takes a quarter of the mean. Two scores are in the order of a preference."""
    rng = np.random.default_rng(3)
    who = Annotator("", 0.5)
    scores = np.array([who.score(1.5, rng) for _ in range(20_000)])
    assert scores.mean() == pytest.approx(1.5, abs=0.018)
    assert scores.std() == pytest.approx(0.5 * math.pi / math.sqrt(6), abs=0.02)
    lapsing = np.mean([Annotator("", 0.5, lapse=0.25).score(1.5, rng) for _ in range(20_000)])
    assert lapsing == pytest.approx(1.5 * 0.75, abs=0.026)
    others = np.array([who.score(1.2, rng) for _ in range(20_000)])
    assert np.mean(scores > others) == pytest.approx(who.prefer_probability((1.5, 1.2)), abs=0.014)


def test_what_is_no_annotator() -> None:
    for wrong in ({"temperature": 0.0}, {"temperature": 1.0, "lapse": 1.5}, {"temperature": math.nan}):
        with pytest.raises(ValueError, match="expected a temperature above 0"):
            Annotator("", **wrong)


# Rows


def text(messages: Any) -> str:
    (message,) = messages
    assert message["role"] == "assistant"
    return message["content"]


def test_pairs_agree_with_gold_as_often_as_they_should() -> None:
    """10,000 pairs in under five seconds. Given the replies each annotator's agreement has its mean by
    formula, sum of P(chosen by gold) / n, and a standard error of at most .01: four of them. All together
    79%."""
    begun = time.perf_counter()
    rows = label(TASK, "pairs", 10_000, np.random.default_rng(0))
    assert time.perf_counter() - begun < 5
    right, expected = {who.name: [] for who in PANEL}, {who.name: [] for who in PANEL}
    by_name = {who.name: who for who in PANEL}
    for row in rows:
        golds = (row["gold_chosen"], row["gold_rejected"])
        lengths = (len(text(row["chosen"]).split()), len(text(row["rejected"]).split()))
        p = by_name[row["annotator"]].prefer_probability(golds, lengths)
        better = golds[0] > golds[1]
        if golds[0] != golds[1]:
            right[row["annotator"]].append(better)
            # Which was chosen is random, the pair is not: the better one had p or 1 - p.
            expected[row["annotator"]].append(p if better else 1 - p)
    for name in right:
        assert len(right[name]) == pytest.approx(2500, abs=200)
        assert np.mean(right[name]) == pytest.approx(np.mean(expected[name]), abs=0.04)
    assert np.mean([x for some in right.values() for x in some]) == pytest.approx(0.79, abs=0.02)
    assert np.mean(right["careful"]) > np.mean(right["ordinary"]) > np.mean(right["hasty"])


def test_rows_of_pairs() -> None:
    """TRL's columns; prompts only of those to learn from; two different replies; gold is that of the text."""
    rows = label(TASK, "pairs", 300, np.random.default_rng(1))
    learnt = {p[0].content: p for p in TASK.split()[0]}
    assert [row["id"] for row in rows] == [f"pair-{i:06d}" for i in range(1, 301)]
    for row in rows:
        (asked,) = row["prompt"]
        prompt = learnt[asked["content"]]
        assert text(row["chosen"]) != text(row["rejected"])
        assert row["gold_chosen"] == TASK.gold(prompt, text(row["chosen"]))
        assert row["gold_rejected"] == TASK.gold(prompt, text(row["rejected"]))
    assert {row["annotator"] for row in rows} == {who.name for who in PANEL}


def test_rows_are_the_same_whatever_the_number_asked_for() -> None:
    for kind in get_args(Kind):
        few, many = (label(TASK, kind, n, np.random.default_rng(2)) for n in (5, 9))
        assert few == many[:5]
        assert label(TASK, kind, 5, np.random.default_rng(3)) != few


def test_one_who_feels_no_noise_is_always_right() -> None:
    """At a temperature near zero: the chosen one has more gold, ranks are those of gold, likes are a step,
    scores are gold."""
    sure, held = (Annotator("sure", 1e-6),), TASK.split()[1]
    rng = np.random.default_rng(4)
    for row in label(TASK, "pairs", 200, rng, sure, held):
        assert row["gold_chosen"] >= row["gold_rejected"] - 1e-4
    for row in label(TASK, "rankings", 100, rng, sure, held, replies=5):
        golds, ranks = np.array(row["golds"]), row["ranks"]
        assert sorted(ranks) == [1, 2, 3, 4, 5]
        assert (np.diff(golds[np.argsort(ranks)]) <= 1e-4).all()
        assert len({text(c) for c in row["completions"]}) == 5
    for row in label(TASK, "likes", 200, rng, sure, held, threshold=0.501):
        assert row["label"] == (row["gold"] > 0.501)
        assert row["gold"] == TASK.gold(
            next(p for p in held if p[0].content == row["prompt"][0]["content"]), text(row["completion"])
        )
    for row in label(TASK, "scores", 200, rng, sure, held):
        assert row["score"] == pytest.approx(row["gold"], abs=1e-4)


def test_about_half_of_the_writers_cards_are_liked() -> None:
    rows = label(TASK, "likes", 3000, np.random.default_rng(5))
    assert np.mean([row["label"] for row in rows]) == pytest.approx(0.516, abs=0.04)


def features(prompt: Any, reply: str) -> np.ndarray:
    """What a simple judge sees: words, zeal, words that fit and do not, a greeting first, a closing last."""
    words, worth = reply.split(), worths(ask_of(prompt))
    inner = [worth[w] for w in words if KIND_OF[w] in FITS]
    framed = [bool(words) and KIND_OF[words[i]] == kind for i, kind in ((0, "greeting"), (-1, "closing"))]
    zeal = sum(w in ZEAL for w in words)
    return np.array([len(words), zeal, sum(v > 0 for v in inner), sum(v < 0 for v in inner), *framed], float)


def climbed(weights: np.ndarray, steps: int, rng: np.random.Generator) -> np.ndarray:
    """Mean (proxy, gold) of 16 cards of the writer, and after each step: the proxy's best of 30 edits."""
    prompts = TASK.split()[1][:16]
    cards = [TASK.write(p, rng) for p in prompts]
    seen = []
    for step in range(steps + 1):
        for i, prompt in enumerate(prompts):
            words, tries = cards[i].split(), [cards[i]]
            for _ in range(30 if step else 0):
                at, drop = int(rng.integers(len(words) + 1)), int(rng.integers(2))
                tries.append(" ".join([*words[:at], WORDS[rng.integers(60)], *words[at + drop :]]))
            cards[i] = max(tries, key=lambda t, p=prompt: float(features(p, t) @ weights))
        both = [(features(p, c) @ weights, TASK.gold(p, c)) for p, c in zip(prompts, cards, strict=True)]
        seen.append(np.mean(both, axis=0))
    return np.array(seen)


def test_a_proxy_learnt_from_pairs_is_over_optimised() -> None:
    """Bradley-Terry on 400 pairs and six features, by Newton steps, is right about most pairs it has not
    seen. Cards edited to please it please it more at every step; their gold rises by more than .5 (from
    .75 to 1.90 in seven steps), and then falls to more than 2 below where it began (-8.6 after 24)."""
    rng = np.random.default_rng(6)
    rows = label(TASK, "pairs", 1400, rng)
    prompt_of = {p[0].content: p for p in TASK.prompts()}
    x = np.empty((1400, 6))
    for i, row in enumerate(rows):
        prompt = prompt_of[row["prompt"][0]["content"]]
        x[i] = features(prompt, text(row["chosen"])) - features(prompt, text(row["rejected"]))
    weights, few = np.zeros(6), x[:400]
    for _ in range(8):
        p = 1 / (1 + np.exp(-few @ weights))
        hessian = (few * (p * (1 - p))[:, None]).T @ few + 0.1 * np.eye(6)
        weights = weights + np.linalg.solve(hessian, (1 - p) @ few - 0.1 * weights)
    truth = np.sign([r["gold_chosen"] - r["gold_rejected"] for r in rows[400:]])
    assert np.mean(truth * (x[400:] @ weights) > 0) > 0.8
    proxy, gold = climbed(weights, 24, rng).T
    assert (np.diff(proxy) > -1e-9).all()
    assert gold.max() > gold[0] + 0.5
    assert gold[-1] < gold[0] - 2
