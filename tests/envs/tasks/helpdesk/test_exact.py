"""Exact values of HelpDesk against hand arithmetic, a slow twin, limits, and live conversations."""

import math
from functools import cache

import numpy as np
import pytest

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.helpdesk.exact import (
    OptimalDesk,
    behavior_value,
    filtered_value,
    improved_value,
    net_answers,
    optimal_value,
)
from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs
from turnwise.envs.tasks.helpdesk.rules import ACTS, PARTS
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.envs.tasks.helpdesk.words import pick, wordings


def test_the_published_optimum():
    assert optimal_value() == pytest.approx(0.5675, abs=1e-4)
    assert optimal_value(horizon=9) == pytest.approx(0.582, abs=5e-4)


def test_short_horizons_by_hand():
    """One turn: a fix pays 2/4 - 1 = -.5, a test -.05.

    Two turns: "broken" has probability .25*.85 + .75*.15 = .325 and then P(fault) = .2125/.325, a fix
    pays .1/.325; after "fine" another part has P = .2125/.675, a fix pays -.37, so -.05 by a test.
    V = -.05 + .325 * .1/.325 - .675 * .05 = .01625.
    """
    assert optimal_value(horizon=1) == pytest.approx(-0.05, abs=1e-15)
    assert optimal_value(horizon=2) == pytest.approx(0.01625, abs=1e-15)


def test_limits():
    """Useless answers: test in vain (8 * .05) or fix at once (-.5). No future: the better first reward."""
    assert optimal_value(reliability=0.5) == pytest.approx(-0.4)
    assert optimal_value(reliability=0.5, test_cost=0.1) == pytest.approx(-0.5)
    assert optimal_value(discount=0.0) == pytest.approx(-0.05)
    assert optimal_value(horizon=2, discount=0.5) == pytest.approx(-0.05 + 0.5 * (0.1 - 0.675 * 0.05))
    # With answers that hardly err, test part after part: 1, 2 or 3 tests (the last one by exclusion).
    assert optimal_value(reliability=1 - 1e-9) == pytest.approx(1 - 0.05 * (1 + 2 + 3 + 3) / 4, abs=1e-6)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_against_a_slow_twin_on_beliefs(discount):
    """The same game with no symmetry and no counts: Bayes' rule on the belief, the whole tree."""
    r = 0.85

    def value(belief, left):
        if left == 0:
            return 0.0
        best = 2 * max(belief) - 1
        for k in range(4):
            total = -0.05
            for says_broken in (True, False):
                joint = [b * (r if (j == k) == says_broken else 1 - r) for j, b in enumerate(belief)]
                p = math.fsum(joint)
                total += discount * p * value([x / p for x in joint], left - 1)
            best = max(best, total)
        return best

    assert optimal_value(discount, horizon=5) == pytest.approx(value([0.25] * 4, 5), abs=1e-12)


@pytest.mark.parametrize("discount", [1.0, 0.95])
def test_optimum_is_what_the_optimal_desk_earns_in_conversation(discount):
    """4,000 conversations through the text alone; within 3 standard errors."""
    player, task, rng = OptimalDesk(discount), HelpDesk(), np.random.default_rng(5)
    returns = []
    for seed in range(4000):
        history = list(task.reset([0], [seed])[0])
        total, weight, over = 0.0, 1.0, False
        while not over:
            text = pick(wordings(player.act(history)), rng)
            (response,) = task.step([0], [text])
            total, weight, over = total + weight * response.reward, weight * discount, response.terminated
            history += [Message("assistant", text), *response.messages]
        returns.append(total)
    error = np.std(returns) / math.sqrt(len(returns))
    assert np.mean(returns) == pytest.approx(optimal_value(discount), abs=3 * error)


def test_history_is_read_from_the_customer_only():
    """An agent that parrots the customer, or is not understood, moves no count."""
    broken = "My screen is cracked."
    history = [
        Message("user", "Hi! I need help."),
        Message("assistant", "I like oranges."),
        Message("user", "Pardon, what do you mean?"),
        Message("assistant", broken),
        Message("user", broken),
        Message("assistant", "Now try the camera."),
        Message("user", "My camera is fast."),
    ]
    assert net_answers(history) == (0, 1, 0, -1)
    # Three turns are gone; one more "broken" on the screen makes it worth fixing before the last turn.
    assert ACTS.index(OptimalDesk().act(history)) == PARTS.index("screen")
    again = [*history, Message("assistant", "Please test the screen."), Message("user", broken)]
    assert str(OptimalDesk().act(again)) == "fix screen"


