from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import CLASSICS, tiger
from turnwise.exact.beliefs import BeliefFilter
from turnwise.exact.horizon import horizon_value
from turnwise.exact.pomcp.planner import (
    BeliefLost,
    Config,
    Planner,
    TabularSimulator,
    informed,
    plan_episodes,
)
from turnwise.run.errors import InputError

LISTEN, OPEN_LEFT, OPEN_RIGHT = range(3)
TIGER = tiger()
RNG = np.random.default_rng


def two_steps() -> POMDP:
    """From `start` left (1) or right (0) lead to l or r, seen; there any action pays 2 or 8 and ends."""
    t = np.zeros((2, 3, 3))
    t[0, 0, 1] = t[1, 0, 2] = 1
    t[:, [1, 2], [1, 2]] = 1
    rewards = np.array([[1.0, 2.0, 8.0], [0.0, 2.0, 8.0]])
    ends = np.zeros((2, 3, 3), bool)
    ends[:, [1, 2], [1, 2]] = True
    looks = np.tile(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), (2, 1, 1))
    return POMDP.from_arrays(t, looks, rewards, discount=0.5, start=np.eye(3)[0], ends=ends)


@pytest.mark.parametrize("door", ["tables", "simulator"])
def test_counts_and_backups_by_hand(door: str) -> None:
    """Every return is 1 + .5 * 2 = 2 (left) or .5 * 8 = 4 (right). With c = 4 UCB1 goes on
    after one of each: at N = 2 right; N = 3: left 2 + 4 sqrt(ln 3) = 6.19, right 4 + 4 sqrt(ln 3 / 2) = 6.96;
    N = 4: 6.71 and 6.72, right; N = 5: 7.07 and 4 + 4 sqrt(ln 5 / 4) = 6.54, left.
    """
    problem = two_steps()
    world = problem if door == "tables" else TabularSimulator(problem)
    counts = {2: [1, 1], 3: [1, 2], 4: [1, 3], 5: [1, 4], 6: [2, 4]}
    for n, expected in counts.items():
        planner = Planner(world, Config(simulations=n, exploration=4.0), RNG(n))
        assert planner.act() == 1
        assert planner.counts.tolist() == expected
        assert planner.values.tolist() == [2.0, 4.0]


@pytest.mark.parametrize("door", ["tables", "simulator"])
def test_what_is_under_a_child_stays(door: str) -> None:
    """Of 6 simulations 4 go right; the first makes the child, so that 3 are counted there, each worth 8."""
    problem = two_steps()
    world = problem if door == "tables" else TabularSimulator(problem)
    planner = Planner(world, Config(simulations=6, exploration=4.0, particles=5), RNG(0))
    planner.act()
    planner.observe(1, 1)
    assert planner.counts.sum() == 3
    assert set(planner.values[planner.counts > 0]) == {8.0}
    assert set(np.asarray(planner.states).tolist()) == {2}
    planner.act()
    assert planner.counts.sum() == 9


def test_counts_follow_ucb1_in_a_long_run() -> None:
    """A slow twin: the recursion of UCB1 on returns that are known."""
    for n in (50, 400):
        planner = Planner(two_steps(), Config(simulations=n, exploration=1.5), RNG(1))
        planner.act()
        counts = [1, 1]
        while sum(counts) < n:
            width = [1.5 * math.sqrt(math.log(sum(counts)) / k) for k in counts]
            counts[0 if 2 + width[0] > 4 + width[1] else 1] += 1
        assert planner.counts.tolist() == counts


@pytest.mark.parametrize(("horizon", "margin"), [(1, 0.0), (2, 0.2), (3, 0.2)])
def test_the_root_of_tiger_is_worth_the_exact_value(horizon: int, margin: float) -> None:
    """200,000 simulations, seed 0. UCB1 averages over what it tries, so that it comes from below."""
    exact = horizon_value(TIGER, horizon)
    planner = Planner(TIGER, Config(simulations=200_000, exploration=100.0, horizon=horizon), RNG(0))
    assert planner.act() == LISTEN
    assert exact - margin - 1e-9 <= planner.values[LISTEN] <= exact + 0.02


