"""Calibration by hand and by simulation, and the judging of rewards by rules whose merits are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.stats import kendalltau

from turnwise.data.chat.format import ChatFormat
from turnwise.data.feedback import Like, Pair, Ranking, Score
from turnwise.data.tokens import Tokens
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.calibration import (
    Bin,
    both_directions,
    brier,
    calibration_error,
    log_loss,
    reliability,
)
from turnwise.evaluation.measures.judges import (
    cautions,
    judge,
    pair_quality,
    ranking_quality,
    score_quality,
)
from turnwise.evaluation.measures.shares import accuracy_by_quarter, auc, prompt_interval, score_interval
from turnwise.evaluation.pages.replies import answer_of_feedback
from turnwise.evaluation.pages.reward_models import answer_of_reward, reward_view

ONE, TWO, THREE = ((Message("user", x),) for x in ("hello there", "it works", "now"))


def test_bins_by_hand() -> None:
    """.05 and .10 share no bin of ten, .95 and 1.0 do; empty bins are left out.

    ECE = (1 |0 - .05| + 1 |1 - .1| + 2 |.5 - .975|) / 4 = (.05 + .9 + .95) / 4
    Brier = (.0025 + .81 + .0025 + 1) / 4
    """
    p, outcomes = np.array([0.05, 0.1, 0.95, 1.0]), np.array([0, 1, 1, 0])
    curve = reliability(p, outcomes)
    assert curve[:2] == [Bin(0.0, 0.1, 1, 0.05, 0.0), Bin(0.1, 0.2, 1, 0.1, 1.0)]
    assert vars(curve[2]) == pytest.approx(
        {"low": 0.9, "high": 1, "count": 2, "predicted": 0.975, "observed": 0.5}
    )
    assert len(curve) == 3
    assert calibration_error(curve) == pytest.approx(1.9 / 4)
    assert brier(p, outcomes) == pytest.approx(1.815 / 4)


def test_what_cannot_be_judged_is_refused() -> None:
    for p, outcomes in (([], []), ([0.5], [1, 0]), ([1.2], [1]), ([math.nan], [1])):
        with pytest.raises(ValueError, match="expected"):
            reliability(np.array(p), np.array(outcomes))


def test_a_coin_and_a_certain_error() -> None:
    """log 2 and 1/4 for a coin; a margin of -1000 costs 1000 nats and nothing overflows."""
    assert log_loss(np.zeros(3), np.array([1, 0, 1])) == pytest.approx(math.log(2))
    assert brier(np.full(3, 0.5), np.array([1, 0, 1])) == 0.25
    assert log_loss(np.array([-1000.0, 1000.0]), np.ones(2)) == pytest.approx(500)


def test_both_directions_make_the_curve_symmetric(rng: np.random.Generator) -> None:
    """Bin k and bin 9 - k have as many; their predictions, and what was observed, add up to 1."""
    p, outcomes = both_directions(rng.normal(size=400))
    curve = reliability(p, outcomes)
    assert len(p) == 800 and outcomes.mean() == 0.5
    for a, b in zip(curve, curve[::-1], strict=True):
        assert (a.count, a.predicted, a.observed) == pytest.approx((b.count, 1 - b.predicted, 1 - b.observed))


def test_calibrated_and_overconfident(rng: np.random.Generator) -> None:
    """20,000 outcomes at sigmoid(m): ECE below .02, as bins err a little; predicted by 3 m, above .1."""
    m = rng.normal(size=20_000) * 1.5
    outcomes = rng.random(20_000) < 1 / (1 + np.exp(-m))
    honest, loud = (
        calibration_error(reliability(1 / (1 + np.exp(-a * m)), outcomes.astype(float))) for a in (1, 3)
    )
    assert honest < 0.02 and loud > 0.1


def test_an_interval_over_prompts_is_that_of_their_means() -> None:
    """20 prompts judged 25 times with one result each: as wide as 20 values, 5 times as wide as 500.

    One judgement a prompt: the ordinary interval, share +- 1.96 sqrt(p (1 - p) / n). One prompt: none.
    """
    values = np.array([1.0] * 13 + [0.0] * 7)
    each = prompt_interval(values, np.arange(20), rng=np.random.default_rng(0))
    many = prompt_interval(np.repeat(values, 25), np.repeat(np.arange(20), 25), rng=np.random.default_rng(0))
    assert each == many
    assert each is not None
    half = 1.96 * math.sqrt(0.65 * 0.35 / 20)
    assert each == pytest.approx((0.65 - half, 0.65 + half), abs=0.05)
    assert prompt_interval(np.ones(9), np.zeros(9, int), rng=np.random.default_rng(0)) is None


def test_unequal_prompts_weigh_by_their_judgements() -> None:
    """Two prompts, of 1 and 3 judgements: the means are 0, 3/4 and 1, the interval's ends 0 and 1."""
    found = prompt_interval(
        np.array([0.0, 1, 1, 1]), np.array([5, 9, 9, 9]), rng=np.random.default_rng(0), confidence=0.3
    )
    assert found == (0.75, 0.75)


