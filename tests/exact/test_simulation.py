from __future__ import annotations

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import cheese_maze, corridor, t_maze, tiger
from turnwise.exact.reference_policies import best_open_loop, qmdp_value, without_observations
from turnwise.exact.sarsop.solve import solve
from turnwise.exact.simulation import horizon_of, simulate, watch


@pytest.mark.parametrize("problem", [tiger(), cheese_maze(), cheese_maze().showing_initial(), t_maze(5)])
def test_what_a_policy_earns_lies_within_its_bounds(problem: POMDP) -> None:
    s = solve(problem, gap=1e-3)
    m = simulate(problem, s.policy, np.random.default_rng(0), 500)
    assert m.agrees(s.lower, s.upper)
    assert not m.agrees(s.lower + 5 * m.standard_error + 1, s.upper + 5 * m.standard_error + 1)


def test_an_episode_without_chance_earns_exactly_its_value() -> None:
    p = t_maze(2)  # the optimum is 4 * .9^4 in every episode
    m = simulate(p, solve(p).policy, np.random.default_rng(0), 20)
    np.testing.assert_allclose(m.returns, 4 * 0.9**4)
    assert m.tail == 0  # all have ended


def test_at_discount_one() -> None:
    p = corridor()
    s = solve(p, gap=1e-6)
    m = simulate(p, s.policy, np.random.default_rng(0), 20)
    assert m.agrees(s.lower, s.upper) and s.lower == pytest.approx(-3, abs=1e-5)


def test_at_discount_one_a_free_look_is_not_put_off_for_ever() -> None:
    """Looking is free and tells all; then guess, +1 or -1. The plan that looks for ever looks as good."""
    looks, ends = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    p = POMDP.from_arrays(
        np.array([np.eye(2)] * 3),
        np.array([np.eye(2)] * 3),
        np.array([[0.0, 0.0], [1.0, -1.0], [-1.0, 1.0]]),
        discount=1.0,
        start=np.full(2, 0.5),
        ends=np.array([looks, ends, ends]),
    )
    s = solve(p, gap=1e-6)
    m = simulate(p, s.policy, np.random.default_rng(0), 50)
    assert s.lower == pytest.approx(1) and (m.returns == 1).all()


def test_episodes_are_followed_until_little_can_follow() -> None:
    steps, tail = horizon_of(tiger())  # rewards reach 100 in size
    assert 0.95**steps <= 1e-4 < 0.95 ** (steps - 1)
    assert tail == pytest.approx(100 * 0.95**steps / 0.05)


def test_looks_in_tiger() -> None:
    """The first look is worth what its sign brings beside listening on without ears."""
    p = tiger()
    s = solve(p)
    w = watch(p, s.policy, np.random.default_rng(0), 8, 12)
    first = w.time == 0
    np.testing.assert_allclose(w.entropy[first], np.log(2))
    assert (w.action[first] == 0).all() and (w.given_up[first] == 0).all()
    # V at (.5, .5) and at (.85, .15), from the returned plans; the posteriors' mean is (.5, .5)
    left, right = s.policy.value(np.array([0.85, 0.15])), s.policy.value(np.array([0.15, 0.85]))
    seeing, blind = (left + right) / 2, s.policy.value(np.full(2, 0.5))
    np.testing.assert_allclose(w.look[first], 0.95 * (seeing - blind), atol=1e-9)
    opened = w.action != 0
    np.testing.assert_allclose(w.look[opened], 0, atol=1e-9)
    assert len(w.time) == 8 * 12


