"""The page of a solved problem: its figures stay bounds, what is missing is named, nothing is markup."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from turnwise.evaluation.pages.report import write_report
from turnwise.evaluation.pages.solutions.figures import between, bounds
from turnwise.evaluation.pictures.graph import laid_out
from turnwise.run.errors import InputError

ODD = "<b>open</b> & go"


def solution(**changes) -> dict:
    """The tiger problem as turnwise solve writes it, with an action whose name looks like markup."""
    p = np.linspace(0, 1, 21)
    vectors = [[28.0, -82.0], [19.4, 19.4], [-82.0, 28.0]]
    values = np.stack([1 - p, p], 1) @ np.array(vectors).T
    found = {
        "problem": "tiger",
        "lower": 19.37080056,
        "upper": 19.37162333,
        "gap": 0.00082277,
        "seconds": 0.0238,
        "states": 2,
        "actions": 3,
        "observations": 2,
        "discount": 0.95,
        "initial_observation": "none",
        "stopped": "gap",
        "plans": 3,
        "beliefs": 31,
        "trials": 58,
        "episodic": False,
        "state_names": ["tiger-left", "tiger-right"],
        "action_names": ["listen", ODD, "open-right"],
        "observation_names": ["hear <left>", "hear-right"],
        "trace": [[0.001, -20.0, 87.2], [0.01, 18.0, 20.7], [0.0238, 19.37080056, 19.37162333]],
        "references": [
            {"policy": "optimal", "name": "optimal policy", "lower": 19.37080056, "upper": 19.37162333},
            {"policy": "qmdp", "name": "QMDP", "lower": 19.2, "upper": 19.2},
            {"policy": "open-loop", "name": "best open-loop policy", "lower": -20.0, "upper": -19.99973911},
        ],
        "value_over_belief": {
            "beliefs": np.stack([1 - p, p], 1).tolist(),
            "values": values.max(1).tolist(),
            "actions": np.array([2, 0, 1])[values.argmax(1)].tolist(),
            "vectors": vectors,
        },
        "graph": {
            "count": 4,
            "nodes": [
                {"action": a, "name": n}
                for a, n in ((0, "listen"), (1, ODD), (2, "open-right"), (0, "unused"))
            ],
            "edges": [
                {"from": 0, "to": 1, "observations": [0]},
                {"from": 0, "to": 2, "observations": [1]},
                {"from": 1, "to": 0, "observations": [0, 1]},
                {"from": 2, "to": 2, "observations": [0, 1]},
                {"from": 3, "to": 0, "observations": [0, 1]},
            ],
            "starts": [0],
        },
        "information": {
            "episodes": 64,
            "entropy": [[0, 0.693, 0.693, 0.693, 64], [1, 0.4, 0.135, 0.693, 5]],
            "actions": [
                {
                    "name": "listen",
                    "share": 0.75,
                    "entropy": 0.559,
                    "given_up": 0.0,
                    "look": 2.02,
                    "more": 0.0,
                    "pays": 0.0,
                },
                {
                    "name": ODD,
                    "share": 0.25,
                    "entropy": 0.135,
                    "given_up": 0.0,
                    "look": 3e-15,
                    "more": 0.0,
                    "pays": 0.0,
                },
            ],
            "examples": [[step("listen", -1.0, look=1.97), step(ODD, 10.0)]],
        },
    }
    found |= changes
    return found


def step(action: str, reward: float, given_up: float = 0.0, look: float = 0.0) -> dict:
    return {
        "action": action,
        "observation": "hear <left>",
        "reward": reward,
        "entropy": 0.693,
        "given_up": given_up,
        "look": look,
        "more": 0.0,
        "pays": False,
    }


def controller(**changes) -> dict:
    """Two memories and three inputs; after the first input it listens 3 times in 4."""
    p = np.zeros((2, 3, 2, 2))
    p[:, :, 0, 0] = 1
    p[0, 0] = [[0.75, 0.0], [0.002, 0.248]]
    found = solution()
    for key in ("trace", "references", "value_over_belief", "graph", "information", "stopped", "plans"):
        del found[key]
    found |= {
        "value": 18.5,
        "lower": 18.5,
        "upper": 21.25,
        "memory": "2",
        "input_names": ["hear <left>", "hear-right", "(nothing yet)"],
        "action_names": ["listen", ODD],
        "starts": [18.5, 17.0, 18.5, -1e20],
        "controller": p.tolist(),
    }
    return found | changes


def page(folder: Path, found: dict) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "solution.json").write_text(json.dumps(found))
    (folder / "config.yaml").write_text(yaml.safe_dump({"verb": "solve", "problem": "tiger", "seed": 0}))
    env = {"packages": {"numpy": "2.4.6"}, "command": "turnwise solve tiger --out x"}
    (folder / "env.json").write_text(json.dumps(env))
    return write_report(folder).read_text(encoding="utf-8")


def words(html: str) -> str:
    """What a reader sees, without tags; entities as written."""
    plain = re.sub(r"<(script|style)[^>]*>.*?</\1>", " ", html, flags=re.S)
    return " ".join(re.sub(r"<[^>]+>", " ", plain).split())


@pytest.mark.parametrize(
    ("lower", "upper", "shown"),
    [
        (19.37080056, 19.37162333, ("19.3708", "19.3717")),
        (-20.0, -19.99973911, ("−20", "−19.9997")),
        (0.982731, 1.203830, ("0.98", "1.21")),
        (12.4311, 28.0334, ("12.4", "28.1")),
        (3.5, 3.5, ("3.5", "3.5")),
        (0.0, 0.000777, ("0", "0.000777")),
    ],
)
def test_bounds_are_rounded_outwards(lower, upper, shown):
    assert bounds(lower, upper) == shown


def test_a_loss_is_as_short_as_it_is_true():
    assert between(39.3705, 39.3716) == "39.4"
    assert between(-0.0006, 0.000251) == "at most 0.00026"
    assert between(0.428, 1.035) == "0.42 to 1.04"
    assert between(-1.0, 0.0) == "nothing"


def test_the_answer_and_its_figures(tmp_path):
    text = words(page(tmp_path, solution()))
    assert "worth between 19.3708 and 19.3717 ; never looking costs 39.4" in text
    assert "falls short of the best by at most 0.00083" in text
    for fact in (
        "states 2",
        "discount 0.95",
        "episodes go on for ever",
        "stopped by reaching the target gap",
    ):
        assert fact in text
    assert "turnwise solve tiger --out x" in text and "numpy 2.4.6" in text
    assert "Littman, Cassandra &amp; Kaelbling 1995" in text and "Howard 1966" in text
    # 19.3708 - 19.2 = 0.1708 and 19.37163 - 19.2 = 0.17163, outwards
    assert "0.1708 to 0.1717" in text


def test_who_pays_to_look_and_who_only_looks(tmp_path):
    html = page(tmp_path / "free", solution())
    assert "gains from seeing what follows <b>listen</b> (2.02), and gives up nothing" in html
    assert "It never gives up immediate reward" in html
    assert 'class="pays"' not in html  # a look worth 3e-15 is rounding
    found = solution()
    for row in (found["information"]["actions"][0], found["information"]["examples"][0][0]):
        row |= {"given_up": 0.75, "more": 1.5, "pays": 1.0}
    html = page(tmp_path / "paid", found)
    assert "pays to look with <b>listen</b>: on average it gives up 0.75" in html
    assert "the action given up would have shown is worth 1.50, more than it gives up" in html
    assert html.count('class="pays"') == 2


def test_who_gives_up_reward_to_get_somewhere_does_not_pay_to_look(tmp_path):
    found = solution()
    found["information"]["actions"][0] |= {"given_up": 0.75}  # a look of 2.02, none of it shown only so
    html = page(tmp_path, found)
    assert "pays to look with" not in html and 'class="pays"' not in html
    assert "follows <b>listen</b> (2.02), but the action given up would have shown as much" in html


def test_how_many_episodes_still_run(tmp_path):
    assert "5 of 64 episodes still run at step 2" in words(page(tmp_path, solution()))


def test_names_are_data_and_nothing_is_loaded(tmp_path):
    for html in (page(tmp_path / "a", solution(problem=ODD)), page(tmp_path / "b", controller(problem=ODD))):
        assert "<b>open</b>" not in html and "&lt;b&gt;open&lt;/b&gt; &amp; go" in html
        assert "hear <left>" not in html
        assert not re.search(r"(?:src|href)=[\"'](?!#)|url\((?!#)|@import", html)
        ids = re.findall(r' id="([^"]+)"', html)
        assert len(ids) == len(set(ids))


def test_pictures_have_their_labels_as_text(tmp_path):
    html = page(tmp_path, solution())
    pictures = re.findall(r"<svg.*?</svg>", html, re.S)
    labels = [re.findall(r"<text[^>]*>(.*?)</text>", picture, re.S) for picture in pictures]
    joined = [" | ".join(words(label) for label in found) for found in labels]
    assert any("upper 19.3717" in j and "lower 19.3708" in j for j in joined)
    assert any("probability of tiger-right" in j and "open-right" in j for j in joined)
    assert any("start" in j and "hear &lt;left&gt;" in j and "any" in j for j in joined)
    assert "1 of the 4 plans cannot be reached" in html


def test_three_states_are_a_triangle(tmp_path):
    n = 12
    beliefs = np.array([(i, j, n - i - j) for i in range(n + 1) for j in range(n + 1 - i)]) / n
    grid = {
        "beliefs": beliefs.tolist(),
        "values": beliefs.max(1).tolist(),
        "actions": beliefs.argmax(1).tolist(),
        "vectors": None,
    }
    html = page(
        tmp_path, solution(states=3, state_names=["fine", "<worn>", "broken"], value_over_belief=grid)
    )
    assert "Each point of the triangle is a belief" in html
    assert "&lt;worn&gt;" in html and "<worn>" not in html


def test_what_is_missing_is_named(tmp_path):
    found = solution(value_over_belief=None, graph={"count": 2415, "nodes": None}, states=60)
    for key in ("trace", "references", "information"):
        del found[key]
    text = words(page(tmp_path, found))
    assert "has no trace , so how the bounds closed is not known" in text
    assert "has no references" in text and "has no information" in text
    assert "this problem has 60" in text
    assert "2,415 plans, too many" in text


def test_a_search_that_was_cut_off_says_so(tmp_path):
    assert "The deadline ended the search" in words(page(tmp_path, solution(stopped="deadline")))


def test_a_controller(tmp_path):
    text = words(page(tmp_path, controller()))
    assert "The best controller of 2 memories found is worth 18.5 ; no policy is" in text
    assert "worth more than 21.3" in text  # rounded up
    assert "2 of them ended at the best value, and 1 found no value at all" in text
    # the choice of probability .002 is left out; memories count from 1
    assert "1 hear &lt;left&gt; 75% listen → 1, 25% &lt;b&gt;open&lt;/b&gt; &amp; go → 2" in text
    assert text.count("(nothing yet)") == 1  # memory 2 never reads it


def test_a_controller_that_is_too_large_is_not_listed(tmp_path):
    assert "too large to be kept" in words(page(tmp_path / "a", controller(controller=None)))
    many = np.full((21, 3, 1, 1), 1.0).tolist()
    text = words(page(tmp_path / "b", controller(controller=many)))
    assert "63 rows would be too many" in text and "controller.npz" in text


def test_all_deterministic_policies_were_compared(tmp_path):
    text = words(page(tmp_path, controller(memory="deterministic", starts=[18.5])))
    assert "The best deterministic memoryless policy is worth 18.5" in text
    assert "All deterministic memoryless policies were compared" in text


@pytest.mark.parametrize("broken", ["{", "[]", "{}", '{"problem": "x"}'])
def test_a_broken_file_is_named(tmp_path, broken):
    (tmp_path / "solution.json").write_text(broken)
    with pytest.raises(InputError, match=r"solution\.json"):
        write_report(tmp_path)


def test_a_field_of_the_wrong_kind_is_refused(tmp_path):
    for changes in ({"lower": "much"}, {"trace": [[1]]}, {"information": {"actions": 3}}):
        with pytest.raises(InputError, match=r"solution\.json"):
            page(tmp_path, solution(**changes))


def test_rows_of_a_graph_are_steps_from_the_start():
    found = laid_out(solution()["graph"], ["l", "r"])
    assert {node.name[:6]: node.depth for node in found.nodes.values()} == {
        "listen": 0,
        "<b>ope": 1,
        "open-r": 1,
    }
    assert found.unreached == 1
    assert [node.number for node in found.nodes.values()] == [1, 2, 3]