@pytest.fixture(scope="module")
def chat(tokenizers: dict[str, Any]) -> ChatFormat:
    return ChatFormat(tokenizers["own"])


class ByRule:
    """A reward that is a rule of the reply's text."""

    def __init__(self, chat: ChatFormat, *rules: Any):
        self.chat, self.rules = chat, rules

    def __call__(self, rows: Sequence[Tokens]) -> np.ndarray:
        texts = [self.chat.text(row.ids[row.action].tolist()) for row in rows]
        return np.array([[float(rule(t)) for t in texts] for rule in self.rules])


PAIRS = [
    Pair(ONE, "hello hello", "my"),
    Pair(ONE, "my friend", "it works now"),
    Pair(TWO, "friend it works", "now"),
    Pair(THREE, "now now", "hello", tie=True),
    Pair(THREE, "there", "hello"),
]


def test_a_reward_of_length(chat: ChatFormat) -> None:
    """Letters: +9, -3, +12 and 0, the tie apart. Equal rewards are no success: right on 2 of 4.

    Log loss: log(1 + e^-9), log(1 + e^3), log(1 + e^-12), log 2. By length as by margin, since it is length.
    """
    found = judge(ByRule(chat, len), PAIRS, chat, PAIRS)
    margins = [9, -3, 12, 0]
    assert (found["items"], found["prompts"], found["ties"]) == (5, 3, 1)
    assert found["accuracy"] == 0.5 and found["low"] < 0.5 < found["high"]
    assert found["log_loss"] == pytest.approx(np.mean(np.log1p(np.exp(-np.array(margins)))))
    # The longer reply is right on 2 of these 4, too: once wrong, and once of equal length, which counts half.
    assert found["rules"] == {"longer": (1 + 0 + 1 + 0.5) / 4, "shorter": 1.5 / 4}
    assert found["gain"]["mean"] == pytest.approx(0.5 - 2.5 / 4)
    assert [w["margin"] for w in found["worst"]] == [-3]
    assert found["worst"][0]["chosen"] == "my friend" and found["worst"][0]["prompt"] == "hello there"
    assert found["length_correlation"] == pytest.approx(1)
    assert [(r["low"], r["accuracy"]) for r in found["by_length"]] == [(-3, 0), (0, 0), (9, 1), (12, 1)]
    assert [(r["high"], r["accuracy"]) for r in found["by_margin"]] == [(0, 0), (3, 0), (9, 1), (12, 1)]
    assert [r["predicted"] for r in found["by_margin"]] == pytest.approx(
        [1 / (1 + math.exp(-m)) for m in (0, 3, 9, 12)]
    )
    assert "disagreement" not in found and found["members"] == 1


def test_members_are_judged_by_their_mean(chat: ChatFormat) -> None:
    """len and -len / 2: the mean is len / 4. They differ on r_w - r_l by 1.5 d: the deviation is .75 |d|."""
    found = judge(ByRule(chat, len, lambda t: -len(t) / 2), PAIRS, chat, PAIRS)
    one = judge(ByRule(chat, lambda t: len(t) / 4), PAIRS, chat, PAIRS)
    assert found["log_loss"] == pytest.approx(one["log_loss"])
    assert found["disagreement"] == pytest.approx(0.75 * np.mean([9, 3, 12, 2, 0]))