@pytest.mark.parametrize("exact_belief", [True, False])
def test_two_growls_open_the_other_door(exact_belief: bool) -> None:
    """P(left) = .85^2 / (.85^2 + .15^2) = .9698 > .9; after one growl .85 is too little."""
    config = Config(simulations=20_000, exploration=100.0, horizon=4, exact_belief=exact_belief)
    for growl, door in ((0, OPEN_RIGHT), (1, OPEN_LEFT)):
        planner = Planner(TIGER, config, RNG(3))
        assert planner.act() == LISTEN
        planner.observe(LISTEN, growl)
        assert planner.act() == LISTEN
        planner.observe(LISTEN, growl)
        assert planner.act() == door


@pytest.mark.parametrize("act", [True, False])
def test_particles_come_to_the_exact_belief(act: bool) -> None:
    """20,000 particles over three steps, within 5 standard errors of independent draws; seed 0."""
    rng = RNG(0)
    t, o = rng.dirichlet(np.ones(4), (2, 4)), rng.dirichlet(np.full(3, 2.0), (2, 4))
    p = POMDP.from_arrays(t, o, rng.normal(size=(2, 4)), discount=0.9, start=np.full(4, 0.25))
    config = Config(simulations=200, exact_belief=False, particles=20_000)
    planner, filter = Planner(p, config, RNG(1)), BeliefFilter(p)
    belief: Any = filter.first(np.array([-1]))
    for action, seen in ((0, 1), (1, 2), (0, 0)):
        if act:
            planner.act()
        planner.observe(action, seen)
        belief = filter.update(belief, np.array([action]), np.array([seen]))
        states = np.asarray(planner.states)
        assert len(states) >= 20_000
        off = np.bincount(states, minlength=4) / len(states) - belief.toarray()[0]
        assert (np.abs(off) < 5 * 0.5 / math.sqrt(len(states))).all()


def test_at_discount_0_the_best_reward_is_taken() -> None:
    rng = RNG(5)
    for seed in range(5):
        rewards = rng.normal(size=(4, 3))
        t, o = rng.dirichlet(np.ones(3), (4, 3)), rng.dirichlet(np.ones(2), (4, 3))
        start = rng.dirichlet(np.ones(3))
        p = POMDP.from_arrays(t, o, rewards, discount=0.0, start=start)
        planner = Planner(p, Config(simulations=20_000), RNG(seed))
        assert planner.act() == np.argmax(rewards @ start)
        assert planner.values[planner.act()] == pytest.approx((rewards @ start).max(), abs=0.05)


def test_rock_sample_is_worth_more_than_leaving_and_no_more_than_the_optimum() -> None:
    """24 episodes, seed 2: leaving at once pays 8.57, V* = 17.9245; margin 3 standard errors."""
    problem = CLASSICS["rock-sample-4-4"]()
    legal = (problem.expected_rewards() > -100).T
    config = Config(simulations=10_000, exploration=5.0)
    returns = plan_episodes(problem, config, 24, RNG(2), steps=60, policy=informed(problem), legal=legal)
    error = returns.std(ddof=1) / math.sqrt(len(returns))
    assert 8.57 + 3 * error < returns.mean() < 17.9245 + 3 * error


def test_both_doors_agree() -> None:
    """Values of listening at Tiger's root over 12 seeds, and means of episodes: within 4 standard errors."""
    config = Config(simulations=300, exploration=50.0, horizon=3, exact_belief=False, particles=200)
    found = []
    for world in (TIGER, TabularSimulator(TIGER)):
        planners = [Planner(world, config, RNG(seed)) for seed in range(12)]
        for planner in planners:
            planner.act()
        returns = plan_episodes(world, config, 12, RNG(7), steps=6)
        found.append(
            [[p.values[LISTEN], p.counts[LISTEN], g] for p, g in zip(planners, returns, strict=True)]
        )
    first, second = np.array(found)
    error = np.sqrt((first.var(0, ddof=1) + second.var(0, ddof=1)) / 12)
    assert (np.abs(first.mean(0) - second.mean(0)) <= 4 * error).all()


