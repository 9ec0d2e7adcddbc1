"""Exact values of the car dealer against hand arithmetic, a slow twin, and live conversations."""

import math

import numpy as np
import pytest

from turnwise.envs.dialogue import Message, ToolCall
from turnwise.envs.tasks.dealer import rules
from turnwise.envs.tasks.dealer.belief import EXCLUDED, GONE, PURSE, WISH, buyers, follow, stocks
from turnwise.envs.tasks.dealer.exact import (
    OptimalSeller,
    behavior_value,
    improved_value,
    optimal_value,
    quote_value,
)
from turnwise.envs.tasks.dealer.logs import behavior_probabilities, dealer_logs
from turnwise.envs.tasks.dealer.rules import ACTS, NONE, Act
from turnwise.envs.tasks.dealer.seller import say
from turnwise.envs.tasks.dealer.task import CarDealer


def test_the_published_values():
    assert optimal_value() == pytest.approx(1.8871, abs=1e-4)
    assert improved_value() == pytest.approx(1.4400, abs=1e-4)
    assert behavior_value() == pytest.approx(0.9104, abs=1e-4)


def test_one_step_of_improvement_stops_short_of_the_optimum():
    """What the logs are for: it leaves more than a quarter of the way."""
    left = optimal_value() - improved_value()
    assert left / (optimal_value() - behavior_value()) > 0.4


def test_one_turn_by_hand():
    """Everybody pays 1, .6 pay 2, .4 pay 3, and the estate is there in two cases of three. Nobody pays 4.

    The seller of habits offers them with .05, .10, .06 and .04: .05 + .12 + .048.
    """
    assert [quote_value(k) for k in (1, 2, 3, 4)] == pytest.approx([1.0, 1.2, 0.8, 0.0], abs=1e-12)
    assert optimal_value(horizon=1) == pytest.approx(1.2, abs=1e-12)
    assert behavior_value(horizon=1) == pytest.approx(0.218, abs=1e-12)


def test_two_turns_by_hand():
    """Ask for the budget, then: after "little" (.385) 1 for sure; after "some" (.23) 2 from .17 + .03; after
    "much" (.385) 2 from .34 + .015, for 3 * 2/3 * .34 is less. .97 stay: .97 * (.385 + .4 + .71)."""
    assert optimal_value(horizon=2) == pytest.approx(0.97 * 1.495, abs=1e-12)


class Twin:
    """The same game over all 27 hidden states, Bayes' rule and the whole tree, the rules said plainly."""

    states = tuple((p, b, s) for p in range(3) for b in (1, 2, 3) for s in (2, 3, 4))
    start = np.array([{1: 0.4, 2: 0.2, 3: 0.4}[b] / 9 for _, b, _ in states])

    def ways(self, act, pitches, discounts):
        """(earned [27], {answer: P(stays and answers so) [27]})."""
        earned, answers = np.zeros(27), {}
        for i, (p, b, s) in enumerate(self.states):
            if act.kind == "quote":
                worth = b + (p == 0 and discounts > 0) + (p == 1 and pitches > 0)
                if act.price <= worth:
                    earned[i] = (act.price <= s) * (act.price - 0.4 * discounts - 0.05 * pitches)
                    continue
                said, stays = {"too dear": 1.0}, 0.6
            elif act.kind in ("pitch", "discount"):
                said = {"warms" if p == (act.kind == "pitch") and p < 2 else "shrugs": 1.0}
                stays = 1 - (0.15, 0.03, 0.28)[p] if act.kind == "pitch" else 1 - (0.03, 0.15, 0.28)[p]
            else:
                stays = 0.97
                true = {"ask wishes": p, "ask budget": b - 1, "look up": s, "none": 0}[act.kind]
                if act.kind in ("look up", "none"):
                    said = {true: 1.0}
                else:
                    said = {k: 0.85 if k == true else 0.075 for k in range(3)}
            for answer, chance in said.items():
                answers.setdefault(answer, np.zeros(27))[i] = stays * chance
        return earned, answers

    def action_values(self, weights, last, pitches, discounts, turns, policy):
        """Q times the probability of coming here, of each act."""
        found = []
        for act in (*ACTS, NONE) if policy == "best" else ACTS:
            earned, answers = self.ways(act, pitches, discounts)
            n, d = pitches + (act.kind == "pitch"), discounts + (act.kind == "discount")
            q = float(weights @ earned)
            if turns > 1:
                q += sum(self.value(weights * a, act, n, d, turns - 1, policy) for a in answers.values())
            found.append(q)
        return found

    def value(self, weights, last, pitches, discounts, turns, policy):
        q = self.action_values(weights, last, pitches, discounts, turns, policy)
        if policy == "best":
            return max(q)
        if policy == "habits":
            return sum(p * x for p, x in zip(behavior_probabilities(last), q, strict=True))
        greedy = self.action_values(weights, last, pitches, discounts, turns, "habits")
        return q[int(np.argmax(np.round(greedy, 12)))]


@pytest.mark.parametrize(
    ("policy", "exact", "horizon"),
    [
        ("best", optimal_value, 3),
        ("habits", behavior_value, 2),
        ("improved", improved_value, 2),
    ],
)
def test_against_a_slow_twin(policy, exact, horizon):
    """What nobody understands is one of the acts of the best, and never better."""
    found = Twin().value(Twin.start, None, 0, 0, horizon, policy)
    assert exact(horizon=horizon) == pytest.approx(found, abs=1e-12)