def test_shorter_is_a_rule_too_and_all_right_is_no_certainty() -> None:
    """Right on all of five prompts: Clopper and Pearson's low end is .025^(1/5) = .478. Always preferring the
    shorter reply is right on all of them as well: nothing is gained over it, and all over the other rule."""
    pairs = [Pair((Message("user", str(i)),), "a", "long") for i in range(5)]
    found = pair_quality([np.array([1.0, 0.0])] * 5, pairs, np.arange(5), "shorter")
    assert (found["accuracy"], found["low"], found["high"]) == pytest.approx((1.0, 0.025 ** (1 / 5), 1.0))
    assert found["rules"] == {"longer": 0, "shorter": 1} and found["gain"]["mean"] == 0
    longer = pair_quality([np.array([1.0, 0.0])] * 5, pairs, np.arange(5), "longer")
    assert longer["rules"] == found["rules"] and longer["gain"]["mean"] == 1
    wrong = pair_quality([np.array([0.0, 1.0])] * 5, pairs, np.arange(5))
    assert (wrong["low"], wrong["high"]) == pytest.approx((0.0, 1 - 0.025 ** (1 / 5)))


def test_kendalls_tau_is_scipys(rng: np.random.Generator) -> None:
    """Without equal ranks; with two equal of three, the pair of them counts nothing: (1 - 1) / 2 = 0."""
    worth = [rng.normal(size=n) for n in (2, 4, 6, 5)]
    ranks = [tuple(int(x) + 1 for x in rng.permutation(len(w))) for w in worth]
    items = [Ranking(ONE, tuple(map(str, range(len(r)))), r) for r in ranks]
    found = ranking_quality(worth, items, np.arange(4))
    taus: list[Any] = [kendalltau(-np.array(r), w) for r, w in zip(ranks, worth, strict=True)]
    assert found["tau"] == pytest.approx(np.mean([t.statistic for t in taus]))
    tied = Ranking(ONE, ("a", "b", "c"), (1, 1, 2))
    half = ranking_quality([np.array([3.0, 1.0, 2.0])], [tied], np.zeros(1, int))
    even = {"mean": 0.0, "low": None, "high": None}
    told = {"compared": 2, "ties": 0, "rules": {"longer": 0.5, "shorter": 0.5}, "rule": "longer"}
    assert half == {"tau": 0.0, "accuracy": 0.5, "gain": even, **told}, "one prompt, no interval"
    nothing = ranking_quality([np.zeros(2)], [Ranking(ONE, ("a", "b"), (1, 1))], np.zeros(1, int))
    assert nothing == {"tau": None, "compared": 0, "ties": 1}
    lengths = Ranking(ONE, ("aaa", "a", "aa"), (1, 2, 3))  # longer wins 1 > 2 and 1 > 3, and not 2 > 3
    rules = ranking_quality([np.zeros(3)], [lengths], np.zeros(1, int))["rules"]
    assert rules["longer"] == pytest.approx(2 / 3) and rules["shorter"] == pytest.approx(1 / 3)


def test_likes(chat: ChatFormat) -> None:
    """r = +-2 by the word: three right of four; sigmoid(2) = .881 of which 2 of 3 were so."""
    texts = [("friend", True), ("my friend", True), ("friend now", False), ("now", False)]
    items = [Like(p, t, y) for (t, y), p in zip(texts, (ONE, TWO, THREE, ONE), strict=True)]
    found = judge(ByRule(chat, lambda t: 2 if "friend" in t else -2), items, chat, items)
    assert (found["accuracy"], found["base_rate"]) == (0.75, 0.5)
    predicted = 1 / (1 + math.exp(-2))
    assert found["calibration"]["ece"] == pytest.approx((3 * (predicted - 2 / 3) + (1 - predicted)) / 4)
    assert found["log_loss"] == pytest.approx(-(3 * math.log(predicted) + math.log(1 - predicted)) / 4)


