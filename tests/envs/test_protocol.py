"""What every environment of lanes promises, held against all of them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
from gymnasium.envs.classic_control import CartPoleEnv, PendulumEnv
from gymnasium.vector import AutoresetMode
from numpy.testing import assert_allclose, assert_array_equal

from turnwise.envs.clock import Clock
from turnwise.envs.gymnasium.door import VectorLanes, lanes_of, tasks
from turnwise.envs.gymnasium.lanes import GymnasiumLanes, lanes_by_id
from turnwise.envs.problems.classics import CLASSICS, tiger
from turnwise.envs.problems.hidden_velocity import CartPole, Pendulum
from turnwise.envs.problems.memory_tasks import repeat_previous
from turnwise.envs.protocol import Discrete, LaneEnv, Resumable, Space

N = 7

STEADY: dict[str, Callable[[], LaneEnv]] = {
    name: lambda m=make: m(horizon=9) for name, make in tasks().items()
}
"""after they begin, what happens follows from actions alone"""

CHANCE: dict[str, Callable[[], LaneEnv]] = {
    **{name: lambda name=name: lanes_by_id(name, N, 9) for name in CLASSICS},
    "tiger, nothing first": lambda: lanes_of(tiger(), 4, show_initial=False),
    "CartPole-v1": lambda: lanes_by_id("CartPole-v1", N, 9),
    "Pendulum-v1": lambda: lanes_by_id("Pendulum-v1", N, 9),
    **{
        f"through Gymnasium, {mode.name}": lambda mode=mode: GymnasiumLanes(
            VectorLanes(repeat_previous(2, 8, 2), N, mode)
        )
        for mode in AutoresetMode
    },
}

ALL = STEADY | CHANCE


def actions(rng: np.random.Generator, space: Space, n: int) -> np.ndarray:
    if isinstance(space, Discrete):
        return rng.integers(space.n, size=n)
    return rng.uniform(space.low, space.high, (n, space.size)).astype(np.float32)


def belongs(values: np.ndarray | None, space: Space | None, n: int) -> None:
    """Shape, type and range."""
    if space is None:
        assert values is None
    elif isinstance(space, Discrete):
        assert values is not None and values.shape == (n,) and values.dtype == np.int64
        assert n == 0 or (values.min() >= 0 and values.max() < space.n)
    else:
        assert values is not None and values.shape == (n, space.size) and values.dtype == np.float32
        assert np.isfinite(values).all()


@pytest.mark.parametrize("name", list(ALL))
def test_every_environment_keeps_its_promises(name: str) -> None:
    """40 steps of random play, with at least three ends in each lane."""
    env, rng = ALL[name](), np.random.default_rng(5)
    belongs(env.reset(np.random.default_rng(0), N), env.observation_space, N)
    belongs(env.states, env.state_space, N)
    over, ends = np.zeros(N, bool), np.zeros(N)
    for _ in range(40):
        step = env.step(actions(rng, env.action_space, N))
        belongs(step.observations, env.observation_space, N)
        belongs(env.states, env.state_space, N)
        assert step.rewards.shape == (N,) and step.rewards.dtype == np.float64
        for flags in (step.terminated, step.truncated):
            assert flags.shape == (N,) and flags.dtype == np.bool_
        assert not (step.terminated & step.truncated).any()
        if env.autoresets:
            assert not step.rewards[over].any() and not (step.terminated | step.truncated)[over].any()
        over = step.terminated | step.truncated
        ends += over
        if over.any() and not env.autoresets:
            with pytest.raises(ValueError, match="ended"):
                env.step(actions(rng, env.action_space, N))
            belongs(env.reset_lanes(over), env.observation_space, int(over.sum()))
            belongs(env.reset_lanes(np.zeros(N, bool)), env.observation_space, 0)
    assert ends.min() >= 3


def told(env: LaneEnv, seed: int, steps: int = 25) -> list[np.ndarray]:
    """All that an environment says to the same random play."""
    rng = np.random.default_rng(9)
    said = [env.reset(np.random.default_rng(seed), N)]
    for _ in range(steps):
        step = env.step(actions(rng, env.action_space, N))
        over = step.terminated | step.truncated
        said += [*step]
        if env.states is not None:
            said.append(env.states)
        if over.any() and not env.autoresets:
            said.append(env.reset_lanes(over))
    return said


@pytest.mark.parametrize("name", list(ALL))
def test_the_seed_decides(name: str) -> None:
    """Two environments, and one that is used twice, tell the same; arrays told earlier stay as they were."""
    env = ALL[name]()
    first = told(env, 1)
    kept = [x.copy() for x in first]
    again, other = told(env, 1), told(ALL[name](), 1)
    for a, b, c, d in zip(first, kept, again, other, strict=True):
        assert_array_equal(a, b)
        assert_array_equal(a, c)
        assert_array_equal(a, d)


THROUGH = {f"through Gymnasium, {mode.name}" for mode in AutoresetMode}
"""vector environments that seed all lanes at once and hold more than numbers"""


@pytest.mark.parametrize("name", list(ALL))
def test_lanes_go_on_where_they_stood(name: str) -> None:
    """In mid-episode, after 13 steps of which some ended episodes: a fresh environment says the same."""
    env, rng = ALL[name](), np.random.default_rng(9)
    assert isinstance(env, Resumable) and env.resumes == (name not in THROUGH)
    if not env.resumes:
        return
    generator = np.random.default_rng(1)
    env.reset(generator, N)
    for _ in range(13):
        step = env.step(actions(rng, env.action_space, N))
        over = step.terminated | step.truncated
        if over.any() and not env.autoresets:
            env.reset_lanes(over)
    state = copy.deepcopy(env.state())
    other, again = ALL[name](), np.random.default_rng(7)
    other.load(state, again)
    again.bit_generator.state = generator.bit_generator.state
    for _ in range(20):
        chosen = actions(rng, env.action_space, N)
        one, two = env.step(chosen), other.step(chosen)
        for a, b in zip(one, two, strict=True):
            assert_array_equal(a, b)
        if env.states is not None:
            assert_array_equal(env.states, other.states)
        over = one.terminated | one.truncated
        if over.any() and not env.autoresets:
            assert_array_equal(env.reset_lanes(over), other.reset_lanes(over))


CERTAIN = {"corridor"}
"""problems in which nothing is left to chance"""


@pytest.mark.parametrize("name", [n for n in ALL if n not in CERTAIN])
def test_another_seed_is_another_story(name: str) -> None:
    a, b = told(ALL[name](), 1), told(ALL[name](), 2)
    assert len(a) != len(b) or any(x.shape != y.shape or (x != y).any() for x, y in zip(a, b, strict=True))


OVER_EARLIER = {"cartpole-hidden", "count-recall-8"}
"""in less than 9 steps"""


@pytest.mark.parametrize("name", list(STEADY))
def test_only_lanes_of_the_mask_begin_anew(name: str) -> None:
    """Of two environments with one seed, one begins lanes 1 and 4 anew after 3 steps: others notice nothing.

    They are cut after 9 steps, lanes 1 and 4 after 3 + 9.
    """
    env, twin = STEADY[name](), STEADY[name]()
    for one in (env, twin):
        one.reset(np.random.default_rng(0), N)
    rng, mask = np.random.default_rng(3), np.isin(np.arange(N), [1, 4])
    for t in range(5):
        if t == 3:
            assert len(env.reset_lanes(mask)) == 2
        played = actions(rng, env.action_space, N)
        a, b = env.step(played), twin.step(played)
        for x, y in zip(a, b, strict=True):
            assert_array_equal(x[~mask], y[~mask])
    if name not in OVER_EARLIER:
        for t in range(6, 13):
            step = env.step(np.zeros_like(played))
            over = step.terminated | step.truncated
            assert_array_equal(over, (t == 9) & ~mask | (t == 12) & mask)
            env.reset_lanes(over)


def test_the_clock_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="horizon is 0; expected at least 1 step"):
        Clock(0)
    clock = Clock(2)
    with pytest.raises(ValueError, match="reset comes first"):
        clock.check(np.array([0]), Discrete(2))
    with pytest.raises(ValueError, match="lanes is 0"):
        clock.begin(np.random.default_rng(0), 0)
    clock.begin(np.random.default_rng(0), 2)
    for wrong in (np.array([0.0, 1.0]), np.array([0]), np.array([[0], [1]])):
        with pytest.raises(ValueError, match=r"expected integers of shape \(2,\)"):
            clock.check(wrong, Discrete(2))
    with pytest.raises(ValueError, match="actions run from 0 to 2; expected 0 to 1"):
        clock.check(np.array([0, 2]), Discrete(2))
    with pytest.raises(ValueError, match=r"expected numbers of shape \(2, 1\)"):
        clock.check(np.array([0.0, 2.0]), Pendulum().action_space)
    with pytest.raises(ValueError, match="mask is int64"):
        clock.begin_lanes(np.array([0, 1]))


def test_the_cart_and_its_pole_move_as_gymnasiums() -> None:
    """From the same states, under the same pushes, to the step at which each falls."""
    env = CartPole(velocities=True)
    seen, rng = env.reset(np.random.default_rng(0), N), np.random.default_rng(1)
    theirs = [CartPoleEnv() for _ in range(N)]
    for peer, state in zip(theirs, env._states, strict=True):
        peer.reset(seed=0)
        peer.state = state.copy()
    for _ in range(8):
        pushes = rng.integers(2, size=N)
        step = env.step(pushes)
        for i, peer in enumerate(theirs):
            seen, reward, terminated, _, _ = peer.step(int(pushes[i]))
            assert_allclose(step.observations[i], seen, atol=1e-6)
            assert step.terminated[i] == terminated and step.rewards[i] == reward
    env.reset(np.random.default_rng(0), N)
    ages, alive = np.zeros(N), np.ones(N, bool)
    for peer in theirs:
        peer.reset(seed=0)
    for i, state in enumerate(env._states):
        theirs[i].state = state.copy()
    while alive.any():
        step = env.step(np.ones(N, np.int64))
        ages += alive
        for i in np.flatnonzero(alive):
            assert theirs[i].step(1)[2] == step.terminated[i]
        alive &= ~step.terminated
        env.reset_lanes(step.terminated)
    assert ages.min() >= 8 and ages.max() <= 11  # a constant push fells any pole in about 10 steps


def test_the_pendulum_swings_as_gymnasiums() -> None:
    env = Pendulum(velocities=True)
    env.reset(np.random.default_rng(0), N)
    theirs = [PendulumEnv() for _ in range(N)]
    for peer, state in zip(theirs, env._states, strict=True):
        peer.reset(seed=0)
        peer.state = state.copy()
    rng = np.random.default_rng(1)
    for _ in range(100):
        torques = rng.uniform(-3, 3, (N, 1))  # beyond the bounds too
        step = env.step(torques)
        for i, peer in enumerate(theirs):
            seen, reward, *_ = peer.step(torques[i])
            assert_allclose(step.observations[i], seen, atol=1e-5)
            assert step.rewards[i] == pytest.approx(float(reward), abs=1e-9)


def test_velocities_are_what_is_hidden() -> None:
    """The same episode, with and without: positions agree, and the hidden states are told."""
    for make, columns in ((CartPole, [0, 2]), (Pendulum, [0, 1])):
        shown, hidden = make(velocities=True), make()
        a, b = (e.reset(np.random.default_rng(0), N) for e in (shown, hidden))
        assert_array_equal(a[:, columns], b)
    assert CartPole().maximum == 500 and CartPole(20).maximum == 20


def test_a_pole_that_stands_is_cut_at_500() -> None:
    """A controller that sees all keeps it up: 500 steps, 500 in reward, cut and not ended."""
    env = CartPole(velocities=True)
    seen = env.reset(np.random.default_rng(0), N)
    total = np.zeros(N)
    for t in range(1, 501):
        step = env.step((seen @ [0.1, 0.5, 5.0, 1.0] > 0).astype(np.int64))
        seen = step.observations
        total += step.rewards
        assert not step.terminated.any() and step.truncated.all() == (t == 500)
    assert (total == 500).all()
