"""Bounds on grids, where reachable beliefs lie on points, lines and planes."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import tiger
from turnwise.exact.alpha_policy import AlphaPolicy
from turnwise.exact.bounds import fib_q
from turnwise.exact.grids.cells import Grid
from turnwise.exact.grids.refine import rounds
from turnwise.exact.grids.slices import Slice, corners_of, reachable_slices
from turnwise.exact.sarsop.solve import solve


def market(
    regimes: int = 2, stay: float = 0.95, right: float = 0.65, noise: int = 1, discount: float = 0.95
) -> POMDP:
    """Hidden regimes that stay with `stay`; a signal right with `right` whatever one does; positions chosen
    freely at .02 a change; a step pays .05, 0 or -.05 by regime and position. `noise` values that are drawn
    anew at each step and are never seen make supports larger, and the space of beliefs no larger."""
    places = max(3, regimes)
    states = [(r, p, x) for r in range(regimes) for p in range(places) for x in range(noise)]
    number = {s: i for i, s in enumerate(states)}
    S = len(states)
    t, e = np.zeros((places, S, S)), np.zeros((places, S, regimes))
    reward = np.zeros((places, S))
    for a in range(places):
        for (r, p, x), i in number.items():
            for r2 in range(regimes):
                for x2 in range(noise):
                    chance = stay if r2 == r else (1 - stay) / (regimes - 1)
                    t[a, i, number[r2, a, x2]] = chance / noise
                e[a, i, r2] = right if r2 == r else (1 - right) / (regimes - 1)
            sign = (1 - 2 * r) * (a - 1) if regimes == 2 else (1.0 if a == r else -0.5)
            reward[a, i] = 0.05 * sign - 0.02 * (a != p) + 0.01 * x
    start = np.zeros(S)
    for r in range(regimes):
        for x in range(noise):
            start[number[r, 1, x]] = 1 / (regimes * noise)
    return POMDP.from_arrays(t, e, reward, discount=discount, start=start, name="market")


def worth(problem: POMDP, policy: AlphaPolicy, sweeps: int) -> float:
    """The controller's value at the start, by iterating its equations from far below."""
    S, A, O = problem.shape
    t, o = problem.continuing().dense().reshape(A, S, S), problem.emissions.dense().reshape(A, S, O)
    now = problem.expected_rewards()[policy.actions]
    v = np.full_like(policy.alphas, now.min() / (1 - problem.discount))
    for _ in range(sweeps):
        seen = np.einsum("nso,nos->ns", o[policy.actions], v[policy.successors])
        v = now + problem.discount * np.einsum("nst,nt->ns", t[policy.actions], seen)
    return float((v @ problem.start).max())


@pytest.mark.parametrize(
    ("problem", "dimensions"),
    [
        (market(), 2),  # the regimes' line, at each of three positions
        (market(noise=3), 2),  # twelve states are possible, and beliefs still lie on a line
        (market(regimes=3, right=0.8), 3),  # a plane
    ],
)
def test_regimes_beside_a_known_position_are_solved_in_seconds(problem: POMDP, dimensions: int) -> None:
    slices = reachable_slices(problem)
    assert slices is not None and max(len(s.basis) for s in slices.slices) == dimensions
    began = time.perf_counter()
    s = solve(problem, gap=1e-3, deadline=5)
    assert s.stopped == "gap" and s.gap <= 1e-3 and time.perf_counter() - began < 6
    assert worth(problem, s.policy, 300) >= s.lower - 1e-6


def test_bounds_on_grids_hold_those_of_the_search() -> None:
    p = market(stay=0.8)
    fib = fib_q(p)
    by_search = solve(p, most=60)
    seen = 0
    for r in itertools.islice(rounds(p, fib, np.inf), 5):
        assert r.lower <= by_search.upper + 1e-9 and r.upper >= by_search.lower - 1e-9
        if r.policy is not None:
            assert worth(p, r.policy, 300) >= r.lower - 1e-6
            assert r.policy.value(p.start) == pytest.approx(r.lower, abs=1e-9)
            seen += 1
    assert seen and r.upper - r.lower < 1e-3


def test_tiger_on_grids() -> None:
    p = tiger()
    *_, last = itertools.islice(rounds(p, fib_q(p), np.inf), 6)
    assert last.lower <= 19.37137 and last.upper >= 19.37135 and last.upper - last.lower < 0.01


def test_beliefs_that_fill_more_are_left_to_the_search() -> None:
    rng = np.random.default_rng(0)
    t, e = rng.dirichlet(np.ones(6), (2, 6)), rng.dirichlet(np.ones(3), (2, 6))
    p = POMDP.from_arrays(t, e, rng.normal(size=(2, 6)), discount=0.9, start=np.full(6, 1 / 6))
    assert reachable_slices(p) is None
    assert list(rounds(p, fib_q(p), time.perf_counter() + 1)) == []


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_belief_is_the_mixture_of_the_points_around_it(d: int) -> None:
    rng = np.random.default_rng(d)
    made = rng.dirichlet(np.ones(5), d)
    corners = corners_of(made)
    assert (corners >= 0).all() and np.allclose(corners.sum(1), 1)
    if d > 1:  # a corner lies on the border of the simplex
        assert np.allclose(corners.min(1), 0, atol=1e-9)
    q = np.linalg.qr(made.T)[0].T
    grid = Grid.on(Slice(np.arange(5), corners, q), 7)
    beliefs = rng.dirichlet(np.ones(len(corners)), 300) @ corners
    beliefs = np.concatenate([beliefs, corners, grid.points, (corners + np.roll(corners, 1, 0)) / 2])
    at, share = grid.weights(beliefs)
    assert (share >= 0).all() and np.allclose(share.sum(1), 1)
    np.testing.assert_allclose(np.einsum("Nd,Ndn->Nn", share, grid.points[at]), beliefs, atol=1e-9)
    if d > 1:  # and the points are those of one cell: near
        near = np.abs(grid.points[at] - beliefs[:, None]).max((1, 2))
        assert near.max() <= 1 / 7 + 1e-9
