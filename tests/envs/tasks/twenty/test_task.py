"""The guessing game keeps its rules, and its logs are what they say they are."""

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
from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.twenty.exact import OptimalAsker, expert_turns
from turnwise.envs.tasks.twenty.logs import behavior_probabilities, contradicted, twenty_logs
from turnwise.envs.tasks.twenty.rules import ACTS, ATTRIBUTES, NAMES, NONE, TRUE, Act
from turnwise.envs.tasks.twenty.task import TwentyQuestions
from turnwise.envs.tasks.twenty.words import ANSWERER, ASKER, read_act
from turnwise.recipes.tasks import find_task, task_called
from turnwise.run.errors import SettingError


def test_the_table():
    """32 things of 14 attributes, all apart; every attribute is true of some and of others not."""
    assert (len(NAMES), len(ATTRIBUTES), len(ACTS)) == (32, 14, 46)
    assert len(set(TRUE)) == 32
    assert all(4 <= sum(column) <= 16 for column in zip(*TRUE, strict=True))
    assert TRUE[NAMES.index("horse")] == tuple(a in ("grows", "animal", "four legs", "large", "carries")
                                               for a in ATTRIBUTES)  # fmt: skip


def test_rewards_and_answers_by_hand():
    """Every turn costs 1 but the right guess; answers are true; a wrong guess gets a no."""
    for seed in range(40):
        task = TwentyQuestions(acts=True)
        (opening,) = task.reset([0], [seed])
        assert [m.act for m in opening] == ["opening"]
        thing = NAMES.index(task.hidden(0)["object"])
        for k, a in enumerate(ATTRIBUTES[:6]):
            (response,) = task.step([0], [ASKER.say(f"ask {a}", np.random.default_rng(seed)).text])
            assert response.messages[0].act == ("yes" if TRUE[thing][k] else "no")
            assert (response.reward, response.terminated, response.info["act"]) == (-1, False, f"ask {a}")
        (wrong, confused) = (task.step([0], [t])[0] for t in (f"Is it a {NAMES[thing - 1]}?", "Hello?"))
        assert wrong.messages[0].act == "no" and confused.messages[0].act == "confused"
        assert wrong.reward == confused.reward == -1 and not confused.info["read"]
        (right,) = task.step([0], [f"The {NAMES[thing].upper()}!"])
        assert (right.reward, right.terminated, right.info["success"]) == (0, True, True)
        assert right.info["measures"] == {"planning gap": 8 - expert_turns()[thing]}
        with pytest.raises(ValueError, match="lane 0: the conversation is over"):
            task.step([0], ["cat"])


def test_the_twelfth_turn_is_an_end():
    task = TwentyQuestions(acts=True)
    task.reset([3], [0])
    responses = [task.step([3], ["blah"])[0] for _ in range(12)]
    assert [r.terminated for r in responses] == [False] * 11 + [True]
    last = responses[-1]
    assert math.fsum(r.reward for r in responses) == -12 and last.messages[0].act == "over"
    thing = NAMES.index(task.hidden(3)["object"])
    assert (
        last.info["success"] is False and last.info["measures"]["planning gap"] == 12 - expert_turns()[thing]
    )


def test_noisy_answers_are_false_one_time_in_ten():
    """Of 4,000 lanes, 4 standard errors are .019. Guesses are never lied about."""
    task, lanes = TwentyQuestions(noisy=True, acts=True), list(range(4000))
    task.reset(lanes, lanes)
    things = [NAMES.index(task.hidden(lane)["object"]) for lane in lanes]
    said = [r.messages[0].act == "yes" for r in task.step(lanes, ["Does it fly?"] * 4000)]
    k = ATTRIBUTES.index("flies")
    assert np.mean([y != TRUE[o][k] for y, o in zip(said, things, strict=True)]) == pytest.approx(
        0.1, abs=0.02
    )
    responses = task.step(lanes, ["a cat"] * 4000)
    assert all(r.terminated == (NAMES[o] == "cat") for r, o in zip(responses, things, strict=True))
    assert not any("measures" in r.info for r in responses)
    assert chisquare(list(Counter(things).values())).pvalue > 1e-4


@pytest.mark.parametrize("grammar", [ASKER, ANSWERER], ids=["asker", "answerer"])
def test_no_two_ways_lead_to_one_sentence(grammar):
    """Else its probability would be a sum."""
    texts = Counter(
        (start + t.text.format(**dict(zip(t.names, chosen, strict=True)))).lower()
        for templates in grammar.templates.values()
        for start, t in itertools.product(grammar.starts, templates)
        for chosen in itertools.product(*(t.options(n) for n in t.names))
    )
    assert max(texts.values()) == 1
    assert texts.total() == sum(grammar.count(act) for act in grammar.templates)
    assert all(grammar.read(text) is not None for text in texts)


def test_everything_that_the_asker_says_is_read_as_it_was_meant():
    assert ASKER.count("ask wood") == 54 and ASKER.count("guess cat") == 30
    for act in ACTS:
        for start, t in itertools.product(ASKER.starts, ASKER.templates[str(act)]):
            for chosen in itertools.product(*(t.options(n) for n in t.names)):
                assert read_act(start + t.text.format(**dict(zip(t.names, chosen, strict=True)))) == act


def test_the_reader_by_hand():
    for text, act in {
        "CAT": "guess cat",
        "I bet it's a rowing boat": "guess rowing boat",
        "Are they pencils?": "guess pencil",
        "Wooden?": "ask wood",
        "Is it an edible thing?": "ask eaten",
        "Does it have 4 legs": "ask four legs",
        "Is it bigger than a cat?": "none",
        "Is it not an animal?": "none",
        "It isn't a car": "none",
        "cat or cow?": "none",
        "metal or wood?": "none",
        "caterpillar": "none",
        "": "none",
        "\x00 قطة 🐈": "none",
        "cat" * 9999: "none",
    }.items():
        assert str(read_act(text)) == act, text[:40]


