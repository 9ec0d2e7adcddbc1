"""Finite horizons: Tiger's published numbers, a slow twin over beliefs, and pruning against a grid."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.exact.horizon import finite_horizon, horizon_value, prune
from turnwise.run.errors import InputError

UNIFORM = np.array([0.5, 0.5])
# Optimal value at the uniform belief with 1 to 10 steps to go, from an independent exact program.
TIGER = {
    0.95: [-1, -1.95, 2.3098, 1.795544, 2.763096, 4.428531, 4.584266, 5.324021, 6.423648, 6.693368],
    1.0: [-1, -2, 2.72, 2.42125, 3.60915, 5.618819, 6.24635, 7.096616, 8.753839, 9.438168],
    0.75: [-1, -1.75, 0.905, 0.483125, 0.628229, 1.402174, 1.290394, 1.447012, 1.674227, 1.66156],
}


def tiger(discount: float) -> POMDP:
    """Kaelbling, Littman & Cassandra 1998, section 5: listen, open left, open right."""
    even = np.full((2, 2), 0.5)
    heard = np.array([[0.85, 0.15], [0.15, 0.85]])
    return POMDP.from_arrays(
        np.stack([np.eye(2), even, even]),
        np.stack([heard, even, even]),
        np.array([[-1.0, -1.0], [-100.0, 10.0], [10.0, -100.0]]),
        discount=discount,
        start=UNIFORM,
    )


def random_problem(seed: int, states: int = 3, *, shown: bool = False) -> POMDP:
    rng = np.random.default_rng(seed)
    o = rng.dirichlet(np.ones(2), (2, states))
    found = POMDP.from_arrays(
        rng.dirichlet(np.ones(states), (2, states)),
        np.stack([o[0], o[0]]) if shown else o,
        rng.normal(size=(2, states, states)),
        discount=0.9,
        start=rng.dirichlet(np.ones(states)),
        ends=rng.random((2, states, states)) < 0.3,
    )
    return found.showing_initial() if shown else found


def over_beliefs(problem: POMDP, horizon: int, weight: np.ndarray) -> float:
    """Slow twin: the best of each action's reward and what is believed after each observation.

    `weight` [S] is a belief times the chance of having come there, so that nothing is divided.
    """
    S, A, O = problem.shape
    t = problem.continuing().dense().reshape(A, S, S)
    o = problem.emissions.dense().reshape(A, S, O)
    r = problem.expected_rewards()
    known: dict[tuple[int, bytes], float] = {}

    def value(w: np.ndarray, h: int) -> float:
        mass = w.sum()
        if h == 0 or mass == 0:
            return 0.0
        b = w / mass
        key = (h, np.round(b, 10).tobytes())
        if key not in known:
            known[key] = max(
                b @ r[a] + problem.discount * sum(value((b @ t[a]) * o[a, :, i], h - 1) for i in range(O))
                for a in range(A)
            )
        return mass * known[key]

    return value(weight, horizon)


@pytest.mark.parametrize("discount", sorted(TIGER))
def test_tiger_at_the_uniform_belief(discount: float) -> None:
    """Equal to the six decimals that were published, and to the twin far below them."""
    problem = tiger(discount)
    vectors = finite_horizon(problem, 10)
    values = [float((v @ UNIFORM).max()) for v in vectors]
    assert values[0] == 0
    np.testing.assert_allclose(values[1:], TIGER[discount], rtol=0, atol=1e-6)
    twin = [over_beliefs(problem, h, UNIFORM) for h in range(1, 11)]
    np.testing.assert_allclose(values[1:], twin, rtol=0, atol=1e-9)


def test_one_and_two_steps_of_tiger_by_hand() -> None:
    """One step: the three rewards. Two: nobody opens on one hearing, .85 * 10 - .15 * 100 = -6.5 < -1."""
    one, two = finite_horizon(tiger(0.95), 2)[1:]
    assert {tuple(v) for v in one} == {(-1.0, -1.0), (-100.0, 10.0), (10.0, -100.0)}
    assert (two @ UNIFORM).max() == pytest.approx(-1.95)
    # sure of the tiger on the left: open right, then listen
    assert (two @ [1.0, 0.0]).max() == pytest.approx(10 - 0.95)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("states", [2, 4])
def test_random_problems_with_ends_against_beliefs(seed: int, states: int) -> None:
    problem = random_problem(seed, states)
    vectors = finite_horizon(problem, 4)
    for belief in np.random.default_rng(seed).dirichlet(np.ones(states), 10):
        for h in range(5):
            twin = over_beliefs(problem, h, belief)
            assert (vectors[h] @ belief).max() == pytest.approx(twin, abs=1e-7)


def test_what_is_shown_first_counts_at_the_start() -> None:
    """V = sum over o_0 of P(o_0) V(belief after o_0)."""
    problem = random_problem(11, shown=True)
    assert problem.initial is not None
    shown = problem.start[:, None] * problem.initial.dense()
    twin = sum(over_beliefs(problem, 3, w) for w in shown.T)
    assert horizon_value(problem, 3) == pytest.approx(twin, abs=1e-9)
    after = shown[:, 0] / shown[:, 0].sum()
    assert horizon_value(problem, 3, after) == pytest.approx(over_beliefs(problem, 3, after), abs=1e-9)
    hidden = random_problem(11)
    assert horizon_value(hidden, 3) == pytest.approx(over_beliefs(hidden, 3, hidden.start), abs=1e-9)


def test_an_end_is_followed_by_nothing() -> None:
    """Action 1 pays 5 and ends, action 0 pays 1: three steps are 1 + 1 + 5."""
    problem = POMDP.from_arrays(
        np.ones((2, 1, 1)),
        np.ones((2, 1, 1)),
        np.array([[1.0], [5.0]]),
        discount=1.0,
        start=np.ones(1),
        ends=np.array([False, True]).reshape(2, 1, 1),
    )
    assert [horizon_value(problem, h) for h in range(4)] == [0, 5, 6, 7]


@pytest.mark.parametrize("seed", range(3))
def test_pruning_keeps_exactly_what_is_best_somewhere(seed: int) -> None:
    """Slow twin: a grid of beliefs. What is best on it is kept, and at most one vector between its points."""
    vectors = np.random.default_rng(seed).normal(size=(40, 3))
    kept = prune(vectors)
    steps = 100
    grid = np.array([(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]) / steps
    best = np.unique((vectors @ grid.T).argmax(0))
    rows = {tuple(v) for v in kept}
    assert {tuple(v) for v in vectors[best]} <= rows <= {tuple(v) for v in vectors}
    assert len(rows) == len(kept) <= len(best) + 1


def test_pruning_sees_what_only_a_linear_program_sees() -> None:
    """(.4, .4) is below no vector, but below the mean of the others; (.6, .6) is not."""
    corners = np.eye(2)
    assert len(prune(np.vstack([corners, [0.4, 0.4]]))) == 2
    assert len(prune(np.vstack([corners, [0.6, 0.6]]))) == 3
    assert len(prune(np.vstack([corners, [0.5, 0.5]]))) == 2  # touches at one belief, better nowhere
    assert len(prune(np.vstack([corners, corners]))) == 2
    assert prune(np.zeros((3, 2))).tolist() == [[0.0, 0.0]]


def test_what_grows_too_large_is_refused() -> None:
    with pytest.raises(InputError, match="vectors times"):
        finite_horizon(tiger(0.95), 6, most=10)
    with pytest.raises(InputError, match="horizon is -1"):
        finite_horizon(tiger(0.95), -1)
