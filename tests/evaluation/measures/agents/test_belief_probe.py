"""Reading hidden states from memories: a perfect memory reads like the belief, none like the observation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from turnwise.data.episode import Episode
from turnwise.data.steps import StepInputs
from turnwise.envs.problems.classics import tiger
from turnwise.envs.protocol import Discrete
from turnwise.envs.tabular import TabularEnv
from turnwise.evaluation.measures.agents.belief_probe import beliefs_along, probe_memory
from turnwise.evaluation.measures.agents.episodes import play
from turnwise.models.agents.actor_critic import ActOutput
from turnwise.models.agents.settings import MemorySpec
from turnwise.models.agents.spec import Spaces, memory_of
from turnwise.models.memory.base import Memory
from turnwise.models.memory.belief import BeliefMemory

SPACES = Spaces(Discrete(3), Discrete(3), Discrete(2))


class Listens:
    """Listens nine times in ten, else opens a door."""

    def act(self, inputs: StepInputs, state: torch.Tensor) -> ActOutput:
        p = torch.tensor([0.9, 0.05, 0.05]).expand(len(state), 3)
        return ActOutput(torch.multinomial(p, 1).squeeze(-1), torch.zeros(len(state)), state)

    def initial_state(self, lanes: int) -> torch.Tensor:
        return torch.zeros(lanes, 0)


@pytest.fixture(scope="module")
def episodes() -> list[Episode]:
    env = TabularEnv(tiger(), 12)
    return play(Listens(), env, episodes=400, lanes=400, longest=12, gamma=1.0, seed=0)


def read(memory: Memory, episodes: list[Episode], **kwargs: Any) -> dict[str, Any]:
    return probe_memory(tiger(), memory, None, episodes, 0, **kwargs)["lines"]


def test_a_perfect_memory_reads_like_the_belief(episodes: list[Episode]) -> None:
    lines = read(BeliefMemory.of(tiger()), episodes)
    assert lines["memory"]["accuracy"] == pytest.approx(lines["belief"]["accuracy"], abs=0.005)
    assert lines["memory"]["by_step"] == pytest.approx(lines["belief"]["by_step"], abs=0.02)
    assert lines["observation"]["accuracy"] < lines["belief"]["accuracy"] - 0.05
    assert lines["belief"]["cross_entropy"] < lines["memory"]["cross_entropy"] + 1e-9
    assert "untrained" not in lines


def test_no_memory_reads_like_the_observation(episodes: list[Episode]) -> None:
    torch.manual_seed(1)
    lines = read(memory_of(MemorySpec("none", 16), SPACES), episodes)
    assert lines["memory"]["accuracy"] == pytest.approx(lines["observation"]["accuracy"], abs=1e-6)
    assert lines["memory"]["cross_entropy"] == pytest.approx(lines["observation"]["cross_entropy"], abs=2e-3)


def test_nothing_reads_better_than_the_belief(episodes: list[Episode]) -> None:
    """In expectation over s ~ b each guess is worth at most max b, and -sum b log p at least H(b)."""
    torch.manual_seed(2)
    found = probe_memory(tiger(), memory_of(MemorySpec("gru", 16), SPACES), None, episodes, 0)
    belief = found["lines"].pop("belief")
    for line in found["lines"].values():
        assert all(x <= b + 1e-12 for x, b in zip(line["by_step"], belief["by_step"], strict=True))
        assert line["cross_entropy"] >= belief["cross_entropy"]
    assert belief["by_step"][0] == pytest.approx(0.5) and belief["by_step"][1] > 0.8
    assert found["steps"] == list(range(12)) and found["running"] == [200] * 12


def test_of_the_states_that_were_it_agrees_within_chance(episodes: list[Episode]) -> None:
    """200 episodes of 12 steps: expected and realised accuracy differ by a few standard errors at most."""
    expected, real = (read(BeliefMemory.of(tiger()), episodes, expected=e)["belief"] for e in (True, False))
    assert abs(expected["accuracy"] - real["accuracy"]) < 0.04


def test_beliefs_follow_bayes(episodes: list[Episode]) -> None:
    """Two growls on one side: .85^2 / (.85^2 + .15^2) = 0.9698."""
    seen = []
    for t, (running, beliefs) in enumerate(beliefs_along(tiger(), episodes, 3)):
        if t == 2:
            for i, b in zip(running, beliefs.toarray(), strict=True):
                e = episodes[i]
                if (e.actions[:2] == 0).all() and e.observations[1] == e.observations[2] == 0:
                    seen.append(b[0])
    assert len(seen) > 20 and np.allclose(seen, 0.85**2 / (0.85**2 + 0.15**2))
