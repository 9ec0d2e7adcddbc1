"""Replay: rows follow each other within an episode, are drawn by priority, and survive a checkpoint."""

from __future__ import annotations

import io
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from turnwise.data.episode import Episode
from turnwise.data.replay import Replay
from turnwise.data.steps import StepInputs, pack_steps
from turnwise.envs.protocol import Discrete, Step
from turnwise.models.agents.actor_critic import ActOutput
from turnwise.rollout.episodes.lanes import StepLanes


class Counting:
    """Episodes of random lengths whose observations are names: 1000 lane + how many that lane has seen."""

    observation_space, action_space, state_space, states = Discrete(10**6), Discrete(2), None, None

    def __init__(self, pauses: bool):
        self.autoresets = pauses

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        self.rng, self.seen = rng, 1000 * np.arange(lanes)
        self.over = np.zeros(lanes, bool)
        return self.seen.copy()

    def step(self, actions: np.ndarray) -> Step:
        self.seen = self.seen + 1
        draw = self.rng.random(len(actions))
        paused = self.over if self.autoresets else np.zeros(len(actions), bool)
        terminated, truncated = (draw < 0.1) & ~paused, (draw > 0.9) & ~paused
        self.over = terminated | truncated
        return Step(self.seen.copy(), np.where(paused, 0.0, self.seen / 7), terminated, truncated)

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        self.seen = self.seen + mask
        return self.seen[mask]


class Remembers:
    """Its memory is (sum of all observations, how many they were), so what is stored can be told."""

    def act(self, inputs: StepInputs, state: torch.Tensor) -> ActOutput:
        after = state + torch.stack([inputs.observation.double(), torch.ones(len(state))], 1)
        actions = inputs.observation % 2
        return ActOutput(actions, torch.full((len(state),), -0.5), after)

    def initial_state(self, lanes: int) -> torch.Tensor:
        return torch.zeros(lanes, 2, dtype=torch.float64)


def filled(pauses: bool, seed: int, lanes: int, steps: int, times: int, capacity: int = 10**6) -> Replay:
    env: Any = Counting(pauses)
    source = StepLanes(env, lanes, np.random.default_rng(seed))
    replay = Replay(capacity, lanes, pauses=pauses)
    for _ in range(times):
        replay.add(source.collect(Remembers(), steps), steps)
    return replay


def held(replay: Replay) -> range:
    """Names of the rows in it."""
    first = replay.state()["dropped"]
    return range(first, first + len(replay))


def assert_same(a: Episode, b: Episode) -> None:
    for f in fields(Episode):
        np.testing.assert_array_equal(getattr(a, f.name), getattr(b, f.name), f.name)


cases = st.tuples(st.booleans(), st.integers(0, 999), st.integers(1, 4), st.integers(2, 7), st.integers(1, 6))


@given(cases)
def test_reading_back_begins_at_the_episode_and_nowhere_else(case: tuple) -> None:
    """Nothing was dropped, so each whole history begins at age 0; its observations are consecutive names."""
    replay = filled(*case)
    for i in held(replay):
        row, whole = replay.read(i), replay.read(i, None)
        assert whole.age == 0 and whole.memory is None
        assert np.array_equal(np.diff(whole.observations), np.ones(len(whole)))
        assert len(whole) == row.age + len(row) and whole.learn_from == row.age
        assert np.array_equal(whole.observations[whole.learn_from :], row.observations)


@given(cases)
def test_the_stored_memory_is_that_before_the_first_observation(case: tuple) -> None:
    """A row at age k stores k observations: those before it, and not its own first one."""
    replay = filled(*case)
    for i in held(replay):
        row, whole = replay.read(i), replay.read(i, None)
        if row.age:
            assert row.memory.tolist() == [whole.observations[: row.age].sum(), row.age]
            assert row.previous_action == whole.actions[row.age - 1]
            assert row.previous_reward == whole.rewards[row.age - 1]


@given(cases)
def test_burn_in_is_the_row_before_or_nothing(case: tuple) -> None:
    replay = filled(*case)
    for i in held(replay):
        row, burnt = replay.read(i), replay.read(i, 1)
        batch = pack_steps([burnt], gamma=0.9)
        learnt = batch.inputs.observation[0, :-1][batch.loss_mask[0]]
        assert learnt.tolist() == row.observations[:-1].tolist()
        if row.age == 0:
            assert_same(row, burnt)
        else:
            assert burnt.age < row.age and burnt.learn_from == row.age - burnt.age <= case[3]
            memory = [0, 0] if burnt.memory is None else burnt.memory.tolist()
            assert memory[1] == burnt.age


