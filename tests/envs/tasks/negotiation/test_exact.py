"""The script's probabilities by hand, and the exact values against slow twins and against simulation."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from turnwise.envs.tasks.negotiation import exact
from turnwise.envs.tasks.negotiation.game import MAX_UTTERANCES
from turnwise.envs.tasks.negotiation.scenarios import (
    Scenario,
    divisions,
    draw_scenario,
    points,
    possible_counts,
    possible_scenarios,
    remainder,
)
from turnwise.envs.tasks.negotiation.script import act_probabilities
from turnwise.envs.tasks.negotiation.words import ACCEPT, CLOSE, LEAVE, REFUSE, Act, Standing

# The hats are worth nothing to side b: 1 + 6 + 3 = 10 = 4 + 6.
SCENARIO = Scenario(counts=(1, 2, 3), values_a=(1, 3, 1), values_b=(4, 0, 2))


def test_scenarios_are_those_of_the_published_rules() -> None:
    """28 ways to lay five to seven items of three kinds, one to four of each; 5,295 scenarios in all."""
    every = [s for counts in possible_counts() for s in possible_scenarios(counts)]
    assert (len(possible_counts()), len(every), len(set(every))) == (28, 5295, 5295)
    for s in every:
        assert points(s.values_a, s.counts) == points(s.values_b, s.counts) == 10
        assert 5 <= sum(s.counts) <= 7
        both = [(x, y) for x, y in zip(s.values_a, s.values_b, strict=True)]
        assert all(x + y for x, y in both) and any(x * y for x, y in both)
    drawn = [draw_scenario(np.random.default_rng(i)) for i in range(300)]
    assert set(drawn) <= set(every) and len({s.counts for s in drawn}) == 28


def test_the_frontier_by_hand() -> None:
    """Side a has both hats (6 points, nothing to b). The book costs a 1 point and brings b 4, a ball 1 and 2.

    So b gets the book first, then balls: (10, 0), (9, 4), (8, 6), (7, 8), (6, 10). Jointly the last is best.

    If b is to have 5, the book and a ball are enough, which leaves a 8.
    """
    assert exact.frontier(SCENARIO) == [(6, 10), (7, 8), (8, 6), (9, 4), (10, 0)]
    assert exact.best_joint(SCENARIO) == 16
    assert [exact.best_points(SCENARIO, least) for least in (0, 4, 5, 10)] == [10, 9, 8, 6]
    with pytest.raises(ValueError, match="partner_least is 11"):
        exact.best_points(SCENARIO, 11)


def test_the_scripts_probabilities_by_hand() -> None:
    """A book worth 4, two hats worth 3, two balls worth nothing: it can have 0, 3, 4, 6, 7 or 10 points.

    At its first turn it demands 7, 9 or 10: the book and a hat (7), or the book and the hats (10) twice.
    An offer of 7 meets the first demand: half of that third in words, half by closing. Otherwise it refuses a
    quarter of the time. At its second turn it demands 6, 8 or 9, and one time in ten it walks away first.
    """
    counts, values = (1, 2, 2), (4, 3, 0)
    modest, greedy = Act("offer", (1, 1, 0)), Act("offer", (1, 2, 0))
    first = act_probabilities(counts, values, Standing(), 0)
    assert first == pytest.approx({modest: 1 / 3, greedy: 2 / 3})
    offered = act_probabilities(counts, values, Standing((1, 1, 2)), 0)
    assert offered == pytest.approx({ACCEPT: 1 / 6, CLOSE: 1 / 6, REFUSE: 1 / 6, greedy: 1 / 2})
    second = act_probabilities(counts, values, Standing((0, 0, 2)), 1)
    assert second == pytest.approx({LEAVE: 0.1, REFUSE: 0.225, Act("offer", (0, 2, 0)): 0.225, greedy: 0.45})
    assert act_probabilities(counts, values, Standing((0, 0, 2), accepted=True), 3) == {CLOSE: 1.0}
    assert act_probabilities(counts, values, Standing(left=True), 3) == {CLOSE: 1.0}


def twin(scenario: Scenario, best: bool) -> float:
    """Expected points of side a against the script, act by act; side a plays the script, or the best act."""
    counts = scenario.counts

    def after(now: Standing, act: Act) -> Standing:
        """Where the talk stands as the next speaker has it, once the speaker (who has `now`) has acted."""
        if act.kind == "leave" or now.left:
            return Standing(left=True)
        if act.share is not None:
            return Standing(remainder(counts, act.share))
        if act == REFUSE and now.share is not None and not now.mine:
            return Standing()
        if now.share is None:
            return now
        accepted = now.accepted or (act == ACCEPT and not now.mine)
        return Standing(remainder(counts, now.share), not now.mine, accepted)

    def closed(now: Standing, mine: bool) -> float:
        """What side a has if the speaker closes the talk."""
        if now.left or now.share is None or (now.mine and not now.accepted):
            return 0.0
        return float(points(scenario.values_a, now.share if mine else remainder(counts, now.share)))

    @cache
    def value(n: int, now: Standing, first: int) -> float:
        if n == MAX_UTTERANCES:
            return 0.0
        mine = n % 2 == first

        def act_value(act: Act) -> float:
            return closed(now, mine) if act == CLOSE else value(n + 1, after(now, act), first)

        if mine and best:
            offers = [Act("offer", share) for share in divisions(counts)]
            return max(act_value(act) for act in (CLOSE, ACCEPT, REFUSE, LEAVE, *offers))
        values = scenario.values_a if mine else scenario.values_b
        found = act_probabilities(counts, values, now, n // 2)
        return sum(p * act_value(act) for act, p in found.items())

    return (value(0, Standing(), 0) + value(0, Standing(), 1)) / 2


OTHERS = [
    Scenario((1, 1, 3), (2, 2, 2), (0, 10, 0)),
    Scenario((1, 4, 1), (2, 2, 0), (3, 1, 3)),
]


@pytest.mark.parametrize("scenario", [SCENARIO, SCENARIO.swapped(), *OTHERS], ids=str)
def test_exact_points_are_those_of_a_slow_twin(scenario: Scenario) -> None:
    """To 1e-10. Knowing the other side's values never hurts."""
    script, informed = exact.script_points(scenario), exact.informed_points(scenario)
    assert script == pytest.approx(twin(scenario, best=False), abs=1e-10)
    assert informed == pytest.approx(twin(scenario, best=True), abs=1e-10)
    assert informed >= script


def test_values_are_means_over_scenarios_as_they_are_drawn() -> None:
    """Counts weigh alike, however many scenarios they have."""
    each = [
        np.mean([exact.script_points(s) for s in possible_scenarios(counts)]) for counts in possible_counts()
    ]
    assert exact.script_value() == pytest.approx(np.mean(each))
    assert exact.first_offer_value() < exact.script_value() < exact.informed_value() < 10
