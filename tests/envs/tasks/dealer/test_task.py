"""The car dealer's buyer and tool keep the rules, and its logs are what they say they are."""

import math
import re
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare

from turnwise.data.dialogue import spoken
from turnwise.data.files.logs import read_logs
from turnwise.envs.dialogue import ToolCall
from turnwise.envs.tasks.dealer.buyer import BUYER, HALF, OPENING
from turnwise.envs.tasks.dealer.logs import AFTER, HABITS, behavior_probabilities, dealer_logs
from turnwise.envs.tasks.dealer.reading import read_act
from turnwise.envs.tasks.dealer.rules import ACTS, LOOK_UP, PERSONAS, PURSES, WISHES
from turnwise.envs.tasks.dealer.seller import SELLER
from turnwise.envs.tasks.dealer.task import CarDealer
from turnwise.recipes.tasks import find_task, task_called
from turnwise.run.errors import SettingError

PITCH, REBATE, LOOK = "Imagine the engine, like silk.", "You get a discount from me.", "call look_up({})"
BUDGET = "What is your budget?"
QUOTES = [f"The {car}." for car in ("hatchback", "saloon", "estate", "roadster")]


def test_a_sale_earns_the_price_less_what_it_took():
    """A quote that is not too high sells a car that is there, and loses the deal if it is not."""
    kinds = Counter()
    for seed in range(120):
        task = CarDealer(acts=True)
        task.reset([0, 1, 2, 3], [seed] * 4)
        truth = task.hidden(0)
        for lane, response in enumerate(task.step([0, 1, 2, 3], QUOTES)):
            price = lane + 1
            takes, there = price <= truth["budget"], price <= truth["dearest"]
            act = response.messages[-1].act
            assert response.reward == (price if takes and there else 0.0)
            assert act in ((("misses", "buys")[there],) if takes else ("too dear", "leaves"))
            assert response.terminated == (act != "too dear")
            kinds[act] += 1
    assert set(kinds) == {"buys", "misses", "too dear", "leaves"}
    with pytest.raises(ValueError, match="lane 0: the conversation is over"):
        task.step([0], ["hello"])


def test_what_moves_a_buyer_adds_one_once_and_is_paid_for():
    """A pitch moves dreamers, a discount hunters; two of each cost .9 and move no further."""
    seen = set()
    for seed in range(400):
        task = CarDealer(acts=True)
        task.reset([0], [seed])
        truth, said, over = task.hidden(0), [], False
        for text in (PITCH, REBATE, PITCH, REBATE):
            (response,) = task.step([0], [text])
            over |= response.terminated
            if over:
                break
            said.append(response.messages[0].act)
        if over:
            continue
        moved = {"hunter": [False, True] * 2, "dreamer": [True, False] * 2, "plain": [False] * 4}
        assert [s == "warms" for s in said] == moved[truth["persona"]]
        pays = truth["budget"] + (truth["persona"] != "plain")
        if pays < 4:
            (response,) = task.step([0], [QUOTES[pays]])  # one too many
            assert response.messages[0].act in ("too dear", "leaves") and response.reward == 0
            over = response.terminated
        if not over:
            (response,) = task.step([0], [QUOTES[pays - 1]])
            there = pays <= truth["dearest"]
            assert response.reward == pytest.approx(pays - 0.8 - 0.1 if there else 0)
            seen.add((truth["persona"], there))
    assert len(seen) >= 5


