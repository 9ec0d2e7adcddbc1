"""Episodes with what the agent thought, for each kind of agent: the figures are those that it acted by."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from turnwise.envs.problems.classics import tiger
from turnwise.envs.tabular import TabularEnv
from turnwise.evaluation.measures.agents.episode_views import annotate_episodes
from turnwise.evaluation.measures.agents.episodes import Greedy, play
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Kind, Spaces, agent_of

ENV = TabularEnv(tiger(), 7)


def shown(kind: Kind, *, greedy: bool) -> tuple[list[dict[str, Any]], list[Any]]:
    torch.manual_seed(4)
    agent = agent_of(kind, MemorySpec("gru", 8), CriticSpec(), Spaces.of(ENV)).eval()
    with torch.no_grad():
        for x in agent.head.parameters():
            x.copy_(torch.randn_like(x))
    acting = Greedy(agent) if greedy else agent
    held = play(acting, ENV, episodes=4, lanes=4, longest=7, gamma=0.95, seed=0)
    return annotate_episodes(agent, ENV, held, gamma=0.95), held


@pytest.mark.parametrize("kind", ["actor-critic", "soft"])
def test_probabilities_are_those_that_it_drew_from(kind: Kind) -> None:
    """Read from whole rows, they agree with the log-probabilities kept while acting step by step."""
    views, held = shown(kind, greedy=False)
    for view, e in zip(views, held, strict=True):
        for t, s in enumerate(view["steps"]):
            p = s["probabilities"][view["actions"].index(s["action"])]
            assert math.log(p) == pytest.approx(float(e.behavior_logp[t]), abs=1e-4)


@pytest.mark.parametrize("kind", ["actor-critic", "q", "soft"])
def test_greedy_takes_the_best(kind: Kind) -> None:
    views, _ = shown(kind, greedy=True)
    for view in views:
        for s in view["steps"]:
            scores = s.get("probabilities") or s["q"]
            assert scores[view["actions"].index(s["action"])] == max(scores)
            if kind == "q":
                assert s["value"] == pytest.approx(max(s["q"]))


def test_names_and_what_was_hidden() -> None:
    views, held = shown("q", greedy=True)
    view, e = views[0], held[0]
    assert view["steps"][0]["observation"] == "(nothing yet)"
    assert [s["state"] for s in view["steps"]] == [tiger().states[s] for s in e.states[:-1]]
    assert view["steps"][0]["belief"] == [["tiger-left", 0.5], ["tiger-right", 0.5]]
    assert view["return"] == pytest.approx(sum(s["reward"] for s in view["steps"]))
    assert view["ended"] == "truncated" and view["length"] == 7
