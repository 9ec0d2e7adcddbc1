"""What is seen before the first action, made explicit: the same values, in a file that any solver takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.exact.files.write import write_pomdp
from turnwise.exact.horizon import horizon_value
from turnwise.exact.learning.first_look import with_first_look


def shown_tiger() -> POMDP:
    """Two doors; a first look is right with .7, listening with .85. Opening ends the episode."""
    look = np.array([[0.7, 0.3], [0.3, 0.7]])
    hear = np.array([[0.85, 0.15], [0.15, 0.85]])
    plain = POMDP.from_arrays(
        [np.eye(2), np.eye(2), np.eye(2)],
        [hear, hear, hear],
        [[-1.0, -1.0], [-100.0, 10.0], [10.0, -100.0]],
        discount=0.95,
        start=[0.5, 0.5],
        ends=[np.zeros((2, 2)), np.eye(2), np.eye(2)],
    )
    return replace(plain, initial=Rows.from_dense(look))


def test_values_are_those_of_the_problem_one_step_later() -> None:
    """h steps of the one are h + 1 steps of the other, discounted once more."""
    problem = shown_tiger()
    explicit = with_first_look(problem)
    assert explicit.initial is None and explicit.shape == (5, 3, 2)
    for h in (1, 2, 4):
        assert horizon_value(explicit, h + 1) == pytest.approx(0.95 * horizon_value(problem, h), abs=1e-9)
    assert with_first_look(explicit) is explicit


def test_it_can_be_written_with_an_end(tmp_path: Path) -> None:
    """Ends that lead to a state in which nothing happens any more come back from the file."""
    file = tmp_path / "a.pomdp"
    model = with_first_look(_ending())
    write_pomdp(model, file)
    again = read_pomdp(file)
    for h in (2, 3):
        assert horizon_value(again, h) == pytest.approx(horizon_value(model, h), abs=1e-9)


def _ending() -> POMDP:
    """As a learnt model has it: a state `over` that every end leads to."""
    look = np.array([[0.7, 0.3, 0.0], [0.3, 0.7, 0.0], [0.0, 0.0, 1.0]])
    to_end = np.array([[0, 0, 1.0]] * 3)
    stay = np.eye(3)
    over = np.zeros((2, 3, 3), bool)
    over[:, :, 2] = True
    plain = POMDP.from_arrays(
        [stay, to_end],
        [look, look],
        [[-1.0, -1.0, 0.0], [5.0, -5.0, 0.0]],
        discount=1.0,
        start=[0.5, 0.5, 0.0],
        ends=over,
    )
    return replace(plain, initial=Rows.from_dense(look))
