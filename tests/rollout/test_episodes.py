"""Lanes of environments: rows, memories of segments, two ways of beginning anew, stopping and going on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from turnwise.data.episode import Episode
from turnwise.data.steps import StepInputs, pack_steps
from turnwise.envs.problems.classics import t_maze, tiger
from turnwise.envs.protocol import Discrete, Step, Vector
from turnwise.envs.tabular import TabularEnv
from turnwise.models.agents.action_heads import Categorical
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.models.agents.views import Critic, HistoryView
from turnwise.models.memory.attention import CausalTransformer
from turnwise.models.memory.base import Core, LearnedMemory
from turnwise.models.memory.encoders import Encoder
from turnwise.models.memory.linear_recurrence import LinearRecurrence
from turnwise.models.memory.recurrent import GRU, LSTM
from turnwise.models.memory.window import Window
from turnwise.rollout.episodes.bounds import to_environment
from turnwise.rollout.episodes.lanes import StepLanes, episode_metrics

f64 = torch.float64
CORES: dict[str, Callable[[], Core]] = {
    "gru": lambda: GRU(8),
    "lstm": lambda: LSTM(8),
    "linear recurrence": lambda: LinearRecurrence(8),
    "transformer": lambda: CausalTransformer(8, 1, 2, 30),
    "window": lambda: Window(8, 3),
}


class Counting:
    """Shows 100 n + t at step t of a lane's episode n, which has 1 + (lane + n) % 4 steps; odd ones are cut.

    Pays the action plus t. Nothing is random. `lazily`: a lane that ended begins anew in the next step, which
    says nonsense of everything else.
    """

    state_space = states = None
    observation_space, action_space = Discrete(10_000), Discrete(3)

    def __init__(self, lazily: bool) -> None:
        self.autoresets = lazily

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        self.n, self.t = np.zeros((2, lanes), np.int64)
        self.over = np.zeros(lanes, bool)
        return self.shown()

    def shown(self) -> np.ndarray:
        return 100 * self.n + self.t

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        self.n[mask] += 1
        self.t[mask] = 0
        return self.shown()[mask]

    def step(self, actions: np.ndarray) -> Step:
        idle = self.over if self.autoresets else np.zeros(len(self.n), bool)
        self.reset_lanes(idle)
        rewards = np.where(idle, 99.0, actions + self.t)
        self.t += ~idle
        ended = (self.t == 1 + (np.arange(len(self.n)) + self.n) % 4) & ~idle
        self.over = ended
        odd = self.n % 2 == 1
        return Step(self.shown(), rewards, ended & ~odd | idle, ended & odd)


class Adds:
    """Remembers how many observations it has read and their sum; its action is the sum modulo 3."""

    def act(self, inputs: StepInputs, state: Tensor) -> Any:
        state = state + torch.stack([torch.ones(len(state)), inputs.observation.float()], -1)
        return (state[:, 1] % 3).long(), -state[:, 0], state

    def initial_state(self, lanes: int) -> Tensor:
        return torch.zeros(lanes, 2)


def counted(lazily: bool, collections: int, steps: int, lanes: int = 3) -> list[list[Episode]]:
    run = StepLanes(Counting(lazily), lanes, np.random.default_rng(0))
    return [run.collect(Adds(), steps) for _ in range(collections)]


def same(a: Episode, b: Episode) -> None:
    for name, value in vars(a).items():
        other = getattr(b, name)
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, other)
        else:
            assert value == other, name


def by_lane(rows: list[Episode], steps: int) -> list[list[Episode]]:
    """Rows come lane by lane, those of a lane `steps` long together (if none is spent on beginning anew)."""
    lanes, room = [[]], steps
    for row in rows:
        if room == 0:
            lanes.append([])
            room = steps
        lanes[-1].append(row)
        room -= len(row)
    return lanes


@pytest.mark.parametrize("lazily", [False, True])
def test_rows_never_cross_episodes_and_miss_nothing(lazily: bool) -> None:
    """Within a row t rises by one and n stays; actions are those of a memory that began with the episode."""
    whole: dict[int, list[int]] = {}
    for row in (r for c in counted(lazily, 4, 7, lanes=1) for r in c):
        n, t = np.divmod(row.observations, 100)
        assert (n == n[0]).all() and (np.diff(t) == 1).all() and t[0] == row.age
        sums = [int(100 * n[0] * (k + 1) + k * (k + 1) // 2) % 3 for k in t[:-1]]
        assert row.actions.tolist() == sums
        assert row.rewards.tolist() == [a + k for a, k in zip(sums, t[:-1], strict=True)]
        assert row.behavior_logp is not None and row.behavior_logp.tolist() == [-(k + 1) for k in t[:-1]]
        whole.setdefault(int(n[0]), []).extend(t[:-1])
    for n, steps in whole.items():
        length = 1 + n % 4
        assert steps == list(range(length)) or n == max(whole)


@pytest.mark.parametrize("lazily", [False, True])
def test_an_end_is_an_end_and_a_cut_a_cut(lazily: bool) -> None:
    for row in (r for c in counted(lazily, 3, 7) for r in c):
        n, t = divmod(int(row.observations[-1]), 100)
        assert row.truncated != row.terminated
        if row.terminated:
            assert n % 2 == 0 and t in (1, 2, 3, 4)


def test_both_ways_of_beginning_anew_give_the_same_episodes() -> None:
    """In one collection, so that no row is cut: lane by lane, as far as both go."""
    eager, lazy = ([] for _ in range(2))
    for lazily, found in ((False, eager), (True, lazy)):
        for lane in range(3):
            rows = counted(lazily, 1, 60)[0]
            starts = [i for i, r in enumerate(rows) if r.observations[0] == 0] + [len(rows)]
            found.append(rows[starts[lane] : starts[lane + 1]][:-1])  # the last one is cut by the collection
    for one, other in zip(eager, lazy, strict=True):
        assert len(other) > 10
        for a, b in zip(one, other, strict=False):
            same(a, b)


@pytest.mark.parametrize("lazily", [False, True])
def test_what_is_told_of_finished_episodes(lazily: bool) -> None:
    """Returns, discounted returns and lengths are those of the episodes that the rows spell out."""
    lanes = StepLanes(Counting(lazily), 1, np.random.default_rng(0), gamma=0.5)
    rows = lanes.collect(Adds(), 40)[:-1]
    done = lanes.finished()
    k = len(rows)
    assert done.lengths[:k].tolist() == [len(r) for r in rows]
    assert done.returns[:k].tolist() == [r.rewards.sum() for r in rows]
    assert done.discounted[:k].tolist() == [r.rewards @ 0.5 ** np.arange(len(r)) for r in rows]
    assert episode_metrics(lanes) == {}


@pytest.mark.parametrize("lazily", [False, True])
def test_one_episode_in_each_lane(lazily: bool) -> None:
    """Lane i's first episode has 1 + i % 4 steps; what was under way is given up; `longest` cuts."""
    lanes = StepLanes(Counting(lazily), 6, np.random.default_rng(0))
    lanes.collect(Adds(), 5)
    lanes.finished()
    rows = lanes.episodes(Adds(), 10)
    assert [len(r) for r in rows] == [1, 2, 3, 4, 1, 2]
    assert all(r.terminated and r.age == 0 and r.observations[0] == 0 for r in rows)
    assert lanes.finished().lengths.tolist() == [1, 2, 3, 4, 1, 2]
    cut = lanes.episodes(Adds(), 2)
    assert [len(r) for r in cut] == [1, 2, 2, 2, 1, 2]
    assert [r.truncated for r in cut] == [False, False, True, True, False, False]
    assert lanes.collect(Adds(), 3)[0].observations[0] == 0


