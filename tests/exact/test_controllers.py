"""Values and gradients of policies of limited memory: closed forms, slow twins, finite differences."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.exact.controller_search import best_controller, best_deterministic_memoryless
from turnwise.exact.controllers import (
    Chain,
    Controller,
    controller_gradient,
    controller_value,
    logit_gradient,
)
from turnwise.exact.markov import solve_chain
from turnwise.run.errors import InputError


def random_problem(seed: int, discount: float, *, alike: bool = False, ending: bool = True) -> POMDP:
    """3 states, 2 actions, 2 observations (`alike`: those do not depend on the action)."""
    rng = np.random.default_rng(seed)
    t = rng.dirichlet(np.ones(3), (2, 3))
    o = rng.dirichlet(np.ones(2), (2, 3))
    return POMDP.from_arrays(
        t,
        np.stack([o[0], o[0]]) if alike else o,
        rng.normal(size=(2, 3, 3)),
        discount=discount,
        start=rng.dirichlet(np.ones(3)),
        ends=rng.random((2, 3, 3)) < 0.3 if ending else None,
    )


def corridor() -> POMDP:
    """Sutton & Barto, example 13.1: left, right, swapped in the middle cell; -1 per step until the goal."""
    t = np.zeros((2, 4, 4))
    t[0, [0, 1, 2, 3], [0, 2, 1, 3]] = 1
    t[1, [0, 1, 2, 3], [1, 0, 3, 3]] = 1
    return POMDP.from_arrays(
        t,
        np.ones((2, 4, 1)),
        np.full((2, 4), -1.0),
        discount=1,
        start=np.eye(4)[0],
        ends=np.arange(4) == 3,
        name="corridor",
    ).showing_initial()


def one_state(rewards: list[float], discount: float, ends: list[bool]) -> POMDP:
    """One state, one observation: action k pays rewards[k], and the episode ends with it if ends[k]."""
    A = len(rewards)
    return POMDP.from_arrays(
        np.ones((A, 1, 1)),
        np.ones((A, 1, 1)),
        np.array(rewards)[:, None],
        discount=discount,
        start=np.ones(1),
        ends=np.array(ends).reshape(A, 1, 1),
    )


def random_controller(problem: POMDP, memories: int, seed: int = 0) -> np.ndarray:
    """Logits."""
    _, A, O = problem.shape
    I = O + (problem.initial is None)
    return np.random.default_rng(seed).normal(size=(memories, I, A, memories))


def rolled_out(problem: POMDP, controller: Controller, steps: int) -> float:
    """Slow twin: the joint distribution of state and memory, pushed forward one step at a time."""
    S, A, O = problem.shape
    p = controller.probabilities
    t = problem.continuing().dense().reshape(A, S, S)
    o = problem.emissions.dense().reshape(A, S, O)
    r = problem.expected_rewards()
    total, factor = 0.0, 1.0
    joint = np.zeros((S, p.shape[1], len(p)))  # P(state, input just read, memory)
    if problem.initial is None:
        joint[:, -1, 0] = problem.start
    else:
        joint[:, :, 0] = problem.start[:, None] * problem.initial.dense()
    for _ in range(steps):
        after = np.zeros_like(joint)
        for s, i, m, a, k in np.ndindex(*joint.shape, A, len(p)):
            mass = joint[s, i, m] * p[m, i, a, k]
            total += factor * mass * r[a, s]
            for s2 in range(S):
                after[s2, :O, k] += mass * t[a, s, s2] * o[a, s2]
        joint, factor = after, factor * problem.discount
    return total


def both_timings(discount: float) -> list[POMDP]:
    return [random_problem(3, discount), random_problem(4, discount, alike=True).showing_initial()]


@pytest.mark.parametrize("timing", [0, 1])
@pytest.mark.parametrize("discount", [0.5, 1.0])
def test_value_equals_pushing_the_distribution_forward(timing: int, discount: float) -> None:
    """At discount .5 the rest after 40 steps is below 1e-11; at 1 most of it has ended after 120."""
    problem = both_timings(discount)[timing]
    controller = Controller.from_logits(random_controller(problem, 2))
    steps = 40 if discount < 1 else 120
    assert controller_value(problem, controller) == pytest.approx(
        rolled_out(problem, controller, steps), abs=1e-8
    )


def differences(f: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    found = np.zeros_like(x)
    for i in np.ndindex(*x.shape):
        step = np.zeros_like(x)
        step[i] = 1e-5
        found[i] = (f(x + step) - f(x - step)) / 2e-5
    return found


@pytest.mark.parametrize("timing", [0, 1])
@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_gradients_are_those_of_finite_differences(timing: int, discount: float) -> None:
    problem = both_timings(discount)[timing]
    logits = random_controller(problem, 2)
    controller = Controller.from_logits(logits)
    by_logits = differences(lambda x: controller_value(problem, Controller.from_logits(x)), logits)
    np.testing.assert_allclose(logit_gradient(problem, controller), by_logits, atol=1e-7)
    chain = Chain(problem)  # takes rows that do not sum to one
    by_probabilities = differences(chain.value, controller.probabilities.copy())
    np.testing.assert_allclose(controller_gradient(problem, controller), by_probabilities, atol=1e-6)


def test_corridor_has_the_value_of_its_closed_form() -> None:
    """v2 = -1 + (1-p) v1, v1 = -1 + p v0 + (1-p) v2, v0 = -1 + p v1 + (1-p) v0: v0 = (2p - 4) / (p (1 - p)).

    dv0/dp = 0 where p^2 - 4p + 2 = 0: p = 2 - sqrt 2, v0 = -(6 + 4 sqrt 2) = -11.657.
    """
    problem = corridor()
    for p in (0.2, 0.5, 0.9):
        controller = Controller.memoryless(np.array([[1 - p, p]]))
        assert controller_value(problem, controller) == pytest.approx((2 * p - 4) / (p * (1 - p)), rel=1e-12)
    best = best_controller(problem, 1, np.random.default_rng(0), 3)
    assert best.value == pytest.approx(-(6 + 4 * np.sqrt(2)), abs=1e-9)
    assert best.controller.probabilities[0, 0, 1, 0] == pytest.approx(2 - np.sqrt(2), abs=1e-4)


def test_two_memories_solve_the_corridor() -> None:
    """s0 right, s1 left (swapped: to s2), s2 right: 3 steps, turning the memory over at each."""
    best = best_controller(corridor(), 2, np.random.default_rng(0), 6)
    assert best.value == pytest.approx(-3, abs=1e-6)


def test_who_never_ends_is_worth_infinity() -> None:
    """Either action alone never leaves the corridor, so no deterministic policy is worth anything."""
    for a in (0, 1):
        assert controller_value(corridor(), Controller.memoryless(np.eye(2)[[a]])) == -np.inf
    assert best_deterministic_memoryless(corridor()).value == -np.inf
    paid = one_state([2.0, 1.0], 1.0, [False, True])
    policy = np.eye(2)[[0, 0]]
    assert controller_value(paid, Controller.memoryless(policy)) == np.inf
    assert controller_value(paid, Controller.memoryless(policy[:, ::-1])) == 1.0
    # after the first step by `null` (leave it or not), half of what goes on never stops
    assert controller_value(paid, Controller.memoryless(np.array([[1.0, 0.0], [0.5, 0.5]]))) == np.inf


def test_going_on_for_ever_unpaid_is_worth_what_came_before() -> None:
    """s0 pays 3 and leads to s1, which keeps itself and pays 0."""
    t = np.array([[[0.0, 1.0], [0.0, 1.0]]] * 2)
    problem = POMDP.from_arrays(
        t, np.ones((2, 2, 1)), np.array([[3.0, 0.0], [1.0, 0.0]]), discount=1, start=np.array([1.0, 0.0])
    )
    policy = np.array([[0.5, 0.5], [0.75, 0.25]])  # rows: the observation, null
    assert controller_value(problem, Controller.memoryless(policy)) == pytest.approx(0.75 * 3 + 0.25)
    gradient = controller_gradient(problem, Controller.memoryless(policy))
    np.testing.assert_allclose(gradient[0, :, :, 0], [[0, 0], [3, 1]])


def test_rewards_of_both_signs_for_ever_are_undefined() -> None:
    """Two states in turn, +1 and -1: the mean is 0 and the sum swings."""
    t = np.array([[[0.0, 1.0], [1.0, 0.0]]])
    problem = POMDP.from_arrays(
        t, np.ones((1, 2, 1)), np.array([[1.0, -1.0]]), discount=1, start=np.array([1.0, 0.0])
    )
    with pytest.raises(InputError, match="undefined at discount 1"):
        controller_value(problem, Controller.memoryless(np.ones((2, 1))))


def test_a_gradient_where_some_way_of_acting_never_ends_is_refused() -> None:
    problem = one_state([-1.0, 0.0], 1.0, [False, True])
    waits = Controller.memoryless(np.eye(2)[[0, 0]])
    assert controller_value(problem, waits) == -np.inf
    with pytest.raises(InputError, match="at discount 1 a gradient"):
        controller_gradient(problem, waits)
    # leaving with .25: -1 / .25 less the last step; d/dp exists
    mixed = Controller.memoryless(np.array([[0.75, 0.25]] * 2))
    assert controller_value(problem, mixed) == pytest.approx(-3)
    assert np.isfinite(controller_gradient(problem, mixed)).all()
    never = one_state([-1.0], 1.0, [False])
    with pytest.raises(InputError, match="at discount 1 a gradient"):
        best_controller(never, 1, np.random.default_rng(0), 1)


def test_ends_that_are_rare_are_exact_until_rounding_loses_them() -> None:
    """(2p - 4) / (p (1 - p)) at p = 1e-9; 1e-13 counts as no end; rounding is no value."""
    problem = corridor()

    def value(p: float) -> float:
        return controller_value(problem, Controller.memoryless(np.array([[1 - p, p]])))

    assert value(1e-9) == pytest.approx(-4e9, rel=1e-6)
    assert value(1e-13) == -np.inf
    # s0 -> s1 -> s2 -> end with 1e-7 each, back to s0 otherwise: the end has 1e-21 per round
    P = np.array([[1 - 1e-7, 1e-7, 0], [1 - 1e-7, 0, 1e-7], [1 - 1e-7, 0, 0]])
    with pytest.raises(InputError, match="lost in rounding"):
        solve_chain(P, -np.ones(3), np.eye(3)[0], np.ones(3, bool))


def test_batches_of_systems_are_those_of_each() -> None:
    problem = random_problem(5, 0.9)
    batch = np.stack(
        [Controller.from_logits(random_controller(problem, 2, s)).probabilities for s in range(3)]
    )
    chain = Chain(problem)
    P, r = chain.systems(batch)
    for i, one in enumerate(batch):
        np.testing.assert_allclose(chain.systems(one[None])[0][0], P[i], atol=1e-15)
        np.testing.assert_allclose(chain.systems(one[None])[1][0], r[i], atol=1e-15)
    # with endings left out and the discount in: rows of P sum to at most .9
    assert P.sum(-1).max() < 0.9


def test_memories_that_do_the_same_change_nothing() -> None:
    problem = random_problem(6, 0.9)
    policy = np.random.default_rng(0).dirichlet(np.ones(2), 3)
    split = np.random.default_rng(1).dirichlet(np.ones(3), (3, 3, 2))  # next memory, at random
    twice = Controller(policy[None, :, :, None] * split)
    assert controller_value(problem, twice) == pytest.approx(
        controller_value(problem, Controller.memoryless(policy)), abs=1e-12
    )


@pytest.mark.parametrize(
    "wrong",
    [np.ones((1, 2, 2)), np.full((1, 2, 2, 1), 0.4), np.array([1.5, -0.5]).reshape(1, 1, 2, 1)],
    ids=["shape", "sum", "negative"],
)
def test_what_is_no_controller_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        Controller(wrong)


def test_a_controller_of_another_problem_is_refused() -> None:
    with pytest.raises(InputError, match="2 inputs and 2 actions; the problem has 3 and 2"):
        controller_value(random_problem(0, 0.9), Controller.memoryless(np.full((2, 2), 0.5)))
    with pytest.raises(InputError, match="6000 unknowns"):
        controller_value(random_problem(0, 0.9), Controller.from_logits(np.zeros((1000, 3, 2, 1000))))


@pytest.mark.parametrize("shown", [False, True])
@pytest.mark.parametrize("discount", [0.9, 1.0])
def test_enumeration_finds_the_best_of_all(shown: bool, discount: float) -> None:
    """Slow twin: every function from inputs to actions, one by one."""
    problem = random_problem(7, discount, alike=shown)
    problem = problem.showing_initial() if shown else problem
    inputs = 2 + (not shown)
    values = [
        controller_value(problem, Controller.memoryless(np.eye(2)[list(actions)]))
        for actions in product(range(2), repeat=inputs)
    ]
    best = best_deterministic_memoryless(problem)
    assert best.value == pytest.approx(max(values), abs=1e-12)
    assert controller_value(problem, best.controller) == pytest.approx(best.value, abs=1e-12)
