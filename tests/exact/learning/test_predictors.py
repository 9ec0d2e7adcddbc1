"""Predictors without a hidden state by hand, and distributions of futures by enumeration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from turnwise.envs.problems.classics import CLASSICS
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.learning.open_loop import beliefs_after, futures, total_variation
from turnwise.exact.learning.predictors import n_gram, n_gram_futures, nats_per_symbol, one_step, prefixes
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
    found = n_gram_futures(learnt, episodes([(0, 1)], [(1, 0), (0, 0)]), [1, 0, 1], 1)
    assert found.shape == (2, 8)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-12)
    # What came two steps ago does not matter, and both ended in different answers.
    after = n_gram_futures(learnt, episodes([(1, 1)], [(0, 0)]), [1, 0, 1], 1)
    np.testing.assert_allclose(found, after, atol=1e-12)
    assert total_variation(found[:1], found[1:])[0] > 0.01


def test_futures_of_a_model_are_its_likelihoods() -> None:
    """P(o_1 o_2 o_3 | start, three actions) on Tiger is the likelihood of these episodes."""
    model = described(CLASSICS["tiger"]())
    begun = episodes([(0, 0)])
    actions = [0, 1, 0]
    found = futures(model, beliefs_after(model, begun), actions)[0]
    np.testing.assert_allclose(found.sum(), 1, atol=1e-12)
    wider = Sequences(begun.actions, begun.observations, None, begun.offsets, begun.ended, begun.firsts, 3, 2)
    base = model.log_likelihoods(wider)[0]
    for i, path in enumerate(itertools.product(range(2), repeat=3)):
        steps = [(0, 0), *zip(actions, path, strict=True)]
        flat = Sequences(
            np.array([a for a, _ in steps]), np.array([o for _, o in steps]), None, np.array([0, 4]),
            np.zeros(1, bool), np.zeros(1), 3, 2,
        )  # fmt: skip
        assert found[i] == pytest.approx(np.exp(model.log_likelihoods(flat)[0] - base), abs=1e-12)


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
