"""Logs that are no logs are refused in the words of values; what is derived from the others, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from turnwise.evaluation.estimates.logged import Logged, bootstrapped


def put(x: np.ndarray | None, b: int, k: int, value: float) -> np.ndarray:
    assert x is not None
    x = x.copy()
    x[b, k] = value
    return x


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: {"rewards": x.rewards[:, :2]}, r"rewards has shape \(7, 2\)"),
        (lambda x: {"rewards": put(x.rewards, 0, 2, np.nan)}, r"rewards\[0, 2\] is nan; expected a finite"),
        (lambda x: {"rewards": put(x.rewards, 0, 2, np.inf)}, r"rewards\[0, 2\] is inf"),
        (lambda x: {"q": put(x.q, 0, 1, -np.inf)}, r"q\[0, 1\] is -inf"),
        (lambda x: {"logp": put(x.logp, 0, 1, 0.3)}, r"logp\[0, 1\] is 0.3; expected the logarithm"),
        (lambda x: {"logp": put(x.logp, 0, 1, np.nan)}, r"logp\[0, 1\] is nan"),
        (lambda x: {"behavior_logp": put(x.logp, 0, 3, 1e-5)}, r"behavior_logp\[., .\] is "),
        (
            lambda x: {"behavior_logp": put(x.behavior_logp, 0, 3, -np.inf)},
            r"behavior_logp\[0, 3\] is -inf: the behaviour gave probability 0 to what it did",
        ),
        (lambda x: {"mask": x.mask.astype(float)}, "float64"),
        (lambda x: {"mask": x.mask[0]}, "booleans"),
        (lambda x: {"mask": put(x.mask, 0, 1, False)}, "mask of episode 0 is True behind a False"),
        (lambda x: {"mask": np.zeros_like(x.mask)}, "episode 0 has no decision"),
        (lambda x: {"discount": 1.1}, "discount is 1.1"),
        (lambda x: {"discount": math.nan}, "discount is nan"),
        (lambda x: {"v": None}, "expected both or neither"),
    ],
)
def test_what_is_refused(change, words, make_logs) -> None:
    logged = make_logs(0, never=0.0)
    with pytest.raises(ValueError, match=words):
        replace(logged, **change(logged))


def test_no_episodes() -> None:
    none = np.zeros((0, 3))
    with pytest.raises(ValueError, match="booleans"):
        Logged(none, none.astype(bool), 1.0, none, none)


def test_rounding_of_single_precision_is_probability_one(make_logs) -> None:
    logged = make_logs(0, never=0.0)
    found = replace(logged, logp=np.full((7, 4), 1e-7), behavior_logp=np.full((7, 4), -1e-8))
    assert found.logp.max() == 0
    np.testing.assert_allclose(found.ratios, 1.0, atol=1e-7)


def test_given_arrays_are_not_changed(make_logs) -> None:
    logged = make_logs(0)
    rewards = np.full((7, 4), 3.0)
    found = replace(logged, rewards=rewards)
    assert (rewards == 3.0).all() and (found.rewards[~logged.mask] == 0).all()


def test_ratios_and_returns_by_hand() -> None:
    """Ratios 2, 1/2 and 1/4; the second has ended and keeps 1/4. Returns 1 + .9 * 3 = 3.7 and 2."""
    two, half, quarter = math.log(2), math.log(0.5), math.log(0.25)
    logged = Logged(
        rewards=np.array([[1.0, 3.0], [2.0, 9.0]]),
        mask=np.array([[True, True], [True, False]]),
        discount=0.9,
        logp=np.array([[two - 1, half - 1], [quarter - 1, -9.0]]),
        behavior_logp=np.full((2, 2), -1.0),
    )
    np.testing.assert_allclose(logged.ratios, [[2, 1], [0.25, 0.25]], atol=1e-12)
    np.testing.assert_allclose(logged.scaled_ratios, [[1, 1], [0.125, 0.25]], atol=1e-12)
    np.testing.assert_allclose(logged.returns, [3.7, 2.0], atol=1e-12)
    # .9 * 10 joins the last reward of the first, whose discount is .9 again: 3.7 + .81 * 10
    np.testing.assert_allclose(bootstrapped(logged, np.array([10.0, 0.0])).returns, [11.8, 2.0], atol=1e-12)
    with pytest.raises(ValueError, match="expected 2 finite numbers"):
        bootstrapped(logged, np.array([10.0, np.nan]))
