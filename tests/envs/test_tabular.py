from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chisquare

from turnwise.envs.pomdp import POMDP
from turnwise.envs.tabular import Joint, Staged, TabularEnv, joint_outcomes

LANES = 40_000
BOTH = pytest.mark.parametrize("joint_limit", [10**6, 0], ids=["joint", "staged"])


def tiny() -> POMDP:
    """Two states, two actions, action 1 ends the episode from s1; rewards depend on what is seen."""
    t = np.array([[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [1.0, 0.0]]])
    o = np.array([[[0.75, 0.25], [0.25, 0.75]]] * 2)
    r = np.zeros((2, 2, 2, 2))
    r[0, 0, 1] = [4.0, 8.0]
    r[1, 1, 0] = 2.0
    ends = np.zeros((2, 2, 2), bool)
    ends[1, 1, 0] = True
    return POMDP.from_arrays(t, o, r, discount=0.5, start=np.array([0.25, 0.75]), ends=ends)


def scattered(seed: int) -> POMDP:
    """Five states, three actions, four observations; numbers at random, many of them zero."""
    rng = np.random.default_rng(seed)
    t, o = rng.random((3, 5, 5)) * (rng.random((3, 5, 5)) < 0.5), rng.random((3, 5, 4)) ** 3
    t[..., 0] += 0.1
    o *= rng.random(o.shape) < 0.7
    o[..., 1] += 0.1
    r = rng.normal(size=(3, 5, 5, 4)).round(2) * (rng.random((3, 5, 5, 4)) < 0.6)
    t, o = t / t.sum(-1, keepdims=True), o / o.sum(-1, keepdims=True)
    return POMDP.from_arrays(t, o, r, discount=0.9, start=np.full(5, 0.2), ends=rng.random((3, 5, 5)) < 0.2)


def line(n: int) -> POMDP:
    """States 0..n-1, each seen as itself; action 0 stays for 0, action 1 goes on for 1, and ends at n-1."""
    t = np.stack([np.eye(n), np.eye(n)[[min(i + 1, n - 1) for i in range(n)]]])
    ends = np.zeros((2, n, n), bool)
    ends[1, n - 2, n - 1] = True
    start = np.eye(n)[0]
    return POMDP.from_arrays(
        t, np.stack([np.eye(n)] * 2), np.array([[0.0] * n, [1.0] * n]), discount=0.9, start=start, ends=ends
    )


def outcomes(p: POMDP, a: int, s: int) -> dict[tuple[int, int, float, bool], float]:
    """P(s', o, reward, ends | a, s), one number at a time."""
    S = len(p.states)
    found: Counter[tuple[int, int, float, bool]] = Counter()
    for e in range(p.transitions.indptr[a * S + s], p.transitions.indptr[a * S + s + 1]):
        to = int(p.transitions.indices[e])
        for o, seen in enumerate(p.emissions.dense()[a * S + to]):
            reward = p.rewards[e] if p.seen_rewards is None else p.seen_rewards.dense()[e, o]
            if seen * p.transitions.data[e] > 0:
                found[to, o, float(reward), bool(p.ends[e])] += p.transitions.data[e] * seen
    return dict(found)


@BOTH
@pytest.mark.parametrize("problem", [tiny(), scattered(0), replace(scattered(1), seen_rewards=None)])
def test_outcomes_come_as_often_as_they_should(problem: POMDP, joint_limit: int) -> None:
    """Chi-square for each (a, s), seeds fixed: 4 + 15 + 15 of them, so that p below 1e-4 is an error."""
    env, rng = TabularEnv(problem, joint_limit=joint_limit), np.random.default_rng(5)
    S, A, _ = problem.shape
    env.reset(rng, LANES)
    before = env.states
    actions = rng.integers(0, A, LANES)
    step = env.step(actions)
    columns = (actions, before, env.states, step.observations, step.rewards, step.terminated)
    counted = Counter(zip(*(c.tolist() for c in columns), strict=True))
    for a in range(A):
        for s in range(S):
            expected = outcomes(problem, a, s)
            seen = {k[2:]: n for k, n in counted.items() if k[:2] == (a, s)}
            assert seen.keys() <= expected.keys()
            total = sum(seen.values())
            assert total > 1000
            result = chisquare([seen.get(k, 0) for k in expected], [p * total for p in expected.values()])
            assert result.pvalue > 1e-4 or len(expected) == 1


