from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows


def tiny() -> POMDP:
    """Two states, two actions, action 1 ends the episode from s1; rewards depend on what is seen."""
    t = np.array([[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    o = np.array([[[0.75, 0.25], [0.25, 0.75]]] * 2)
    r = np.zeros((2, 2, 2, 2))
    r[0, 0, 1] = [4.0, 8.0]  # seen from s1 with .25 and .75: 7 on average
    r[1, 1, 0] = 2.0
    ends = np.zeros((2, 2, 2), bool)
    ends[1, 1, 0] = True
    return POMDP.from_arrays(t, o, r, discount=0.5, start=np.array([1.0, 0.0]), ends=ends)


def test_expected_rewards_are_over_states_and_what_is_seen() -> None:
    # R(s0, a0) = .5 * 0 + .5 * 7
    np.testing.assert_allclose(tiny().expected_rewards(), [[3.5, 0.0], [0.0, 2.0]])


def test_an_end_is_followed_by_nothing() -> None:
    np.testing.assert_allclose(tiny().continuing().dense(), [[0.5, 0.5], [0, 1], [1, 0], [0, 0]])
    assert tiny().episodic


def test_rows_are_sparse_and_come_back_full() -> None:
    matrix = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 3.0]])
    rows = Rows.from_dense(matrix)
    assert rows.indptr.tolist() == [0, 1, 1, 3] and rows.indices.tolist() == [1, 0, 2]
    np.testing.assert_array_equal(rows.dense(), matrix)
    back = Rows.from_entries(np.array([2, 0, 2]), np.array([2, 1, 0]), np.array([3.0, 2.0, 1.0]), (3, 3))
    np.testing.assert_array_equal(back.dense(), matrix)


def test_what_is_shown_first_is_seen_from_the_first_state() -> None:
    shown = tiny().showing_initial()
    assert shown.initial is not None
    np.testing.assert_allclose(shown.initial.dense(), [[0.75, 0.25], [0.25, 0.75]])


def test_nothing_can_be_shown_first_where_seeing_depends_on_the_action() -> None:
    p = tiny()
    data = p.emissions.data.copy()
    data[-2:] = [0.5, 0.5]
    e = Rows(p.emissions.indptr, p.emissions.indices, data, 2)
    with pytest.raises(ValueError, match="observations depend on the action"):
        replace(p, emissions=e).showing_initial()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"discount": 1.5}, "discount is 1.5"),
        ({"start": np.array([0.5, 0.6])}, "start sums to 1.1"),
        ({"start": np.array([1.0])}, "start has shape"),
        ({"rewards": np.zeros(1)}, "rewards has shape"),
        ({"ends": np.zeros(1)}, "ends has shape"),
        ({"start": np.array([np.nan, 1.0])}, "start sums to nan"),
        ({"start": np.array([2.0, -1.0])}, "expected probabilities that sum to 1"),
        (
            {"rewards": np.array([0, 0, 0, np.inf, 0])},
            r"reward of transitions\[1, 0\] .action a1, state s0. is inf",
        ),
    ],
)
def test_what_cannot_be_a_problem_is_refused(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(tiny(), **change)


def test_a_row_that_does_not_sum_to_one_is_named() -> None:
    t = np.array([[[0.5, 0.5], [0.0, 0.9]]])
    with pytest.raises(ValueError, match=r"\(action a0, state s1\): probabilities sum to 0\.9; expected 1"):
        POMDP.from_arrays(t, np.ones((1, 2, 1)), np.zeros((1, 2)), discount=0.9, start=np.array([1.0, 0.0]))


def test_entries_of_rows_come_row_after_row() -> None:
    """Row 0 has entry 0, row 1 none, row 2 entries 1 and 2; asked for are rows 2, 1, 0, 2."""
    rows = Rows.from_dense(np.array([[0.0, 2.0], [0.0, 0.0], [1.0, 3.0]]))
    position, entry = rows.entries_of(np.array([2, 1, 0, 2]))
    assert position.tolist() == [0, 0, 2, 3, 3] and entry.tolist() == [1, 2, 0, 1, 2]


ROOM = {
    "transitions": np.array([np.eye(3), np.eye(3)]),
    "emissions": np.ones((2, 3, 1)),
    "rewards": np.zeros((2, 3)),
    "discount": 0.9,
    "start": np.array([1.0, 0.0, 0.0]),
    "states": ["near", "far", "out"],
    "actions": ["look", "go"],
}
"""two actions, three states, one observation"""


def changed(field: str, place: tuple[int, ...], value: float) -> np.ndarray:
    array = np.array(ROOM[field], float)
    array[place] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"transitions": np.zeros((2, 3, 4))},
            "transitions has shape (2, 3, 4); expected (actions, states, states), a square matrix per action",
        ),
        (
            {"transitions": np.eye(3)},
            "transitions has shape (3, 3); expected (actions, states, states), a square matrix per action",
        ),
        (
            {"emissions": np.ones((3, 2, 1))},
            "emissions has shape (3, 2, 1); expected (2, 3, observations), since transitions has 2 actions "
            "and 3 states",
        ),
        (
            {"rewards": np.zeros((3, 2))},
            "rewards has shape (3, 2); expected (2, 3) or (2, 3, 3) or (2, 3, 3, 1), for 2 actions, 3 states "
            "and 1 observations",
        ),
        (
            {"ends": np.zeros(2, bool)},
            "ends has shape (2,); expected (3,) or (2, 3, 3), for 2 actions, 3 states and 1 observations",
        ),
        ({"start": np.ones(2) / 2}, "start has shape (2,); expected (3,), one probability per state"),
        ({"discount": 1.01}, "discount is 1.01; expected a number from 0 to 1"),
        ({"discount": np.nan}, "discount is nan; expected a number from 0 to 1"),
        ({"states": ["near", "far"]}, "states has 2 names; expected 3, as many as the arrays have"),
        ({"actions": ["go", "go"]}, "actions has the name 'go' twice; expected different names"),
        (
            {"transitions": changed("transitions", (1, 2, 0), 0.25)},
            "transitions[1, 2] (action go, state out): probabilities sum to 1.25; expected 1",
        ),
        (
            {"transitions": changed("transitions", (0, 1, 1), np.nan)},
            "transitions[0, 1] (action look, state far): a probability is nan; expected 0 or more",
        ),
        (
            {"emissions": changed("emissions", (1, 0, 0), 0.5)},
            "emissions[1, 0] (action go, state near reached): probabilities sum to 0.5; expected 1",
        ),
        (
            {"emissions": changed("emissions", (0, 2, 0), -1.0)},
            "emissions[0, 2] (action look, state out reached): a probability is -1; expected 0 or more",
        ),
        (
            {"rewards": changed("rewards", (0, 1), np.nan)},
            "the reward of transitions[0, 1] (action look, state far) is nan; expected a finite number",
        ),
    ],
)
def test_arrays_that_are_no_problem_are_refused_by_row_and_name(change: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        POMDP.from_arrays(**{**ROOM, **change})
    assert str(error.value) == message


def test_nested_lists_will_do() -> None:
    p = POMDP.from_arrays([[[0.5, 0.5], [0, 1]]], [[[1], [1]]], [[2, 0]], discount=0.5, start=[1, 0])
    np.testing.assert_array_equal(p.expected_rewards(), [[2.0, 0.0]])
    assert p.states == ("s0", "s1") and not p.episodic
