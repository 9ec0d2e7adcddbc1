"""What a state pays is fitted to the belief before it is paid, not to the luck that it explained."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.exact.learning.foreseen import filtered, foreseen
from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.learning.sequences import Sequences


def model(firsts: np.ndarray, means: list[float], longest: int | None = None) -> LearntModel:
    """Two states, of which the first observation tells as `firsts` [2, F] says; one act, which ends all."""
    pay = np.zeros((3, 1, 2))
    pay[:, 0] = means
    late = np.zeros(longest or 0)
    return LearntModel(
        np.array([0.5, 0.5]), firsts, np.eye(2)[None], np.ones((1, 2, 1)), np.ones((1, 2)),
        np.ones((2, 1, 2, 1)), longest, Pay(np.zeros(0), np.ones((3, 1, 2, 1)), pay, late),
    )  # fmt: skip


def once(firsts: list[int], rewards: list[float], kinds: int) -> Sequences:
    """Episodes of one step."""
    n, zeros = len(firsts), np.zeros(len(firsts), np.int64)
    ended = np.ones(n, bool)
    return Sequences(zeros, zeros, np.array(rewards), np.arange(n + 1), ended, np.array(firsts), 1, 1, kinds)


def test_where_the_belief_is_sure_a_state_pays_what_it_paid() -> None:
    """State 0 paid 1, 1, 0; EM held 1. With k imagined rewards of EM's mean: (2 + k) / (3 + k)."""
    data = once([0, 0, 0, 1, 1], [1, 1, 0, -1, 1], 2)
    assert data.rewards is not None
    for strength in (1e-9, 1.0, 5.0):
        found = foreseen(model(np.eye(2), [1.0, 0.0]), data, strength)
        assert found.pay is not None
        np.testing.assert_allclose(found.pay.means[1, 0], [(2 + strength) / (3 + strength), 0.0], atol=1e-6)
        np.testing.assert_array_equal(found.pay.means[0, 0], [1.0, 0.0])  # no step went on


def test_where_the_belief_says_nothing_states_keep_their_difference() -> None:
    """Belief 1/2, 1/2 and a mean of .2 where EM expects .5: both states pay .3 less, strength aside."""
    data = once([0] * 10, [1, 1, 1, 0, 0, 0, 0, 0, -1, 0], 1)
    found = foreseen(model(np.ones((2, 1)), [1.0, 0.0]), data, 1e-9)
    assert found.pay is not None
    assert found.pay.means[1, 0] == pytest.approx([0.7, -0.3], abs=1e-6)


def test_no_state_pays_more_than_anybody_got() -> None:
    """Beliefs (.6, .4) that paid 1 and (.4, .6) that paid -1 ask for 5 and -5; the most anybody got is 1."""
    firsts = np.array([[0.6, 0.4], [0.4, 0.6]])
    data = once([0] * 50 + [1] * 50, [1.0] * 50 + [-1.0] * 50, 2)
    found = foreseen(model(firsts, [0.0, 0.0]), data, 1e-9)
    assert found.pay is not None
    assert found.pay.means[1, 0] == pytest.approx([1, -1], abs=1e-6)


def test_what_was_expected_of_each_action_is_what_was_paid() -> None:
    """The normal equations: beliefs are orthogonal to what is missed. In sum, nothing is."""
    rng = np.random.default_rng(0)
    firsts = rng.dirichlet(np.ones(3), 2)
    data = once(rng.integers(3, size=200).tolist(), rng.normal(size=200).tolist(), 3)
    found = foreseen(model(firsts, [0.5, -0.5]), data, 1e-9)
    assert found.pay is not None and data.rewards is not None
    expected = filtered(found, data) @ found.pay.means[1, 0]
    assert expected.sum() == pytest.approx(data.rewards.sum(), abs=1e-6)


def test_beliefs_are_those_before_each_step() -> None:
    """The second belief knows the first answer: 2 states, answers that tell them with .8."""
    emissions = np.array([[[0.8, 0.2], [0.2, 0.8]]])
    m = LearntModel(
        np.array([0.5, 0.5]), np.ones((2, 1)), np.eye(2)[None], emissions, np.zeros((1, 2)),
        np.full((2, 1, 2, 2), 0.5), 2, None,
    )  # fmt: skip
    zeros = np.zeros(4, np.int64)
    data = Sequences(
        zeros, np.array([0, 1, 1, 0]), None, np.array([0, 2, 4]), np.ones(2, bool), zeros[:2], 1, 2
    )
    np.testing.assert_allclose(filtered(m, data), [[0.5, 0.5], [0.8, 0.2], [0.5, 0.5], [0.2, 0.8]])
