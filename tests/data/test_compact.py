"""Conversations in compact form are the conversations."""

from __future__ import annotations

import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import turnwise as tw
from turnwise.data.compact import RATED, CompactDialogues
from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue
from turnwise.data.disk import columns
from turnwise.data.splits.choices import chosen, evenly, records_of, returns_of, together
from turnwise.envs.dialogue import Message, ToolCall
from turnwise.run.folder import digest

numbers = st.floats(-1e30, 1e30)
texts = st.text(max_size=8)
maybe = st.none() | texts
calls = st.none() | st.lists(st.builds(ToolCall, maybe, texts, texts), max_size=2).map(tuple)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | numbers | texts,
    lambda x: st.lists(x, max_size=2) | st.dictionaries(texts, x, max_size=2),
    max_leaves=4,
)


def message(role: str, reward: st.SearchStrategy[float]) -> st.SearchStrategy[Message]:
    return st.builds(Message, st.just(role), texts, reward, st.none() | st.floats(-9, 0), maybe, calls, maybe)


dialogues = st.builds(
    Dialogue,
    st.tuples(message("user", st.just(0.0)), message("assistant", numbers), message("tool", st.just(0.0))),
    st.booleans(),
    texts,
    st.just("assistant"),
    st.dictionaries(texts, json, max_size=3),
    st.sampled_from(["outcome", "rewards", "nothing"]),
)


def talk(name: str, reward: float = 0.0, **fields) -> Dialogue:
    return Dialogue((Message("user", name), Message("assistant", "So.", reward)), id=name, **fields)


ODD = [
    talk("a day", 1.0, metadata={"day": datetime.date(2024, 2, 29)}),
    talk("an array", 2.0, metadata={"x": np.array([1.0, 2.0])}),
    talk("a tuple", 3.0, metadata={"x": (1, 2)}),
    talk("whole numbers as keys", 4.0, metadata={"x": {1: 2}}),
    talk("a number of numpy's", np.float64(5.0)),
    talk("half a character \ud800", 6.0),
]


@given(st.lists(dialogues, max_size=4))
def test_what_comes_back_is_equal_and_of_the_same_types(given: list[Dialogue]) -> None:
    compact = CompactDialogues.of(iter(given))
    assert list(compact) == given and [repr(d) for d in compact] == [repr(d) for d in given]
    assert compact.returns.tolist() == [d.undiscounted_return() for d in given]
    assert compact.terminated.tolist() == [d.terminated for d in given]
    assert [RATED[i] for i in compact.rated_by] == [d.rated_by for d in given]
    assert not compact._store.odd


def test_metadata_that_json_does_not_have_are_kept_as_they_are() -> None:
    compact = CompactDialogues.of(ODD)
    assert [repr(d) for d in compact] == [repr(d) for d in ODD]
    assert compact[0].metadata["day"] == datetime.date(2024, 2, 29)
    assert type(compact[2].metadata["x"]) is tuple and isinstance(compact[1].metadata["x"], np.ndarray)


@pytest.mark.parametrize("held", [10, 1 << 20], ids=["in a file", "in memory"])
def test_choices_copy_nothing(monkeypatch, held: int) -> None:
    monkeypatch.setattr(columns, "HELD", held)
    every = [talk(f"number {i}", float(i)) for i in range(10)]
    compact = CompactDialogues.of(every)
    assert compact[-1] == every[-1] and list(compact[2:8:3]) == every[2:8:3]
    some = compact[2:8].select(np.array([5, 0]))
    assert list(some) == [every[7], every[2]] and some.returns.tolist() == [7.0, 2.0]
    assert some._store is compact._store
    with pytest.raises(IndexError):
        compact[10]


def test_what_is_done_with_logs_is_done_with_lists_too() -> None:
    every = [*ODD, *(talk(f"number {i}", float(i)) for i in range(5))]
    compact, places = Logs(CompactDialogues.of(every)), np.array([7, 1])
    assert repr(list(chosen(compact, places))) == repr(chosen(every, places)) == repr([every[7], every[1]])
    assert returns_of(compact).tolist() == returns_of(every).tolist() == [1, 2, 3, 4, 5, 6, 0, 1, 2, 3, 4]
    assert repr(list(together(compact, every))) == repr(together(every, every))


def test_a_part_is_spaced_evenly() -> None:
    """Three of nine: the first, the one in the middle, the last."""
    assert evenly(9, 3).tolist() == [0, 4, 8] and evenly(3, 3).tolist() == [0, 1, 2]
    assert len(evenly(0, 3)) == 0


def test_the_digest_is_that_of_what_is_said_wherever_it_is_held() -> None:
    every = [*ODD, *(talk(f"number {i}", float(i)) for i in range(5))]
    held = digest(records_of(CompactDialogues.of(every)))
    assert held == digest(records_of(every)) == digest(records_of(Logs(tuple(every))))
    assert held.startswith("11 rows, ")
    assert held != digest(records_of([*every[:-1], talk("number 4", 4.5)]))


def test_logs_of_a_file_are_equal_to_the_same_in_memory(tmp_path) -> None:
    every = [talk(f"number {i}", float(i), metadata={"who": "mum"}) for i in range(5)]
    tw.write_logs(tmp_path / "logs.jsonl", every)
    logs = tw.read_logs(tmp_path / "logs.jsonl")
    assert isinstance(logs.items, CompactDialogues)
    assert logs == every and Logs(tuple(every)) == logs and logs[1:3] == every[1:3] and logs != every[1:]
