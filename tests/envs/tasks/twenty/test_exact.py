"""Values of the guessing game against hand arithmetic, slow twins and live conversations."""

import math
from functools import cache

import numpy as np
import pytest

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.grammar import draw
from turnwise.envs.tasks.twenty.exact import (
    ALL,
    OptimalAsker,
    behavior_value,
    cheapest,
    expert_turns,
    follow,
    optimal_value,
)
from turnwise.envs.tasks.twenty.logs import behavior_probabilities, contradicted, twenty_logs
from turnwise.envs.tasks.twenty.noisy import Expert, expert_acts, noisy_references, simulated
from turnwise.envs.tasks.twenty.rules import ACTS, GUESSES, NAMES, NOISE, TRUE, Act
from turnwise.envs.tasks.twenty.task import TwentyQuestions
from turnwise.envs.tasks.twenty.words import ASKER


def test_the_published_values():
    assert optimal_value() == pytest.approx(-4.5, abs=1e-12)
    assert behavior_value() == pytest.approx(-9.8856, abs=1e-4)
    assert np.mean(expert_turns()) == pytest.approx(4.5, abs=1e-12)


def test_few_things_by_hand():
    """Two: guess, .5. Three: guess, 2/3 (1 + .5) = 1. Four: split, 1 + .5, as good as 3/4 (1 + 1).

    2^k things that can be halved: k - 1 questions and a guess among two, k - .5: 4.5 of 32.
    """
    assert [cheapest(n, 12) for n in (1, 2, 3, 4, 8, 32)] == pytest.approx([0, 0.5, 1, 1.5, 2.5, 4.5])
    assert cheapest(2, 1) == 0.5 and cheapest(32, 1) == pytest.approx(31 / 32)
    assert optimal_value(1) == pytest.approx(-31 / 32)
    asker = OptimalAsker()
    three = sum(1 << NAMES.index(n) for n in ("cat", "cow", "rose"))
    assert asker.cost(three) == pytest.approx(1) and asker.cost(1) == 0


def test_the_optimum_meets_a_bound_that_no_table_beats():
    assert -optimal_value() == pytest.approx(cheapest(32, 12), abs=1e-12)


def test_against_a_slow_twin_without_bounds():
    """All acts of all branches, on sets of names, for seven things that are hard to tell apart."""
    few = frozenset(NAMES.index(n) for n in ("cat", "cow", "horse", "giraffe", "mouse", "frog", "bat"))

    @cache
    def cost(fits, left):
        if left == 0 or len(fits) == 1:
            return 0.0
        best = math.inf
        for k in range(14):
            yes = frozenset(o for o in fits if TRUE[o][k])
            if yes and yes != fits:
                parts = (yes, fits - yes)
                best = min(best, 1 + sum(len(s) * cost(s, left - 1) for s in parts) / len(fits))
        for o in fits:
            best = min(best, (len(fits) - 1) / len(fits) * (1 + cost(fits - {o}, left - 1)))
        return best

    for left in (1, 2, 3, 5, 12):
        assert OptimalAsker().cost(sum(1 << o for o in few), left) == pytest.approx(
            cost(few, left), abs=1e-12
        )


def test_one_turn_of_the_whimsical_asker_by_hand():
    """It hits with .35 / 32. In two turns: after an ask the sets that fit are of one attribute."""
    assert behavior_value(1) == pytest.approx(-1 + 0.35 / 32, abs=1e-12)
    hit = 0.35 / 32
    second = np.mean([
        [0.15 / 32 + 0.2 / sum(TRUE[o][k] == TRUE[t][k] for o in range(32)) for k in range(14)]
        for t in range(32)
    ])  # fmt: skip
    expected = -(1 - hit) - 0.65 * (1 - second) - (1 - 0.65 - hit) * (1 - hit)
    assert behavior_value(2) == pytest.approx(expected, abs=1e-12)


def _returns(task, choose, conversations):
    returns = []
    for seed in range(conversations):
        history, total, rng = list(task.reset([0], [seed])[0]), 0.0, np.random.default_rng([seed, 9])
        while True:
            text = ASKER.say(str(choose(history, rng)), rng).text
            (response,) = task.step([0], [text])
            total += response.reward
            history += [Message("assistant", text), *response.messages]
            if response.terminated:
                break
        returns.append(total)
    return np.mean(returns), np.std(returns) / math.sqrt(conversations)


def test_optimum_is_what_the_optimal_asker_earns_in_conversation():
    """400 conversations through the text alone, within 3 standard errors."""
    player = OptimalAsker()
    mean, error = _returns(TwentyQuestions(), lambda history, _: player.act(history), 400)
    assert error < 0.06 and mean == pytest.approx(-4.5, abs=3 * error)


def test_logs_earn_the_behavior_value():
    """1,000 logs, within 3 standard errors."""
    returns = [sum(m.get("reward", 0) for m in row["messages"]) for row in twenty_logs(1000, 0)]
    error = np.std(returns) / math.sqrt(len(returns))
    assert np.mean(returns) == pytest.approx(behavior_value(), abs=3 * error)


def test_noisy_players_earn_in_conversation_what_was_simulated():
    """200 conversations each, through the text alone, within 3 standard errors."""

    def whim(history, rng):
        return ACTS[draw(behavior_probabilities(contradicted(follow(history)[0])), rng)]

    expert, behaviour = noisy_references()
    for choose, known in ((lambda h, _: Expert().act(h), expert), (whim, behaviour)):
        mean, error = _returns(TwentyQuestions(noisy=True), choose, 200)
        assert mean == pytest.approx(known.mean, abs=3 * error)
        assert known.low < known.mean < known.high < known.low + 0.1
    assert behaviour.mean < expert.mean < optimal_value()


def test_the_noisy_expert_by_hand():
    """Two things left, .9 and .1: it guesses the first. Nothing known: it asks what halves best."""
    against = np.full((1, 32), 40)
    against[0, :2] = 0, 1
    asks, which = expert_acts(against, np.zeros((1, 32), dtype=bool), 12)
    assert not asks[0] and which[0] == 0
    asks, which = expert_acts(np.zeros((1, 32)), np.zeros((1, 32), dtype=bool), 12)
    assert asks[0] and sum(row[which[0]] for row in TRUE) == 16
    assert Expert().act([]) == Act("ask", int(which[0]))
    assert NOISE == 0.1 and simulated(True, 50, 3).tolist() == simulated(True, 50, 3).tolist()


def test_history_is_read_from_answers_to_what_was_asked():
    history = [
        Message("user", "Guess what I have in mind!"),
        Message("assistant", "Is it metal?"),
        Message("user", "Oh, certainly not."),
        Message("assistant", "A cat?"),
        Message("user", "No."),
        Message("assistant", "Hello?"),
        Message("user", "It is Tuesday."),
    ]
    assert follow(history) == ([(7, False)], {0}, 3)
    assert OptimalAsker().act(history) in ACTS
    none_fits = [*history, Message("assistant", "Is it metal?"), Message("user", "Yes.")]
    assert OptimalAsker().act(none_fits) in (*ACTS, *GUESSES)


def test_numbers_outside_the_game_are_refused():
    with pytest.raises(ValueError, match="horizon"):
        OptimalAsker(horizon=0)
    assert ALL == 2**32 - 1