def deep_agent(core: str, env: TabularEnv) -> ActorCritic:
    """Actor and critic with a memory each."""
    torch.manual_seed(0)

    def memory() -> LearnedMemory:
        return LearnedMemory(Encoder(env.observation_space, env.action_space, 8), CORES[core]())

    head = Categorical(8, env.action_space.n, gain=1.0)
    return ActorCritic(memory(), head, Critic(HistoryView(memory()))).double()


@pytest.mark.parametrize("core", CORES)
def test_the_memory_of_a_segment_is_that_of_its_episode(core: str) -> None:
    """Episodes of up to 11 steps in collections of 4: read from their start in one piece, all is the same."""
    env = TabularEnv(tiger(), 11)
    agent, lanes = deep_agent(core, env), StepLanes(env, 5, np.random.default_rng(0))
    pieces: list[list[list[Episode]]] = [by_lane(lanes.collect(agent, 4), 4) for _ in range(6)]
    checked = 0
    for lane in range(5):
        before: Episode | None = None
        for row in (r for collection in pieces for r in collection[lane]):
            if row.age:
                assert before is not None and before.age + len(before) == row.age
                assert row.previous_action == before.actions[-1]
                assert row.previous_reward == before.rewards[-1]
                whole = replace(
                    before,
                    observations=np.append(before.observations[:-1], row.observations),
                    actions=np.append(before.actions, row.actions),
                    rewards=np.append(before.rewards, row.rewards),
                    states=None,
                    behavior_logp=None,
                )
                one, two = agent(pack_steps([row], gamma=1.0, dtype=f64)), None
                two = agent(pack_steps([whole], gamma=1.0, dtype=f64))
                n = len(row)
                torch.testing.assert_close(one.policy[:, :n], two.policy[:, -n:], rtol=0, atol=1e-10)
                torch.testing.assert_close(one.values, two.values[:, -n - 1 :], rtol=0, atol=1e-10)
                checked += 1
                row = replace(whole, terminated=row.terminated, truncated=row.truncated)
            before = row
    assert checked > 20


