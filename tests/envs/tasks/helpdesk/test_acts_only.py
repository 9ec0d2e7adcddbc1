"""HelpDesk without words against its exact values, and against conversations with words."""

import numpy as np
import pytest

from turnwise.envs.tasks.helpdesk.acts_only import converse_without_words, mixed, optimal, tilted
from turnwise.envs.tasks.helpdesk.exact import (
    Game,
    OptimalDesk,
    PolicyValues,
    behavior_acts,
    behavior_value,
    optimal_value,
)
from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs
from turnwise.envs.tasks.helpdesk.rules import ACTS


def worth(policy, **rules):
    return PolicyValues(Game(**rules), policy).value()


def test_values_of_tilted_and_mixed_policies_lie_between_the_ends():
    """Beta 0 is the behaviour, an endless beta the optimum, and so are the two ends of a mixture."""
    desk = OptimalDesk()
    assert worth(tilted(0.0, desk)) == pytest.approx(behavior_value(), abs=1e-12)
    assert worth(tilted(1e6, desk)) == pytest.approx(optimal_value(), abs=1e-9)
    assert worth(optimal(desk)) == pytest.approx(optimal_value(), abs=1e-12)
    found = [worth(tilted(b, desk)) for b in (0, 2, 4, 8, 16)]
    assert found == sorted(found)
    assert worth(mixed(0.0, behavior_acts, optimal(desk))) == pytest.approx(behavior_value(), abs=1e-12)
    assert worth(mixed(1.0, behavior_acts, optimal(desk))) == pytest.approx(optimal_value(), abs=1e-12)


def test_one_turn_by_hand():
    """One turn, answers without news: a fix is right in 1 of 4 (-1/2), a test costs .05. Half of each."""

    def half(net, last, turn):
        return [0.125] * 8

    assert worth(half, horizon=1) == pytest.approx((-0.5 - 0.05) / 2)


@pytest.mark.parametrize("policy", [behavior_acts, tilted(16.0), optimal()], ids=["whims", "16", "optimum"])
def test_conversations_earn_what_the_policy_is_worth(policy):
    """4,000 conversations, within four standard errors."""
    talks = converse_without_words(policy, 4000, np.random.default_rng(0))
    returns = talks.rewards.sum(1)
    assert abs(returns.mean() - worth(policy)) < 4 * returns.std() / np.sqrt(len(returns))
    p = talks.probabilities(policy)
    assert np.allclose(p.sum(2), 1)
    assert (np.take_along_axis(p, talks.acts[:, :, None], 2)[:, :, 0] > 0)[talks.mask].all()


def test_what_stands_before_a_turn_is_counted_from_what_was_said():
    """Net and last part of each state are those of the acts and answers before it."""
    talks = converse_without_words(behavior_acts, 50, np.random.default_rng(1))
    for b in range(50):
        net, last = [0, 0, 0, 0], None
        for k in np.flatnonzero(talks.mask[b]):
            assert talks.states[talks.state[b, k]] == (tuple(net), last, k)
            act = int(talks.acts[b, k])
            if act < 4:
                last, net[act] = act, net[act] + (1 if talks.broken[b, k] else -1)
                assert talks.seen[b, k + 1] == 1 + 2 * act + talks.broken[b, k]
    assert (talks.seen[:, 0] == 0).all()
    # A kind of history is a turn and what was seen last.
    kinds = {(k, s): h for k, s, h in _kinds(talks)}
    assert all(kinds[k, s] == h for k, s, h in _kinds(talks)) and len(set(kinds.values())) == len(kinds)


def _kinds(talks):
    rows = zip(*np.nonzero(talks.mask), strict=True)
    return [(int(k), int(talks.seen[b, k]), int(talks.before[b, k])) for b, k in rows]


def test_acts_are_as_frequent_as_in_conversations_with_words():
    """Shares of acts at each of the first four turns, of 3,000 conversations each."""
    talks = converse_without_words(behavior_acts, 3000, np.random.default_rng(2))
    ids = {str(act): i for i, act in enumerate(ACTS)}
    rows = [
        [ids[m["act"]] for m in row["messages"] if m["role"] == "assistant"]
        for row in helpdesk_logs(3000, 3, acts=True)
    ]
    for k in range(4):
        here = [r[k] for r in rows if len(r) > k]
        a = np.bincount(here, minlength=8) / 3000
        b = np.bincount(talks.acts[talks.mask[:, k], k], minlength=8) / 3000
        assert np.abs(a - b).max() < 5 * np.sqrt(2 * 0.2 * 0.8 / 3000)
