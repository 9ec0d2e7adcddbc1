"""The belief as a memory against the sparse filter of `exact`, over random play."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import sparse

from turnwise.data.steps import StepInputs
from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import cheese_maze, t_maze, tiger
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.beliefs import BeliefFilter
from turnwise.models.memory.belief import BeliefMemory

f64 = torch.float64
PROBLEMS = {
    "tiger": tiger(),
    "cheese": cheese_maze(),
    "cheese, first look shown": cheese_maze().showing_initial(),
    "t-maze": t_maze(3).showing_initial(),
}


def played(problem: POMDP, lanes: int = 40, steps: int = 12) -> tuple[StepInputs, np.ndarray]:
    """Random play, and the beliefs [N, T, S] of the exact filter; a lane that ends is begun anew."""
    rng, env, bayes = np.random.default_rng(0), TabularEnv(problem), BeliefFilter(problem)
    observation = env.reset(rng, lanes)
    belief = bayes.first(observation)
    action, start = np.zeros(lanes, np.int64), np.ones(lanes, bool)
    columns, beliefs = [], []
    for _ in range(steps):
        columns.append((observation, action, np.zeros(lanes), start))
        beliefs.append(belief.toarray())
        action = rng.integers(problem.shape[1], size=lanes)
        observation, _, terminated, _ = env.step(action)
        after = np.zeros((lanes, problem.shape[0]))
        if terminated.any():
            observation[terminated] = env.reset_lanes(terminated)
            after[terminated] = bayes.first(observation[terminated]).toarray()
        go_on = ~terminated
        after[go_on] = bayes.update(belief[go_on], action[go_on], observation[go_on]).toarray()
        belief, start = sparse.csr_matrix(after), terminated
    inputs = StepInputs(*(torch.as_tensor(np.stack(c, 1)) for c in zip(*columns, strict=True)))
    return inputs, np.stack(beliefs, 1)


@pytest.mark.parametrize("name", PROBLEMS)
def test_beliefs_are_those_of_the_exact_filter(name: str) -> None:
    problem = PROBLEMS[name]
    inputs, truth = played(problem)
    memory = BeliefMemory.of(problem, f64)
    found = memory.unroll(inputs)
    np.testing.assert_allclose(found.numpy(), truth, rtol=0, atol=1e-12)
    later = memory.unroll(StepInputs(*(x[:, 5:] for x in inputs)), found[:, 4])
    np.testing.assert_allclose(later.numpy(), truth[:, 5:], rtol=0, atol=1e-12)


def test_random_play_reaches_ends_and_both_kinds_of_start() -> None:
    """What the test above is worth: lanes begin anew in it, and Tiger's start shows the symbol O."""
    assert played(PROBLEMS["t-maze"])[0].start[:, 1:].any()
    assert (played(PROBLEMS["tiger"])[0].observation[:, 0] == 2).all()


def one(observation: int, action: int, start: bool = False) -> StepInputs:
    return StepInputs(
        torch.tensor([observation]), torch.tensor([action]), torch.zeros(1), torch.tensor([start])
    )


def test_what_cannot_be_seen_leaves_the_predicted_belief() -> None:
    """Action 0 moves 0 -> 1 and stays in 1, each state shows itself; action 1 ends the episode anywhere."""
    problem = POMDP.from_arrays(
        np.array([[[0.0, 1.0], [0.0, 1.0]], np.eye(2)]),
        np.stack([np.eye(2)] * 2),
        np.zeros((2, 2)),
        discount=0.9,
        start=np.array([1.0, 0.0]),
        ends=np.broadcast_to(np.array([False, True])[:, None, None], (2, 2, 2)),
    )
    memory = BeliefMemory.of(problem, f64)
    begun, _ = memory.step(one(2, 0, start=True), memory.initial_state(1))
    assert begun.tolist() == [[1.0, 0.0]]
    assert memory.step(one(0, 0), begun)[0].tolist() == [[0.0, 1.0]]  # impossible: 1 would be shown
    assert memory.step(one(1, 1), begun)[0].tolist() == [[1.0, 0.0]]  # no episode goes on
    assert memory.step(one(1, 0), memory.initial_state(1))[0].tolist() == [
        [0.0, 0.0]
    ]  # nothing to go on from


def test_the_tables_are_not_learnt_and_not_stored() -> None:
    memory = BeliefMemory.of(tiger())
    assert not [*memory.parameters()] and not memory.state_dict()
    assert memory.to(f64).initial_state(3).dtype == f64
