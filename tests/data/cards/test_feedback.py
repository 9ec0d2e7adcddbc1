"""The card of feedback by hand arithmetic, agreement against published values and a slow twin, its words."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.data.cards.agreement import agreeing, interval_alpha, nominal_alpha
from turnwise.data.cards.feedback import describe_feedback, feedback_card, feedback_warnings
from turnwise.data.feedback import Like, Pair, Ranking, Score
from turnwise.envs.dialogue import Message

ASKED = (Message("user", "Why?"),)
LATER = (Message("user", "Why?"), Message("assistant", "Guess."), Message("user", "No."))


def told(items):
    return " ".join(feedback_warnings(feedback_card(items)))


def test_card_of_pairs_by_hand():
    """Lengths in characters: "a b c" 5 beats "a" 1 (longer), again with the sides called otherwise, "a" beats
    "b b" (shorter), a tie, and "cc" beats "dd" (equal): 2 of 3. Words of the ten replies, sorted: seven of
    1, 2, 3, 3: median 1, and 95% of ten is all of them: 3."""
    items = [
        Pair(ASKED, "a b c", "a", annotator="x", margin=1.0),
        Pair(ASKED, "a b c", "a", annotator="y", margin=-1.0, metadata={"k": 1}),
        Pair(ASKED, "a", "b b", annotator="x"),
        Pair(LATER, "a", "b", tie=True, annotator="x"),
        Pair(LATER, "cc", "dd"),
    ]
    card = feedback_card(items)
    assert card.pop("prompt_messages") == {"mean": 2.0, "min": 1, "max": 3, "answered": 1}
    assert card.pop("reply_words") == pytest.approx({"median": 1, "q95": 3, "max": 3})
    assert card.pop("longer_wins") == pytest.approx({"count": 2, "of": 3, "share": 2 / 3, "equal_length": 1})
    assert card.pop("agreement") == {
        **{"items": 1, "judgements": 2, "share": 1.0},
        **{"alpha": 1.0, "metric": "nominal"},
    }
    assert card == {
        "kind": "pairs",
        "rows": 5,
        "prompts": 2,
        "replies": 6,
        "ranked": None,
        "ties": 1,
        "margins": {"count": 2, "negative": 1},
        "likes": None,
        "scores": None,
        "annotators": {"x": 3, "y": 1},
        "unsigned": 1,
        "repeated": {"count": 0, "same": 0},
        "contradicted": {"count": 0, "of": 4},
        "duplicates": 0,
        "metadata_keys": ["k"],
    }


def test_agreement_of_pairs_by_hand():
    """Two judges, three items, they agree on two: share 2/3. Both ways round each item gives two units, so
    n = 12, D_o n = 2 * 2 (one item of two unlike values), and of 12 values 6 are first and 6 second:
    D_e n = (144 - 36 - 36) / 11 = 72 / 11. alpha = 1 - 4 * 11 / 72 = 7 / 18. Which of two replies is first in
    the alphabet changes nothing, nor does the order in which the judges speak."""

    def judged(one, other, swapped=False):
        said = [Pair(ASKED, one, other, annotator="x"), Pair(ASKED, one, other, annotator="y")]
        return [said[0], Pair(ASKED, other, one, annotator="y")] if swapped else said

    for names in (["ab", "cd", "ef"], ["ba", "cd", "ef"], ["ba", "dc", "ef"]):
        items = [*judged(*names[0]), *judged(*names[1]), *judged(*names[2], swapped=True)]
        for some in (items, items[::-1]):
            found = feedback_card(some)["agreement"]
            assert (found["items"], found["judgements"]) == (3, 6)
            assert found["share"] == pytest.approx(2 / 3)
            assert found["alpha"] == pytest.approx(7 / 18)


def test_ties_rankings_and_second_thoughts():
    """x ranks a > b = c; y says b > a (disagrees), c = b (agrees) and c > a (disagrees): three comparisons by
    two judges, one agreed on. x's second ranking, all equal, is the same as the first in bc alone, and counts
    for nothing else."""
    items = [
        Ranking(ASKED, ("a", "b", "c"), (1, 2, 2), "x"),
        Ranking(ASKED, ("a", "b"), (2, 1), "y"),
        Ranking(ASKED, ("c", "b"), (1, 1), "y"),
        Ranking(ASKED, ("c", "a"), (4, 7), "y"),
        Ranking(ASKED, ("a", "b", "c"), (1, 1, 1), "x"),
    ]
    card = feedback_card(items)
    assert card["agreement"]["items"] == 3
    assert card["agreement"]["share"] == pytest.approx(1 / 3)
    assert card["repeated"] == {"count": 3, "same": 1}
    assert card["contradicted"] == {"count": 2, "of": 3}
    assert (card["ties"], card["ranked"]) == (3, pytest.approx({"mean": 2.4, "min": 2, "max": 3}))
    assert card["longer_wins"] is None, "all of equal length"
    twins = [Ranking(ASKED, ("a", "a", "b"), (1, 1, 2), by) for by in "xy"]
    assert feedback_card(twins)["agreement"]["items"] == 1, "a reply is not compared with itself"


def test_likes_and_scores():
    """Likes: x and y agree on "a" and not on "b": share 1/2; n = 4, values 3 liked and 1 not: D_o n = 2,
    D_e n = (16 - 9 - 1) / 3 = 2, alpha 0. Scores 1, 2 of one reply and 5, 5 of another: squares over ordered
    pairs sum to 2 within, and to 2 (1 + 16 + 16 + 9 + 9 + 0) = 102 among all: alpha = 1 - 2 / (102 / 3)."""
    likes = [Like(ASKED, r, liked, by) for r, liked, by in
             [("a", True, "x"), ("a", True, "y"), ("b", True, "x"), ("b", False, "y")]]  # fmt: skip
    card = feedback_card(likes)
    assert card["likes"] == {"count": 3, "share": 0.75}
    assert card["agreement"] == {
        **{"items": 2, "judgements": 4, "share": 0.5, "alpha": 0.0},
        **{"metric": "nominal"},
    }
    scores = [
        Score(ASKED, r, x, by) for r, x, by in [("a", 1, "x"), ("a", 2, "y"), ("b", 5, "x"), ("b", 5, "y")]
    ]
    card = feedback_card(scores)
    assert card["scores"] == {"mean": 3.25, "min": 1, "max": 5}
    found = card["agreement"]
    assert (found["share"], found["metric"]) == (0.5, "interval")
    assert found["alpha"] == pytest.approx(16 / 17)


# --- agreement ----------------------------------------------------------------------------------------

FOUR_OBSERVERS = [
    [1, 1, 1],
    [2, 2, 3, 2],
    [3, 3, 3, 3],
    [3, 3, 3, 3],
    [2, 2, 2, 2],
    [1, 2, 3, 4],
    [4, 4, 4, 4],
    [1, 1, 2, 1],
    [2, 2, 2, 2],
    [5, 5, 5],
    [1, 1],
    [3],
]
"""the reliability data of Krippendorff (2011), section C: a unit a row, what nobody said left out"""


def test_alpha_as_published():
    assert nominal_alpha(FOUR_OBSERVERS) == pytest.approx(0.743, abs=5e-4)
    assert interval_alpha(FOUR_OBSERVERS) == pytest.approx(0.849, abs=5e-4)


def slow_alpha(units, difference):
    """Over ordered pairs of values, as defined: within units weighed 1 / (m_u - 1), then among all."""
    units = [u for u in units if len(u) > 1]
    every = [x for u in units for x in u]
    within = sum(difference(c, k) / (len(u) - 1) for u in units for c, k in itertools.permutations(u, 2))
    among = sum(difference(c, k) for c, k in itertools.permutations(every, 2)) / max(len(every) - 1, 1)
    return 1 - within / among if among else None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.integers(-2, 3), min_size=1, max_size=4), max_size=5), st.sampled_from([1.0, 1e30])
)
def test_alpha_against_its_definition(units, scale):
    assert nominal_alpha(units) == pytest.approx(slow_alpha(units, lambda c, k: c != k))
    scaled = [[x * scale for x in unit] for unit in units]
    assert interval_alpha(scaled) == pytest.approx(slow_alpha(units, lambda c, k: (c - k) ** 2), abs=1e-9)
    for unit in units:
        pairs = list(itertools.permutations(unit, 2))
        if pairs:
            assert agreeing(unit) == pytest.approx(sum(c == k for c, k in pairs) / len(pairs))


# --- words --------------------------------------------------------------------------------------------


def test_warnings():
    """Each where it should be, and nothing of a small clean set."""
    clean = [
        Pair((Message("user", str(i)),), "aa" if i % 2 else "b", "cc" if i % 4 > 1 else "d") for i in range(8)
    ]
    assert told(clean) == ""
    longer = [Pair((Message("user", str(i)),), "long", "s") for i in range(30)]
    shorter = [Pair(p.prompt, p.rejected, p.chosen) for p in longer]
    assert "The longer reply wins 100% of comparisons" in told(longer)
    assert "The shorter reply wins 100%" in told(shorter)
    assert "reply wins" not in told(longer[:14] + shorter[14:])
    signed = [Pair(p.prompt, "b", "d", annotator="Ann" if i else "Bob") for i, p in enumerate(longer)]
    assert "Ann gave 97% of the signed judgements. No two annotators judged the same" in told(signed)
    same = [Pair(ASKED, "b", "d"), Pair(ASKED, "b", "d"), Pair(ASKED, "d", "b")]
    assert told(same) == (
        "1 of 1 comparisons got more than one judgement, and nobody signed: is that noise or taste? "
        "1 of 3 rows with nothing but an earlier one: that counts double. "
        "All have the same prompt: none can be held out by prompt."
    )
    coin = [Like((Message("user", str(i)),), "a", i % 4 < 2 if by else i % 2 == 0, str(by))
            for i in range(24) for by in (0, 1)]  # fmt: skip
    assert "little more than by chance (alpha 0.02)" in told(coin)
    assert "Every reply is liked" in told([Like(ASKED, "a", True), Like(ASKED, "b", True)])
    assert "5% are liked" in told([Like((Message("user", str(i)),), "a", i == 0) for i in range(20)])
    assert "Every score is the same" in told([Score(ASKED, "a", 1), Score(ASKED, "b", 1)])
    ties = [Pair(ASKED, "a", "b", tie=True), Pair(LATER, "a", "b", margin=-1.0)]
    assert "1 margin below 0" in told(ties) and "Only" not in told(ties)
    assert "2 of 3 pairs are ties." in told([*ties, Pair(LATER, "c", "d", tie=True)])
    assert "1 of 1 ranking holds ties." in told([Ranking(ASKED, ("a", "b"), (1, 1))])
    assert "Only 1 of 2 pairs have a margin." in told(
        [Pair(ASKED, "a", "b", margin=1.0), Pair(LATER, "a", "b")]
    )


def test_words_of_a_card():
    """A name from a file is printed without what a terminal would obey."""
    items = [
        Like(LATER, "a b", True, "\x1b[31m"),
        Like(LATER, "a b", False, "y"),
        Like(LATER, "a b", True, "y", metadata={"source": 1}),
    ]
    card = feedback_card(items)
    assert describe_feedback(card) == [
        ("Feedback", "3 likes"),
        ("Prompts", "1 different, 3 messages on average (3 to 3); 1 with an earlier reply of the agent"),
        ("Replies", "1 different"),
        ("Words of a reply", "2 in the middle, 2 at the 95% mark, 2 at most"),
        ("Liked", "2 of 3"),
        ("Annotators", "2; the busiest, y, gave 2 of 3"),
        (
            "Agreement",
            "two annotators agree with probability 0.00 on 1 reply judged by several; "
            "Krippendorff's alpha 0.00 (nominal)",
        ),
        ("Asked again", "0 of 1 times the same answer"),
        ("Contradictions", "1 of 1 replies judged in several ways"),
        ("Duplicates", "0 rows with nothing but an earlier one"),
        ("Metadata", "source"),
    ]
    assert all(value.isprintable() for _, value in describe_feedback(feedback_card(items[:1])))
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_a_card_of_likes_says_what_length_alone_would_reach():
    """Liked are 4 and 1 letters, disliked 2, 2 and 4: 4 beats two and is as long as one, 1 beats none of
    three. 2 of 5 pairs; with 40 replies of which every like is longer the share and the coin stand there."""
    said = [
        Like(ASKED, "a" * n, liked) for n, liked in ((4, True), (1, True), (2, False), (2, False), (4, False))
    ]
    card = feedback_card(said)
    assert card["longer_wins"] == pytest.approx({"count": 2, "of": 5, "share": 2 / 5, "equal_length": 1})
    told = dict(describe_feedback(card))
    assert told["The longer reply wins"] == "2 of 5 pairs of a liked and a disliked reply"
    assert not any("%" in told[key] for key in ("Liked", "The longer reply wins"))
    many = feedback_card([Like((Message("user", str(i)),), "a" * (1 + i % 2), i % 2 == 1) for i in range(40)])
    told = dict(describe_feedback(many))
    assert told["The longer reply wins"] == (
        "100.0% of 400 pairs of a liked and a disliked reply (a coin: 50%)"
    )
    assert told["Liked"] == "20 (50%)" and "The longer reply wins 100%" in feedback_warnings(many)[0]
    assert feedback_card([Like(ASKED, "a", True), Like(ASKED, "bb", True)])["longer_wins"] is None


def test_a_card_is_of_one_kind():
    with pytest.raises(ValueError, match="one kind; got likes and scores"):
        feedback_card([Like(ASKED, "a", True), Score(ASKED, "a", 1.0)])
    with pytest.raises(ValueError, match="at least one"):
        feedback_card([])
