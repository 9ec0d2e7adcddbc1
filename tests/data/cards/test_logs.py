"""The data card by hand arithmetic, its words, and what it warns of."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from turnwise.data.cards.logs import BINS, data_card, describe, warnings
from turnwise.data.dataset import Logs, Reading
from turnwise.data.dialogue import Dialogue
from turnwise.data.rows import Cuts
from turnwise.data.splits.heldout import Split
from turnwise.envs.dialogue import Message


def talk(*rewards, words="Test it.", logp=None, terminated=True, **metadata):
    """The agent speaks once a reward, the partner before each."""
    messages = []
    for i, reward in enumerate(rewards):
        messages += [Message("user", f"It fails {i}."), Message("assistant", words, reward, logp)]
    return Dialogue(tuple(messages), terminated, metadata=metadata)


def told(dialogues):
    return warnings(data_card(dialogues, file="x.jsonl"), dialogues)


FOUR = [
    talk(1.0, words="a", logp=-1.0, fault=1),
    talk(-0.5, 0.5, words="b"),
    talk(0.0, 0.0, 2.0, words="c", topic="x"),
    talk(1.0, words="a", logp=-1.0, terminated=False),
]
TWIN = "have a twin (the same messages, whoever says them)"
ONE_OUT = Split(FOUR[:3], FOUR[3:], twins=2)


def test_card_by_hand():
    """Returns 1, 0, 2, 1: mean 1, squared deviations 0 + 1 + 1 + 0, so std = sqrt(2/3) = 0.8165 with n - 1;
    the interval is 1 -+ 1.96 * 0.8165 / 2 = 1 -+ 0.8002. Turns 1, 2, 3, 1: mean 1.75; twice as many messages.
    Bins of 0.1 from 0 to 2: 0 falls in the first, 1 in the eleventh, 2 in the last. The last conversation
    says what the first says. Lengths 10 and 30 do not pass a context of 30, 31 does."""
    card = data_card(FOUR, file="x.jsonl", lengths=[10, 30, 31, 9], context=30, split=ONE_OUT)
    assert card.pop("return") == pytest.approx(
        {"mean": 1, "std": math.sqrt(2 / 3), "min": 0, "max": 2, "low": 0.1998, "high": 1.8002}, abs=1e-4
    )
    histogram = card.pop("histogram")
    assert histogram["edges"] == pytest.approx(np.arange(BINS + 1) / 10)
    assert {i: c for i, c in enumerate(histogram["counts"]) if c} == {0: 1, 10: 2, 19: 1}
    assert card == {
        "file": "x.jsonl",
        "conversations": 4,
        "heldout": 1,
        "twins": 2,
        "across": 0,
        "outcomes": 0,
        "agent_turns": {"mean": 1.75, "min": 1, "max": 3},
        "messages": 14,
        "tokens": {"mean": 20.0, "max": 31, "total": 80},
        "rated": 4,
        "missing_outcomes": 0,
        "reading": [],
        "terminated": 3,
        "truncated": 1,
        "propensities": "some",
        "act_propensities": "none",
        "metadata_keys": ["fault", "topic"],
        "duplicates": 1,
        "over_context": 1,
        "context": 30,
        "cut": None,
    }


def test_what_is_not_known_is_none():
    card = data_card(FOUR, file="x.jsonl")
    assert (card["tokens"], card["over_context"], card["heldout"]) == (None, None, 0)
    assert data_card(FOUR, file="x.jsonl", lengths=[1] * 4)["over_context"] is None


def test_one_conversation_has_an_interval_of_no_width():
    returns = data_card([talk(0.5)], file="x.jsonl")["return"]
    assert returns == {"mean": 0.5, "std": 0, "min": 0.5, "max": 0.5, "low": 0.5, "high": 0.5}


def test_returns_that_differ_by_rounding_are_equal():
    """0.1 + 0.2 = 0.30000000000000004 and 0.3 are one return: one bin, and nothing to learn."""
    dialogues = [talk(0.1 + 0.2), talk(0.3)]
    assert data_card(dialogues, file="x.jsonl")["histogram"]["counts"] == [2]
    assert told(dialogues)[0].startswith("Every conversation returns 0.3: ")


def test_propensities_are_those_of_the_agents_messages():
    partner = Message("user", "Hm.", behavior_logp=-1.0)
    without = Dialogue((partner, Message("assistant", "Yes.")))
    assert data_card([without], file="x")["propensities"] == "none"
    assert data_card([talk(1.0, logp=0.0)], file="x")["propensities"] == "all"


def test_a_card_needs_conversations_and_a_length_for_each():
    with pytest.raises(ValueError, match="at least one conversation"):
        data_card([], file="x")
    with pytest.raises(ValueError, match="3 lengths for 4 conversations"):
        data_card(FOUR, file="x", lengths=[1, 2, 3])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.floats(-1e30, 1e30), min_size=1, max_size=3), min_size=1, max_size=6))
def test_any_rewards_give_a_card_of_json(rewards):
    dialogues = [talk(*r) for r in rewards]
    card = data_card(dialogues, file="x.jsonl")
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert sum(card["histogram"]["counts"]) == len(dialogues)
    assert card["return"]["low"] <= card["return"]["mean"] <= card["return"]["high"]
    assert all(value.isprintable() for _, value in describe(card))
    assert all(text.endswith((".", "?")) for text in warnings(card, dialogues))


def test_words():
    """The numbers of the card by hand, rounded to three decimals; a large one is grouped."""
    card = data_card(FOUR, file="x.jsonl", lengths=[10, 30, 31, 9], context=30, split=ONE_OUT)
    assert describe(card) == [
        ("File", "x.jsonl"),
        ("Conversations", "4, 1 of them held out"),
        ("Agent's turns", "1.75 turns on average (1 to 3)"),
        ("Messages", "14 of all roles"),
        ("Length", "20 tokens on average, 31 at most, 80 in all"),
        ("Return", "1 on average (95% interval 0.2 to 1.8), from 0 to 2"),
        ("Ends", "3 at a true end, 1 cut off"),
        ("Behaviour propensities", "on some messages of the agent"),
        ("Metadata", "fault, topic"),
        ("Duplicates", "1 conversation with the words of an earlier one"),
        ("Held-out split", f"2 conversations {TWIN}; twins stay on one side"),
        ("Over the context", "1 conversation, chained into segments"),
    ]
    words = dict(describe(data_card([talk(12345.678, -1e-5)], file="x.jsonl", lengths=[20_000])))
    assert words["Return"].startswith("12,345.678 on average")
    assert words["Length"] == "20,000 tokens on average, 20,000 at most, 20,000 in all"
    assert words["Metadata"] == "none"
    assert "Over the context" not in words
    assert dict(describe(data_card([talk(-1e-5)], file="x")))["Return"].startswith("-1e-05 on average")


# --- warnings: what sets each off, and that it is quiet otherwise -----------------------------------------


def test_nothing_to_warn_of():
    """One in five cut is not above a fifth."""
    assert told([talk(float(i), words=str(i), logp=-1.0, terminated=i > 0) for i in range(5)]) == []


def test_no_reward():
    dialogues = [talk(0.0, words="a", Score=1), talk(0.0, words="b", Score=0)]
    assert told(dialogues) == [
        "Every outcome and every reward is 0: values have no better and worse to learn from. "
        "The column 'Score' is kept as metadata; is it the outcome (outcome_column)?"
    ]
    assert told([talk(0.0)])[0].endswith("to learn from.")


def unrated(dialogue):
    return replace(dialogue, rated_by="nothing")


def test_missing_outcomes_are_counted_and_are_no_zeros():
    """Outcomes 1, 0 and 1 of five: 2/3 on average, where zeros for the others would have made it 2/5."""
    outcomes = [replace(talk(x, words=str(i)), rated_by="outcome") for i, x in enumerate((1.0, 0.0, 1.0))]
    dialogues = [*outcomes, unrated(talk(0.0, words="x")), unrated(talk(0.0, words="y", terminated=False))]
    card = data_card(dialogues, file="x")
    assert (card["rated"], card["missing_outcomes"]) == (3, 1), "what was cut has not come to an outcome"
    assert card["return"]["mean"] == pytest.approx(2 / 3) and sum(card["histogram"]["counts"]) == 3
    assert dict(describe(card))["Return"].endswith("from 0 to 1; of the 3 that have one")
    assert warnings(card, dialogues) == [
        "1 of 5 conversations (20%) ended without an outcome, which is not 0: what learns from outcomes asks "
        "what becomes of them (missing_outcome: leave-out, or a number)."
    ]


def test_no_outcome_at_all_is_no_return():
    dialogues = [unrated(talk(0.0, words="a", Rating=3)), unrated(talk(0.0, words="b", Rating=1))]
    card = data_card(dialogues, file="x")
    assert (card["rated"], card["missing_outcomes"], card["return"], card["histogram"]) == (0, 0, None, None)
    assert dict(describe(card))["Return"] == "unknown: no conversation has an outcome or a reward"
    assert warnings(card, dialogues) == [
        "No outcome and no reward anywhere: only cloning learns from such conversations. "
        "The column 'Rating' is kept as metadata; is it the outcome (outcome_column)?"
    ]


def test_what_was_left_out_stands_on_the_card():
    logs = Logs((talk(1.0),), "x", Reading(skipped=2, faults=("x:3: bad",), passed_over=("notes.txt",)))
    assert describe(data_card(logs))[-2:] == [
        ("Reading", "2 bad rows were left out; the first: x:3: bad"),
        ("", "1 file of the folder not read: notes.txt."),
    ]


def test_equal_returns():
    assert told([talk(1.0, words="a"), talk(0.5, 0.5, words="b")]) == [
        "Every conversation returns 1: values have no better and worse to learn from."
    ]
    assert told([talk(1.0)]) == []


def test_many_cut():
    dialogues = [talk(float(i), words=str(i), terminated=i > 1) for i in range(8)]
    assert told(dialogues) == [
        "2 of 8 conversations (25%) were cut before their end: what they would have been worth is "
        "estimated, not observed."
    ]


def test_propensities_on_some_messages():
    """The conversation of three turns has none: 3 of 4 messages."""
    assert told([talk(1.0, words="a", logp=-1.0), talk(0.0, 0.0, 0.0, words="b")]) == [
        "3 of the agent's 4 messages have no behavior_logp: estimates that need it can use none of "
        "their conversations."
    ]
    some = tuple(Message("assistant", w, act_logp=p) for w, p in (("c", -1.0), ("d", None)))
    assert told([talk(1.0, words="a", logp=-1.0), Dialogue(some, id="h-7")])[-1] == (
        "2 of the agent's 3 messages have no act_logp (first in conversation h-7): estimates that need it "
        "can use none of their conversations."
    )


def test_duplicates():
    """Words decide, not rewards; the first of three is no repetition."""
    dialogues = [talk(1.0), talk(2.0), talk(3.0), talk(1.0, words="b")]
    assert told(dialogues) == [
        "2 of 4 conversations (50%) repeat an earlier one word for word: they count double.",
        "3 of 4 conversations (75%) have a twin (the same messages, whoever says them): twins stay on one "
        "side of the held-out split.",
    ]


def test_twins_across_the_split_are_said():
    """Where the user says what is held out, twins may be on both sides: then figures flatter."""
    split = Split(FOUR[:3], FOUR[3:], twins=2, across=1)
    card = data_card(FOUR, file="x.jsonl", split=split)
    said = f"2 conversations {TWIN}; 1 held-out ones have theirs among those learnt from"
    assert dict(describe(card))["Held-out split"] == said
    assert warnings(card, FOUR)[-1].startswith("1 of 1 held-out conversation have a twin")
    card = data_card(FOUR, file="x.jsonl", split=Split(FOUR[:3], FOUR[3:], twins=0, outcomes=2))
    assert dict(describe(card))["Held-out split"] == "each of 2 outcomes is held out in its share"


def test_logs_know_their_file():
    assert data_card(Logs(tuple(FOUR), "desk.jsonl"))["file"] == "desk.jsonl"
    assert data_card(Logs(tuple(FOUR), "desk.jsonl"), file="other.jsonl")["file"] == "other.jsonl"
    assert data_card(FOUR)["file"] == "rows in memory"


def test_what_does_not_fit_the_context_is_counted_and_said() -> None:
    """Lengths 10 + 30 + 31 + 9 = 80, of which 20 in 3 messages of 2 conversations are not read: 25%. One of 4
    opens with more than the context, one is read in parts that begin with a quarter of its system message."""
    cuts = Cuts(conversations=2, messages=3, tokens=20, systems=1, openings=1, shortest_opening=4)
    card = data_card(FOUR, file="x.jsonl", lengths=[10, 30, 31, 9], context=30, cuts=cuts)
    assert card["cut"]["tokens"] == 20
    assert dict(describe(card))["Not read"] == "20 tokens (25.0%) of 3 messages in 2 conversations"
    said = warnings(card, FOUR)
    assert any(text.startswith("3 messages of 2 conversations lose 20 tokens") for text in said)
    assert any("1 of 4 conversations" in text and "before the agent's first turn" in text for text in said)
    assert any("first 7 tokens of a longer system message" in text for text in said)
    nothing = data_card(FOUR, file="x.jsonl", lengths=[10, 30, 31, 9], context=30, cuts=Cuts())
    assert "Not read" not in dict(describe(nothing))
    assert not any("context" in text for text in warnings(nothing, FOUR))
