"""Importance sampling by hand, against twins in loops, and on what stands at its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest

from turnwise.evaluation.estimates.importance import (
    importance_sampling,
    per_decision,
    weighted,
    weighted_per_decision,
)
from turnwise.evaluation.estimates.logged import Logged

ALL = [importance_sampling, weighted, per_decision, weighted_per_decision]


def by_hand() -> Logged:
    """The three episodes of the module's docstring."""
    half = math.log(0.5)
    return Logged(
        rewards=np.array([[1.0, 3.0], [2.0, 0.0], [5.0, 0.0]]),
        mask=np.array([[True, True], [True, False], [True, False]]),
        discount=1.0,
        logp=np.array([[0.0, half - 1], [half - 1, 0.0], [-math.inf, 0.0]]),
        behavior_logp=np.array([[half, -1.0], [-1.0, 0.0], [half, 0.0]]),
    )


@pytest.mark.parametrize(
    ("estimate", "value"),
    [
        (importance_sampling, 5 / 3),
        (weighted, 5 / 1.5),
        (per_decision, 2.0),
        (weighted_per_decision, 1.2 + 2.0),
    ],
)
def test_three_episodes_by_hand(estimate, value) -> None:
    assert estimate(by_hand()).value == pytest.approx(value, abs=1e-12)


def test_parts_by_hand() -> None:
    """Weighted: value 10/3, mean weight 1/2, weights 1, 1/2, 0, returns 4, 2, 5.
    Parts: 10/3 + 2 (1) (4 - 10/3) = 14/3;  10/3 + 2 (1/2) (2 - 10/3) = 2;  10/3.
    Their squared distances from 10/3 sum to 32/9; the error is sqrt(32/9 / 6)."""
    assert importance_sampling(by_hand()).parts == pytest.approx([4.0, 1.0, 0.0])
    assert per_decision(by_hand()).parts == pytest.approx([5.0, 1.0, 0.0])
    found = weighted(by_hand())
    assert found.parts == pytest.approx([14 / 3, 2.0, 10 / 3])
    assert found.standard_error() == pytest.approx(math.sqrt(32 / 54))
