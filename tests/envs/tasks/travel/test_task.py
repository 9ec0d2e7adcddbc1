"""The travel desk's guest keeps the rules, and its logs are what they say they are."""

import itertools
import math
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from turnwise.data.files.logs import read_logs
from turnwise.envs.tasks.travel.desk import DESK
from turnwise.envs.tasks.travel.guest import GUEST, OPENING
from turnwise.envs.tasks.travel.logs import behavior_probabilities, travel_logs
from turnwise.envs.tasks.travel.reading import read_act
from turnwise.envs.tasks.travel.rules import ACTS, ANSWERS, HORIZON, PACES, PLACES
from turnwise.envs.tasks.travel.task import TravelDesk
from turnwise.recipes.tasks import find_task, task_called
from turnwise.run.errors import SettingError

ASK, SOOTHE = "The sea or the hills?", "Take your time."


def test_an_offer_pays_by_what_is_right_and_ends_the_talk():
    for seed in range(8):
        desk = TravelDesk(acts=True)
        desk.reset([0, 1, 2, 3], [seed] * 4)
        truth = desk.hidden(0)
        place, pace = PLACES.index(truth["place"]), PACES.index(truth["pace"])
        texts = [f"I offer the {PLACES[a]}, it is {PACES[b]}." for a in (0, 1) for b in (0, 1)]
        for i, response in enumerate(desk.step([0, 1, 2, 3], texts)):
            right = (i // 2 == place) + (i % 2 == pace)
            assert (response.reward, response.terminated) == ((-1.0, -0.25, 1.0)[right], True)
            assert response.messages[0].act == ("refuses", "hesitates", "accepts")[right]
            assert response.info["success"] == (right == 2)
        with pytest.raises(ValueError, match="lane 2: the conversation is over"):
            desk.step([2], ["hello"])


def test_the_eighth_turn_without_an_offer_ends_it_at_half():
    """Seeds whose guest stays so long; what nobody understands takes a turn as well."""
    ended = 0
    for seed in range(40):
        desk = TravelDesk()
        desk.reset([0], [seed])
        said = [SOOTHE, "blah", ASK, SOOTHE, SOOTHE, ASK, SOOTHE, SOOTHE]
        turns = 0
        for text in said:
            turns += 1
            (response,) = desk.step([0], [text])
            assert response.info["read"] == (text != "blah") and not response.truncated
            if response.terminated:
                break
            assert response.reward == 0.0
        assert (response.reward, response.info["success"]) == (-0.5, False)
        assert GUEST.read(response.messages[0].content) == "leaves"
        ended += turns == HORIZON
    assert ended > 20


def _first_answers(text, hurried, n=6000):
    """What guests in that mood at first answer to one message, and how many are in a hurry then."""
    desk, lanes = TravelDesk(acts=True), list(range(n))
    desk.reset(lanes, lanes)
    lanes = [lane for lane in lanes if desk.hidden(lane)["hurried"] == hurried]
    truth = [desk.hidden(lane)["place"] for lane in lanes]
    answers = [r.messages[0].act for r in desk.step(lanes, [text] * len(lanes))]
    stayed = [desk.hidden(lane)["hurried"] for lane, a in zip(lanes, answers, strict=True) if a != "leaves"]
    right = [a == t for a, t in zip(answers, truth, strict=True) if a in PLACES]
    return Counter(answers), np.mean(stayed), np.mean(right) if right else None


@pytest.mark.parametrize("hurried", [False, True])
def test_chances_of_a_question_and_of_soothing_words(hurried):
    """Margins of 4 standard errors of some 3,000 guests each: below .04."""
    counts, mood, right = _first_answers(ASK, hurried)
    n = counts.total()
    leaves, grumbles = ((0.02, 0.05), (0.2, 0.4))[hurried]
    assert counts["leaves"] / n == pytest.approx(leaves, abs=0.03)
    assert counts["grumble"] / (n - counts["leaves"]) == pytest.approx(grumbles, abs=0.04)
    assert mood == pytest.approx((0.15, 1.0)[hurried], abs=0.03)
    assert right == pytest.approx(0.85, abs=0.04)
    counts, mood, _ = _first_answers(SOOTHE, hurried)
    assert counts["leaves"] / n == pytest.approx((0.0, 0.05)[hurried], abs=0.02)
    assert mood == pytest.approx((0.0, 0.2)[hurried], abs=0.03)
    calm = (0.85, 0.8 * 0.85 + 0.2 * 0.25)[hurried]
    assert counts["calm"] / (n - counts["leaves"]) == pytest.approx(calm, abs=0.04)


def test_openings_hint_at_the_mood_alone():
    """Place and pace are uniform, the opening sounds hurried for .2 and .6 of the guests."""
    desk, lanes = TravelDesk(), list(range(6000))
    openings = desk.reset(lanes, lanes)
    sounds = [OPENING.read(m.content) == "in a hurry" for (m,) in openings]
    hidden = [desk.hidden(lane) for lane in lanes]
    for mood, chance in ((False, 0.2), (True, 0.6)):
        found = [s for s, h in zip(sounds, hidden, strict=True) if h["hurried"] == mood]
        assert np.mean(found) == pytest.approx(chance, abs=4 * math.sqrt(0.24 / len(found)))
    cells = Counter((h["place"], h["pace"], s) for h, s in zip(hidden, sounds, strict=True))
    for s in (True, False):
        assert chisquare([n for key, n in cells.items() if key[2] == s]).pvalue > 1e-4


def test_a_conversation_does_not_depend_on_its_neighbours():
    said = [ASK, "what?", SOOTHE, "Loud or quiet?", "I offer the sea, it is quiet."]
    for seed in range(6):
        desk, crowd = TravelDesk(), TravelDesk()
        alone, beside = [desk.reset([0], [seed])[0]], [crowd.reset([9, 7], [5, seed])[1]]
        for text in said:
            alone.append(desk.step([0], [text])[0])
            crowd.reset([9], [6])
            beside.append(crowd.step([9, 7], [ASK, text])[1])
            if alone[-1].terminated:
                break
        assert beside == alone


def test_propensities_by_hand():
    """First turn: asks .55 / 2 + .05 / 2 = .3 each, offers .09 / 4 + .11 / 4 = .05 each.

    After "sea" and no word on pace, place asked last: asks .275 (place .325); two offers are likeliest,
    .0225 + .055 = .0775, the others .0225.
    """
    assert behavior_probabilities((0, 0), None) == pytest.approx([0.3, 0.3, 0.2, 0.05, 0.05, 0.05, 0.05])
    expected = [0.325, 0.275, 0.2, 0.0775, 0.0775, 0.0225, 0.0225]
    assert behavior_probabilities((2, 0), 0) == pytest.approx(expected)
    expected = [0.275, 0.325, 0.2, 0.0225, 0.0225, 0.0225, 0.1325]
    assert behavior_probabilities((-1, -3), 1) == pytest.approx(expected)


@given(st.tuples(st.integers(-7, 7), st.integers(-7, 7)), st.none() | st.integers(0, 1))
def test_propensities_sum_to_one(net, last):
    probabilities = behavior_probabilities(net, last)
    assert math.fsum(probabilities) == pytest.approx(1, abs=1e-12) and min(probabilities) > 0


def _logp_of_wording(act, text):
    """Summed over all starts and templates that fit: all fillings of a template are as likely."""
    total = 0.0
    for start, template in itertools.product(DESK.starts, DESK.templates[act]):
        if re.fullmatch(re.escape(start.lower()) + template.pattern(), text.lower()):
            total += template.weight / template.count() / len(DESK.starts)
    return math.log(total)


def test_logs_say_what_happened_with_exact_propensities():
    rows = list(travel_logs(400, 3, acts=True))
    silent = list(travel_logs(400, 3))
    for row, plain in zip(rows, silent, strict=True):
        net, last = [0, 0], None
        assert row["messages"][0]["act"] == OPENING.read(row["messages"][0]["content"])
        for m, other in zip(row["messages"][1:], plain["messages"][1:], strict=True):
            assert other == {k: v for k, v in m.items() if k not in ("act", "act_logp")}
            if m["role"] == "user":
                assert m["act"] == GUEST.read(m["content"])
                if m["act"] in ANSWERS[:4]:
                    heard = ANSWERS.index(m["act"])
                    net[heard // 2] += 1 - 2 * (heard % 2)
                continue
            act = read_act(m["content"])
            assert str(act) == m["act"] == DESK.read(m["content"])
            p = behavior_probabilities(net, last)[ACTS.index(act)]
            assert m["act_logp"] == pytest.approx(math.log(p), abs=1e-12)
            logp = math.log(p) + _logp_of_wording(m["act"], m["content"])
            assert m["behavior_logp"] == pytest.approx(logp, abs=1e-9)
            last = ACTS.index(act) if ACTS.index(act) < 2 else last
    assert [r["outcome"] for r in rows] == [d.undiscounted_return() for d in read_logs(silent)]
    assert {d.rated_by for d in read_logs(silent)} == {"outcome"}
    assert list(travel_logs(40, 3)) == silent[:40] != list(travel_logs(40, 4))


def test_the_task_by_name_and_its_setting():
    task = find_task("travel", {"acts": True})
    assert task_called(task.words).words == task.words == "travel acts=true"
    assert next(task.rows(1, 0))["turnwise_task"] == "travel acts=true"
    assert find_task("travel").words == "travel"
    assert task.live().reset([0], [0])[0][0].act in ("at ease", "in a hurry")
    assert find_task("travel").live().reset([0], [0])[0][0].act is None
    with pytest.raises(SettingError, match=r"acts.*true or false"):
        TravelDesk(acts="yes")