def test_the_tool_answers_a_call_and_the_eighth_turn_ends_it():
    """A look is a turn like any other; who leaves during one has shown what was there."""
    ends = Counter()
    for seed in range(60):
        task = CarDealer(acts=True)
        task.reset([0], [seed])
        dearest = task.hidden(0)["dearest"]
        for turn in range(1, 9):
            (response,) = task.step([0], [f"Let me see.\n{LOOK}" if turn % 2 else "blah"])
            assert response.info["read"] == (turn % 2 == 1) and response.reward == 0
            shown, *rest = response.messages
            if turn % 2:
                assert (shown.role, shown.name, shown.tool_call_id) == ("tool", "look_up", f"call{turn:05d}")
                assert shown.act == f"stock {dearest}"
            if response.terminated:
                assert response.messages[-1].act == "leaves" and response.info["success"] is False
                break
            assert rest == [] and shown.act == (f"stock {dearest}" if turn % 2 else "confused")
        ends[turn] += 1
    assert ends[8] > 35  # .97 ** 7 of them stay so long
    (response,) = _after(seed=3, said=['look_up({"car": "roadster"})'])
    assert set(response.messages[0].act.removeprefix("stock ").split("/")) in ({"4"}, {"2", "3"})


def _after(seed, said):
    task = CarDealer(acts=True)
    task.reset([0], [seed])
    return [task.step([0], [text])[0] for text in said]


def test_chances_of_answers_and_of_leaving():
    """Margins of 4 standard errors of some 1,300 to 4,000 buyers each: below .04."""
    lanes = list(range(4000))

    def first(text):
        task = CarDealer(acts=True)
        task.reset(lanes, lanes)
        truth = [task.hidden(lane) for lane in lanes]
        return truth, [r.messages[-1].act for r in task.step(lanes, [text] * len(lanes))]

    truth, heard = first(BUDGET)
    stayed = [(t["budget"], h) for t, h in zip(truth, heard, strict=True) if h != "leaves"]
    assert 1 - len(stayed) / 4000 == pytest.approx(0.03, abs=0.011)
    assert np.mean([PURSES[b - 1] == h for b, h in stayed]) == pytest.approx(0.85, abs=0.023)
    wrong = Counter(h for b, h in stayed if b == 2 and h != PURSES[1])
    assert chisquare(list(wrong.values())).pvalue > 1e-4
    shares = np.bincount([t["budget"] for t in truth]) / 4000
    assert shares[1:] == pytest.approx([0.4, 0.2, 0.4], abs=0.03)
    cells = Counter((t["persona"], t["dearest"]) for t in truth)
    assert len(cells) == 9 and chisquare(list(cells.values())).pvalue > 1e-4
    truth, heard = first("What do you look for?")
    told = [(t["persona"], h) for t, h in zip(truth, heard, strict=True) if h in WISHES]
    right = [WISHES[PERSONAS.index(p)] == h for p, h in told]
    assert np.mean(right) == pytest.approx(0.85, abs=0.023)
    for text, chances in ((PITCH, (0.15, 0.03, 0.28)), (REBATE, (0.03, 0.15, 0.28))):
        truth, heard = first(text)
        for persona, chance in zip(PERSONAS, chances, strict=True):
            left = [h == "leaves" for t, h in zip(truth, heard, strict=True) if t["persona"] == persona]
            assert np.mean(left) == pytest.approx(chance, abs=4 * math.sqrt(0.21 / len(left)))
    truth, heard = first(QUOTES[3])
    assert np.mean([h == "leaves" for h in heard]) == pytest.approx(0.4, abs=0.032)


def test_a_conversation_does_not_depend_on_its_neighbours():
    said = [BUDGET, "what?", LOOK, PITCH, *QUOTES[::-1]]
    for seed in range(5):
        task, crowd = CarDealer(), CarDealer()
        alone, beside = [task.reset([0], [seed])[0]], [crowd.reset([9, 7], [5, seed])[1]]
        for text in said:
            alone.append(task.step([0], [text])[0])
            crowd.reset([9], [6])
            beside.append(crowd.step([9, 7], [PITCH, text])[1])
            if alone[-1].terminated:
                break
        assert beside == alone


def test_habits_are_probabilities_and_do_not_listen():
    for row in HABITS:
        assert math.fsum(row) == pytest.approx(1, abs=1e-12) and min(row) > 0 and len(row) == len(ACTS)
    assert set(AFTER) == {act.kind for act in ACTS}
    assert behavior_probabilities(None) == HABITS[0]
    assert {behavior_probabilities(act) for act in ACTS} == set(HABITS[1:])


