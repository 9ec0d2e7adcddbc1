"""A learnt model as a POMDP: values by backward induction over histories, beliefs, the first look."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.exact.learning.model import LearntModel, Pay
from turnwise.exact.sarsop.solve import solve

S, A, O, F, H = 2, 2, 2, 2, 3


def rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    found = rng.random(shape) + 0.05
    return found / found.sum(-1, keepdims=True)


def some_model(seed: int, longest: int | None, firsts: int) -> LearntModel:
    rng = np.random.default_rng(seed)
    late = rng.normal(size=longest or 0)
    pay = Pay(np.zeros(0), np.ones((3, A, S, 1)), rng.normal(size=(3, A, S)), late)
    return LearntModel(
        rows(rng, S), rows(rng, S, firsts), rows(rng, A, S, S), rows(rng, A, S, O),
        0.1 + 0.5 * rng.random((A, S)), rows(rng, 2, A, S, O), longest, pay,
    )  # fmt: skip


def best(model: LearntModel, belief: np.ndarray, t: int) -> float:
    """The optimal value at discount 1, by going through all histories."""
    values = []
    for a in range(A):
        act, time = np.array([a]), np.array([t])
        value = float(model.expected_rewards(belief[None], act, time)[0])
        on, _ = model.outcomes(belief[None], act, time)
        for o in range(O):
            if on[0, o] > 0:
                after, _ = model.update(belief[None], act, np.array([o]), time)
                value += on[0, o] * best(model, after[0], t + 1)
        values.append(value)
    return max(values)


@pytest.mark.parametrize("firsts", [1, 2])
def test_the_value_with_a_clock_is_that_of_all_histories(firsts: int) -> None:
    model = some_model(0, H, firsts)
    problem = model.pomdp(1.0)
    assert problem.shape == (S * H + 1, A, O + (firsts if firsts > 1 else 0))
    expected = 0.0
    for f in range(firsts):
        chance = float((model.start * model.firsts[:, f]).sum())
        expected += chance * best(model, model.first(np.array([f]))[0], 0)
    found = solve(problem, gap=1e-6, deadline=10)
    assert found.lower == pytest.approx(expected, abs=1e-5)


def test_a_plan_s_belief_is_over_pairs_of_state_and_time() -> None:
    model = some_model(1, H, 1)
    found = model.plan_beliefs(np.array([[0.3, 0.7], [0.6, 0.4]]), np.array([0, 2]))
    np.testing.assert_allclose(found, [[0.3, 0.7, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0.6, 0.4, 0]])


def test_without_a_clock_and_without_ends_there_is_no_state_over() -> None:
    model = some_model(2, None, 1)
    assert model.pomdp(0.9).states == ("s0", "s1", "over")
    endless = LearntModel(
        model.start, model.firsts, model.transitions, model.emissions, np.zeros((A, S)), model.lasts, None,
        model.pay,
    )  # fmt: skip
    problem = endless.pomdp(0.9)
    assert problem.states == ("s0", "s1") and not problem.episodic
    np.testing.assert_allclose(problem.transitions.dense().reshape(A, S, S), endless.transitions)
