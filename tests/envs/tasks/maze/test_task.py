"""The maze keeps its rules, and its logs are what they say they are."""

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
from turnwise.envs.tasks.grammar import halved
from turnwise.envs.tasks.maze import words
from turnwise.envs.tasks.maze.exact import (
    behavior_probabilities,
    best_moves,
    follow,
    reachable,
)
from turnwise.envs.tasks.maze.logs import maze_logs
from turnwise.envs.tasks.maze.rules import CELLS, GOAL, MOVES, PARTS, STARTS, after, named, sight, walls
from turnwise.envs.tasks.maze.task import Maze
from turnwise.envs.tasks.maze.walks import Walks
from turnwise.envs.tasks.maze.words import WALKER, Guide, read_act, read_observation
from turnwise.recipes.tasks import find_task, task_called
from turnwise.run.errors import SettingError

BOTH = pytest.mark.parametrize("observed", ["full", "part"])


def test_the_plan():
    """26 cells; its left half mirrors its right one; the parts cover it and share the two corners."""
    assert len(CELLS) == 26 and len(STARTS) == 25
    assert {(r, 12 - c) for r, c in CELLS} == set(CELLS)
    assert set().union(*PARTS.values()) == set(CELLS)
    shared = Counter(cell for cells in PARTS.values() for cell in cells)
    assert {cell for cell, n in shared.items() if n > 1} == {(5, 3), (5, 9)}
    assert (
        walls((1, 3)) == ("up",)
        and walls((5, 3)) == ("down", "left")
        and walls((2, 9))
        == (
            "left",
            "right",
        )
    )
    assert after((7, 6), "down") == GOAL and after((1, 1), "left") == (1, 1)


def test_rewards_by_hand():
    """From (6, 6): a wall -1, no move -4, down -1, down 0 and the end."""
    walks = Walks(Guide(), "full")
    walks.begin(0, (6, 6), np.random.default_rng(0))
    for text, reward, cell in (
        ("Go left.", -1.0, (6, 6)),
        ("Where am I?", -4.0, (6, 6)),
        ("Do not go down", -4.0, (6, 6)),
        ("South!", -1.0, (7, 6)),
    ):
        (response,) = walks.step([0], [text])
        assert (response.reward, walks.cell(0)) == (reward, cell)
        assert not response.terminated and not response.truncated and "success" not in response.info
        assert response.messages[0].act == f"at {cell[0]} {cell[1]}"
        assert (words._OTHER.read(response.messages[0].content.split(". ")[0] + ".") == "confused") in (
            False, reward == -4.0)  # fmt: skip
    (response,) = walks.step([0], ["One step down."])
    assert (response.reward, response.terminated, response.info["success"]) == (0.0, True, True)
    assert response.messages[0].act == "arrived"
    with pytest.raises(ValueError, match="lane 0: the conversation is over"):
        walks.step([0], ["down"])


def test_a_hundred_messages_are_a_cut_and_no_end():
    maze = Maze()
    maze.reset([0], [1])
    responses = [maze.step([0], ["move up"])[0] for _ in range(100)]
    assert [r.truncated for r in responses] == [False] * 99 + [True]
    assert not any(r.terminated for r in responses) and responses[-1].info["success"] is False
    assert math.fsum(r.reward for r in responses) == -100 and responses[-1].messages


@BOTH
def test_every_wording_is_read_back_and_says_what_is_seen(observed):
    guide, half = Guide(), Guide(half=True)
    rng = np.random.default_rng(3)
    for cell in STARTS:
        texts = {guide.observation(cell, observed, i % 3 > 0, rng) for i in range(40)}
        assert len(texts) > 8
        assert {read_observation(t, observed) for t in texts} == {sight(cell, observed)}
        few = {half.observation(cell, observed, True, rng) for _ in range(200)}
        more = {guide.observation(cell, observed, True, rng) for _ in range(200)}
        assert {read_observation(t, observed) for t in few} == {sight(cell, observed)}
        assert len(few) < len(more)
    assert read_observation("It is Tuesday.", observed) is None is read_observation("", observed)
    assert read_observation(guide.arrival(rng), observed) is None


def test_walls_and_free_sides_name_the_same():
    """Of the crossing (1, 3) there is a wall above alone: it is said as such, or by the three others."""
    rng = np.random.default_rng(0)
    texts = {Guide().observation((1, 3), "part", True, rng) for _ in range(300)}
    assert {t for t in texts if "free" in t or "could" in t} and all(
        "above" in t for t in texts if "wall" in t
    )
    for text in texts:
        assert read_observation(text, "part") == ("up",)
        by_free_sides = "free" in text or "could" in text
        assert by_free_sides == ("above" not in text)
        assert by_free_sides == all(s in text for s in ("below", "left", "right"))


@pytest.mark.parametrize("grammar", [WALKER, words._WALLS, words._PLACES, words._OTHER])
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


def test_half_a_grammar_by_hand():
    """Every other template, the other half for the next act, as likely among themselves as before."""
    half = halved(words._OTHER)
    assert [t.text for t in half.templates["goal"]] == list(words.GOAL_WORDINGS[::2])
    assert [t.text for t in half.templates["arrived"]] == list(words.ARRIVED_WORDINGS[1::2])
    assert {t.weight for t in half.templates["goal"]} == {0.5}


