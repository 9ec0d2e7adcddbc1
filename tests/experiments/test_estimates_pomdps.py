"""Short POMDPs as graphs of beliefs, and what their logs are judged by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from turnwise.exact.histories import History, history_value
from turnwise.exact.horizon import horizon_value

FOLDER = Path(__file__).parents[2] / "experiments"


def on_histories(graph, policy):
    """A policy of nodes as one of histories: what was seen says at which node one is."""

    def chances(history: History) -> np.ndarray:
        node = graph.begins[history.inputs[0]]
        for k, (act, seen) in enumerate(zip(history.actions, history.inputs[1:], strict=True)):
            node = graph.layers[k].after[node, act, seen]
        return policy[len(history.actions)][node]

    return chances


@pytest.mark.parametrize(("task", "horizon"), [("tiger", 5), ("t-maze", 4)])
def test_values_are_those_of_all_histories(load_script, task, horizon):
    """Of a policy that remembers, of one that does not, and of the best one (incremental pruning)."""
    module = load_script(FOLDER / "belief_graphs.py")
    problem = module.TASKS[task].problem
    graph = module.Graph.of(problem, horizon)
    habits = graph.seeing(np.array(module.TASKS[task].habits))
    q, best = graph.values(None)
    assert best == pytest.approx(horizon_value(problem, horizon), abs=1e-6)
    assert graph.values(graph.optimal())[1] == pytest.approx(best)
    for policy in (habits, module.mixed(0.3, habits, graph.optimal()), module.tilted(habits, q, 0.1)):
        expected = history_value(problem, on_histories(graph, policy), horizon)
        assert graph.values(policy)[1] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("world", ["tiger-sees", "t-maze-remembers"])
def test_episodes_earn_what_is_computed(load_script, world):
    """Mean returns of 4,000 episodes, within four standard errors of the exact value."""
    module = load_script(FOLDER / "belief_graphs.py")
    task, memory = module.WORLDS[world]
    graph = module.graph(task)
    for name, policy in module.targets_of(task, memory).items():
        log = graph.episodes(policy, 4000, np.random.default_rng(0))
        returns = log.rewards @ graph.problem.discount ** np.arange(log.mask.shape[1])
        away = returns.mean() - module.truth_of(task, memory, name)
        assert abs(away) < 4 * returns.std() / 4000**0.5


def test_a_small_set_is_judged(load_script):
    """With propensities of the last observation weights of an agent that remembers are others."""
    module = load_script(FOLDER / "estimates_pomdps.py")
    row = module.one("tiger-remembers", 60, 0)
    assert set(row["targets"]) == {"near", "middle", "far", "optimal"}
    found = row["targets"]["optimal"]
    assert found["verdict"] == "cannot tell" and set(found["models"]) == {"last observation", "belief"}
    of = found["estimates"]
    assert {"weighted", "MAGIC, history", "direct, belief", "weighted, propensities of belief"} <= set(of)
    assert of["weighted"][0] != of["weighted, propensities of last observation"][0]