@pytest.mark.parametrize("exact_belief", [True, False])
def test_the_seed_says_what_happens(exact_belief: bool) -> None:
    config = Config(simulations=300, exploration=50.0, horizon=6, exact_belief=exact_belief)
    runs = [plan_episodes(TIGER, config, 3, RNG(4), steps=8).tolist() for _ in range(2)]
    assert runs[0] == runs[1]


def test_trees_that_are_kept_are_the_trees_that_were_grown() -> None:
    """Each child is made by one simulation that is not counted at it, and all others come by:

    N(root, a) = sum over o of (1 + N(child_ao)), while the state is of either kind with probability 1/2.
    """
    p = POMDP.from_arrays(
        np.tile(np.full((2, 2), 0.5), (2, 1, 1)),
        np.tile(np.array([[0.8, 0.2], [0.2, 0.8]]), (2, 1, 1)),
        np.array([[1.0, 1.0], [0.5, 0.5]]),
        discount=0.5,
        start=np.full(2, 0.5),
    )
    for action in (0, 1):
        total = 0.0
        for seen in (0, 1):
            planner = Planner(p, Config(simulations=500, exploration=1.0, horizon=3, particles=10), RNG(0))
            planner.act()
            n = planner.counts[action]
            planner.observe(action, seen)
            total += planner.counts.sum()
            assert (planner.values <= 1.5).all() and planner.values[0] == pytest.approx(
                1 + 0.5 * 0.75, abs=0.2
            )
        assert total == n - 2


def test_legal_actions_are_the_only_ones() -> None:
    legal = np.tile([True, False, True], (2, 1))
    planner = Planner(TIGER, Config(simulations=500, horizon=3), RNG(0), legal=legal)
    planner.act()
    assert planner.counts[OPEN_LEFT] == 0 and math.isnan(planner.values[OPEN_LEFT])
    world = TabularSimulator(TIGER)
    config = Config(simulations=100, horizon=3, exploration=100.0)
    planner = Planner(world, config, RNG(0), legal=lambda s: legal[s], policy=lambda s: np.array([1.0, 1, 0]))
    planner.act()
    assert planner.counts.tolist()[OPEN_LEFT] == 0 and planner.counts.sum() == 100


def test_what_is_shown_first_is_believed() -> None:
    """Gymnasium's timing: the first look is part of the belief, and a planner waits for it."""
    problem = CLASSICS["heaven-hell"]().showing_initial()
    planner = Planner(problem, Config(simulations=10), RNG(0))
    with pytest.raises(InputError, match=r"begin\(observation\)"):
        planner.act()
    planner.begin(0)
    planner.act()
    with pytest.raises(InputError, match="shows an observation before"):
        planner.begin()
    returns = plan_episodes(problem, Config(simulations=50, exact_belief=False), 2, RNG(0), steps=5)
    assert np.isfinite(returns).all()


class LoudTiger:
    """Tiger whose growls are numbers: N(-1, s) from the left and N(1, s) from the right. None repeats.

    A state is a side, -1 or 1; after a door the tiger is put anew.
    """

    actions, discount, noise = 3, 0.95, 1.5

    def start(self, rng: np.random.Generator) -> int:
        return int(rng.choice([-1, 1]))

    def step(self, state: int, action: int, rng: np.random.Generator) -> tuple[int, float, float, bool]:
        if action == 0:
            return state, float(rng.normal(state, self.noise)), -1.0, False
        reward = -100.0 if (action == 1) == (state == -1) else 10.0
        return self.start(rng), float(rng.normal(0, 9)), reward, False


class HeardTiger(LoudTiger):
    def likelihood(self, observation: float, action: int, state: int) -> float:
        mean, spread = (state, self.noise) if action == 0 else (0, 9)
        return float(np.exp(-(((observation - mean) / spread) ** 2) / 2))


def test_observations_that_never_repeat_are_refused_in_plain_words() -> None:
    planner = Planner(LoudTiger(), Config(200, exploration=110.0), np.random.default_rng(0))
    with pytest.raises(InputError, match=r"do not repeat: .* expected a simulator with `likelihood"):
        planner.act()