def test_behavior_value_by_hand():
    """One turn: .2 * -.5 + .8 * -.05 = -.14.

    Two turns: the second after a test, where a fix has P = .2 as well: .08 at random (2/4 - 1 = -.5 on
    average) and .12 on the likeliest, right with P = .2125 + .2125 = .425 over both answers (after "fine"
    three parts tie at .2125/.675). So -.14 + .8 * (-.04 + .12 * (2 * .425 - 1) - .8 * .05) = -.2184.
    """
    assert behavior_value(horizon=1) == pytest.approx(-0.14, abs=1e-15)
    assert behavior_value(horizon=2) == pytest.approx(-0.2184, abs=1e-12)
    assert behavior_value(discount=0.0) == pytest.approx(-0.14, abs=1e-15)


@pytest.fixture(scope="module")
def logged():
    return list(helpdesk_logs(12_000, seed=0))


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_logs_earn_the_behavior_value(logged, discount):
    """Mean return of 12,000 logs within 3 standard errors of the exact value."""
    rewards = [[m["reward"] for m in c["messages"] if m["role"] == "assistant"] for c in logged]
    returns = [sum(discount**t * r for t, r in enumerate(rs)) for rs in rewards]
    error = np.std(returns) / math.sqrt(len(returns))
    assert np.mean(returns) == pytest.approx(behavior_value(discount), abs=3 * error)


def test_filtered_value_by_hand():
    """Keeping right fixes at once teaches to fix at once: -.5.

    Within two turns: first fix .2 * .25 = .05; first test .8 * (.02 + .12 * .425) = .0568. The clone fixes
    at once with P = .05/.1068, else tests and then fixes k in proportion to behavior(k) * P(k):
    after "broken" .14 * .6538 against 3 times .02 * .1154, after "fine" 3 times .06 * .3148 against
    .02 * .0556.
    """
    assert filtered_value(1) == pytest.approx(-0.5)
    hit, miss = 0.2125 / 0.325, 0.0375 / 0.325
    right_if_broken = (0.14 * hit**2 + 3 * 0.02 * miss**2) / (0.14 * hit + 3 * 0.02 * miss)
    other, it = 0.2125 / 0.675, 0.0375 / 0.675
    right_if_fine = (3 * 0.06 * other**2 + 0.02 * it**2) / (3 * 0.06 * other + 0.02 * it)
    after_test = 0.325 * (2 * right_if_broken - 1) + 0.675 * (2 * right_if_fine - 1)
    assert filtered_value(2) == pytest.approx((0.05 * -0.5 + 0.0568 * (after_test - 0.05)) / 0.1068)


def test_filtering_selects_luck_and_value_learning_does_not(logged):
    """The best tenth of the logs are those right within two turns (return .95 and above): .1068 of them."""
    returns = [sum(m.get("reward", 0.0) for m in c["messages"]) for c in logged]
    quick = np.mean([r > 0.94 for r in returns])
    assert quick == pytest.approx(0.1068, abs=3 * math.sqrt(0.1068 * 0.8932 / len(returns)))
    assert filtered_value(2) < behavior_value() < filtered_value(8) < improved_value() < optimal_value()


def test_improved_value_against_a_slow_twin():
    """One greedy step on the behaviour's Q, evaluated over named parts without canonical states."""
    player_r, cost = 0.85, 0.05

    def answers(net, k):
        weights = [(player_r / (1 - player_r)) ** n for n in net]
        p = weights[k] / sum(weights)
        broken = p * player_r + (1 - p) * (1 - player_r)
        return [(q, (*net[:k], net[k] + d, *net[k + 1 :])) for q, d in ((broken, 1), (1 - broken, -1))]

    def fixes(net):
        weights = [(player_r / (1 - player_r)) ** n for n in net]
        return [2 * w / sum(weights) - 1 for w in weights]

    @cache
    def whim(net, last, turn):
        if turn == 8:
            return 0.0
        likely = [n == max(net) for n in net]
        again = [0.25 if last is None else float(k == last) for k in range(4)]
        acts = [0.75 / 4 + 0.05 * a for a in again] + [0.02 + 0.12 * x / sum(likely) for x in likely]
        return sum(p * q for p, q in zip(acts, whim_acts(net, turn), strict=True))

    def whim_acts(net, turn):
        return [-cost + sum(p * whim(a, k, turn + 1) for p, a in answers(net, k)) for k in range(4)] + fixes(
            net
        )

    @cache
    def greedy(net, turn):
        if turn == 8:
            return 0.0
        values = whim_acts(net, turn)
        best = values.index(max(values))
        if best >= 4:
            return values[best]
        return -cost + sum(p * greedy(a, turn + 1) for p, a in answers(net, best))

    assert behavior_value() == pytest.approx(whim((0,) * 4, None, 0), abs=1e-12)
    assert improved_value() == pytest.approx(greedy((0,) * 4, 0), abs=1e-9)


@pytest.mark.parametrize(
    "wrong", [{"reliability": 1.0}, {"reliability": 0.4}, {"discount": 1.5}, {"horizon": 0}], ids=str
)
def test_numbers_outside_the_game_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        optimal_value(**wrong)
