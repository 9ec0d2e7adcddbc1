"""Conversations as pages show them: long ones in segments, characters whole, values at every turn."""

from __future__ import annotations

import json

import numpy as np
import pytest

import turnwise as tw
from turnwise.data.chat.format import ChatFormat
from turnwise.data.files.logs import read_logs
from turnwise.data.rows import token_rows
from turnwise.evaluation.measures.conversation_views import (
    AFFORDED,
    annotate_conversation,
    conversation_rows,
    how_many,
)
from turnwise.models.lm.fresh import train_tokenizer
from turnwise.models.lm.parts import context_of

SMALL = {"width": 16, "layers": 1, "heads": 2, "context": 48, "vocab": 300}


def long_talk(turns: int) -> dict:
    messages = []
    for i in range(turns):
        messages += [
            {"role": "user", "content": f"tell me of the hat {i}"},
            {"role": "assistant", "content": f"it is number {i} of the hats", "reward": float(i % 2)},
        ]
    return {"messages": messages}


@pytest.fixture(scope="module")
def logs():
    return read_logs([long_talk(5 + i) for i in range(3)])


@pytest.fixture(scope="module")
def clone(logs):
    return tw.fit(tw.BC(epochs=1), logs, quiet=True, heldout=0, **SMALL)


@pytest.mark.parametrize("config", [tw.MC(epochs=1), tw.TurnIQL(epochs=1)], ids=["token", "turn"])
def test_conversations_longer_than_the_context_are_shown(config, logs, clone, tmp_path):
    """All three are far longer than 48 tokens: each is on the page, with values at each of its turns."""
    tw.fit(config, logs, policy=clone, out=tmp_path / "run", quiet=True, heldout=0)
    lines = (tmp_path / "run" / "conversations.jsonl").read_text().splitlines()
    shown = [json.loads(line) for line in lines]
    assert [v["id"] for v in shown] == [d.id for d in logs]
    for view, dialogue in zip(shown, logs, strict=True):
        assert [m["content"] for m in view["messages"]] == [m.content for m in dialogue.messages]
        spoken = [m for m in view["messages"] if m["role"] == "assistant"]
        assert all(np.isfinite([m["v"], m["q"], m["advantage"]]).all() for m in spoken)
    assert (tmp_path / "run" / "report.html").read_text().count('<article class="talk"') == 3


def test_values_of_a_segment_come_from_the_row_that_learns_from_it(logs, clone):
    """Every token once and in order, with the log-probability that its own row gives it."""
    agent, dialogue = clone.agent, logs[2]
    rows = list(token_rows([dialogue], agent.chat, context_of(agent.lm)))
    assert len(rows) > 2
    view = annotate_conversation(agent, dialogue, rows, source="log")
    tokens = [t for m in view["messages"] for t in m.get("tokens", ())]
    expected = [agent.values(row)["logp"][row.decisions >= row.learn_from] for row in rows]
    assert [t["logp"] for t in tokens] == pytest.approx(np.concatenate(expected))
    texts = ["".join(t["text"] for t in m["tokens"]) for m in view["messages"] if "tokens" in m]
    stop = agent.chat.tokenizer.decode([agent.chat.stop])
    assert [text.lstrip() for text in texts] == [m.content + stop for m in dialogue.turns]


def test_rows_are_joined_by_conversation(logs, clone):
    rows = token_rows(logs, clone.agent.chat, context_of(clone.agent.lm))
    joined = conversation_rows(rows)
    assert [row.id for part in joined for row in part] == [row.id for row in rows]
    assert [part[0].id for part in joined] == [d.id for d in logs]


def test_characters_of_several_tokens_are_whole():
    """The tokenizer has seen no such letter: each is several tokens, and none is a diamond."""
    chat = ChatFormat(train_tokenizer(["only plain words"], 270, 64))
    text = "a 漢字 🙂 é"
    ids = chat.tokenizer.encode(text, add_special_tokens=False)
    pieces = chat.pieces(ids)
    assert len(pieces) == len(ids) > len(text) and "".join(pieces).lstrip() == text
    assert all("\ufffd" not in piece for piece in pieces)
    assert [piece for piece in pieces if piece.strip()] == ["a", "漢", "字", "🙂", "é"]
    cut = ids[:-1]  # in the middle of the last letter, as a reply that filled the context may be
    assert len(chat.pieces(cut)) == len(cut) and chat.pieces(cut)[-1] == "\ufffd"


def test_tokens_of_one_character_are_one_on_the_page(clone):
    """Their log-probabilities are summed: together they are the character's."""
    rows = [{"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": "漢!"}]}]
    (dialogue,) = read_logs(rows)
    agent = clone.agent
    (row,) = agent.chat.encode([dialogue])
    view = annotate_conversation(agent, dialogue, [row], source="log")
    tokens = view["messages"][1]["tokens"]
    assert [t["text"] for t in tokens][:3] == [" ", "漢", "!"]
    logp = agent.values(row)["logp"]
    assert [t["logp"] for t in tokens] == pytest.approx([logp[0], logp[1:4].sum(), *logp[4:]])


def test_as_many_are_read_as_the_model_affords():
    """100 tokens each: with AFFORDED / 2,000 parameters 2,000 tokens are read, 20 of them; 12 in any case."""
    size = int(AFFORDED / 2000)
    assert how_many([100] * 200, size) == 20
    assert how_many([100] * 200, 100 * size) == 12
    assert how_many([100] * 200, 1) == 60
    assert how_many([100] * 5, size) == 5
