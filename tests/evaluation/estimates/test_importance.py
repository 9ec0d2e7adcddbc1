"""Importance sampling by hand, against twins in loops, and on what stands at its edges."""

from __future__ import annotations

import math
from dataclasses import replace

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


def as_if_same(logged: Logged) -> Logged:
    return replace(logged, logp=logged.behavior_logp)


@pytest.mark.parametrize("estimate", ALL)
@pytest.mark.parametrize("discount", [1.0, 0.9, 0.0])
def test_target_that_is_the_behaviour_is_worth_the_logs_mean(estimate, discount, make_logs) -> None:
    logged = as_if_same(make_logs(0, 50, 5, discount=discount))
    found = estimate(logged)
    assert found.value == pytest.approx(logged.returns.mean(), abs=1e-12)
    np.testing.assert_allclose(found.parts, logged.returns, atol=1e-12)


@pytest.mark.parametrize("estimate", ALL)
def test_one_conversation(estimate, make_logs) -> None:
    """An estimate there is, an error there is not."""
    found = estimate(make_logs(1, 1, 3, never=0.0))
    assert found.parts == pytest.approx([found.value])
    assert math.isnan(found.standard_error())


@pytest.mark.parametrize("estimate", [weighted, weighted_per_decision])
def test_weighted_estimates_stay_within_the_rewards(estimate, make_logs) -> None:
    """Returns of 0 or 1, and weights of any size."""
    logged = make_logs(2, 50, 5, discount=1.0)
    rewards = np.zeros_like(logged.rewards)
    rewards[np.arange(50), logged.mask.sum(1) - 1] = np.arange(50) % 2
    found = estimate(replace(logged, rewards=rewards))
    assert 0 <= found.value <= 1


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_beyond_all_numbers(sign) -> None:
    """1,000 decisions with ratios e^+-2 and e^+-1.999: weights e^+-2000 and e^+-1999, of which the larger is
    1 / (1 + 1/e) of both. Returns 1 and 0."""
    shape = (2, 1000)
    rewards = np.zeros(shape)
    rewards[0, -1] = 1.0
    behavior = np.full(shape, -3.0)
    logp = behavior + sign * np.array([[2.0], [1.999]])
    logged = Logged(rewards, np.ones(shape, bool), 1.0, logp, behavior)
    share = 1 / (1 + math.exp(-sign))
    for estimate in (weighted, weighted_per_decision):
        assert estimate(logged).value == pytest.approx(share, abs=1e-9)
    for estimate in (importance_sampling, per_decision):
        found = estimate(logged)
        assert math.isfinite(found.value) and math.isfinite(found.standard_error())
    np.testing.assert_allclose(logged.log_weights, sign * np.array([2000.0, 1999.0]))


def test_target_that_would_never_have_done_this() -> None:
    """No conversation has weight: nothing can be said, and unweighted means say 0."""
    logged = by_hand()
    never = replace(logged, logp=np.full((3, 2), -math.inf))
    assert importance_sampling(never).value == per_decision(never).value == 0.0
    assert math.isnan(weighted(never).value) and math.isnan(weighted_per_decision(never).value)


def test_resample_without_weight_is_no_number_and_others_are() -> None:
    values, errors = weighted(by_hand()).resampled(np.array([[0, 0, 3], [3, 0, 0], [1, 2, 0]]))
    assert math.isnan(values[0]) and math.isnan(errors[0])
    assert values[1:] == pytest.approx([4.0, 3.0])  # (1*4 + 2 * .5*2) / (1 + 2 * .5)


def test_ended_episodes_keep_their_weight() -> None:
    """Half of all episodes end after one decision, the others pay 1 at their second: 1/2, not 1."""
    logged = Logged(
        rewards=np.array([[0.0, 0.0], [0.0, 1.0]]),
        mask=np.array([[True, False], [True, True]]),
        discount=1.0,
        logp=np.full((2, 2), -1.0),
        behavior_logp=np.full((2, 2), -1.0),
    )
    assert weighted_per_decision(logged).value == pytest.approx(0.5)
