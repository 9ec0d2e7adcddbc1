"""The negotiator's English is read exactly, and where a talk stands follows from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.envs.tasks.negotiation.game import SELECTION, Turn
from turnwise.envs.tasks.negotiation.scenarios import Triple, divisions, possible_counts
from turnwise.envs.tasks.negotiation.words import (
    ACCEPT,
    CLOSE,
    LEAVE,
    NONE,
    REFUSE,
    Act,
    Standing,
    read_act,
    read_deal,
    standing,
    things,
    wordings,
)

COUNTS = (1, 3, 2)


@pytest.mark.parametrize("counts", possible_counts(), ids=str)
def test_every_sentence_has_one_meaning_and_is_read_back(counts: Triple) -> None:
    acts = [ACCEPT, REFUSE, LEAVE, CLOSE, *(Act("offer", share) for share in divisions(counts))]
    sentences = [(text, act) for act in acts for text in wordings(act, counts)]
    assert len({text for text, _ in sentences}) == len(sentences)
    for text, act in sentences:
        for variant in (text, text.lower(), text.upper(), text.rstrip(".!?"), f"  {text} "):
            assert act == CLOSE or read_act(variant, counts) == act
    assert all(wordings(act, counts) for act in acts) and wordings(NONE, counts) == ()


def test_things_by_hand() -> None:
    assert things(COUNTS, (1, 2, 0)) == "the book and two hats"
    assert things(COUNTS, (1, 3, 1)) == "the book, the hats and one ball"
    assert things(COUNTS, (0, 1, 0)) == "one hat"


@pytest.mark.parametrize(
    ("text", "act"),
    [
        ("i want the book and 2 hats", Act("offer", (1, 2, 0))),  # the rest goes to the other side
        ("You get one hat and I get the rest", Act("offer", (1, 2, 2))),
        ("i'll take 1 hat and both balls, you take the book", Act("offer", (0, 1, 2))),
        ("I get the book and 1 ball, you get 3 hats and 1 ball", Act("offer", (1, 0, 1))),
        ("I get the book and 2 balls, you get 1 ball and the rest", NONE),  # 2 + 1 balls of 2
        ("I want 5 hats", NONE),
        ("I do not want the hats", NONE),
        ("I want the book, you want a ball", NONE),  # who gets the hats?
        ("sounds good, deal", ACCEPT),
        ("no deal", LEAVE),
        ("that is not okay", REFUSE),
        ("what do you like?", NONE),
        ("", NONE),
        (f"deal {SELECTION}", CLOSE),
    ],
)
def test_what_is_plain_is_read_and_what_is_not_is_none(text: str, act: Act) -> None:
    assert read_act(text, COUNTS) == act


@given(st.text(), st.sampled_from(possible_counts()))
def test_the_reader_is_total_and_never_takes_more_than_there_is(text: str, counts: Triple) -> None:
    share = read_act(text, counts).share
    assert share is None or all(0 <= k <= c for k, c in zip(share, counts, strict=True))


ASK: Turn = ("them", "I want the book and two hats.")  # leaves one hat and two balls
BID: Turn = ("me", "Give me the balls and keep the rest.")


@pytest.mark.parametrize(
    ("turns", "now"),
    [
        ([], Standing()),
        ([ASK], Standing((0, 1, 2))),
        ([ASK, BID], Standing((0, 0, 2), mine=True)),
        ([ASK, ("me", "hm")], Standing((0, 1, 2))),
        ([ASK, ("them", "deal")], Standing((0, 1, 2))),  # nobody accepts an offer of their own
        ([ASK, ("me", "deal")], Standing((0, 1, 2), accepted=True)),
        ([ASK, ("me", "deal"), BID], Standing((0, 0, 2), mine=True)),
        ([ASK, ("me", "no")], Standing()),
        ([ASK, ("me", "goodbye"), ASK], Standing(left=True)),
    ],
)
def test_where_a_talk_stands(turns: list[Turn], now: Standing) -> None:
    assert standing(COUNTS, turns) == now


@pytest.mark.parametrize(
    ("turns", "share"),
    [
        ([ASK, ("me", SELECTION)], (0, 1, 2)),  # closing takes the other side's offer
        ([BID, ("me", SELECTION)], None),  # and not one's own
        ([BID, ("them", "deal"), ("me", SELECTION)], (0, 0, 2)),
        ([BID, ("them", "no"), ("me", SELECTION)], None),
        ([ASK, ("me", "no deal"), ("them", SELECTION)], None),
        ([ASK, ("me", "deal"), ("them", SELECTION)], (0, 1, 2)),
        ([("me", SELECTION)], None),
    ],
)
def test_the_deal_that_a_talk_comes_to(turns: list[Turn], share: Triple | None) -> None:
    assert read_deal(COUNTS, turns) == share
    mirrored: list[Turn] = [("them" if who == "me" else "me", text) for who, text in turns]
    theirs = read_deal(COUNTS, mirrored)
    assert theirs == (None if share is None else tuple(c - k for c, k in zip(COUNTS, share, strict=True)))
