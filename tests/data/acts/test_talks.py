"""Conversations cut where the agent decides, and read as acts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import turnwise as tw
from turnwise.data.acts.codebook import Example, Heard, Utterance
from turnwise.data.acts.talks import SILENCE, Codes, cut_turns
from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message


@dataclass(frozen=True)
class ByLength:
    """Short or long, by the number of characters."""

    names: tuple[str, ...] = ("short", "long")

    def read(self, utterances: Sequence[Utterance]) -> Heard:
        return Heard(np.array([int(len(u.text) > 3) for u in utterances]), np.zeros(len(utterances)))

    def examples(self, act: int) -> list[Example]:
        return []


def talk(*words: str) -> tuple[Message, ...]:
    """`a: hi` is the agent's, `u: ...` the user's, `s: ...` the system's."""
    roles = {"a": "assistant", "u": "user", "s": "system"}
    return tuple(Message(roles[w[0]], w[3:], reward=2.0 if w[0] == "a" else 0.0) for w in words)


def test_messages_in_a_row_are_one_answer_and_a_decision_each() -> None:
    turns = cut_turns(talk("s: be kind", "u: hi", "a: one", "a: two", "u: yes", "u: no", "a: bye"))
    assert turns.opening.text == "be kind\nhi"
    assert [u.text for u in turns.said] == ["one", "two", "bye"]
    assert [u and u.text for u in turns.heard] == [None, "yes\nno", None]
    assert [len(u.before) for u in turns.said] == [2, 3, 6]


def test_an_agent_that_speaks_first_knows_nothing_beforehand() -> None:
    turns = cut_turns(talk("a: hello", "u: yes"))
    assert turns.opening == Utterance("") and [u and u.text for u in turns.heard] == ["yes"]


def test_talks_are_read_as_acts_with_silence_as_answer_0() -> None:
    codes = Codes(ByLength(), ByLength(), ByLength())
    logs = [
        Dialogue(talk("u: hi", "a: one", "u: lengthy", "a: at length"), terminated=False, id="x"),
        Dialogue(talk("a: four!", "u: no")),
    ]
    found = codes.talks(logs)
    assert found.answers == (SILENCE, "short", "long")
    assert [t.acts.tolist() for t in found] == [[0, 1], [1]]
    assert [t.answers.tolist() for t in found] == [[2, 0], [1]]
    assert [t.first for t in found] == [0, 0] and [t.terminated for t in found] == [False, True]
    assert found[0].rewards.tolist() == [2, 2] and np.isnan(found[0].behavior_logp).all()


def test_acts_of_a_log_are_read_and_written_again(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": "hi", "act": "greet"},
                {"role": "assistant", "content": "which part?", "act": 3, "act_logp": -0.5, "reward": 1},
            ]
        }
    ]
    logs = tw.read_logs(rows)
    assert [m.act for m in logs[0].messages] == ["greet", "3"]
    tw.write_logs(tmp_path / "logs.jsonl", logs)
    assert tw.read_logs(tmp_path / "logs.jsonl") == tw.read_logs(list(logs)) == logs
    (again,) = tw.read_logs([{"messages": list(logs[0].messages)}])
    assert again.messages == logs[0].messages


def test_the_probability_of_an_act_counts_if_the_act_is_the_codebook_s() -> None:
    """Of two acts "long" the log calls one so and the other "x"; a third message has no act of its own."""
    said = [("at length", "long", -0.5), ("at leisure", "x", -0.25), ("no", None, -0.125), ("o", None, None)]
    messages = [Message("assistant", text, act=act, act_logp=logp) for text, act, logp in said]
    (found,) = Codes(ByLength(), ByLength(), ByLength()).talks([Dialogue(tuple(messages))])
    np.testing.assert_equal(found.act_logp, [-0.5, np.nan, -0.125, np.nan])
