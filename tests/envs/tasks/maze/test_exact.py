"""Exact values of the maze against hand arithmetic, a slow twin and live conversations."""

import math

import numpy as np
import pytest

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.grammar import draw
from turnwise.envs.tasks.maze.exact import (
    OptimalWalker,
    behavior_probabilities,
    behavior_value,
    by_sight,
    follow,
    optimal_value,
    reachable,
)
from turnwise.envs.tasks.maze.rules import GOAL, MOVES, STARTS, after, sight
from turnwise.envs.tasks.maze.task import Maze
from turnwise.envs.tasks.maze.words import WALKER


def test_the_published_values():
    """-6.84 is LMRL-Gym's best return; -7.24 takes 44 beliefs."""
    assert optimal_value("full") == pytest.approx(-6.84, abs=1e-12)
    assert optimal_value("part") == pytest.approx(-7.24, abs=1e-12)
    assert (len(reachable("full")), len(reachable("part"))) == (25, 44)


def test_the_fully_observed_optimum_is_the_mean_distance_less_one():
    distance = {GOAL: 0}
    waiting = [GOAL]
    for cell in waiting:
        for new in {after(cell, m) for m in MOVES} - distance.keys():
            distance[new] = distance[cell] + 1
            waiting.append(new)
    assert optimal_value("full") == pytest.approx(-np.mean([distance[c] - 1 for c in STARTS]), abs=1e-12)


def test_one_message_by_hand():
    """One start of 25 is beside the goal: -24 / 25. The stroller goes there with .3625.

    Seen in part it looks like 7 other cells between two walls, and down is still no worse than another move.
    """
    assert optimal_value("full", horizon=1) == pytest.approx(-0.96, abs=1e-12)
    assert behavior_value("full", horizon=1) == pytest.approx(-1 + 0.3625 / 25, abs=1e-12)
    assert optimal_value("part", horizon=1) == pytest.approx(-0.96, abs=1e-12)


@pytest.mark.parametrize("horizon", [2, 4])
def test_against_a_slow_twin_over_weights_of_cells(horizon):
    """The same game with probabilities of cells in place of sets, the whole tree."""

    def value(weights, left):
        if left == 0:
            return 0.0
        best = -math.inf
        for move in MOVES:
            total, after_it = 0.0, {}
            for cell, w in weights.items():
                there = after(cell, move)
                if there != GOAL:
                    total -= w
                    group = after_it.setdefault(sight(there, "part"), {})
                    group[there] = group.get(there, 0.0) + w
            best = max(best, total + sum(value(group, left - 1) for group in after_it.values()))
        return best

    first = [dict.fromkeys(cells, 1 / 25) for cells in by_sight(STARTS, "part").values()]
    assert optimal_value("part", horizon) == pytest.approx(sum(value(w, horizon) for w in first), abs=1e-12)


def _mean_return(observed, choose, conversations):
    task, rng, returns = Maze(observed), np.random.default_rng(1), []
    for seed in range(conversations):
        history, total = list(task.reset([0], [seed])[0]), 0.0
        while True:
            text = WALKER.say(choose(history, rng), rng).text
            (response,) = task.step([0], [text])
            total += response.reward
            history += [Message("assistant", text), *response.messages]
            if response.terminated or response.truncated:
                break
        returns.append(total)
    return np.mean(returns), np.std(returns) / math.sqrt(conversations)


@pytest.mark.parametrize("observed", ["full", "part"])
def test_optimum_is_what_the_optimal_walker_earns_in_conversation(observed):
    """400 conversations through the text alone; within 3 standard errors, which are below .25."""
    player = OptimalWalker(observed)
    mean, error = _mean_return(observed, lambda history, _: player.act(history), 400)
    assert error < 0.25 and mean == pytest.approx(optimal_value(observed), abs=3 * error)


def test_behavior_is_what_the_strolling_walker_earns_in_conversation():
    """60 conversations; within 3 standard errors."""

    def stroll(history, rng):
        return MOVES[draw(behavior_probabilities(follow(history, "full"), "full"), rng)]

    mean, error = _mean_return("full", stroll, 60)
    assert mean == pytest.approx(behavior_value("full"), abs=3 * error)


def test_history_is_followed_by_what_was_seen():
    """Walls left and right: 8 cells. Down to a corner: the left one."""
    history = [Message("user", "You cannot walk to your left and to your right.")]
    assert len(follow(history, "part")) == 8
    history += [Message("assistant", "Down."), Message("user", "There is a wall below you and to your left.")]
    assert follow(history, "part") == {(5, 3)}
    history += [Message("assistant", "hm?"), Message("user", "It is Tuesday.")]
    assert follow(history, "part") == {(5, 3)}
    assert OptimalWalker("part").act(history) == "right"


def test_numbers_outside_the_game_are_refused():
    with pytest.raises(ValueError, match="horizon"):
        OptimalWalker(horizon=0)
