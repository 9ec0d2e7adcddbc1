from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from turnwise.envs.gymnasium.door import (
    PomdpEnv,
    PomdpVectorEnv,
    environment_id,
    register_environments,
    tasks,
)
from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import CLASSICS


def line(n: int) -> POMDP:
    """States 0..n-1, each seen as itself; action 0 stays for 0, action 1 goes on for 1, and ends at n-1."""
    t = np.stack([np.eye(n), np.eye(n)[[min(i + 1, n - 1) for i in range(n)]]])
    ends = np.zeros((2, n, n), bool)
    ends[1, n - 2, n - 1] = True
    seen, rewards = np.stack([np.eye(n)] * 2), np.array([[0.0] * n, [1.0] * n])
    return POMDP.from_arrays(t, seen, rewards, discount=0.9, start=np.eye(n)[0], ends=ends)


def tiger() -> POMDP:
    """Listening tells the side with .85; a door restarts the problem. What is seen depends on the action."""
    half = np.full((2, 2), 0.5)
    t = np.stack([np.eye(2), half, half])
    o = np.stack([np.array([[0.85, 0.15], [0.15, 0.85]]), half, half])
    r = np.array([[-1.0, -1.0], [-100.0, 10.0], [10.0, -100.0]])
    return POMDP.from_arrays(t, o, r, discount=0.95, start=np.array([0.5, 0.5]))


@pytest.mark.parametrize("problem", [tiger(), line(4)], ids=["tiger", "line"])
@pytest.mark.parametrize("horizon", [None, 5])
def test_gymnasium_has_no_complaint(problem: POMDP, horizon: int | None) -> None:
    """Warnings are errors in this suite."""
    register_environments()
    env = gymnasium.make("turnwise/POMDP-v0", problem=problem, horizon=horizon)
    check_env(env.unwrapped)


def test_one_episode_by_hand() -> None:
    env = PomdpEnv(line(3), horizon=4)
    assert env.observation_space.n == 3 and env.action_space.n == 2  # type: ignore[attr-defined]
    assert env.reset(seed=0) == (0, {"state": 0})
    assert env.step(1) == (1, 1.0, False, False, {"state": 1})
    assert env.step(0) == (1, 0.0, False, False, {"state": 1})
    assert env.step(1) == (2, 1.0, True, False, {"state": 2})
    with pytest.raises(ValueError, match="ended"):
        env.step(0)


def test_a_cut_is_no_end() -> None:
    env = PomdpEnv(line(3), horizon=2)
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, False)
    assert env.step(0)[2:4] == (False, True)
    env.reset()
    env.step(1)
    assert env.step(1)[2:4] == (True, False)  # the end comes at the horizon


def test_nothing_seen_yet_is_a_symbol_of_its_own() -> None:
    """Tiger cannot show anything first; a line can and need not."""
    for env, null in ((PomdpEnv(tiger()), 2), (PomdpEnv(line(3), show_initial=False), 3)):
        assert env.observation_space.n == null + 1  # type: ignore[attr-defined]
        assert env.reset(seed=0)[0] == null
        assert all(env.step(0)[0] < null for _ in range(20))


def vectors(problem: POMDP, n: int, mode: AutoresetMode) -> tuple[PomdpVectorEnv, SyncVectorEnv]:
    ours = PomdpVectorEnv(problem, n, horizon=4, autoreset_mode=mode)
    theirs = SyncVectorEnv([lambda: PomdpEnv(problem, horizon=4)] * n, autoreset_mode=mode)
    return ours, theirs