def test_the_reader_by_hand():
    for text, move in {
        "move left\n": "left",
        "GO RIGHT": "right",
        "All right, then up": "up",
        "I walk southwards.": "down",
        "to the west, please": "left",
        "left or right?": "none",
        "not left": "none",
        "don't go up": "none",
        "go right then left": "none",
        "upset": "none",
        "": "none",
        "\x00🙂 ١٢ …": "none",
        "north" * 9999: "none",
    }.items():
        assert read_act(text) == move, text[:40]
    for move in MOVES:
        for _ in range(200):
            assert read_act(WALKER.say(move, np.random.default_rng()).text) == move


@given(st.text())
def test_the_readers_are_total(text):
    assert read_act(text) in (*MOVES, "none")
    assert read_observation(text, "full") is None or read_observation(text, "full") in CELLS
    read_observation(text, "part")


def test_propensities_by_hand():
    """Any move .85 / 4 = .2125, the best one .15 more."""
    assert behavior_probabilities(frozenset({(1, 1)}), "full") == pytest.approx([0.2125] * 3 + [0.3625])
    assert best_moves(frozenset({(1, 3)}), "full") == ("down",)


@BOTH
def test_propensities_sum_to_one(observed):
    for belief in reachable(observed):
        probabilities = behavior_probabilities(belief, observed)
        assert math.fsum(probabilities) == pytest.approx(1, abs=1e-12) and min(probabilities) > 0.2


def _logp_of_wording(act, text):
    total = 0.0
    for start, template in itertools.product(WALKER.starts, WALKER.templates[act]):
        if re.fullmatch(re.escape(start.lower()) + template.pattern(), text.lower()):
            total += template.weight / template.count() / len(WALKER.starts)
    return math.log(total)


@BOTH
def test_logs_say_what_happened_with_exact_propensities(observed):
    rows = list(maze_logs(40, 3, observed, acts=True))
    silent = list(maze_logs(40, 3, observed))
    for row, plain in zip(rows, silent, strict=True):
        cell, cells = tuple(map(int, row["start"].split())), PARTS[row["part"]]
        for i, m in enumerate(row["messages"]):
            other = plain["messages"][i]
            assert other == {k: v for k, v in m.items() if k not in ("act", "act_logp")}
            if m["role"] == "user":
                assert m["act"] == ("arrived" if cell == GOAL else named(sight(cell, observed)))
                continue
            assert cell in cells  # the part is left with the last move only
            move = read_act(m["content"])
            assert move == m["act"]
            told = [Message(n["role"], n["content"]) for n in row["messages"][:i]]
            p = behavior_probabilities(follow(told, observed), observed)[MOVES.index(move)]
            assert m["act_logp"] == pytest.approx(math.log(p), abs=1e-12)
            logp = math.log(p) + _logp_of_wording(move, m["content"])
            assert m["behavior_logp"] == pytest.approx(logp, abs=1e-9)
            cell = after(cell, move)
            assert m["reward"] == (0.0 if cell == GOAL else -1.0)
        turns = len(row["messages"]) // 2
        assert row["terminated"] == row["success"] == (cell == GOAL)
        assert row["terminated"] or cell not in cells or turns == 100
    assert list(maze_logs(10, 3, observed)) == silent[:10] != list(maze_logs(10, 4, observed))
    assert [d.terminated for d in read_logs(silent)] == [r["terminated"] for r in rows]


def test_logged_walks_are_those_of_the_published_data_in_kind():
    """Published: 1,240 walks, 19.7 +- 24.5 messages, 11% arrive. Ours: 25, 23, 22%; starts are uniform."""
    rows = list(maze_logs(600, 0))
    lengths = [len(r["messages"]) // 2 for r in rows]
    assert 22 < np.mean(lengths) < 28 and 20 < np.std(lengths) < 27
    assert 0.19 < np.mean([r["success"] for r in rows]) < 0.27
    assert {r["part"] for r in rows if r["success"]} == {"lower"}
    assert chisquare(list(Counter(r["start"] for r in rows).values())).pvalue > 1e-4


def test_conversations_do_not_depend_on_their_neighbours():
    maze, crowd = Maze("part"), Maze("part")
    alone, beside = [maze.reset([0], [5])[0]], [crowd.reset([9, 7], [6, 5])[1]]
    for text in ("left", "what?", "go down", "right", "north"):
        alone.append(maze.step([0], [text])[0])
        beside.append(crowd.step([9, 7], ["up", text])[1])
    assert beside == alone


def test_the_task_by_name_and_its_settings():
    task = find_task("maze", {"observed": "part", "acts": True})
    assert task_called(task.words).words == task.words == "maze acts=true observed=part"
    assert next(task.rows(1, 0))["turnwise_task"] == task.words
    assert task.live().reset([0], [0])[0][0].act.startswith("walls ")
    assert find_task("maze").live().reset([0], [0])[0][0].act is None
    assert [r.role for r in find_task("maze").references()] == ["optimum", "behaviour"]
    for key, value in {"observed": "half", "acts": 1, "unseen_wordings": "no"}.items():
        with pytest.raises(SettingError, match=key):
            Maze(**{key: value})


def test_unseen_wordings_stand_in_no_log():
    """Live observations have some 40% of texts whose wall sentence no log of the preset has."""
    texts = {m["content"] for r in Maze("part", unseen_wordings=True).rows(300, 0) for m in r["messages"]}
    live = Maze("part", unseen_wordings=True).reset(range(400), range(400))
    new = np.mean([m.content not in texts for (m,) in live])
    assert 0.35 < new < 0.65
    usual = {m["content"] for r in Maze("part").rows(300, 0) for m in r["messages"]}
    assert np.mean([m.content not in usual for (m,) in live]) < 0.05
