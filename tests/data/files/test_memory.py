"""Rows in memory: the same values as from a file, the same refusals, and places counted as Python counts."""

import json
import math

import numpy as np
import pytest

from turnwise.data.dataset import FeedbackSet, Logs
from turnwise.data.dialogue import Dialogue
from turnwise.data.feedback import Like, Pair, Score
from turnwise.data.files.feedback import read_feedback
from turnwise.data.files.logs import read_logs
from turnwise.data.files.sources import read_rows
from turnwise.envs.dialogue import Message
from turnwise.run.errors import InputError

HELLO = {"role": "user", "content": "It does not start."}
REPLY = {"role": "assistant", "content": "Please test the fuse.", "reward": -0.05, "behavior_logp": -1.5}
GOOD = {"id": "a", "messages": [HELLO, REPLY], "outcome": 1, "truncated": True, "topic": {"part": 1}}
LIKE = {"prompt": "Why is it dark?", "completion": "The fuse.", "label": True}
REST = " (1 of 2 rows; skip_bad leaves it out)"
ASKED = (Message("user", "Why is it dark?"),)


def refusal(read, *args, **options):
    with pytest.raises(InputError) as caught:
        read(*args, **options)
    assert str(caught.value).isprintable()
    return str(caught.value)


# --- the same as from a file --------------------------------------------------------------------------


@pytest.mark.parametrize("cast", [list, tuple, iter, lambda rows: (row for row in rows)])
def test_rows_of_any_iterable_are_the_rows_of_a_file(tmp_path, cast):
    """Ids that are missing come from the place: rows are counted from 0, lines from 1."""
    rows = [GOOD, GOOD | {"id": 7}, {"messages": [HELLO, REPLY]}]
    path = tmp_path / "logs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    here, there = read_logs(cast(rows)), read_logs(path)
    assert [d.id for d in here] == ["a", "7", "row 2"] and [d.id for d in there] == ["a", "7", "logs.jsonl:3"]
    assert here[:2] == there[:2]
    assert (here.source, there.source) == ("rows in memory", str(path))


def test_a_dataset_in_memory():
    datasets = pytest.importorskip("datasets", reason="needs datasets: pip install 'turnwise[data]'")
    rows = [{"id": str(i), "messages": [HELLO, REPLY], "outcome": i} for i in range(3)]
    logs = read_logs(datasets.Dataset.from_list(rows))
    assert logs == read_logs(rows) and [d.undiscounted_return() for d in logs] == [-0.05, 0.95, 1.95]
    items = read_feedback(datasets.Dataset.from_list([LIKE, LIKE | {"label": False}]))
    assert items == [Like(ASKED, "The fuse.", True, id="row 0"), Like(ASKED, "The fuse.", False, id="row 1")]
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list(rows))
    assert refusal(read_logs, splits).startswith("expected a path, the name of a dataset, or an iterable of")


def test_records_of_pandas():
    """pandas fills what a row lacks with NaN: nothing is there, unless a number was expected."""
    pandas = pytest.importorskip("pandas", reason="comes with datasets: pip install 'turnwise[data]'")
    day = pandas.Timestamp("2024-02-29")
    rows = [
        GOOD | {"day": day},
        {"id": "b", "messages": [HELLO, REPLY], "turns": 3},
    ]
    table = pandas.DataFrame(rows)
    assert math.isnan(table.to_dict("records")[1]["truncated"])
    assert "row 1: outcome: expected a finite number" in refusal(read_logs, table.to_dict("records"))
    first, second = logs = read_logs(table.drop(columns="outcome").to_dict("records"))
    assert read_logs(table.drop(columns="outcome")) == logs, (
        "a table is its rows, not the names of its columns"
    )
    assert not first.terminated and second.terminated
    assert first.metadata == {"topic": {"part": 1}, "day": day}
    assert second.metadata == {"turns": 3}
    nothing = [LIKE | {"annotator": None}, LIKE | {"annotator": pandas.NA}, LIKE | {"annotator": math.nan}]
    assert [item.annotator for item in read_feedback(nothing)] == [None, None, None]


