from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems import classics
from turnwise.exact.bounds import Unbounded, blind_plans, fib_q, mdp_q


def tiger(discount: float = 0.95) -> POMDP:
    return classics.tiger(discount=discount)


def chance(rng: np.random.Generator, states: int = 6, actions: int = 3, seen: int = 4) -> POMDP:
    """Any problem, some of whose transitions end the episode."""
    t = rng.dirichlet(np.full(states, 0.4), (actions, states))
    o = rng.dirichlet(np.full(seen, 0.4), (actions, states))
    ends = rng.random((actions, states, states)) < 0.1
    start = rng.dirichlet(np.ones(states))
    return POMDP.from_arrays(t, o, rng.normal(size=(actions, states)), discount=0.9, start=start, ends=ends)


def test_mdp_value_of_tiger() -> None:
    # Who sees the tiger opens the other door for ever: 10 / (1 - .95) = 200
    np.testing.assert_allclose(mdp_q(tiger()).max(0), [200, 200])


def test_mdp_value_is_that_of_the_linear_program(rng: np.random.Generator) -> None:
    p = chance(rng)
    S, A, _ = p.shape
    go_on, r = p.continuing().dense(), p.expected_rewards().ravel()
    # least v with v(s) >= R(s,a) + g sum T v
    found = linprog(np.ones(S), A_ub=0.9 * go_on - np.tile(np.eye(S), (A, 1)), b_ub=-r, bounds=(None, None))
    np.testing.assert_allclose(mdp_q(p).max(0), found.x, atol=1e-7)


def test_fast_informed_bound_by_hand(rng: np.random.Generator) -> None:
    p = chance(rng)
    S, A, O = p.shape
    q, t = fib_q(p), p.continuing().dense().reshape(A, S, S)
    o, r = p.emissions.dense().reshape(A, S, O), p.expected_rewards()
    again = np.empty_like(q)
    for a in range(A):
        for s in range(S):
            best = [max(t[a, s] @ (o[a, :, z] * q[b]) for b in range(A)) for z in range(O)]
            again[a, s] = r[a, s] + 0.9 * sum(best)
    np.testing.assert_allclose(q, again, atol=1e-7)
    assert (q <= mdp_q(p) + 1e-9).all()


def test_blind_plans_are_values_of_one_action_for_ever(rng: np.random.Generator) -> None:
    p = chance(rng)
    S, A, _ = p.shape
    values, actions = blind_plans(p)
    assert actions.tolist() == [0, 1, 2]
    for a in range(A):
        t = p.continuing().dense().reshape(A, S, S)[a]
        np.testing.assert_allclose(
            values[a], np.linalg.solve(np.eye(S) - 0.9 * t, p.expected_rewards()[a]), atol=1e-9
        )


def walk(end: bool) -> POMDP:
    """Three cells in a row at -1 a step; action 1 goes right, action 0 left; the end lies right."""
    t = np.zeros((2, 3, 3))
    for s in range(3):
        t[0, s, max(s - 1, 0)] = 1
        t[1, s, min(s + 1, 2)] = 1
    ends = np.zeros((2, 3, 3), bool)
    ends[1, 2, 2] = end
    return POMDP.from_arrays(
        t, np.ones((2, 3, 1)), np.full((2, 3), -1.0), discount=1.0, start=np.array([1.0, 0, 0]), ends=ends
    )


def test_bounds_at_discount_one() -> None:
    p = walk(end=True)
    np.testing.assert_allclose(mdp_q(p).max(0), [-3, -2, -1])
    values, actions = blind_plans(p)
    # Going left never ends; right does; so do actions at random: v = -12, -10, -6 (v0 = -1 + v0/2 + v1/2 ...)
    assert actions.tolist() == [1, -1]
    np.testing.assert_allclose(values, [[-3, -2, -1], [-12, -10, -6]])


def test_what_never_ends_has_no_value_at_discount_one() -> None:
    with pytest.raises(Unbounded, match="discount 1"):
        blind_plans(walk(end=False))
    with pytest.raises(Unbounded, match="discount 1"):
        mdp_q(walk(end=False))
