"""Cross-fitting: no conversation is valued by a fit that has seen it, and all come back in their order."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.evaluation.estimates.cross_fit import Valued, cross_fitted, dealt
from turnwise.evaluation.estimates.fitted_q import Values


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_none_is_valued_by_a_fit_that_has_seen_it(folds: int) -> None:
    """Each fit remembers what it saw; values are the conversation's own number."""
    asked_for: list[int] = []

    def fit(learnt: np.ndarray) -> Valued:
        def values(asked: np.ndarray) -> Values:
            assert not set(learnt) & set(asked)
            assert sorted([*learnt, *asked]) == list(range(31))  # and every other one is learnt from
            asked_for.extend(asked.tolist())
            q = asked[:, None] + 0.1 * np.arange(1 + len(asked_for) % 2)  # lengths differ from fold to fold
            return Values(q, -q, 100.0 + asked)

        return values

    found = cross_fitted(31, fit, folds=folds, seed=4)
    assert sorted(asked_for) == list(range(31))
    np.testing.assert_array_equal(found.q[:, 0], np.arange(31))
    np.testing.assert_array_equal(found.v, -found.q)
    np.testing.assert_array_equal(found.final, 100.0 + np.arange(31))


def test_groups_stay_together_and_folds_are_even() -> None:
    groups = np.random.default_rng(0).integers(0, 40, 500)
    fold = dealt(500, folds=3, seed=1, groups=groups)
    for name in np.unique(groups):
        assert len(set(fold[groups == name])) == 1
    largest = np.bincount(groups).max()
    assert np.abs(np.bincount(fold) - 500 / 3).max() <= largest
    sizes = np.bincount(dealt(101, folds=4))
    assert sizes.min() == 25 and sizes.max() == 26


def test_one_huge_group_leaves_no_fold_empty() -> None:
    for huge in range(3):
        groups = np.repeat(np.arange(3), [100 if i == huge else 1 for i in range(3)])
        for seed in range(6):
            assert np.bincount(dealt(102, folds=3, seed=seed, groups=groups), minlength=3).min() >= 1


def test_the_deal_is_a_function_of_the_seed() -> None:
    np.testing.assert_array_equal(dealt(50, seed=3), dealt(50, seed=3))
    assert (dealt(50, seed=3) != dealt(50, seed=4)).any()


def test_what_cannot_be_dealt_is_refused() -> None:
    with pytest.raises(ValueError, match="2 folds of 1 conversations or groups"):
        dealt(1)
    with pytest.raises(ValueError, match="2 folds of 1 conversations or groups"):
        dealt(5, groups=np.zeros(5))
    with pytest.raises(ValueError, match="1 folds"):
        dealt(5, folds=1)
    with pytest.raises(ValueError, match="groups have the shape"):
        dealt(5, groups=np.zeros(4))

    def short(learnt: np.ndarray) -> Valued:
        return lambda asked: Values(np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1))

    with pytest.raises(ValueError, match="1 conversations are valued; expected 5"):
        cross_fitted(10, short)
