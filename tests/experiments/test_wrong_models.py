"""The worlds of the experiment with learnt models that are wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from turnwise.envs.tasks.helpdesk.logs import behavior_probabilities

FILE = Path(__file__).parents[2] / "experiments" / "wrong_models.py"
PARTS = ("asked", "judged")


def test_propensities_of_merged_acts_are_the_sum_of_both_parts(load_script):
    """At the first turn the desk tests each of four parts, or fixes one: two of them have one name."""
    module = load_script(FILE)
    rows = module.logged("merged", 60, np.random.default_rng(0), "a")
    p = behavior_probabilities([0] * 4, None)
    expected = {"test front": p[0] + p[1], "fix back": p[6] + p[7], "test back": p[2] + p[3]}
    seen = {row["messages"][1]["act"]: row["messages"][1]["act_logp"] for row in rows}
    assert {"test front", "test back"} <= set(seen)
    for act, logp in seen.items():
        if act in expected:
            assert np.exp(logp) == pytest.approx(expected[act])


def test_a_customer_answers_kind_words_rightly_more_often(load_script):
    """Of 2,000 tests of the part that is broken 95% and 60% say so (standard error at most 1.1%)."""
    module = load_script(FILE)
    rng = np.random.default_rng(0)
    for kind, share in ((True, module.KIND), (False, module.CURT)):
        heard = 0
        for _ in range(2000):
            talk = module.Talk("wording", rng)
            heard += talk.test(talk.fault, kind)[0].endswith("broken")
        assert heard / 2000 == pytest.approx(share, abs=0.05)


def test_a_rehearsed_set_is_asked_and_judged(load_script, monkeypatch, tmp_path):
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    module = load_script(FILE)
    module.make(tmp_path, "plain", 0, judging=True)
    asked, judged = (json.loads((tmp_path / f"{part}-plain-0.json").read_text()) for part in PARTS)
    assert judged["verdict"] == "cannot tell"  # of 60 conversations
    assert -1.4 <= asked["truth"] <= 1 and -1.4 <= asked["promise"] <= 1
    assert asked["meanings"]["words"]["value"] == 0  # there is one sentence for each act


def test_a_table_of_sets_that_are_asked_and_of_one_that_is_judged(load_script, monkeypatch, tmp_path):
    """Two promises of three miss by more than .05; of one of these a fault is found."""
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")  # results go among the runs
    module = load_script(FILE)
    for seed, promise, fault in ((0, 0.5, True), (1, 0.5, False), (2, 0.22, False)):
        gain = {"value": 0.01, "fault": fault}
        row = {"world": "merged", "seed": seed, "promise": promise, "truth": 0.2}
        row["meanings"] = {"words": gain, "beyond_model": None, "history": None}
        (tmp_path / f"asked-merged-{seed}.json").write_text(json.dumps(row))
    judged = {"world": "merged", "seed": 1, "verdict": "model only", "why": []}
    (tmp_path / "judged-merged-1.json").write_text(json.dumps(judged))
    module.merge(tmp_path)
    row = (tmp_path / "results" / "wrong_models.md").read_text().splitlines()[-1]
    cells = "merged | 3 | 0.407 | 0.200 | 2 | 1 | 0.0100 | none | none | 1 | 1 | 0 | 0 | 1 | 0"
    assert row == f"| {cells} |"
