"""Predictors without a hidden state by hand, and distributions of futures by enumeration."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from turnwise.envs.problems.classics import CLASSICS
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.learning.open_loop import total_variation
from turnwise.exact.learning.predictors import (
    counted,
    n_gram,
    n_gram_futures,
    nats_per_symbol,
    one_step,
    prefixes,
)
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.learning.truth import described, random_episodes


def episodes(*steps: list[tuple[int, int]], ended: bool = False) -> Sequences:
    """Of two actions and two observations, nothing seen first."""
    flat = [x for s in steps for x in s]
    return Sequences(
        np.array([a for a, _ in flat]), np.array([o for _, o in flat]), None,
        np.append(0, np.cumsum([len(s) for s in steps])), np.full(len(steps), ended),
        np.zeros(len(steps)), 2, 2,
    )  # fmt: skip


def test_a_context_is_pulled_towards_the_shorter_one_by_hand() -> None:
    """Action 0 was followed by 0, 0, 1. Of four outcomes (answer, whether it ends) alike: P(0|a=0) =
    (2 + 1/4)/4. Behind answer 0 it was followed by 1 once: P(1|a=0, last 0) = (1 + (1 + 1/4)/4)/2."""
    learnt = episodes([(0, 0), (0, 1)], [(0, 0)])
    asked = episodes([(0, 0), (0, 1)])
    first = (2 + 1 / 4) / 4  # with nothing before it, twice followed by 0: pulled towards the act alone
    first = (2 + first) / 3
    second = (1 + (1 + 1 / 4) / 4) / 2
    assert one_step(learnt, asked)[0] == pytest.approx(np.log(first * second), abs=1e-12)
    np.testing.assert_array_equal(one_step(learnt, asked), n_gram(learnt, asked, 1))


@pytest.mark.parametrize("n", [0, 1, 2])
def test_outcomes_sum_to_one(n: int) -> None:
    rng = np.random.default_rng(0)
    learnt = episodes(*[[(int(a), int(o)) for a, o in rng.integers(2, size=(3, 2))] for _ in range(20)])
    begun = [(0, 1), (1, 0)]
    total = 0.0
    for o, ended in itertools.product(range(2), (False, True)):
        total += np.exp(n_gram(learnt, episodes([*begun, (1, o)], ended=ended), n)[0])
    assert total == pytest.approx(np.exp(n_gram(learnt, episodes(begun), n)[0]), abs=1e-12)


def test_futures_are_the_products_of_one_step_predictions() -> None:
    rng = np.random.default_rng(1)
    learnt = episodes(*[[(int(a), int(o)) for a, o in rng.integers(2, size=(4, 2))] for _ in range(30)])
    actions = np.array([[1, 0, 1], [1, 0, 1]])
    found = n_gram_futures(counted(learnt, 1), episodes([(0, 1)], [(1, 0), (0, 0)]), actions)
    assert found.shape == (2, 27)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    # What came two steps ago does not matter, and both ended in different answers.
    after = n_gram_futures(counted(learnt, 1), episodes([(1, 1)], [(0, 0)]), actions)
    np.testing.assert_allclose(found, after, atol=1e-12)
    assert total_variation(found[:1], found[1:])[0] > 0.01


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_futures_of_an_n_gram_are_its_likelihoods(n: int) -> None:
    """Every future of three steps, one by one: what `n_gram` says of the whole less what it says of the
    beginning. A future that is over after an answer is an episode that ended with it."""
    rng = np.random.default_rng(2)
    drawn = [[(int(a), int(o)) for a, o in rng.integers(2, size=(rng.integers(1, 6), 2))] for _ in range(40)]
    learnt = replace(episodes(*drawn), ended=rng.random(40) < 0.7)
    for begun, actions in (([(0, 1)], [1, 0, 1]), ([(1, 0), (0, 0)], [0, 0, 1])):
        found = n_gram_futures(counted(learnt, n), episodes(begun), np.array([actions]))[0]
        base, expected = n_gram(learnt, episodes(begun), n)[0], np.zeros(27)
        for steps, ended in ((1, True), (2, True), (3, True), (3, False)):
            for path in itertools.product(range(2), repeat=steps):
                whole = episodes([*begun, *zip(actions, path, strict=False)], ended=ended)
                digits = [*path, 2, 2][:3]
                expected[np.dot(digits, [9, 3, 1])] += np.exp(n_gram(learnt, whole, n)[0] - base)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_the_true_model_predicts_its_own_episodes_best() -> None:
    problem = CLASSICS["airlock"]()
    learnt, apart = (random_episodes(TabularEnv(problem), 3000, 20, np.random.default_rng(s)) for s in (0, 1))
    truth = nats_per_symbol(described(problem).log_likelihoods(apart), apart)
    blind = nats_per_symbol(one_step(learnt, apart), apart)
    longer = nats_per_symbol(n_gram(learnt, apart, 3), apart)
    # Only a memory of earlier tries says that a door is locked.
    assert truth[0] + 3 * truth[1] < longer[0] < blind[0]
    begun = prefixes(apart, np.random.default_rng(0), 50)
    assert (begun.lengths >= 1).all() and not begun.ended.any()