def test_weighted_particles_come_to_the_exact_belief() -> None:
    """Bayes: the log-odds of the right side are 2 / s^2 times the sum of what was heard."""
    heard = [0.7, -0.2, 1.9, 0.4]
    config = Config(1, exploration=110.0, particles=4000)
    planner = Planner(HeardTiger(), config, np.random.default_rng(1))
    for k, x in enumerate(heard):
        planner.observe(0, x)
        exact = 1 / (1 + np.exp(-2 / 1.5**2 * sum(heard[: k + 1])))
        assert abs(np.mean(np.array(planner.states) == 1) - exact) < 4 * np.sqrt(0.25 / 4000)
    planner.observe(1, 3.0)  # a door: the tiger is put anew, and what is heard tells nothing
    assert abs(np.mean(np.array(planner.states) == 1) - 0.5) < 4 * np.sqrt(0.25 / 4000)


def test_a_planner_listens_to_growls_that_never_repeat() -> None:
    listen = lambda state: np.array([1.0, 0.0, 0.0])  # noqa: E731
    config = Config(400, exploration=40.0, particles=200, horizon=3)
    planner = Planner(HeardTiger(), config, np.random.default_rng(2), policy=listen)
    assert planner.act() == 0  # nothing is known: a door is worth -45
    planner.observe(0, 0.2)
    assert planner.act() == 0  # a little is known, .54
    planner.observe(0, 6.0)
    planner.act()
    # .996 for the right side: 9.6 now, and -99.6 for the other door; doors that are tried follow both
    assert planner.values[1] > planner.values[2] + 50
    planner.begin()
    planner.observe(0, -6.0)
    planner.act()
    assert planner.values[2] > planner.values[1] + 50


def test_an_observation_that_is_an_array_needs_a_likelihood() -> None:
    class Arrays(LoudTiger):
        def step(self, state: int, action: int, rng: np.random.Generator) -> Any:
            return state, np.zeros(2), 0.0, False

    with pytest.raises(InputError, match="an observation is ndarray"):
        Planner(Arrays(), Config(5, exploration=1.0), np.random.default_rng(0)).act()


@pytest.mark.parametrize("door", ["tables", "simulator"])
def test_lost_beliefs_say_what_to_do(door: str) -> None:
    """At `start` left never shows what right shows."""
    problem = two_steps()
    world = problem if door == "tables" else TabularSimulator(problem)
    config = Config(simulations=10, exploration=1.0, exact_belief=False, particles=8)
    planner = Planner(world, config, RNG(0))
    planner.act()
    with pytest.raises(BeliefLost, match=r"all particles are gone: none of 256 draws .* expected more"):
        planner.observe(0, 1)


def test_what_is_wrong_is_said() -> None:
    world = TabularSimulator(TIGER)
    for settings, message in (
        ({"simulations": 0}, "simulations is 0"),
        ({"precision": 1.0}, "precision is 1.0"),
        ({"horizon": 0}, "horizon is 0"),
        ({"exploration": -1.0}, "exploration is -1.0"),
    ):
        with pytest.raises(InputError, match=message):
            Config(**settings)
    with pytest.raises(InputError, match="discount 1"):
        Planner(CLASSICS["corridor"](), Config(), RNG(0))
    with pytest.raises(InputError, match="exploration is not given"):
        Planner(world, Config(), RNG(0))
    with pytest.raises(InputError, match="policy has shape"):
        Planner(TIGER, Config(), RNG(0), policy=np.ones((3, 2)))
    with pytest.raises(InputError, match="leave no action"):
        Planner(TIGER, Config(), RNG(0), legal=np.zeros((2, 3)))
    with pytest.raises(InputError, match="is a function"):
        Planner(TIGER, Config(), RNG(0), policy=lambda s: np.ones(3))
    with pytest.raises(InputError, match="is an array"):
        Planner(world, Config(exploration=1.0), RNG(0), policy=np.ones((2, 3)))
