"""Sequences that remember where they came from."""

import dataclasses

import pytest

from turnwise.data.dataset import FeedbackSet, Logs, PromptRow, Prompts
from turnwise.data.dialogue import Dialogue
from turnwise.data.feedback import Like
from turnwise.envs.dialogue import Message


def talk(*rewards, id):
    return Dialogue(tuple(Message("assistant", "hi", r) for r in rewards), id=id)


LOGS = Logs((talk(1.0, 2.0, id="a"), talk(-1.0, id="b"), talk(0.5, id="c")), "desk.jsonl")


def test_a_sequence():
    assert len(LOGS) == 3 and LOGS[-1].id == "c" and [d.id for d in LOGS] == ["a", "b", "c"]
    assert LOGS[0] in LOGS and LOGS.index(LOGS[1]) == 1
    part = LOGS[1:]
    assert isinstance(part, Logs) and part.source == "desk.jsonl" and [d.id for d in part] == ["b", "c"]


def test_equal_rows_are_equal_wherever_they_came_from():
    assert Logs(LOGS.items) == LOGS and list(LOGS) == LOGS and list(LOGS) == LOGS and tuple(LOGS) == LOGS
    assert LOGS[1:] != LOGS and LOGS != "abc"
    with pytest.raises(TypeError):
        hash(LOGS)


def test_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        LOGS.source = "x"


def test_what_a_notebook_shows():
    """Returns 3, -1 and 0.5 have the mean 2.5 / 3 = 0.833; there are 2 + 1 + 1 turns."""
    assert repr(LOGS) == (
        "Logs(3 conversations from desk.jsonl: 4 turns of the agent, mean return 0.833 (-1 to 3))"
    )
    assert repr(LOGS[:0]) == "Logs(0 conversations from desk.jsonl)"
    why = (Message("user", "Why?"),)
    likes = FeedbackSet((Like(why, "So.", True), Like(why, "No.", False)))
    assert repr(likes) == "FeedbackSet(2 likes from rows in memory: 1 prompt)"
    assert repr(likes[:1]) == "FeedbackSet(1 like from rows in memory: 1 prompt)"
    assert repr(likes[:0]) == "FeedbackSet(no judgements from rows in memory)"
    prompts = Prompts((PromptRow(why, {"who": "mum", "age": 3}),), "p.jsonl", text=True)
    assert repr(prompts) == "Prompts(1 prompt from p.jsonl: columns age, who)"
    assert repr(Prompts((PromptRow(why),))) == "Prompts(1 prompt from rows in memory)"
