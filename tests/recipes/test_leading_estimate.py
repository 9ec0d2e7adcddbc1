"""Which of the estimates leads, by the logs alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from turnwise.evaluation.estimates.importance import importance_sampling
from turnwise.evaluation.estimates.logged import Logged
from turnwise.recipes.estimating.estimators import ESTIMATORS, Sampling, estimates_of, leading, of_logs

GO = 0.6
"""the target goes on so often, and the logged agent in half of all turns"""


def sooner_or_later(count: int, turns: int, rng: np.random.Generator) -> Logged:
    """Every conversation is paid 1 when it ends, sooner or later; weights speak for the longer ones."""
    ends = rng.random((count, turns)) < 0.5
    ends[:, -1] = True
    last = ends.argmax(1)
    mask = np.arange(turns) <= last[:, None]
    at_end = np.arange(turns) == last[:, None]
    chosen = np.where(at_end & (last < turns - 1)[:, None], 1 - GO, GO)  # to end is a choice, but at the last
    return Logged(
        at_end * 1.0, mask, 1.0, np.where(mask, np.log(chosen), 0.0), np.where(mask, np.log(0.5), 0.0)
    )


def along_the_way(count: int, turns: int, rng: np.random.Generator) -> Logged:
    """A coin's reward at each turn, likelier for what the target does more often."""
    acts = rng.random((count, turns)) < 0.5
    paid = rng.random((count, turns)) < np.where(acts, 0.8, 0.4)
    mask = np.ones((count, turns), bool)
    return Logged(paid * 1.0, mask, 1.0, np.log(np.where(acts, GO, 1 - GO)), np.full(mask.shape, np.log(0.5)))


def test_returns_that_are_all_alike_have_no_error_if_talks_are_weighed_as_a_whole():
    """By turns they have: each turn's payment is held against the mean of that turn, which few receive."""
    logged = sooner_or_later(400, 6, np.random.default_rng(0))
    of = {e.name: e.of(logged) for e in ESTIMATORS if not e.model}
    assert of["wis"].value == pytest.approx(1) and of["wis"].standard_error() == pytest.approx(0, abs=1e-12)
    assert of["wpdis"].standard_error() > 0.01
    assert leading(logged).name == "wis"


def test_rewards_along_the_way_are_weighed_turn_by_turn():
    """Thirty turns, 40 sets of logs: the one that leads is the same in most, and has a tenth less error."""
    found, leads, truth = [], [], 30 * (GO * 0.8 + (1 - GO) * 0.4)
    for seed in range(40):
        logged = along_the_way(200, 30, np.random.default_rng(seed))
        of = {e.name: e.of(logged).value - truth for e in ESTIMATORS if not e.model}
        leads.append(leading(logged).name)
        found.append([of["wis"], of["wpdis"], of[leads[-1]]])
    whole, each, lead = (np.array(found) ** 2).mean(0) ** 0.5
    assert leads.count("wpdis") >= 30
    assert each < 0.9 * whole and lead < 0.9 * whole


def test_the_logged_agent_itself_is_worth_what_it_earned():
    """No estimate is preferred where both are the mean of the logs."""
    logged = along_the_way(50, 3, np.random.default_rng(0))
    own = replace(logged, logp=logged.behavior_logp)
    assert leading(own).name == "wpdis"
    assert leading(own).of(own).value == pytest.approx(of_logs(own).value)


def test_what_is_shown_is_possible_and_inside_its_interval():
    """Ten conversations of six turns, of a target that hardly ever does what the logged agent did."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        logged = sooner_or_later(10, 6, rng)
        other = np.minimum(logged.logp + rng.normal(0, 1, logged.mask.shape), 0.0)
        rare = replace(logged, logp=np.where(logged.mask, other, 0.0))
        for row in estimates_of(rare, Sampling((0.0, 1.0), None, 200, seed)):
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    assert importance_sampling(rare).value != pytest.approx(1)  # which is left as it is below the recipes
