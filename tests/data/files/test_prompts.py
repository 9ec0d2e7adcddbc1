"""Prompts of every shape: what is read, what is kept of a row, what is refused."""

import json

import pytest

from turnwise.data.dataset import Prompts
from turnwise.data.files.prompts import read_prompts
from turnwise.data.splits.heldout import is_held_out
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

ASK, SAY, NO = (
    {"role": "user", "content": "Why?"},
    {"role": "assistant", "content": "So."},
    {"role": "assistant", "content": "No."},
)


def user(text):
    return (Message("user", text),)


def refusal(source):
    with pytest.raises(InputError) as caught:
        read_prompts(source)
    return str(caught.value)


def test_texts_and_messages_by_themselves():
    """Texts alone are text; with one list of messages among them all are chats."""
    prompts = read_prompts(["Why?", "How?"])
    assert [row.prompt for row in prompts] == [user("Why?"), user("How?")] and prompts.text
    assert [dict(row.columns) for row in prompts] == [{}, {}]
    mixed = read_prompts(["Why?", [ASK | {"content": "How?"}], (Message("user", "Who?"),)])
    assert [row.prompt for row in mixed] == [user("Why?"), user("How?"), user("Who?")] and not mixed.text


def test_a_table_of_pandas_is_its_rows():
    """To iterate over one gives the names of its columns; over one column, its texts."""
    pandas = pytest.importorskip("pandas", reason="comes with datasets: pip install 'turnwise[data]'")
    table = pandas.DataFrame([{"prompt": "Why?", "who": "mum"}, {"prompt": "How?", "who": "dad"}])
    assert [(row.prompt, row.columns) for row in read_prompts(table)] == [
        (user("Why?"), {"who": "mum"}),
        (user("How?"), {"who": "dad"}),
    ]
    assert [row.prompt for row in read_prompts(table["prompt"])] == [user("Why?"), user("How?")]


def test_columns_are_kept_and_replies_are_not():
    rows = [{"prompt": "Why?", "chosen": "So.", "rejected": "No.", "who": "mum"}]
    assert read_prompts(rows)[0].columns == {"who": "mum"}


@pytest.mark.parametrize(
    "row",
    [
        {"chosen": [ASK, SAY], "rejected": [ASK, NO]},
        {"chosen": "\n\nHuman: Why?\n\nAssistant: So.", "rejected": "\n\nHuman: Why?\n\nAssistant: No."},
        {"prompt": "\n\nHuman: Why?\n\nAssistant:", "chosen": " So.", "rejected": " No."},
        {"input": {"messages": [ASK]}, "preferred_output": [SAY], "non_preferred_output": [NO]},
        {"prompt": [ASK], "completion": "So.", "label": True},
    ],
)
def test_any_feedback_has_a_prompt(row, tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps(row) + "\n")
    assert read_prompts(path)[0].prompt == read_prompts([row])[0].prompt == user("Why?")


def test_a_prompt_counts_once():
    """Four rows of one prompt: the first counts, two have other columns than it has."""
    rows = [{"prompt": "Why?", "k": k} for k in (1, 1, 2, 3)] + [{"prompt": "How?", "k": 2}]
    prompts = read_prompts(rows)
    assert [(row.prompt[0].content, row.columns["k"]) for row in prompts] == [("Why?", 1), ("How?", 2)]
    assert prompts.repeated == 2 and len(prompts) == 2


def test_held_out_by_words():
    """The same prompts as of feedback, in any order; both sides say where they came from."""
    texts = [f"Say {i}." for i in range(40)]
    out = [t for t in texts if is_held_out(user(t), 0.1)]
    assert 0 < len(out) < 40
    learnt, held = read_prompts(texts[::-1]).split(0.1)
    assert [row.prompt[0].content for row in held] == out[::-1] and len(learnt) == 40 - len(out)
    assert isinstance(held, Prompts) and held.text and learnt.source == held.source == "rows in memory"


def test_what_is_left_is_learnt_from():
    """A single prompt that would be held out is learnt from: there is no other."""
    (text, *_) = (t for t in (f"Say {i}." for i in range(100)) if is_held_out(user(t), 0.1))
    learnt, held = read_prompts([text]).split(0.1)
    assert len(learnt) == 1 and not held


def test_refusals(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "Why?"}\n{"prompt": "How?", "prompts": 1}\n')
    clash = "prompts: expected another name (reward functions are given it already); found 1"
    rest = " (1 of 2 rows; skip_bad leaves it out)"
    assert refusal(path) == f"{path}:2: {clash}{rest}"
    assert refusal([{"prompt": "How?", "prompts": 1}]) == f"row 0: {clash}"
    expected = "expected a text, a list of messages or a dict with a prompt"
    assert refusal(["Why?", 3]) == f"row 1: {expected}; found 3{rest}"
    assert refusal([{"question": "Why?"}]).startswith("row 0: prompt: expected text or a list of messages")
    assert refusal([[ASK, SAY]]).startswith("row 0: prompt[1].role: expected the message that is answered at")
    assert refusal([]) == "rows in memory: expected at least one prompt; found nothing (it is empty)"


def test_prompts_that_were_read_stay_as_they_are():
    prompts = read_prompts(["Why?"])
    assert read_prompts(prompts) is prompts