def test_likes_stand_beside_length_and_the_share_that_was_learnt_from(chat: ChatFormat) -> None:
    """Letters 2 and 9 are liked, 10 and 3 are not. Right are 2 > 0 and 2 > 1 in r, and neither of 0 and 1
    against the like of r 0: AUC (2 + .5) / 4. The longer is liked in 1 of 4 (9 > 3); in what was learnt from
    the shorter is. Three of three were disliked there: 1/5 by the rule of succession.
    """
    items = [
        Like(p, t, y)
        for p, (t, y) in zip(
            (ONE, TWO, THREE, ONE),
            [("my", True), ("my friend", True), ("friend now", False), ("now", False)],
            strict=True,
        )
    ]
    worth = {"my": 0.0, "my friend": 2.0, "friend now": 0.0, "now": 1.0}
    learnt = [Like(ONE, t, False) for t in ("there now", "hello there", "works there")] + [
        Like(ONE, "my", True)
    ]
    found = judge(ByRule(chat, worth.__getitem__), items, chat, learnt)
    assert found["auc"]["mean"] == pytest.approx(2.5 / 4)
    assert (found["rules"], found["rule"]) == ({"longer": 0.25, "shorter": 0.75}, "shorter")
    assert found["gain"]["mean"] == pytest.approx(2.5 / 4 - 3 / 4)
    assert found["base_rate"] == 0.5, "always disliked, the commoner answer of what was learnt from"
    assert found["base_log_loss"] == pytest.approx(-(math.log(2 / 6) + math.log(4 / 6)) / 2)
    assert (found["liked"], found["disliked"], found["compared"], found["few"]) == (2, 2, 4, True)
    assert found["cautions"] == [
        "Only 2 liked and 2 disliked replies are held out: what is measured on so few may be chance."
    ]


def test_the_rule_without_a_model_is_picked_where_was_learnt_and_not_where_is_measured(
    chat: ChatFormat,
) -> None:
    """The shorter reply wins all held-out pairs and the longer one all that were learnt from: who learnt
    length there is wrong on all, and that is no better and no worse than the rule."""
    held = [Pair(p, "my", "my friend") for p in (ONE, TWO, THREE)]
    learnt = [Pair(p, "my friend", "my") for p in (ONE, TWO)]
    found = judge(ByRule(chat, len), held, chat, learnt)
    assert (found["accuracy"], found["rule"], found["rules"]) == (0, "longer", {"longer": 0, "shorter": 1})
    assert found["gain"]["mean"] == 0
    told = dict(reward_view(found)["figures"])
    assert (told["the longer reply wins"], told["the shorter reply wins"]) == ("0 of 3", "3 of 3")


def test_six_replies_that_are_all_disliked_get_no_percentage(chat: ChatFormat) -> None:
    """A reward below 0 for everything is right on all of them and knows nothing."""
    held = [Like(p, t, False) for p in (ONE, TWO, THREE) for t in ("my", "now")]
    learnt = [*held, Like(ONE, "friend", True)]
    found = judge(ByRule(chat, lambda t: -5), held, chat, learnt)
    said = "All 6 held-out replies are disliked: no AUC can be computed, and no accuracy means anything."
    assert found["cautions"] == [said]
    assert not {"accuracy", "base_rate", "gain", "calibration", "log_loss"} & set(found)
    for answer in (answer_of_reward(found), answer_of_feedback("KTO", LOGGED, found)):
        assert answer == {"cautions": [said], "sentence": None, "notes": []}
    view = reward_view(found)
    assert view["reliability"] is None and not any("%" in value for _, value in view["figures"])


LOGGED = [{"heldout/rewards/accuracies": 1.0}]


def test_likes_are_answered_by_their_auc_and_few_by_counts(chat: ChatFormat) -> None:
    """AUC 3 of 4 of few; of 40 replies in percent, beside the accuracy's own rule in the figures."""
    few = [Like(p, t, y) for p, t, y in ((ONE, "my", True), (TWO, "friend", True), (ONE, "now", False),
                                         (TWO, "there", False))]  # fmt: skip
    found = judge(ByRule(chat, {"my": 1, "friend": 3, "now": 0, "there": 2}.__getitem__), few, chat, few)
    answer = answer_of_reward(found)
    assert answer is not None and answer["cautions"]
    assert "<b>3 of the 4 pairs of a liked and a disliked reply that were held out</b>" in answer["sentence"]
    assert found["auc"]["low"] < 0.5 < 0.75 < found["auc"]["high"], "four replies settle nothing"
    many = [
        Like(((Message("user", str(i)),)), t, y) for i in range(20) for t, y in (("my", True), ("now", False))
    ]
    found = judge(ByRule(chat, len), many, chat, many)
    answer = answer_of_reward(found)
    assert answer is not None and answer["cautions"] == []
    assert "<b>0.0% of the pairs of a liked and a disliked reply" in answer["sentence"]
    assert "choosing the shorter reply" in answer["notes"][1] and "is right in 100.0%" in answer["notes"][1]


