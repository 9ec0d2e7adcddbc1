from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import cheese_maze, t_maze, tiger
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.beliefs import BeliefFilter, entropy


def test_two_growls_from_the_left() -> None:
    # .85^2 / (.85^2 + .15^2) = .97
    f = BeliefFilter(tiger())
    b = f.first(np.zeros(1, np.int64))
    np.testing.assert_allclose(b.toarray(), [[0.5, 0.5]])
    for expected in (0.85, 0.7225 / 0.745):
        b = f.update(b, np.zeros(1, np.int64), np.zeros(1, np.int64))
        np.testing.assert_allclose(b.toarray()[0, 0], expected)


def test_opening_a_door_forgets() -> None:
    f = BeliefFilter(tiger())
    b = sparse.csr_matrix(np.array([[0.97, 0.03]]))
    after = f.update(b, np.array([1]), np.array([1]))
    np.testing.assert_allclose(after.toarray(), [[0.5, 0.5]])


def test_many_lanes_are_one_lane_at_a_time(rng: np.random.Generator) -> None:
    p = cheese_maze()
    env, f = TabularEnv(p), BeliefFilter(p)
    S, A, O = p.shape
    t, o = p.continuing().dense().reshape(A, S, S), p.emissions.dense().reshape(A, S, O)
    beliefs = f.first(env.reset(rng, 50))
    slow = beliefs.toarray()
    for _ in range(6):
        actions = rng.integers(A, size=50)
        seen = env.step(actions).observations
        beliefs = f.update(beliefs, actions, seen)
        for n in range(50):
            joint = (slow[n] @ t[actions[n]]) * o[actions[n], :, seen[n]]
            slow[n] = joint / joint.sum()
        np.testing.assert_allclose(beliefs.toarray(), slow, atol=1e-12)


def test_what_is_shown_first_counts() -> None:
    p = t_maze(2).showing_initial()
    f, env = BeliefFilter(p), TabularEnv(p)
    first = env.reset(np.random.default_rng(0), 20)
    b = f.first(first).toarray()
    np.testing.assert_allclose(b[np.arange(20), env.states], 1)  # the cue tells where the goal is


def test_what_cannot_be_seen_is_refused() -> None:
    t = np.eye(2)[None]
    p = POMDP.from_arrays(t, np.eye(2)[None], np.zeros((1, 2)), discount=0.9, start=np.array([1.0, 0.0]))
    f = BeliefFilter(p)
    with pytest.raises(ValueError, match="o1 cannot be seen after a0"):
        f.update(f.first(np.zeros(1, np.int64)), np.array([0]), np.array([1]))


def test_entropy_in_nats() -> None:
    b = sparse.csr_matrix(np.array([[0.5, 0.5, 0], [1, 0, 0], [0.25, 0.25, 0.5]]))
    np.testing.assert_allclose(entropy(b), [np.log(2), 0, 1.5 * np.log(2)], atol=1e-12)
