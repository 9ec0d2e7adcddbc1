"""The doubly robust estimates by hand, against twins in loops, and where the model speaks alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

from turnwise.evaluation.estimates.doubly_robust import direct, doubly_robust, weighted
from turnwise.evaluation.estimates.logged import Logged


def by_hand() -> Logged:
    """The two episodes of the module's docstring."""
    two, half = math.log(2), math.log(0.5)
    return Logged(
        rewards=np.array([[1.0, 3.0], [2.0, 0.0]]),
        mask=np.array([[True, True], [True, False]]),
        discount=1.0,
        logp=np.array([[two - 2, half * 2 - 1], [half * 2, 0.0]]),
        behavior_logp=np.array([[-2.0, half - 1], [half, 0.0]]),
        q=np.array([[2.0, 2.0], [1.0, 0.0]]),
        v=np.array([[3.0, 1.0], [3.0, 0.0]]),
    )


@pytest.mark.parametrize(
    ("estimate", "value"), [(direct, 3.0), (doubly_robust, 3.75), (weighted, 3 + 0.2 + 2 / 3)]
)
def test_two_episodes_by_hand(estimate, value) -> None:
    assert estimate(by_hand()).value == pytest.approx(value, abs=1e-12)