def _logp_of_wording(message):
    """Summed over all starts and templates that fit: all fillings of a template are as likely."""
    if "tool_calls" in message:
        return -math.log(4 * 3)  # leads and ways to ask for all cars
    total = 0.0
    for start in SELLER.starts:
        for template in SELLER.templates[message["act"]]:
            if re.fullmatch(re.escape(start.lower()) + template.pattern(), message["content"].lower()):
                total += template.weight / template.count() / len(SELLER.starts)
    return math.log(total)


def test_logs_say_what_happened_with_exact_propensities():
    rows, silent = list(dealer_logs(300, 3, acts=True)), list(dealer_logs(300, 3))
    dialogues = read_logs(silent)
    calls = 0
    for row, plain, read in zip(rows, silent, dialogues, strict=True):
        last = None
        assert OPENING.read(row["messages"][0]["content"]) == row["messages"][0]["act"]
        for k, (m, other) in enumerate(zip(row["messages"], plain["messages"], strict=True)):
            assert other == {key: v for key, v in m.items() if key not in ("act", "act_logp")}
            if k and m["role"] == "user":
                assert m["act"] == BUYER.read(m["content"])
            if m["role"] == "tool":
                call = row["messages"][k - 1]["tool_calls"][0]
                assert (m["tool_call_id"], m["name"]) == (call["id"], call["function"]["name"])
                assert m["act"] == f"stock {row['dearest']}"
                calls += 1
            if m["role"] != "assistant":
                continue
            act = read_act(spoken(read.messages[k]))  # as the live task is given it
            assert str(act) == m["act"] and (act == LOOK_UP) == ("tool_calls" in m)
            p = behavior_probabilities(last)[ACTS.index(act)]
            assert m["act_logp"] == pytest.approx(math.log(p), abs=1e-12)
            assert m["behavior_logp"] == pytest.approx(math.log(p) + _logp_of_wording(m), abs=1e-9)
            last = act
        assert row["success"] == (row["messages"][-1]["act"] == "buys")
    assert calls > 50
    assert [r["outcome"] for r in rows] == [d.undiscounted_return() for d in dialogues]
    assert {d.rated_by for d in dialogues} == {"outcome"}
    assert list(dealer_logs(40, 3)) == silent[:40] != list(dealer_logs(40, 4))
    first = next(m for d in dialogues for m in d.messages if m.tool_calls)
    assert isinstance(first.tool_calls[0], ToolCall) and first.tool_calls[0].name == "look_up"


def test_half_of_the_words_stand_in_no_log_and_are_spoken_live():
    task = CarDealer(unseen_wordings=True)
    logged = {m["content"] for row in task.rows(300, 5) for m in row["messages"][1:] if m["role"] == "user"}
    assert all(HALF.read(text) for text in logged)
    lanes = list(range(600))
    task.reset(lanes, lanes)
    heard = [r.messages[-1].content for r in task.step(lanes, [BUDGET] * 600)]
    assert 0.4 < np.mean([HALF.read(text) is None for text in heard]) < 0.6


def test_the_task_by_name_and_its_settings():
    task = find_task("dealer", {"acts": True, "unseen_wordings": True})
    assert task_called(task.words).words == task.words == "dealer acts=true unseen_wordings=true"
    assert next(task.rows(1, 0))["turnwise_task"] == task.words
    assert task.live().reset([0], [0])[0][0].act == "comes in"
    assert find_task("dealer").live().reset([0], [0])[0][0].act is None
    assert task.known("behaviour") < task.known("baseline") < task.known("optimum")
    for key in ("acts", "unseen_wordings"):
        with pytest.raises(SettingError, match=rf"{key}.*true or false"):
            CarDealer(**{key: "yes"})
