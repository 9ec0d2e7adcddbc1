from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP, Rows, pomdp_from_arrays


def tiny() -> POMDP:
    """Two states, two actions, action 1 ends the episode from s1; rewards depend on what is seen."""
    t = np.array([[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    o = np.array([[[0.75, 0.25], [0.25, 0.75]]] * 2)
    r = np.zeros((2, 2, 2, 2))
    r[0, 0, 1] = [4.0, 8.0]  # seen from s1 with .25 and .75: 7 on average
    r[1, 1, 0] = 2.0
    ends = np.zeros((2, 2, 2), bool)
    ends[1, 1, 0] = True
    return pomdp_from_arrays(t, o, r, discount=0.5, start=np.array([1.0, 0.0]), ends=ends)


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
    ],
)
def test_what_cannot_be_a_problem_is_refused(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(tiny(), **change)


def test_a_row_that_does_not_sum_to_one_is_named() -> None:
    t = np.array([[[0.5, 0.5], [0.0, 0.9]]])
    with pytest.raises(ValueError, match=r"action a0, state s1 sum to 0\.9"):
        pomdp_from_arrays(t, np.ones((1, 2, 1)), np.zeros((1, 2)), discount=0.9, start=np.array([1.0, 0.0]))