def test_cautions_of_every_kind() -> None:
    """Ties alone, few, one prompt; nothing to say of twenty pairs on two prompts."""
    tie = Pair(ONE, "a", "b", tie=True)
    assert cautions([tie, tie]) == ["All 2 held-out pairs are ties: no accuracy can be computed."]
    assert cautions([Ranking(ONE, ("a", "b"), (1, 1))]) == [
        "The one held-out ranking is a tie: no accuracy can be computed."
    ]
    assert cautions([Pair(ONE, "a", "b"), Pair(TWO, "a", "b"), tie]) == [
        "Only 2 pairs are held out that are no ties: what is measured on so few may be chance."
    ]
    assert cautions([Score(TWO, "a", 1.0)]) == [
        "Only 1 score is held out: what is measured on so few may be chance."
    ]
    assert cautions([Pair(ONE, str(i), "b") for i in range(20)]) == [
        "All held-out items answer one prompt: nothing is known of others."
    ]
    assert cautions([Pair(p, str(i), "b") for i in range(10) for p in (ONE, TWO)]) == [] == cautions([])


def test_one_liked_reply_has_no_interval() -> None:
    """It is above all of fifty; where a second one would be is not known. Two have Clopper's: .025^(1/2)."""
    r, liked = np.arange(51.0), np.arange(51) == 50
    assert auc(r, liked, np.arange(51)) == {"mean": 1.0, "low": None, "high": None}
    two = auc(np.arange(52.0), np.arange(52) >= 50, np.arange(52))
    assert two == {"mean": 1.0, "low": pytest.approx(0.025**0.5), "high": 1.0}


def test_few_replies_give_a_wide_interval_of_the_auc() -> None:
    """3 of 4 pairs of 2 and 2 replies, k = 1: at t = .2 the deviation is sqrt(.16 (1 + .8/1.8 + .2/1.2) / 4)
    = .254 and .75 is 2.17 of them away, at .3 it is 1.58 of sqrt(.21 (1 + .7/1.7 + .3/1.3) / 4) = .294: the
    low end is between. Of 200 and 200 it is what the normal interval is: sd .025 at .6 or so."""
    low, high = score_interval(0.75, 2, 2)
    assert 0.2 < low < 0.3 and 0.95 < high < 1
    low, high = score_interval(0.6, 200, 200)
    assert (low, high) == pytest.approx((0.6 - 1.96 * 0.0284, 0.6 + 1.96 * 0.0284), abs=0.003)


def test_scores(chat: ChatFormat) -> None:
    """Their mean has R^2 = 0, the truth 1, and an error of 1 beside a variance of 2/3 has -1/2."""
    scores = np.array([1.0, 2.0, 3.0])
    prompts = np.arange(3)
    assert score_quality(np.full(3, 2.0), scores, prompts)["r2"] == 0
    off = score_quality(scores, scores, prompts)
    assert (off["rmse"], off["low"], off["high"], off["r2"]) == (0, 0, 0, 1)
    off = score_quality(scores + 1, scores, prompts)
    assert off["r2"] == off["gain"]["mean"] == pytest.approx(-0.5) and off["low"] == off["high"] == 1
    assert score_quality(scores, np.full(3, 2.0), prompts)["r2"] is None
    assert "low" not in score_quality(scores, scores, np.zeros(3))
    items = [Score(ONE, t, float(len(t))) for t in ("my", "friend", "works now")]
    assert judge(ByRule(chat, lambda t: len(t) - 3), items, chat, items)["rmse"] == pytest.approx(3)
    with pytest.raises(ValueError, match="several kinds"):
        judge(ByRule(chat, len), [*items, Like(ONE, "my", True)], chat, items)


def test_the_interval_of_r2_is_of_the_ratio() -> None:
    """R^2 = .9 of 60 items, 20 times: the interval holds the truth about as often as it says.

    An interval of the error alone, over the variance of all items, would be .70 wide, not .10.
    """
    held, widths = 0, []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        r = rng.normal(size=60)
        found = score_quality(r, r + rng.normal(size=60) / 3, np.arange(60))["gain"]
        held += found["low"] < 0.9 < found["high"] <= 1
        widths.append(found["high"] - found["low"])
    assert held >= 17 and 0.08 < np.mean(widths) < 0.14


