"""What is known beside a mean: bounds, the best without memory, and when rewards tell more."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import CLASSICS, t_maze, tiger
from turnwise.envs.problems.memory_tasks import repeat_previous
from turnwise.envs.protocol import Discrete
from turnwise.evaluation.measures.agents.truth import (
    Limits,
    bound_above,
    exact_value,
    rewards_inform,
    share_of,
    truth_of_problem,
    truth_of_task,
)
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, actor_critic_of


def test_the_t_maze() -> None:
    """Length 2, discount .9, first look shown: 4 * .9^3 = 2.916 with memory; a coin at the junction without.

    Without memory, the right turn pays 4 and the wrong one -.1: .9^3 * (4 - .1) / 2 = 1.42155 for either,
    which the best one can be no worse than.
    """
    problem = t_maze(2).showing_initial()
    found = truth_of_problem(problem, 0, Limits(5.0))
    assert found["lower"] <= 2.916 + 1e-9 and found["upper"] >= 2.916 - 1e-9
    assert found["upper"] - found["lower"] <= 1e-3 + 1e-9
    assert 1.42155 - 1e-9 <= found["deterministic"] <= found["stochastic"] < found["lower"]
    assert not found["rewards_inform"] and found["state_seen"] >= found["lower"] - 1e-9
    assert share_of(found["stochastic"], found) == 0
    assert share_of(found["lower"], found) == 1
    assert bound_above(found, memoryless=False) == found["upper"]


def test_what_is_too_large_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnwise.evaluation.measures.agents.truth.MOST_UNKNOWNS", 3)
    monkeypatch.setattr("turnwise.evaluation.measures.agents.truth.importlib.util.find_spec", lambda _: None)
    found = truth_of_problem(t_maze(2), 0)
    assert found["lower"] is found["stochastic"] is None
    assert len(found["notes"]) == 2 and "numba" in found["notes"][0]
    assert bound_above(found, memoryless=True) == found["state_seen"]
    assert share_of(1.0, found) is None


def test_memory_tasks_know_their_maximum() -> None:
    found = truth_of_task(repeat_previous())
    assert (found["maximum"], found["random"]) == (1.0, -0.5)
    assert bound_above(found, memoryless=False) == 1.0


def _blind(pays: float) -> object:
    """Two states that look alike and stay; action 0 pays `pays` in the first, and only rewards tell which."""
    return POMDP.from_arrays(
        np.stack([np.eye(2)] * 2),
        np.ones((2, 2, 1)),
        np.array([[pays, 0.0], [0.0, 0.0]]),
        discount=0.9,
        start=np.full(2, 0.5),
    )


def test_rewards_that_tell_more_than_observations() -> None:
    assert rewards_inform(_blind(1.0))  # type: ignore[arg-type]
    assert not rewards_inform(_blind(0.0))  # type: ignore[arg-type]
    # The tiger's rewards tell where it was, and then it is placed anew.
    assert not rewards_inform(tiger())
    assert not any(rewards_inform(CLASSICS[n]()) for n in ("cheese", "heaven-hell", "t-maze-5", "airlock"))
    truth = {"rewards_inform": True, "upper": 1.0, "state_seen": 5.0}
    assert bound_above(truth, memoryless=False) == 5.0
    assert bound_above(truth, memoryless=True) == 1.0


@pytest.mark.parametrize("greedy", [False, True])
def test_the_exact_value_of_an_agent_without_memory(greedy: bool) -> None:
    """Every action alike: by hand, an agent that draws uniformly; greedy, one that always does the same."""
    problem = tiger()
    torch.manual_seed(0)
    spaces = Spaces(Discrete(3), Discrete(3), Discrete(2))
    agent = actor_critic_of(MemorySpec("none", 8), CriticSpec("observation"), spaces)
    with torch.no_grad():
        for x in agent.head.parameters():
            x.zero_()
    # Mean reward a step: (-1 + 2 * (10 - 100) / 2) / 3 = -91/3; greedy listens: -1. Both over 1 - 0.95.
    expected = -20.0 if greedy else -91 / 3 * 20
    assert exact_value(agent, problem, greedy=greedy) == pytest.approx(expected, rel=1e-6)