def test_values_of_numpy_and_messages_are_read():
    row = {
        "id": np.int64(3),
        "messages": np.array([HELLO, REPLY | {"reward": np.float32(0.5)}], dtype=object),
        "terminated": np.bool_(False),
        "features": np.array([1.0, 2.0]),
    }
    (dialogue,) = read_logs([row])
    assert dialogue.messages[1] == Message("assistant", "Please test the fuse.", 0.5, -1.5)
    assert (dialogue.id, dialogue.terminated) == ("3", False) and dialogue.metadata == {
        "features": [1.0, 2.0]
    }
    (same,) = read_logs([{"messages": (Message("user", "Hi"), Message("assistant", "Yes", 2.0))}])
    assert same.messages == (Message("user", "Hi"), Message("assistant", "Yes", 2.0))


def test_later_changes_of_a_row_change_no_dialogue():
    row = {"messages": [HELLO, REPLY], "tags": ["x"]}
    (dialogue,) = read_logs([row])
    row["tags"].append("y")
    assert dialogue.metadata == {"tags": ["x"]}


# --- values that are ready ----------------------------------------------------------------------------


def test_dialogues_are_taken_as_they_are():
    """One without an id gets its place as its id; what was read stays as it is, its source too."""
    named = Dialogue((Message("user", "Hi", 1.0),), agent_role="user", id="x")
    bare = Dialogue((Message("assistant", "Yes"),), metadata={"k": 1})
    logs = read_logs([named, bare, GOOD])
    assert logs[0] == named and logs[1].id == "row 1" and logs[1].metadata == {"k": 1} and logs[2].id == "a"
    again = read_logs(Logs(logs.items, "desk.jsonl"))
    assert again == logs and again.source == "desk.jsonl"
    assert refusal(read_logs, [named, named]) == (
        'row 1: id: expected an id of its own (row 0 has it too); found "x"' + REST
    )


def test_feedback_is_taken_as_it_is_and_stays_of_one_kind():
    pair, score = Pair(ASKED, "a", "b"), Score(ASKED, "a", 1.0, id="s")
    items = read_feedback([pair, {"prompt": "Why is it dark?", "chosen": "a", "rejected": "b"}])
    assert items == [Pair(ASKED, "a", "b", id="row 0"), Pair(ASKED, "a", "b", id="row 1")]
    assert isinstance(items, FeedbackSet) and items.kind == "pairs"
    assert refusal(read_feedback, [pair, score]) == "row 1: expected pairs, as in row 0; found scores" + REST
    assert refusal(read_feedback, [LIKE, score]) == "row 1: expected likes, as in row 0; found scores" + REST
    assert refusal(read_feedback, [score], "likes") == "row 0: expected likes; found scores"
    (score,) = read_feedback([LIKE | {"score": 1}], "scores")
    assert score == Score(ASKED, "The fuse.", 1.0, id="row 0", metadata={"label": True})


# --- refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            [GOOD, {"messages": [HELLO, REPLY | {"content": 7}]}],
            "row 1: messages[1].content: expected a string; found 7" + REST,
        ),
        ([GOOD, "hello"], 'row 1: expected a dict, which is one conversation; found "hello"' + REST),
        ([{3: "x"}], "row 0: expected columns whose names are text; found 3"),
        ([], "rows in memory: expected at least one conversation; found nothing (it is empty)"),
        (iter([]), "rows in memory: expected at least one conversation; found nothing (it is empty)"),
    ],
)
def test_refusals_name_the_row(rows, said):
    assert refusal(read_logs, rows) == said


def test_what_is_no_source_at_all():
    expected = "expected a path, the name of a dataset, or an iterable of rows; found "
    assert refusal(read_logs, GOOD) == f"{expected}a dict (one row goes into a list, of splits name one)"
    for nothing in (None, 3, b"logs.jsonl", np.zeros(3)):
        assert refusal(read_logs, nothing) == f"{expected}{type(nothing).__name__}"
    assert refusal(read_feedback, ["x"]) == 'row 0: expected a dict, which is one judgement; found "x"'


def test_depth_without_end_is_refused():
    deep = []
    deep.append(deep)
    assert refusal(read_logs, [GOOD, GOOD | {"x": deep}]) == (
        "row 1: expected a row; found values nested too deeply" + REST
    )


def test_an_error_of_a_generator_is_its_own():
    def rows():
        yield GOOD
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read_logs(rows())


def test_rows_are_read_one_at_a_time():
    """A generator may be longer than memory: whoever reads rows takes no more than it asks for."""
    taken = []
    for row in read_rows(taken.append(i) or {"i": i} for i in range(5)):
        assert taken[-1] == row.value["i"] and len(taken) == row.value["i"] + 1
