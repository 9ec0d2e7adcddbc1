"""Exact values of the travel desk against hand arithmetic, a slow twin, limits, and live conversations."""

import math

import numpy as np
import pytest

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.travel import rules
from turnwise.envs.tasks.travel.desk import DESK
from turnwise.envs.tasks.travel.exact import (
    OptimalDesk,
    behavior_value,
    follow,
    guess_value,
    optimal_value,
)
from turnwise.envs.tasks.travel.logs import travel_logs
from turnwise.envs.tasks.travel.rules import ACTS
from turnwise.envs.tasks.travel.task import TravelDesk


def test_the_published_values():
    assert optimal_value() == pytest.approx(0.5572, abs=1e-4)
    assert behavior_value() == pytest.approx(-0.1196, abs=1e-4)
    assert guess_value() == -0.125


def test_one_turn_by_hand():
    """An offer at once: (-1 - 2 * .25 + 1) / 4 = -.125, better than -.5.

    The whimsical desk makes one with .2, and any is likeliest: .2 * -.125 - .8 * .5 = -.425.
    """
    assert optimal_value(horizon=1) == pytest.approx(-0.125, abs=1e-15)
    assert behavior_value(horizon=1) == pytest.approx(-0.425, abs=1e-15)


def test_two_turns_by_hand():
    """After an answer about one of them it is right with .85, the other with .5, and an offer pays
    (.425 - .25 * .5 - .075) = .225; after a grumble -.125. Left at once: .02, or .2; grumbles .05, or .4.

    At ease, .02 * -.5 + .98 * (.95 * .225 + .05 * -.125) = .19335; in a hurry, .2 * -.5 + .8 * (.6 * .225
    + .4 * -.125) = -.032. On average above -.125 however the guest sounds, so the mean is the value.
    """
    assert optimal_value(horizon=2) == pytest.approx((0.19335 - 0.032) / 2, abs=1e-12)


def test_limits():
    """Useless answers: an offer at once is best. Nearly sure ones, more turns: worth more."""
    assert optimal_value(reliability=0.5) == pytest.approx(-0.125, abs=1e-12)
    values = [optimal_value(reliability=r) for r in (0.5, 0.75, 0.85, 0.95, 1 - 1e-9)]
    assert values == sorted(values) and values[-1] < 1
    assert [optimal_value(horizon=h) for h in range(1, 9)] == sorted(
        optimal_value(horizon=h) for h in range(1, 9)
    )


def _says():
    """[act][answer] -> [8, 8]: P(stays, answers so, state after | state), the rules said plainly."""
    states = [(x, q, m) for x in (0, 1) for q in (0, 1) for m in (0, 1)]
    found = []
    for act in ("ask place", "ask pace", "soothe", "none"):
        answers = {}
        for i, (x, q, m) in enumerate(states):
            stays = 1 - (rules.LEAVES_SOOTHED if act == "soothe" else rules.LEAVES)[m]
            for n in (0, 1):
                j = states.index((x, q, n))
                if act == "soothe":
                    move = (n == 0) if m == 0 else (0.8 if n == 0 else 0.2)
                    calm = rules.SOUNDS_CALM[n]
                    parts = {"calm": calm, "grumble": 1 - calm}
                else:
                    move = (n == 1) if m == 1 else (0.15 if n == 1 else 0.85)
                    g = rules.GRUMBLES[m]
                    truth = x if act == "ask place" else q
                    parts = {"grumble": g, truth: (1 - g) * 0.85, 1 - truth: (1 - g) * 0.15}
                    parts = {"confused": 1.0} if act == "none" else parts
                for answer, p in parts.items():
                    answers.setdefault(answer, np.zeros((8, 8)))[i, j] += stays * move * p
        found.append(answers)
    return states, found


@pytest.mark.parametrize("horizon", [2, 3, 4])
def test_against_a_slow_twin_on_beliefs(horizon):
    """The same game with no nets and no lines: Bayes' rule on all eight hidden states, the whole tree."""
    states, says = _says()
    pays = np.array(
        [[(-1, -0.25, 1)[(x == a) + (q == b)] for x, q, _ in states] for a in (0, 1) for b in (0, 1)]
    )

    def value(weights, left):
        """Of a belief times its probability."""
        if left == 0:
            return -0.5 * weights.sum()
        best = (pays @ weights).max()
        for answers in says:
            after = [weights @ matrix for matrix in answers.values()]
            stays = sum(a.sum() for a in after)
            best = max(best, -0.5 * (weights.sum() - stays) + sum(value(a, left - 1) for a in after))
        return best

    start = [np.array([s if sounds else 1 - s for _, _, m in states for s in [(0.2, 0.6)[m]]]) / 8
             for sounds in (True, False)]  # fmt: skip
    assert optimal_value(horizon=horizon) == pytest.approx(sum(value(w, horizon) for w in start), abs=1e-12)


def test_optimum_is_what_the_optimal_desk_earns_in_conversation():
    """1,500 conversations through the text alone; within 3 standard errors, which are below .02."""
    player, task, rng = OptimalDesk(), TravelDesk(), np.random.default_rng(5)
    returns = []
    for seed in range(1500):
        history = list(task.reset([0], [seed])[0])
        while True:
            text = DESK.say(str(player.act(history)), rng).text
            (response,) = task.step([0], [text])
            history += [Message("assistant", text), *response.messages]
            if response.terminated:
                break
        returns.append(response.reward)
    error = np.std(returns) / math.sqrt(len(returns))
    assert error < 0.02
    assert np.mean(returns) == pytest.approx(optimal_value(), abs=3 * error)


def test_logs_earn_the_behavior_value():
    """Mean outcome of 4,000 logs within 3 standard errors of the exact value."""
    outcomes = [row["outcome"] for row in travel_logs(4000, 0)]
    error = np.std(outcomes) / math.sqrt(len(outcomes))
    assert np.mean(outcomes) == pytest.approx(behavior_value(), abs=3 * error)


def test_history_is_read_from_the_guest_only_and_the_mood_by_bayes():
    """Sounds hurried: .6 / .8 = 3/4.

    Then a grumble at a question: in a hurry it stays and grumbles with .8 * .4 = .32, at ease with .98 * .05
    = .049, and .15 of these are put into a hurry: (.75 * .32 + .25 * .049 * .15) / (.75 * .32 + .25 * .049).
    """
    history = [Message("user", "Hi, hurry, I do not like to talk about a trip.")]
    assert follow(history).hurried == pytest.approx(0.75, abs=1e-12)
    history += [
        Message("assistant", "I keep dreaming of the sea and the tide. Tell me, mountains or the sea?")
    ]
    history += [Message("user", "Please hurry, I have no time for more questions.")]
    belief = follow(history)
    assert belief.hurried == pytest.approx((0.24 + 0.0018375) / (0.24 + 0.01225), abs=1e-12)
    assert (belief.net, belief.turn) == ((0, 0), 1)
    history += [
        Message("assistant", "Mountains or the sea?"),
        Message("user", "My wife would not love the sea."),
    ]
    history += [Message("assistant", "Loud or quiet?"), Message("user", "It is Tuesday.")]
    assert (follow(history).net, follow(history).turn) == ((-1, 0), 3)
    assert OptimalDesk().act(history) in ACTS


@pytest.mark.parametrize("wrong", [{"reliability": 1.0}, {"reliability": 0.4}, {"horizon": 0}], ids=str)
def test_numbers_outside_the_game_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        optimal_value(**wrong)
