"""Rows of steps: segments with what led to them, burn-in, discounts; by hand and back again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from turnwise.data.episode import Episode
from turnwise.data.steps import joined, pack_steps

f64 = torch.float64


def episode(n: int = 5, terminated: bool = True) -> Episode:
    """Observations 10, 11, ...; actions 0, 1, 2, 0, ...; rewards 1, 2, ...; states 20, 21, ..."""
    return Episode(
        observations=10 + np.arange(n + 1),
        actions=np.arange(n) % 3,
        rewards=1.0 + np.arange(n),
        terminated=terminated,
        truncated=not terminated,
        behavior_logp=-0.1 * (1 + np.arange(n)),
        states=20 + np.arange(n + 1),
    )


def cut(e: Episode, at: int) -> tuple[Episode, Episode]:
    """Two segments; the second one remembers two numbers."""
    assert e.behavior_logp is not None and e.states is not None
    before = replace(
        e,
        observations=e.observations[: at + 1],
        actions=e.actions[:at],
        rewards=e.rewards[:at],
        behavior_logp=e.behavior_logp[:at],
        states=e.states[: at + 1],
        terminated=False,
        truncated=True,
    )
    after = replace(
        e,
        observations=e.observations[at:],
        actions=e.actions[at:],
        rewards=e.rewards[at:],
        behavior_logp=e.behavior_logp[at:],
        states=e.states[at:],
        age=e.age + at,
        previous_action=e.actions[at - 1],
        previous_reward=float(e.rewards[at - 1]),
        memory=np.array([0.5, -0.5]),
    )
    return before, after


def test_a_segment_by_hand() -> None:
    """Steps 2 to 4 of an episode that ended, beside its first two steps, which were cut."""
    before, after = cut(episode(), 2)
    b = pack_steps([before, after], gamma=0.9, dtype=f64)
    assert b.inputs.observation.tolist() == [[10, 11, 12, 0], [12, 13, 14, 15]]
    assert b.inputs.previous_action.tolist() == [[0, 0, 1, 0], [1, 2, 0, 1]]
    assert b.inputs.previous_reward.tolist() == [[0, 1, 2, 0], [2, 3, 4, 5]]
    assert b.inputs.start.tolist() == [[True, False, False, False], [False] * 4]
    assert b.decisions.tolist() == [[0, 1, 2, 2], [0, 1, 2, 3]]
    assert b.actions.tolist() == [[0, 1, 0], [2, 0, 1]]
    assert b.rewards.tolist() == [[1, 2, 0], [3, 4, 5]]
    assert b.discounts.tolist() == [[0.9, 0.9, 0.0], [0.9, 0.9, 0.0]]
    assert b.mask.tolist() == b.loss_mask.tolist() == [[True, True, False], [True] * 3]
    assert b.ages is not None and b.ages.tolist() == [[0, 1, 2], [2, 3, 4]]
    assert b.states.tolist() == [[20, 21, 22, 22], [22, 23, 24, 25]]
    assert b.state0 is not None and b.state0.tolist() == [[0, 0], [0.5, -0.5]]
    assert b.behavior_logp is not None
    np.testing.assert_allclose(b.behavior_logp, [[-0.1, -0.2, 0.0], [-0.3, -0.4, -0.5]])


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize("at", [1, 2, 4])
def test_joined_segments_are_the_episode_with_its_beginning_burnt_in(at: int, terminated: bool) -> None:
    whole = episode(terminated=terminated)
    found = joined(*cut(whole, at))
    assert found.learn_from == at and found.age == 0 and found.memory is None
    one, other = (pack_steps([e], gamma=0.9, dtype=f64) for e in (whole, found))
    for name in ("decisions", "actions", "rewards", "discounts", "mask", "ages", "behavior_logp", "states"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for a, b in zip(one.inputs, other.inputs, strict=True):
        assert torch.equal(a, b)
    assert other.loss_mask.tolist() == [[k >= at for k in range(5)]]


def test_joining_keeps_what_led_to_the_first_of_them() -> None:
    """Steps 1-2 and 3-4: what is read begins at step 1, with the memory from there."""
    _, rest = cut(episode(), 1)
    a, b = cut(rest, 2)
    found = joined(a, b)
    assert (found.age, found.previous_action, found.previous_reward) == (1, 0, 1.0)
    np.testing.assert_array_equal(found.memory, [0.5, -0.5])
    assert found.learn_from == 2 and len(found) == 4


def test_what_does_not_go_on_is_not_joined() -> None:
    before, after = cut(episode(), 2)
    with pytest.raises(ValueError, match="steps 0 to 2 does not go on at 3"):
        joined(before, replace(after, age=3))
    with pytest.raises(ValueError, match="does not go on"):
        joined(replace(before, terminated=True, truncated=False), after)


def test_vectors_keep_their_parts_and_take_the_precision_asked_for() -> None:
    e = replace(
        episode(2),
        observations=np.arange(6, dtype=np.float32).reshape(3, 2),
        actions=np.array([[0.5], [0.25]], np.float32),
        states=None,
    )
    b = pack_steps([e, episode_of_vectors()], gamma=1.0, dtype=f64)
    assert b.inputs.observation.dtype == b.actions.dtype == b.rewards.dtype == f64
    assert b.inputs.observation[0].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert b.inputs.previous_action[0].tolist() == [[0], [0.5], [0.25]]
    assert b.actions[1].tolist() == [[0.75], [0.0]] and b.states is None


def episode_of_vectors() -> Episode:
    return Episode(
        observations=np.ones((2, 2), np.float32),
        actions=np.array([[0.75]], np.float32),
        rewards=np.ones(1),
        terminated=False,
        truncated=True,
    )


def test_no_rows_are_no_batch() -> None:
    with pytest.raises(ValueError, match="without a row"):
        pack_steps([], gamma=0.9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": 2}, "previous action"),
        ({"previous_action": 1}, "previous action"),
        ({"memory": np.zeros(2)}, "memory of nothing"),
        ({"learn_from": 5}, "expected 0 to 4"),
    ],
)
def test_segments_that_cannot_be(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(episode(), **change)


def test_what_is_seen_after_a_true_end_is_silenced_where_it_is_no_number() -> None:
    """And nothing else is: a cut is bootstrapped from, and the environment answers for what it shows."""
    seen = np.array([[1.0, 2.0], [3.0, np.nan]], np.float32)
    rows = [
        Episode(seen, np.zeros(1, int), np.ones(1), over, not over, states=np.array([[0.5], [np.inf]]))
        for over in (True, False)
    ]
    batch = pack_steps(rows, gamma=0.9, dtype=f64)
    assert batch.states is not None
    assert batch.inputs.observation[0].tolist() == [[1, 2], [3, 0]] and batch.states[0].tolist() == [
        [0.5],
        [0],
    ]
    assert batch.inputs.observation[1, 1].isnan().tolist() == [False, True] and batch.states[1, 1].isinf()
    assert np.isnan(rows[0].observations[1, 1])