@given(cases, st.integers(5, 60))
def test_capacity_counts_steps_and_the_oldest_go(case: tuple, capacity: int) -> None:
    """What is held are the latest rows, unchanged; a row whose predecessor went begins where it begins."""
    everything, replay = filled(*case), filled(*case, capacity=capacity)
    assert replay.steps == sum(len(replay.read(i)) for i in held(replay))
    assert replay.steps <= capacity or len(replay) == 1
    assert held(replay).stop == held(everything).stop
    for i in held(replay):
        assert_same(replay.read(i), everything.read(i))
        back = replay.read(i, None)
        assert_same(replay.read(i), everything.read(i))
        assert np.array_equal(np.diff(back.observations), np.ones(len(back)))


@given(cases, st.integers(5, 60))
def test_round_trip_through_a_checkpoint(case: tuple, capacity: int) -> None:
    """Rows, links, priorities and what comes next: all as if nothing had happened."""
    replay = filled(*case, capacity=capacity)
    file = io.BytesIO()
    torch.save(replay.state(), file)
    file.seek(0)
    loaded = Replay(capacity, case[2], pauses=case[0])
    loaded.load(torch.load(file, weights_only=True))
    for name, value in replay.state().items():
        assert np.array_equal(loaded.state()[name], value), name
    assert len(loaded) == len(replay) and loaded.steps == replay.steps
    for i in held(replay):
        assert_same(loaded.read(i, None), replay.read(i, None))
    more = Replay(capacity, case[2], pauses=case[0])
    env: Any = Counting(case[0])
    source = StepLanes(env, case[2], np.random.default_rng(1))
    for _ in range(2):
        more.add(source.collect(Remembers(), case[3]), case[3])
    coming = source.collect(Remembers(), case[3])
    again = Replay(capacity, case[2], pauses=case[0])
    again.load(more.state())
    for r in (more, again):
        r.add(coming, case[3])
    for i in held(more):
        assert_same(again.read(i, None), more.read(i, None))


def rows_of(*lengths: int) -> Replay:
    """A whole episode in each lane, all of one length."""
    replay = Replay(1000, len(lengths), exponent=1.0)
    row = [
        Episode(np.zeros(n + 1, np.int64), np.zeros(n, np.int64), np.zeros(n), True, False) for n in lengths
    ]
    replay.add(row, lengths[0])
    return replay


def test_rows_are_drawn_by_priority_and_weights_undo_it() -> None:
    """Priorities 1, 2, 5: P = 1/8, 2/8, 5/8. Weights at importance 1: 1/P over its largest, 1, 1/2, 1/5."""
    replay = rows_of(3, 3, 3)
    replay.reprioritise(np.arange(3), np.array([1.0, 2.0, 5.0]))
    drawn = replay.sample(np.random.default_rng(0), 80_000, importance=1.0)
    share = np.bincount(drawn.rows) / 80_000
    np.testing.assert_allclose(share, [1 / 8, 2 / 8, 5 / 8], atol=0.006)  # 3.5 standard errors
    assert [drawn.weights[drawn.rows == i][0] for i in range(3)] == [1.0, 0.5, 0.2]
    assert replay.sample(np.random.default_rng(0), 9, importance=0.0).weights.tolist() == [1.0] * 9


def test_exponent_and_new_rows() -> None:
    """At exponent 0 all are drawn alike; new rows have the largest priority that there is."""
    replay = rows_of(4, 4)
    replay.reprioritise(np.arange(2), np.array([1.0, 7.0]))
    fresh = [Episode(np.zeros(5, np.int64), np.zeros(4, np.int64), np.zeros(4), True, False)] * 2
    replay.add(fresh, 4)
    assert replay.state()["priorities"].tolist() == [1.0, 7.0, 7.0, 7.0]
    replay.exponent = 0.0
    share = np.bincount(replay.sample(np.random.default_rng(0), 40_000).rows) / 40_000
    np.testing.assert_allclose(share, 0.25, atol=0.008)


def test_what_does_not_fill_the_lanes_is_refused() -> None:
    replay = Replay(100, 2)
    row = Episode(np.zeros(4, np.int64), np.zeros(3, np.int64), np.zeros(3), True, False)
    for rows, steps in (([row], 3), ([row, row], 2), ([row, row], 4), ([row, row, row], 3)):
        with pytest.raises(ValueError, match=r"rows"):
            Replay(100, 2).add(rows, steps)
    with pytest.raises(ValueError, match="2 or more"):
        replay.add([row, row], 1)
    with pytest.raises(ValueError, match="more than 0"):
        rows_of(3, 3).reprioritise(np.arange(2), np.array([1.0, 0.0]))
