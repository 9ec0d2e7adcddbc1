"""Episodes as flat arrays."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.exact.learning.sequences import Sequences


def three() -> Sequences:
    """Episodes of 1, 3 and 2 steps; the second was cut."""
    return Sequences(
        actions=np.array([0, 1, 0, 1, 0, 0]),
        observations=np.array([2, 0, 1, 2, 2, 0]),
        rewards=np.array([1.0, -1, -1, 4, 0, 5]),
        offsets=np.array([0, 1, 4, 6]),
        ended=np.array([True, False, True]),
        firsts=np.zeros(3),
        action_symbols=2,
        observation_symbols=3,
    )


def test_a_resample_holds_whole_episodes_as_often_as_they_were_drawn() -> None:
    drawn = three().select([2, 0, 2])
    assert drawn.offsets.tolist() == [0, 2, 3, 5] and drawn.ended.tolist() == [True, True, True]
    assert drawn.actions.tolist() == [0, 0, 0, 0, 0] and drawn.observations.tolist() == [2, 0, 2, 2, 0]
    assert drawn.returns().tolist() == [5, 1, 5] and three().returns().tolist() == [1, 2, 5]
    assert three().lengths.tolist() == [1, 3, 2]


def test_symbols_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="actions has symbols from 0 to 1; expected 0 to 0"):
        Sequences(
            np.array([0, 1]), np.array([0, 0]), None, np.array([0, 2]), np.array([True]), np.zeros(1), 1, 1
        )
    with pytest.raises(ValueError, match="without a step"):
        Sequences(np.zeros(1), np.zeros(1), None, np.array([0, 0, 1]), np.ones(2), np.zeros(2), 1, 1)