def test_the_joint_table_holds_the_product_of_both(rng: np.random.Generator) -> None:
    problem = scattered(2)
    S, A, _ = problem.shape
    j = Joint.of(problem)
    for row in range(A * S):
        found: Counter[tuple[int, int, float, bool]] = Counter()
        first, width = int(j.table.offset[row]), int(j.table.width[row])
        for slot in range(first, first + width):
            for k, share in ((slot, j.table.cut[slot]), (j.table.alias[slot], 1 - j.table.cut[slot])):
                if share > 0:
                    what = int(j.states[k]), int(j.seen[k]), float(j.rewards[k]), bool(j.ends[k])
                    found[what] += share / width
        expected = outcomes(problem, row // S, row % S)
        assert found.keys() == expected.keys()
        for what, p in expected.items():
            assert abs(found[what] - p) < 1e-12


def test_the_size_of_the_joint_table_decides() -> None:
    # (a0, s0): 2 states of 2 observations each; one state in the other three rows: 4 + 2 + 2 + 2
    assert joint_outcomes(tiny()) == 10
    assert isinstance(TabularEnv(tiny(), joint_limit=10)._outcomes, Joint)
    assert isinstance(TabularEnv(tiny(), joint_limit=9)._outcomes, Staged)


def test_the_return_of_random_actions_is_the_exact_one() -> None:
    """Three steps of `tiny`, undiscounted; V_h(s) = mean over a of R(s,a) + P(go on) V_{h-1}.

    R(s0,.) = (.5 * 7, 0), R(s1,.) = (0, 2). V_1 = (1.75, 1).
    V_2(s0) = 1.75 + (.5(1.75 + 1)/2 + 1.75/2) = 3.3125, V_2(s1) = 1 + 1/2 = 1.5.
    V_3(s0) = 1.75 + (.5(3.3125 + 1.5)/2 + 3.3125/2) = 4.609375, V_3(s1) = 1 + 1.5/2 = 1.75.
    From the start: .25 * 4.609375 + .75 * 1.75 = 2.46484375.
    """
    env, rng = TabularEnv(tiny(), horizon=3), np.random.default_rng(1)
    env.reset(rng, LANES)
    returns, alive = np.zeros(LANES), np.ones(LANES, bool)
    for _ in range(3):
        step = env.step(rng.integers(0, 2, LANES))
        returns += step.rewards * alive
        over = step.terminated | step.truncated
        alive &= ~over
        env.reset_lanes(over)
    error = returns.std() / LANES**0.5
    assert abs(returns.mean() - 2.46484375) < 4 * error and error < 0.03


def test_first_states_and_what_is_shown_first() -> None:
    """P(s0) = .25; shown 0 with .75 from s0 and .25 from s1."""
    env = TabularEnv(tiny().showing_initial())
    seen = env.reset(np.random.default_rng(0), LANES)
    assert env.null is None and env.symbols == 2
    table = np.zeros((2, 2))
    np.add.at(table, (env.states, seen), 1)
    expected = np.array([[0.25 * 0.75, 0.25 * 0.25], [0.75 * 0.25, 0.75 * 0.75]])
    assert chisquare(table.ravel(), expected.ravel() * LANES).pvalue > 1e-4


def test_a_symbol_of_its_own_is_seen_where_nothing_is_shown() -> None:
    env = TabularEnv(line(3))
    assert env.reset(np.random.default_rng(0), 2).tolist() == [3, 3]
    assert env.null == 3 and env.symbols == 4
    assert env.reset_lanes(np.array([False, True])).tolist() == [3]


def test_an_end_and_the_horizon_are_told_apart() -> None:
    """Lane 0 walks to the end in two steps, lane 1 stays, lane 2 arrives at the horizon."""
    env = TabularEnv(line(3), horizon=3)
    env.reset(np.random.default_rng(0), 3)
    step = env.step(np.array([1, 0, 0]))
    assert step.observations.tolist() == [1, 0, 0] and step.rewards.tolist() == [1.0, 0.0, 0.0]
    step = env.step(np.array([1, 0, 1]))
    assert step.terminated.tolist() == [True, False, False] and not step.truncated.any()
    assert env.states.tolist() == [2, 0, 1]  # of the lane that ended: the state that it reached
    env.reset_lanes(step.terminated)
    step = env.step(np.array([0, 0, 1]))
    assert step.terminated.tolist() == [False, False, True]
    assert step.truncated.tolist() == [False, True, False]


def test_a_lane_that_began_anew_has_its_own_age() -> None:
    env = TabularEnv(line(3), horizon=3)
    env.reset(np.random.default_rng(0), 2)
    env.step(np.array([1, 0]))
    env.reset_lanes(np.array([True, False]))
    assert env.states.tolist() == [0, 0]
    env.step(np.array([0, 0]))
    assert env.step(np.array([0, 0])).truncated.tolist() == [False, True]
    env.reset_lanes(np.array([False, True]))
    assert env.step(np.array([0, 0])).truncated.tolist() == [True, False]


def test_lanes_left_alone_stay_where_they_are() -> None:
    env = TabularEnv(scattered(3))
    env.reset(np.random.default_rng(0), 200)
    before, mask = env.states, np.arange(200) % 2 == 0
    kept = before.copy()
    env.reset_lanes(mask)
    assert (env.states[~mask] == kept[~mask]).all() and (env.states[mask] != kept[mask]).any()
    assert (before == kept).all()  # handed out earlier
    with pytest.raises(ValueError, match="read-only"):
        env.states[0] = 1


def test_the_same_seed_and_lanes_give_the_same_numbers() -> None:
    def play(seed: int) -> list[list[float]]:
        env, rng = TabularEnv(scattered(4), horizon=5), np.random.default_rng(seed)
        found = [env.reset(rng, 50).tolist()]
        for i in range(20):
            step = env.step(np.full(50, i % 3))
            found += [step.observations.tolist(), step.rewards.tolist()]
            env.reset_lanes(step.terminated | step.truncated)
        return found

    assert play(1) == play(1) and play(1) != play(2)


def test_actions_of_any_integer_type_mean_the_same() -> None:
    env = TabularEnv(line(4))
    for kind in (np.int8, np.int32, np.uint8, np.uint64):
        env.reset(np.random.default_rng(0), 2)
        assert env.step(np.array([1, 0], kind)).observations.tolist() == [1, 0]


def test_lanes_that_ended_are_not_stepped() -> None:
    env = TabularEnv(line(2))
    env.reset(np.random.default_rng(0), 3)
    step = env.step(np.array([0, 1, 1]))
    with pytest.raises(ValueError, match=r"lane 1 has ended \(2 have\); reset_lanes"):
        env.step(np.array([0, 0, 0]))
    env.reset_lanes(np.array([False, True, False]))
    with pytest.raises(ValueError, match=r"lane 2 has ended \(1 have\)"):
        env.step(np.array([0, 0, 0]))
    env.reset_lanes(step.terminated)
    assert not env.step(np.array([0, 0, 0])).terminated.any()


@pytest.mark.parametrize(
    ("actions", "words"),
    [
        (np.array([0, 2]), "actions run from 0 to 2; expected 0 to 1"),
        (np.array([-1, 0]), "actions run from -1"),
        (np.array([0]), r"shape \(1,\); expected integers of shape \(2,\)"),
        (np.array([0.0, 1.0]), "actions are float64"),
    ],
)
def test_actions_that_cannot_be_taken_are_refused(actions: np.ndarray, words: str) -> None:
    env = TabularEnv(line(3))
    env.reset(np.random.default_rng(0), 2)
    with pytest.raises(ValueError, match=words):
        env.step(actions)
    assert env.states.tolist() == [0, 0]


def test_what_cannot_be_asked_is_refused() -> None:
    with pytest.raises(ValueError, match="horizon is 0"):
        TabularEnv(line(2), horizon=0)
    env = TabularEnv(line(2))
    with pytest.raises(ValueError, match="reset comes first"):
        env.step(np.array([0]))
    with pytest.raises(ValueError, match="lanes is 0"):
        env.reset(np.random.default_rng(0), 0)
    env.reset(np.random.default_rng(0), 2)
    with pytest.raises(ValueError, match="mask is int64"):
        env.reset_lanes(np.array([1, 0]))