@pytest.mark.parametrize("core", CORES)
def test_acting_and_reading_agree_on_log_probabilities(core: str) -> None:
    """The ratio of PPO is 1 before the first update, in rows that begin in mid-episode too."""
    env = TabularEnv(tiger(), 11)
    agent, lanes = deep_agent(core, env), StepLanes(env, 5, np.random.default_rng(0))
    lanes.collect(agent, 7)
    rows = lanes.collect(agent, 7)
    assert any(r.age for r in rows) and any(not r.age for r in rows)
    batch = pack_steps(rows, gamma=1.0, dtype=f64)
    logp = agent.head.logp(agent(batch).policy, batch.actions)
    assert batch.behavior_logp is not None
    torch.testing.assert_close(logp[batch.mask], batch.behavior_logp[batch.mask], rtol=0, atol=1e-10)


def test_lanes_go_on_from_where_they_were_saved() -> None:
    """Bit for bit, into a fresh environment and fresh lanes."""

    def fresh() -> StepLanes:
        return StepLanes(TabularEnv(t_maze(2), 9), 4, np.random.default_rng(3), gamma=0.9)

    agent, lanes = deep_agent("gru", TabularEnv(t_maze(2), 9)), fresh()
    lanes.collect(agent, 6)
    saved, dice = lanes.state(), torch.get_rng_state()
    one, done = lanes.collect(agent, 6), lanes.finished()
    other = fresh()
    other.load(saved)
    torch.set_rng_state(dice)
    for a, b in zip(one, other.collect(agent, 6), strict=True):
        same(replace(a, memory=None), replace(b, memory=None))
        np.testing.assert_array_equal(a.memory, b.memory)
    for a, b in zip(done, other.finished(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_vectors_are_brought_to_the_environments_bounds() -> None:
    """-1, 0, 1 and 5 in bounds of 0 and 10 are 0, 5, 10 and 10; without bounds nothing is done.

    From 0 on they are 0, 1, 2 and 6, as if the other bound was 2; up to 3 they are 1, 2, 3 and 3.
    """
    actions = np.array([[-1.0], [0.0], [1.0], [5.0]])
    assert to_environment(actions, Vector(1, 0.0, 10.0)).tolist() == [[0.0], [5.0], [10.0], [10.0]]
    assert (to_environment(actions, Vector(1)) == actions).all()
    ends = Vector(2, (0.0, float("-inf")), (float("inf"), 3.0))
    both = np.concatenate([actions, actions], 1)
    assert to_environment(both, ends).tolist() == [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [6.0, 3.0]]
    assert to_environment(np.array([[-9.0, -9.0]]), ends).tolist() == [[0.0, -7.0]]