@given(st.text())
def test_the_reader_is_total(text):
    assert read_act(text) in (*ACTS, NONE)


def test_propensities_by_hand():
    """First turn: .65 / 14 for each attribute; a guess .15 / 32 + .2 / 32. Of four things with wings that lay
    no eggs, one of (bat, aeroplane, kite, drone): .15 / 32 + .05."""
    p = behavior_probabilities([0] * 32)
    assert p == pytest.approx([0.65 / 14] * 14 + [0.35 / 32] * 32)
    heard = [(ATTRIBUTES.index("flies"), True), (ATTRIBUTES.index("eggs"), False)]
    p = dict(zip(map(str, ACTS), behavior_probabilities(contradicted(heard)), strict=True))
    assert {n for n in NAMES if p[f"guess {n}"] > 0.02} == {"bat", "aeroplane", "kite", "drone"}
    assert p["guess kite"] == pytest.approx(0.15 / 32 + 0.05) and p["guess cat"] == pytest.approx(0.15 / 32)


@given(st.lists(st.tuples(st.integers(0, 13), st.booleans()), max_size=12))
def test_propensities_sum_to_one(heard):
    probabilities = behavior_probabilities(contradicted(heard))
    assert math.fsum(probabilities) == pytest.approx(1, abs=1e-12) and min(probabilities) > 0


def _logp_of_wording(act, text):
    total = 0.0
    for start, template in itertools.product(ASKER.starts, ASKER.templates[act]):
        if re.fullmatch(re.escape(start.lower()) + template.pattern(), text.lower()):
            total += template.weight / template.count() / len(ASKER.starts)
    return math.log(total)


@pytest.mark.parametrize("noisy", [False, True])
def test_logs_say_what_happened_with_exact_propensities(noisy):
    rows = list(twenty_logs(80, 3, acts=True, noisy=noisy))
    silent = list(twenty_logs(80, 3, noisy=noisy))
    for row, plain in zip(rows, silent, strict=True):
        heard, act = [], NONE
        for m, other in zip(row["messages"], plain["messages"], strict=True):
            assert other == {k: v for k, v in m.items() if k not in ("act", "act_logp")}
            if m["role"] == "user":
                assert m["act"] == ANSWERER.read(m["content"])
                if act.kind == "ask" and m["act"] in ("yes", "no"):
                    heard.append((act.which, m["act"] == "yes"))
                continue
            act = read_act(m["content"])
            assert str(act) == m["act"]
            p = behavior_probabilities(contradicted(heard))[ACTS.index(act)]
            assert m["act_logp"] == pytest.approx(math.log(p), abs=1e-12)
            logp = math.log(p) + _logp_of_wording(m["act"], m["content"])
            assert m["behavior_logp"] == pytest.approx(logp, abs=1e-9)
        found = act == Act("guess", NAMES.index(row["object"]))
        assert row["terminated"] and row["success"] == found
        rewards = [m["reward"] for m in row["messages"] if m["role"] == "assistant"]
        assert rewards == [-1.0] * (len(rewards) - found) + [0.0] * found
    assert list(twenty_logs(10, 3, noisy=noisy)) == silent[:10] != list(twenty_logs(10, 4, noisy=noisy))
    assert all(d.terminated for d in read_logs(silent))


def test_conversations_do_not_depend_on_their_neighbours():
    task, crowd = TwentyQuestions(noisy=True), TwentyQuestions(noisy=True)
    alone, beside = [task.reset([0], [5])[0]], [crowd.reset([9, 7], [6, 5])[1]]
    for text in ("Is it an animal?", "what?", "Does it fly?"):
        alone.append(task.step([0], [text])[0])
        beside.append(crowd.step([9, 7], ["Is it metal?", text])[1])
    assert beside == alone


def test_the_task_by_name_and_its_settings():
    task = find_task("twenty", {"acts": True, "noisy": True})
    assert task_called(task.words).words == task.words == "twenty acts=true noisy=true"
    assert next(task.rows(1, 0))["turnwise_task"] == task.words
    assert task.live().reset([0], [0])[0][0].act == "opening"
    assert find_task("twenty").live().reset([0], [0])[0][0].act is None
    assert [r.role for r in find_task("twenty").references()] == ["optimum", "behaviour"]
    assert [r.role for r in task.references()] == ["baseline", "behaviour"]
    for key in ("acts", "noisy", "unseen_wordings"):
        with pytest.raises(SettingError, match=key):
            TwentyQuestions(**{key: 1})


def test_unseen_wordings_stand_in_no_log():
    logged = {m["content"] for r in TwentyQuestions(unseen_wordings=True).rows(300, 0) for m in r["messages"]}
    task, lanes = TwentyQuestions(unseen_wordings=True), list(range(400))
    task.reset(lanes, lanes)
    answers = [r.messages[0].content for r in task.step(lanes, ["Is it an animal?"] * 400)]
    assert 0.35 < np.mean([a not in logged for a in answers]) < 0.65


def test_the_optimal_asker_has_no_planning_gap():
    task, player = TwentyQuestions(), OptimalAsker()
    gaps = []
    for seed in range(60):
        history = list(task.reset([0], [seed])[0])
        while True:
            text = ASKER.say(str(player.act(history)), np.random.default_rng(seed)).text
            (response,) = task.step([0], [text])
            history += [Message("assistant", text), *response.messages]
            if response.terminated:
                break
        gaps.append(response.info["measures"]["planning gap"])
    assert set(gaps) == {0.0}