def same(ours: Any, theirs: Any) -> None:
    """Equal in every number, key and type of array."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            same(ours[key], theirs[key])
    elif isinstance(theirs, tuple):
        assert len(ours) == len(theirs)
        for a, b in zip(ours, theirs, strict=True):
            same(a, b)
    else:
        assert ours.dtype == theirs.dtype and ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_lanes_do_what_gymnasiums_own_vector_does(mode: AutoresetMode, rng: np.random.Generator) -> None:
    """A problem without chance, so that both agree in all that they return: 60 steps, over 50 ends."""
    ours, theirs = vectors(line(4), 5, mode)
    assert ours.metadata["autoreset_mode"] is mode
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    same(ours.reset(seed=3), theirs.reset(seed=3))
    ended = 0
    for _ in range(60):
        actions = (rng.random(5) < 0.7).astype(np.int64)
        mine, peer = ours.step(actions), theirs.step(actions)
        same(mine, peer)
        over = mine[2] | mine[3]
        ended += int(over.sum())
        if mode is AutoresetMode.DISABLED and over.any():
            same(ours.reset(options={"reset_mask": over}), theirs.reset(options={"reset_mask": over.copy()}))
    assert ended > 50


def test_next_step_ignores_one_action() -> None:
    """Lane 0 ends at once and begins anew while lane 1 goes on; 99 is no action."""
    envs = PomdpVectorEnv(line(2), 2, horizon=3)
    envs.reset(seed=0)
    assert [x.tolist() for x in envs.step(np.array([1, 0]))[:4]] == [
        [1, 0],
        [1.0, 0.0],
        [True, False],
        [False, False],
    ]
    observations, rewards, terminated, truncated, infos = envs.step(np.array([99, 0]))
    assert observations.tolist() == [0, 0] and rewards.tolist() == [0.0, 0.0]
    assert not terminated.any() and not truncated.any() and infos["state"].tolist() == [0, 0]
    # the ignored step took no time from lane 0: it is cut two steps after lane 1
    assert envs.step(np.array([0, 0]))[3].tolist() == [False, True]
    assert envs.step(np.array([0, 0]))[3].tolist() == [False, False]
    assert envs.step(np.array([0, 0]))[3].tolist() == [True, False]


def test_the_ignored_step_pays_nothing_and_ends_nothing() -> None:
    """One state, one action, which pays 5 and ends."""
    one = np.ones((1, 1, 1))
    bandit = POMDP.from_arrays(
        one, one, 5 * one[0], discount=1.0, start=one[0, 0], ends=np.array([True]), observations=["only"]
    )
    envs = PomdpVectorEnv(bandit, 1, show_initial=False)
    envs.reset(seed=0)
    steps = [[x.item() for x in envs.step(np.array([0]))[:4]] for _ in range(4)]
    assert steps == [[0, 5.0, True, False], [1, 0.0, False, False]] * 2


def test_a_lane_that_was_reset_by_hand_does_not_begin_twice() -> None:
    envs = PomdpVectorEnv(line(3), 2)
    envs.reset(seed=0)
    envs.step(np.array([1, 0]))
    envs.step(np.array([1, 0]))
    envs.reset(options={"reset_mask": np.array([True, False])})
    assert envs.step(np.array([1, 0]))[0].tolist() == [1, 0]


def test_next_step_begins_from_the_start_distribution() -> None:
    """Tiger, one step an episode: at each beginning the tiger is left half of the time, .5 +- 4 * .5/100."""
    envs = PomdpVectorEnv(tiger(), 10_000, horizon=1)
    envs.reset(seed=1)
    for _ in range(3):
        assert envs.step(np.zeros(10_000, np.int64))[3].all()
        observations, *_, infos = envs.step(np.zeros(10_000, np.int64))
        assert (observations == 2).all() and abs(infos["state"].mean() - 0.5) < 0.02


def test_lanes_are_reset_by_hand_where_that_is_said() -> None:
    envs = PomdpVectorEnv(line(2), 2, autoreset_mode="Disabled")
    envs.reset(seed=0)
    envs.step(np.array([1, 0]))
    with pytest.raises(ValueError, match="lane 0 has ended"):
        envs.step(np.array([0, 0]))
    options = {"reset_mask": np.array([True, False])}
    observations, infos = envs.reset(options=options)
    assert observations.tolist() == [0, 0] and infos["_state"].tolist() == [True, False]
    assert "reset_mask" in options  # the caller's own
    assert envs.step(np.array([0, 1]))[2].tolist() == [False, True]
    with pytest.raises(ValueError, match="seed and reset_mask"):
        envs.reset(seed=1, options=options)


def test_what_was_returned_stays_as_it_was() -> None:
    envs = PomdpVectorEnv(line(3), 2, autoreset_mode="Disabled")
    first = envs.reset(seed=0)[0]
    second = envs.step(np.array([1, 0]))[0]
    envs.reset(options={"reset_mask": np.array([True, False])})
    envs.step(np.array([0, 1]))
    third = envs.reset(options={"reset_mask": np.array([True, False])})[0]
    envs.reset(options={"reset_mask": np.array([False, True])})
    assert [x.tolist() for x in (first, second, third)] == [[0, 0], [1, 0], [0, 1]]


def test_environments_are_made_by_name() -> None:
    ids = register_environments()
    assert register_environments() == ids and "turnwise/POMDP-v0" in ids and "turnwise/Tiger-v0" in ids
    env = gymnasium.make("turnwise/POMDP-v0", problem=line(3), max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(np.int64(0))[3] is False and env.step(np.int64(0))[3] is True
    envs = gymnasium.make_vec("turnwise/POMDP-v0", num_envs=3, problem=line(3), max_episode_steps=2)
    assert isinstance(envs.unwrapped, PomdpVectorEnv)
    envs.reset(seed=0)
    assert not envs.step(np.zeros(3, np.int64))[3].any() and envs.step(np.zeros(3, np.int64))[3].all()
    sync = gymnasium.make_vec("turnwise/Tiger-v0", num_envs=2, vectorization_mode="sync", horizon=7)
    assert sync.reset(seed=0)[0].tolist() == [2, 2]
    with pytest.raises(ValueError, match="no problem is called 'lion'; expected one of"):
        PomdpEnv("lion")


def test_ids_tell_sizes_apart() -> None:
    assert environment_id("rock-sample-7-8") == "turnwise/RockSample-7-8-v0"
    assert environment_id("4x3") == "turnwise/4x3-v0"


def test_every_classic_has_an_id_of_its_own() -> None:
    ids = register_environments()
    assert len(set(ids)) == len(CLASSICS) + len(tasks()) + 1
    for name in CLASSICS:
        assert gymnasium.spec(environment_id(name)).kwargs == {"problem": name}
