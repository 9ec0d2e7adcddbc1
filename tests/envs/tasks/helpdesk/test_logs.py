"""The scripted desk of HelpDesk: its propensities by hand, and logs that are what they say they are."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from turnwise.data.dialogue import Dialogue
from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.helpdesk.logs import behavior_probabilities, helpdesk_logs
from turnwise.envs.tasks.helpdesk.rules import ACTS, HORIZON, PARTS
from turnwise.envs.tasks.helpdesk.words import read_act, read_answer, wordings


@pytest.fixture(scope="module")
def logs():
    return list(helpdesk_logs(6000, seed=3))


def _replay(conversation):
    """(net, last, act, message) at each agent message, from the text alone."""
    net, last = [0] * len(PARTS), None
    for message in conversation["messages"]:
        if message["role"] == "assistant":
            act = read_act(message["content"])
            yield tuple(net), last, act, message
            last = act.part
        elif (heard := read_answer(message["content"])) is not None:
            net[heard[0]] += 1 if heard[1] else -1


def test_propensities_by_hand():
    """Start: tests .75/4 + .05/4 = .2, fixes .08/4 + .12/4 = .05.

    After "screen broken, camera fine", camera last: tests .1875 (camera .2375), fixes .02 (screen .14).
    Two parts tied for likeliest share .12: .08.
    """
    assert behavior_probabilities((0, 0, 0, 0), None) == pytest.approx([0.2] * 4 + [0.05] * 4)
    expected = [0.1875, 0.1875, 0.1875, 0.2375, 0.02, 0.14, 0.02, 0.02]
    assert behavior_probabilities((0, 1, 0, -1), 3) == pytest.approx(expected)
    tied = behavior_probabilities((2, 2, 0, 1), 0)
    assert tied == pytest.approx([0.2375, 0.1875, 0.1875, 0.1875, 0.08, 0.08, 0.02, 0.02])


@given(st.tuples(*[st.integers(-7, 7)] * 4), st.none() | st.integers(0, 3))
def test_propensities_sum_to_one(net, last):
    probabilities = behavior_probabilities(net, last)
    assert math.fsum(probabilities) == pytest.approx(1, abs=1e-12)
    assert min(probabilities) > 0


def test_logged_propensities_are_those_of_the_whole_message(logs):
    for conversation in logs[:500]:
        for net, last, act, message in _replay(conversation):
            p = behavior_probabilities(net, last)[ACTS.index(act)] / len(wordings(act))
            assert message["behavior_logp"] == pytest.approx(math.log(p), abs=1e-12)


def test_a_log_with_acts_says_how_probable_each_act_was(logs):
    rows = list(helpdesk_logs(50, seed=3, acts=True))
    for row, plain in zip(rows, logs[:50], strict=True):
        stripped = [{k: v for k, v in m.items() if k not in ("act", "act_logp")} for m in row["messages"]]
        assert stripped == plain["messages"]
        said = [m for m in row["messages"] if m["role"] == "assistant"]
        for (net, last, act, message), m in zip(_replay(plain), said, strict=True):
            assert m["content"] == message["content"]
            p = behavior_probabilities(net, last)[ACTS.index(act)]
            assert m["act_logp"] == pytest.approx(math.log(p), abs=1e-12)


def test_logged_acts_and_wordings_come_as_often_as_the_propensities_say(logs):
    """Chi-square in every state seen at least 300 times, Bonferroni at 1e-3 over all; wordings likewise."""
    states, texts = defaultdict(Counter), defaultdict(Counter)
    for conversation in logs:
        for net, last, act, message in _replay(conversation):
            states[net, last][act] += 1
            texts[act][message["content"]] += 1
    common = {s: c for s, c in states.items() if c.total() >= 300}
    assert len(common) >= 9  # the start, and each part tested once with either answer
    pvalues = []
    for (net, last), count in common.items():
        expected = np.array(behavior_probabilities(net, last)) * count.total()
        pvalues.append(chisquare([count[a] for a in ACTS], expected).pvalue)
    for act, count in texts.items():
        pvalues.append(chisquare([count[t] for t in wordings(act)]).pvalue)
    assert min(pvalues) > 1e-3 / len(pvalues)


def test_logs_are_well_formed_conversations(logs):
    assert len({c["id"] for c in logs}) == len(logs)
    for c in logs:
        messages = tuple(Message(**m) for m in c["messages"])
        talk = Dialogue(messages, terminated=c["terminated"], id=c["id"])
        fixed = read_act(talk.turns[-1].content).kind == "fix"
        assert [m.role for m in messages] == ["user", "assistant"] * len(talk.turns) + ["user"] * fixed
        assert fixed or len(talk.turns) == HORIZON
        last = talk.turns[-1].reward
        assert [m.reward for m in talk.turns[:-1]] == [-0.05] * (len(talk.turns) - 1)
        assert last == (-0.05 if not fixed else 1.0 if c["success"] else -1.0)
        assert c["success"] == (fixed and PARTS[read_act(talk.turns[-1].content).part] == c["fault"])


def test_logs_repeat_by_seed_and_grow_without_changing(logs):
    assert list(helpdesk_logs(40, seed=3)) == logs[:40]
    assert list(helpdesk_logs(40, seed=4)) != logs[:40]
