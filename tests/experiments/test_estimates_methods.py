"""Candidates that methods make from the same logs of HelpDesk, and their exact values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from turnwise.envs.tasks.helpdesk.exact import behavior_value, optimal_value

FOLDER = Path(__file__).parents[2] / "experiments"


def test_the_desk_and_the_best_are_worth_what_they_are_by_other_means(load_script):
    """Backward induction over how parts stand (`exact`), and sums over pairs of belief and fault."""
    module = load_script(FOLDER / "candidates.py")
    graph = module.desk_graph()
    desk, best = (module.Candidate(graph, p) for p in (module.behavior(), graph.optimal()))
    for candidate, expected in ((desk, behavior_value()), (best, optimal_value())):
        assert candidate.value_in(graph.problem) == pytest.approx(expected)
        assert graph.values(candidate.policy)[1] == pytest.approx(expected)


def test_a_plan_of_a_learnt_model_is_valued_in_the_task(load_script):
    """It remembers another belief. Live, it earns its value within four standard errors; a coin that never
    falls for it is the desk, also where its probabilities are looked up at logged histories."""
    module = load_script(FOLDER / "candidates.py")
    graph, rng = module.desk_graph(), np.random.default_rng(0)
    log = graph.episodes(module.behavior(), 2000, rng)
    model = module.mixture(log, 4, rng)
    own = module.Graph.of(model, module.HORIZON)
    made = module.Candidate(own, own.optimal())
    value = made.value_in(graph.problem)
    assert optimal_value() - 0.05 < value <= optimal_value() + 1e-9
    never, always = made.step(0.0), made.step(1.0)
    assert never.value_in(graph.problem) == pytest.approx(behavior_value())
    assert always.value_in(graph.problem) == pytest.approx(value)
    np.testing.assert_allclose(never.on(log)[log.mask], log.at(module.behavior())[log.mask])
    ratios = made.step(0.5).on(log) / log.at(module.behavior())  # weights at most 1/2 + 1/2 / least chance
    taken = np.take_along_axis(ratios, log.acts[:, :, None], 2)[:, :, 0]
    weights, returns = np.where(log.mask, taken, 1.0).prod(1), log.rewards.sum(1)
    error = (weights * returns).std() / 2000**0.5
    assert abs((weights * returns).mean() - made.step(0.5).value_in(graph.problem)) < 4 * error


def test_the_expectile_by_hand(load_script):
    """Of 0 and 1, each half of the time, v of .9: .1 v = .9 (1 - v), so v = .9."""
    module = load_script(FOLDER / "candidates.py")
    (found,) = module.expectile([np.array([[0.0, 1.0]])], (np.array([[0.5, 0.5]]),), 0.9)
    np.testing.assert_allclose(found, [[0.1, 0.9]])


def test_a_small_set_is_ranked(load_script, monkeypatch):
    module = load_script(FOLDER / "estimates_methods.py")
    monkeypatch.setattr(module, "COINS", (0.0, 0.2))  # two steps are walked in a third of the time
    row = module.one(60, 0)
    assert {"clone", "plan", "plan, two states", "IQL, beta 16"} <= set(row["candidates"])
    assert {c["verdict"] for c in row["candidates"].values()} == {"cannot tell"}
    assert row["cautious"]["name"] == module.DESK
    chosen = module.choices_of(row)
    assert chosen["answered"] == chosen["vouched for"] and chosen["answered"][0] == module.DESK
    promised = {n: c["estimates"]["promise"] for n, c in row["candidates"].items()}
    assert chosen["highest, promise"][0] == max(promised, key=promised.get)
