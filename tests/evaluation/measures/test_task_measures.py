"""Measures of a task's own: means over the conversations that have them, beside the return."""

from dataclasses import replace

import pytest

from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.evaluation.measures.conversations import conversation_summary, measures_in_words
from turnwise.rollout.conversations import Conversation
from turnwise.run.errors import InputError


def conversation(info):
    messages = (Message("user", "Hi"), Message("assistant", "Hello", reward=1.0))
    dialogue = Dialogue(id="c", messages=messages, agent_role="assistant", terminated=True)
    return Conversation(0, dialogue, tokens=None, hidden={}, info=info)


def test_means_over_the_conversations_that_have_a_measure():
    """(1 + 3 + 2) / 3 = 2 of three conversations, (.5 + 1) / 2 of two. One value has no interval."""
    infos = [{"measures": {"gap": 1, "wit": 1}}, {"measures": {"gap": 3.0, "wit": 0.5}}, {}]
    infos.append({"measures": {"gap": 2, "once": 7}})
    found = conversation_summary([conversation(info) for info in infos], seed=0)["measures"]
    means = {name: (m["mean"], m["conversations"]) for name, m in found.items()}
    assert means == {"gap": (2, 3), "wit": (0.75, 2)}
    assert found["gap"]["low"] < 2 < found["gap"]["high"]
    gap, wit = measures_in_words(found)
    assert gap.startswith("gap 2 (") and gap.endswith(", 95%)") and wit.startswith("wit 0.75 (")


def test_a_task_without_measures():
    summary = conversation_summary([conversation({"success": True})] * 2, seed=0)
    assert summary["measures"] == {} and measures_in_words(summary["measures"]) == []
    assert summary["mean"] == pytest.approx(1.0)


def test_conversations_whose_partner_failed_are_counted_and_nothing_else() -> None:
    """Two that earned 1 and one that nobody held: the mean is 1, not 2/3."""
    good, failed = conversation({"success": True}), replace(conversation({}), failed=True)
    found = conversation_summary([good, failed, good], seed=0)
    assert (found["mean"], found["episodes"], found["failed"]) == (pytest.approx(1.0), 2, 1)
    assert "failed" not in conversation_summary([good, good], seed=0)
    with pytest.raises(InputError, match="the partner failed in all 1 conversations"):
        conversation_summary([failed], seed=0)