def test_more_turns_are_worth_more():
    values = [optimal_value(horizon=h) for h in range(1, 6)]
    assert values == sorted(values) and len(set(values)) == 5
    with pytest.raises(ValueError, match="horizon"):
        OptimalSeller(horizon=0)


def test_optimum_is_what_the_optimal_seller_earns_in_conversation():
    """1,200 conversations through the text alone; within 3 standard errors, which are below .04."""
    player, task, rng = OptimalSeller(), CarDealer(), np.random.default_rng(5)
    returns, tools = [], 0
    for seed in range(1200):
        history = list(task.reset([0], [seed])[0])
        while True:
            text = say(player.act(history), rng).text
            (response,) = task.step([0], [text])
            history += [Message("assistant", text), *response.messages]
            if response.terminated:
                break
        returns.append(response.reward)
        tools += any(m.role == "tool" for m in history)
    error = np.std(returns) / math.sqrt(len(returns))
    assert error < 0.04
    assert np.mean(returns) == pytest.approx(optimal_value(), abs=3 * error)
    assert tools > 400  # the best seller looks at the stock


def test_logs_earn_the_behavior_value():
    """Mean outcome of 2,500 logs within 3 standard errors of the exact value."""
    outcomes = [row["outcome"] for row in dealer_logs(2500, 0, halved=True)]
    error = np.std(outcomes) / math.sqrt(len(outcomes))
    assert np.mean(outcomes) == pytest.approx(behavior_value(), abs=3 * error)


def user(text):
    return Message("user", text)


def agent(text):
    return Message("assistant", text)


def test_the_belief_by_hand():
    """A pitch that warms is made to a dreamer; who then finds 3 too dear pays 1 more than a budget of 1.

    "Plenty" before that: .85 for much, .075 for the others, of which only little is left.
    """
    talk = [
        user("Hello, is anybody here?"),
        agent("What can you afford?"),
        user("Honestly, money is no worry."),
        agent("Imagine the paint, like silk."),
        user("Well, you have me smiling."),
        agent("The estate is three thousand."),
        user("I cannot go so high."),
    ]
    row, turn = follow(talk)
    assert turn == 3
    assert buyers(row)[0].tolist() == [0, 0, 0, 1, 0, 0, 0, 0, 0]
    row, _ = follow(talk[:3])
    weights = np.array([0.4 * 0.075, 0.2 * 0.075, 0.4 * 0.85])
    assert buyers(row)[0] == pytest.approx(np.tile(weights / weights.sum() / 3, 3), abs=1e-12)
    row, _ = follow(talk[:5])
    assert buyers(row)[0, 3:6] == pytest.approx(weights / weights.sum(), abs=1e-12)


def test_a_call_may_be_words_or_structure_and_its_result_rules_stocks_out():
    call = ToolCall("call00001", "look_up", '{"cars": ["estate"]}')
    said = Message("assistant", "One moment.", tool_calls=(call,))
    for message in (said, agent('call look_up({"cars": ["estate"]})')):
        for text, left in (
            ('{"in stock": ["estate"], "sold": []}', [0, 0.5, 0.5]),
            ('{"in stock": [], "sold": ["estate"]}', [1, 0, 0]),
            ("the server is down", [1 / 3] * 3),
        ):
            row, turn = follow([user("Hi"), message, Message("tool", text, name="look_up")])
            assert turn == 1 and stocks(row)[0] == pytest.approx(left, abs=1e-12)
    # The best seller goes on from what it would never have done.
    assert OptimalSeller().act([user("Hi"), said, Message("tool", "?"), agent("hm"), user("What?")]) in ACTS


def test_what_cannot_be_changes_nothing():
    """Two looks that contradict each other, and a buyer who warms to everything."""
    shelves = ['{"in stock": ["roadster"], "sold": []}', '{"in stock": [], "sold": ["estate"]}']
    talk = [user("Hi")]
    for text in shelves:
        talk += [agent("call look_up({})"), Message("tool", text)]
    row, _ = follow(talk)
    assert stocks(row)[0].tolist() == [0, 0, 1]
    warm = [agent("Imagine the paint."), user("Now I am all ears."), agent("A rebate."), user("Is that all?")]
    row, _ = follow([*talk, *warm, *warm, agent("Imagine the paint."), user("Is that all?")])
    assert buyers(row)[0].reshape(3, 3).sum(1).tolist() == [0, 1, 0]
    row, turn = follow([user("Hi"), *[agent("What can you afford?"), user("I count every penny.")] * 20])
    assert turn == 20 and row[0, PURSE].max() < rules.HORIZON and row[0, WISH].max() == 0
    assert OptimalSeller().act([user("Hi"), *[agent("hm"), user("?")] * 20]) in ACTS
    assert row[0, [EXCLUDED, GONE]].tolist() == [0, 0]


def test_the_best_seller_knows_when_it_is_done():
    """Known: a dreamer whom a pitch moved, with much to spend, and a roadster on the lot: 4."""
    talk = [
        user("Hi, what have you got out there?"),
        agent("Imagine the engine, like silk."),
        user("Oh, that sounds wonderful."),
        *[agent("What is your budget?"), user("Money is no worry.")] * 2,
        agent("call look_up({})"),
        Message("tool", '{"in stock": ["hatchback", "saloon", "estate", "roadster"], "sold": []}'),
    ]
    assert OptimalSeller().act(talk) == Act("quote", 4)