def market(shown: list[float]) -> POMDP:
    """Two regimes that stay with .9, at home or abroad; `shown`: how often the signal after stay and go is
    right. Home pays .3 and abroad 1 or -1 by regime, so that `go` gives up .3 to get there."""
    t, e = np.zeros((2, 4, 4)), np.zeros((2, 4, 4))  # states: regime * 2 + place; observations likewise
    for a in (0, 1):
        for regime in (0, 1):
            for place in (0, 1):
                there = 1 - place if a else place
                for after in (0, 1):
                    t[a, regime * 2 + place, after * 2 + there] = 0.9 if after == regime else 0.1
                for signal in (0, 1):
                    right = shown[a] if signal == regime else 1 - shown[a]
                    e[a, regime * 2 + place, signal * 2 + place] = right
    reward = np.array([[0.3, 1.0, 0.3, -1.0], [0.0, 0.0, 0.0, 0.0]])
    return POMDP.from_arrays(
        t, e, reward, discount=0.95, start=[0.5, 0, 0.5, 0], actions=["stay", "go"], name="market"
    )


def test_it_does_not_pay_to_look_where_every_action_shows_the_same() -> None:
    p = market([0.7, 0.7])
    w = watch(p, solve(p, deadline=5).policy, np.random.default_rng(0), 16, 40)
    gone = w.action == 1
    assert (w.given_up[gone] > 0.1).any() and (w.look[gone] > 0.01).any()  # what misled: both are above 0
    assert (w.more == 0).all() and not w.pays.any()


def test_it_pays_to_look_where_an_action_shows_more_than_the_one_given_up() -> None:
    p = market([0.5, 0.9])  # only who goes sees anything
    w = watch(p, solve(p, deadline=5).policy, np.random.default_rng(0), 16, 40)
    assert w.pays[(w.action == 1) & (w.given_up > 0)].any() and not w.pays[w.action == 0].any()
    # nothing else shows anything, so the whole look is more than what was given up would have shown
    np.testing.assert_allclose(w.more[w.pays], w.look[w.pays], rtol=1e-9)


def test_it_pays_to_go_where_one_sees_better() -> None:
    """All actions have the same eyes, but in the light they see: light is where the look comes from."""
    t, e = np.zeros((3, 4, 4)), np.zeros((3, 4, 4))  # states: side * 2 + light
    for side in (0, 1):
        t[:2, side * 2 : side * 2 + 2, side * 2] = 1  # both guesses lead into the dark
        t[2, side * 2 : side * 2 + 2, side * 2 + 1] = 1  # the third into the light
        e[:, side * 2, [0, 2]] = 0.5
        e[:, side * 2 + 1, side * 2 + 1] = 1
    reward = np.array([[1.0, 1, -0.9, -0.9], [-0.9, -0.9, 1, 1], [-0.1] * 4])
    ends = np.ones((3, 4, 4), bool)
    ends[2] = False
    p = POMDP.from_arrays(t, e, reward, discount=0.95, start=[0.5, 0, 0.5, 0], ends=ends)
    w = watch(p, solve(p, deadline=5).policy, np.random.default_rng(0), 4, 5)
    first = w.time == 0
    assert (w.action[first] == 2).all() and w.pays[first].all()


def test_without_ears_one_listens_for_ever() -> None:
    s = best_open_loop(tiger(), gap=1e-3, deadline=20)
    assert s.lower - 1e-6 <= -1 / (1 - 0.95) <= s.upper + 1e-6
    assert without_observations(tiger()).shape == (2, 3, 1)


def test_qmdp_in_the_t_maze_never_looks() -> None:
    # It goes for the goal without the cue, which is behind it: half of the time the wrong arm, at once over.
    low, high = qmdp_value(t_maze(2), gap=1e-6, deadline=20) or (np.nan, np.nan)
    optimum = solve(t_maze(2)).lower
    assert low == pytest.approx(high, abs=1e-5) and high < optimum - 0.1


def test_qmdp_in_tiger_is_nearly_optimal() -> None:
    low, high = qmdp_value(tiger(), gap=1e-4, deadline=20) or (np.nan, np.nan)
    assert low == pytest.approx(high, abs=1e-3)
    assert high <= solve(tiger()).upper + 1e-9 and low > 19.3


def test_qmdp_has_no_bounds_at_discount_one() -> None:
    assert qmdp_value(corridor(), gap=1e-3, deadline=5) is None
