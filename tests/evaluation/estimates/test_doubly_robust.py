"""The doubly robust estimates by hand, against twins in loops, and where the model speaks alone."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from turnwise.evaluation.estimates import importance
from turnwise.evaluation.estimates.doubly_robust import direct, doubly_robust, weighted
from turnwise.evaluation.estimates.logged import Logged, bootstrapped
from turnwise.evaluation.estimates.magic import magic


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


def test_parts_by_hand() -> None:
    """Doubly robust: 3 + 1 and 3 + .5. Weighted: influences of terms .2 (mean weight 1.25) and 2/3 (.75):
    A  2 (0 - .2) / 1.25 + 1 (1 - 2/3) / .75 = -.32 + .4444;  B  .5 (1 - .2) / 1.25 + .5 (0 - 2/3) / .75."""
    assert doubly_robust(by_hand()).parts == pytest.approx([4.0, 3.5])
    value, influence = 3 + 0.2 + 2 / 3, -0.32 + 4 / 9
    assert weighted(by_hand()).parts == pytest.approx([value + influence, value - influence])


@pytest.mark.parametrize(
    ("with_model", "without"),
    [(doubly_robust, importance.per_decision), (weighted, importance.weighted_per_decision)],
)
def test_a_model_that_says_nothing_leaves_importance_sampling(with_model, without, make_logs) -> None:
    logged = make_logs(0)
    silent = replace(logged, q=np.zeros_like(logged.rewards), v=np.zeros_like(logged.rewards))
    found, plain = with_model(silent), without(logged)
    assert found.value == pytest.approx(plain.value, abs=1e-12)
    np.testing.assert_allclose(found.parts, plain.parts, atol=1e-12)


@pytest.mark.parametrize("estimate", [doubly_robust, weighted, magic])
def test_where_no_log_goes_the_model_speaks_alone(estimate, make_logs) -> None:
    """The target would never have done what was done first: what is left is its v at the start."""
    logged = make_logs(1)
    logp = logged.logp.copy()
    logp[:, 0] = -math.inf
    found = estimate(replace(logged, logp=logp))
    np.testing.assert_allclose(found.parts, direct(logged).parts, atol=1e-9)
    assert found.value == pytest.approx(direct(logged).value, abs=1e-9)


@pytest.mark.parametrize("estimate", [doubly_robust, weighted])
def test_where_logs_stop_going_the_model_goes_on(estimate, make_logs) -> None:
    """All part from the target at their second decision: the logs tell of the first, the model of more."""
    logged = make_logs(2, 6, 3, never=0.0)
    logp = logged.logp.copy()
    logp[:, 1:] = -math.inf
    short = replace(logged, mask=logged.mask & (np.arange(3) == 0))
    after = np.where(logged.mask[:, 1], logged.v[:, 1], 0.0)
    cut = bootstrapped(short, after)
    assert estimate(replace(logged, logp=logp)).value == pytest.approx(estimate(cut).value, abs=1e-12)


@pytest.mark.parametrize("estimate", [direct, doubly_robust, weighted, magic])
def test_no_model(estimate, make_logs) -> None:
    with pytest.raises(ValueError, match="expected q and v"):
        estimate(replace(make_logs(0), q=None, v=None))
