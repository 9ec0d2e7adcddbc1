"""Conversations from the other side: who says what, who is paid where, what counts as a turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnwise.data.chat.format import ChatFormat
from turnwise.data.dialogue import Dialogue
from turnwise.data.other_side import Scene, TurnedLogs, read_turn, scene_of, turn_text, turned
from turnwise.envs.dialogue import Message, ToolCall
from turnwise.models.lm.fresh import train_tokenizer


def said(*pairs: tuple[str, str], rewards: tuple[float, ...] = ()) -> tuple[Message, ...]:
    """Messages of (role, content); `rewards` are those of the agent's messages in order."""
    left = list(rewards)
    return tuple(
        Message(role, text, left.pop(0) if role == "assistant" and left else 0.0) for role, text in pairs
    )


TALK = Dialogue(
    said(
        ("system", "be kind"),
        ("user", "help"),
        ("assistant", "which part?"),
        ("user", "the screen"),
        ("assistant", "new screen"),
        ("user", "thanks"),
        rewards=(-0.05, 1.0),
    ),
    metadata={"fault": "screen", "shop": 3},
)


def words(d: Dialogue | None) -> list[tuple[str, str, float]]:
    assert d is not None
    return [(m.role, m.content, m.reward) for m in d.messages]


def test_roles_change_places_and_an_answer_carries_what_the_words_before_it_earned():
    """-.05 for the question shows in the answer to it, 1 for the fix in the thanks; nothing was earned yet
    when help was asked for."""
    assert words(turned(TALK)) == [
        ("system", "be kind", 0.0),
        ("assistant", "help", 0.0),
        ("user", "which part?", 0.0),
        ("assistant", "the screen", -0.05),
        ("user", "new screen", 0.0),
        ("assistant", "thanks", 1.0),
    ]


def test_facts_stand_first_and_only_the_partner_has_them():
    found = turned(TALK, ("fault", "shop", "mood"))  # no row has a mood here: it is left out
    assert words(found)[:2] == [("system", "fault: screen\nshop: 3", 0.0), ("system", "be kind", 0.0)]
    scene = scene_of(TALK, ("fault",))
    assert scene == Scene(("be kind",), {"fault": "screen"}, first=True)
    assert [m.content for m in scene.seen()] == ["fault: screen", "be kind"]


def test_silence_at_a_true_end_is_a_turn_and_at_a_cut_is_none():
    """The agent spoke last. After an end the partner said nothing, which earned -1; after a cut who knows."""
    messages = said(
        ("user", "hi"), ("assistant", "a"), ("user", "b"), ("assistant", "c"), rewards=(0.5, -1.0)
    )
    ended, cut = turned(Dialogue(messages)), turned(Dialogue(messages, terminated=False))
    assert words(ended)[-2:] == [("user", "c", 0.0), ("assistant", "", -1.0)]
    assert words(cut)[-1] == ("user", "c", 0.0) and sum(r for _, _, r in words(cut)) == 0.5


def test_words_of_the_agent_in_a_row_earn_together():
    d = Dialogue(said(("assistant", "a"), ("assistant", "b"), ("user", "c"), rewards=(0.25, 0.5)))
    assert words(turned(d)) == [("user", "a", 0.0), ("user", "b", 0.0), ("assistant", "c", 0.75)]
    assert not scene_of(d).first


def test_an_agent_alone_has_no_partner():
    d = Dialogue(said(("system", "s"), ("assistant", "a"), rewards=(1.0,)), terminated=False)
    assert turned(d) is None
    logs = TurnedLogs([d, TALK, d])
    assert logs.places == [1] and len(logs) == 1 and logs[0] == turned(TALK) and [*logs] == logs[:]


def test_tools_answer_in_the_partners_turn_and_come_back_as_they_were():
    """A call of the agent is text for the partner; the tool's answer and the words behind it are one turn."""
    call = ToolCall("1", "stock", '{"car": 2}')
    tool = Message("tool", "car 2: none\ncar 3: one", name="stock", tool_call_id="1")
    d = Dialogue(
        (Message("assistant", "let me see", 0.0, tool_calls=(call,)), tool, Message("user", "well?"),
         Message("assistant", "sorry", -1.0)),
    )  # fmt: skip
    assert words(turned(d)) == [
        ("user", 'let me see\ncall stock({"car": 2})', 0.0),
        ("assistant", "[tool stock] car 2: none\ncar 3: one\n[user] well?", 0.0),
        ("user", "sorry", 0.0),
        ("assistant", "", -1.0),
    ]
    assert read_turn(words(turned(d))[1][1]) == (replace(tool, tool_call_id=None), Message("user", "well?"))


MESSAGES = st.lists(
    st.tuples(st.sampled_from(["user", "tool", "system"]), st.text("ab c\n", min_size=1, max_size=9)),
    min_size=1,
    max_size=4,
)


@given(MESSAGES)
def test_turns_can_be_read_back(parts: list[tuple[str, str]]):
    """Whatever was said without marks and without line ends around it; an empty text is no message."""
    messages = [Message(role, text.strip() or "x") for role, text in parts]
    assert read_turn(turn_text(messages)) == tuple(messages)
    assert read_turn("") == ()


@given(st.text(max_size=60))
def test_every_text_can_be_read(text: str):
    assert all(m.role in ("user", "tool", "system") for m in read_turn(text))


@pytest.mark.parametrize("terminated", [True, False])
def test_no_token_is_both_sides(terminated: bool):
    """The tokens that the agent's clone learns spell what the agent said and the stop token, those that the
    partner learns spell what the partner said: together all that was said, and nothing twice."""
    tokenizer = train_tokenizer(["help which part? the screen new thanks be kind"] * 5, 300, 128)
    chat = ChatFormat(tokenizer)
    d = replace(TALK, terminated=terminated)
    (mine,), (its,) = chat.encode([d]), chat.encode([turned(d)])

    def spelt(row) -> list[str]:
        turns = np.split(row.ids[row.action], np.flatnonzero(row.turn_end[row.action])[:-1] + 1)
        assert all(turn[-1] == chat.stop for turn in turns)
        return [chat.text(turn) for turn in turns]

    assert spelt(mine) == ["which part?", "new screen"]
    assert spelt(its) == ["help", "the screen", "thanks"]
    assert sorted(spelt(mine) + spelt(its)) == sorted(m.content for m in d.messages if m.role != "system")