def test_auc_counts_pairs_of_a_liked_and_a_disliked_reply() -> None:
    """Of 2 x 3 pairs 3 are right and one is even: 3.5/6. Above 0 or below plays no part."""
    r, liked = np.array([1.0, 3.0, 0.0, 1.0, 4.0]), np.array([True, True, False, False, False])
    found = auc(r, liked, np.arange(5))
    assert found is not None and found["mean"] == pytest.approx(3.5 / 6)
    assert auc(r - 100, liked, np.arange(5)) == found
    assert auc(r, np.ones(5, bool), np.arange(5)) is None
    both = auc(np.repeat([0.0, 1.0], 10), np.repeat([False, True], 10), np.arange(20) % 10)
    assert both == {"mean": 1.0, "low": pytest.approx(0.025**0.1), "high": 1.0}


def test_quarters_hold_every_item_once(rng: np.random.Generator) -> None:
    x = rng.integers(0, 7, 101).astype(float)
    right = rng.random(101) < 0.4
    found = accuracy_by_quarter(x, right)
    assert sum(r["pairs"] for r in found) == 101
    assert sum(r["pairs"] * r["accuracy"] for r in found) == pytest.approx(right.sum())
    assert all(a["high"] < b["low"] for a, b in pairwise(found))
    assert accuracy_by_quarter(np.full(3, 2.0), np.array([True, False, True])) == [
        {"low": 2.0, "high": 2.0, "pairs": 3, "accuracy": pytest.approx(2 / 3)}
    ]


def test_the_page_tells_what_was_measured(chat: ChatFormat) -> None:
    """Percentages, the count of each bin in the picture's words, and nothing where nothing was held out."""
    found = judge(ByRule(chat, len), PAIRS, chat, PAIRS)
    view = reward_view(found)
    facts = dict(view["figures"])
    ends = f"(95% interval {found['low']:.1%} to {found['high']:.1%})"
    assert facts["accuracy, held out"] == f"2 of 4 {ends}"
    assert (facts["ties, not counted"], facts["the longer reply wins"]) == ("1", "2.5 of 4")
    assert view["reliability"] is None and view["by_margin"] == [], "no curve of four pairs"
    view = reward_view(found | {"few": False})
    assert dict(view["figures"])["accuracy, held out"] == f"50.0% {ends}"
    for b in found["calibration"]["curve"]:
        assert f"{b['count']} times" in str(view["reliability"])
    empty = reward_view({})
    assert empty["figures"] == [] and empty["reliability"] is None


def test_a_bag_of_words_that_learnt_from_the_same_stands_beside_a_judge(chat: ChatFormat) -> None:
    """The word friend is preferred wherever it is said, so that counting words is right on all held-out
    items; the longer reply is not. Nothing is said of words if all that was learnt from are ties."""
    asked = [(Message("user", str(i)),) for i in range(60)]
    texts = [("friend", "now it works") if i % 2 else ("my friend", "now") for i in range(60)]
    pairs = [Pair(p, a, b) for p, (a, b) in zip(asked, texts, strict=True)]
    found = judge(ByRule(chat, len), pairs[40:], chat, pairs[:40])
    assert found["words"] == {"mean": 1.0, "low": pytest.approx(0.025**0.05), "high": 1.0}
    assert found["accuracy"] == 0.5 and found["rules"]["longer"] == 0.5
    answer = answer_of_reward(found)
    assert (
        answer is not None
        and "A bag of words that learnt from the same is right in 100.0%" in answer["notes"][1]
    )
    shown = dict(reward_view(found)["figures"])["a bag of words that learnt from the same"]
    assert shown.startswith("100.0% (95% interval 83.2%")
    likes = [Like(p, t, i == 0) for p, two in zip(asked, texts, strict=True) for i, t in enumerate(two)]
    assert judge(ByRule(chat, len), likes[80:], chat, likes[:80])["words"]["mean"] == 1
    ranked = [Ranking(p, two[::-1], (2, 1)) for p, two in zip(asked, texts, strict=True)]
    assert judge(ByRule(chat, len), ranked[40:], chat, ranked[:40])["words"]["mean"] == 1
    scores = [
        Score(p, t, 3.0 - 2 * i) for p, two in zip(asked, texts, strict=True) for i, t in enumerate(two)
    ]
    told = judge(ByRule(chat, len), scores[80:], chat, scores[:80])
    assert told["words"]["mean"] > 0.9
    assert "a bag of words that learnt from the same: R²" in dict(reward_view(told)["figures"])
    for nothing in ([Pair(p, "a", "b", tie=True) for p in asked], []):
        assert "words" not in judge(ByRule(chat, len), pairs[40:], chat, nothing)
