"""Situations in which a policy parts ways with the logged agent, counted by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import turnwise as tw
from turnwise.data.acts.build import build_codes
from turnwise.recipes.estimating.acts.partings import partings
from turnwise.recipes.estimating.acts.steps import ActSteps
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.logged import Chances


def talk(i: int, heard: str, said: str, reward: float) -> dict[str, Any]:
    messages = [
        {"role": "user", "content": heard, "act": heard},
        {"role": "assistant", "content": f"{said}!", "act": said, "reward": reward},
    ]
    return {"id": f"t{i}", "messages": messages}


def steps_of(rows: list[dict[str, Any]], policy: dict[str, tuple[float, float]]) -> tuple[ActSteps, Any]:
    """One turn each, acts `go` and `stop`; `policy` gives their probabilities by what was heard."""
    logs = tw.read_logs(rows, quiet=True)
    codes = build_codes(logs).codes
    talks = codes.talks(logs)
    order = [codes.acts.index(a) for a in ("go", "stop")]
    p = np.zeros((len(rows), 1, len(codes.acts)))
    for b, t in enumerate(talks):
        p[b, 0, order] = policy[codes.openings[t.first]]
    prefixes = tuple((Prefix.of(t.first),) for t in talks)
    steps = ActSteps(
        logs,
        talks,
        Chances(p, np.zeros((len(rows), 1), bool), prefixes),
        acts=np.array([t.acts for t in talks]),
        rewards=np.array([t.rewards for t in talks]),
        mask=np.ones((len(rows), 1), bool),
        act_logp=np.full((len(rows), 1), np.nan),
        histories=np.array([[t.first] for t in talks]),
    )
    return steps, codes


def test_the_situation_that_differs_most_comes_first_with_what_was_earned_there() -> None:
    """Of 40 talks half hear *red*: 10 went (-1 each), 10 stopped (1 each); the policy always stops there, so
    that it does something else in half of them. After *green* it does what the logged agent does. Rare
    situations (4 talks that hear *blue*) are left out."""
    rows = [
        talk(i, "red" if i % 2 else "green", "go" if i % 4 < 2 else "stop", 1.0 if i % 4 >= 2 else -1.0)
        for i in range(40)
    ]
    rows += [talk(40 + i, "blue", "go", 5.0) for i in range(4)]
    steps, codes = steps_of(rows, {"red": (0.0, 1.0), "green": (0.5, 0.5), "blue": (0.0, 1.0)})
    before = np.full(steps.target.probabilities.shape, 0.0)
    before[:, :, [codes.acts.index(a) for a in ("go", "stop")]] = 0.5
    (found,) = partings(steps, before, codes, seed=0)
    assert (found["turn"], found["after"], found["heard"]) == (1, None, "red")
    assert found["conversations"] == 20 and found["apart"] == pytest.approx(0.5)
    # log 2 in each of 20 talks, and in 4 more that are left out
    assert found["share"] == pytest.approx(20 / 24)
    acts = {a["act"]: a for a in found["acts"]}
    assert acts["go"]["logged"] == 0.5 and acts["go"]["policy"] == 0 and acts["go"]["count"] == 10
    assert acts["go"]["went_on"]["value"] == -1 and acts["stop"]["went_on"]["value"] == 1
    assert found["went_on"]["value"] == 0
    assert {t["logged"] for t in found["talks"]} == {"go!"}
    assert {(t["policy_means"], t["probability"], t["went_on"]) for t in found["talks"]} == {
        ("stop", 1.0, -1.0)
    }
    assert all(t["messages"] == [{"role": "user", "content": "red"}] for t in found["talks"])


def test_two_that_are_the_same_part_nowhere() -> None:
    rows = [talk(i, "red", "go" if i % 2 else "stop", 0.0) for i in range(20)]
    steps, codes = steps_of(rows, {"red": (0.5, 0.5)})
    assert partings(steps, steps.target.probabilities, codes, seed=0) == []
