"""The worlds of the experiment with learnt models that are wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from turnwise.envs.tasks.helpdesk.logs import behavior_probabilities

FILE = Path(__file__).parents[2] / "experiments" / "wrong_models.py"


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


def test_a_rehearsed_set_is_judged(load_script, monkeypatch):
    monkeypatch.setenv("TURNWISE_REHEARSAL", "1")
    module = load_script(FILE)
    row = module.one("plain", 0)
    assert row["verdict"] == "cannot tell"  # of 60 conversations
    assert -1.4 <= row["truth"] <= 1 and -1.4 <= row["promise"] <= 1
