"""The head of a page that says what other logs tell of a policy (estimate.json)."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest

from turnwise.evaluation.pages.report import write_report
from turnwise.run.errors import InputError


def _row(value: float | None, half: float | None = 0.05) -> dict[str, Any]:
    if value is None or half is None:
        return {"value": value, "low": None, "high": None, "error": None}
    return {"value": value, "low": value - half, "high": value + half, "error": half / 1.96}


def _step(t: float, value: float, vouched: bool) -> dict[str, Any]:
    return {"t": t, "distance": t, "vouched": vouched, "worth": _row(value) | {"gain": _row(value + 0.3)},
            "promised": _row(value + 0.02, 0.01) | {"measured": value}, "effective": 1000 * (1 - t) + 5,
            "largest_share": 0.01, "coverage": 0.9, "estimates": []}  # fmt: skip


FOUND: dict[str, Any] = {
    "policy": "runs/p", "logs": "others.jsonl", "per": "act", "conversations": 3000, "decisions": 9000,
    "discount": 1.0, "learnt_from": {},
    "worth": {"now": {"name": "logs", "words": "what the logs earned"} | _row(-0.3),
              "then": {"name": "wpdis", "words": "weighted per-decision importance sampling"} | _row(0.2)
              | {"gain": _row(0.5)},
              "sure": "vouch", "why": ["They hold what it does."], "needs": []},
    "behaviour": {"source": "logged", "model": "m", "nats": {"m": 1.0}, "logged_nats": 1.0, "calibration": [],
                  "calibration_error": 0.01, "missing": 0},
    "support": {"conversations": 3000, "unit": "conversation", "effective": 595.0, "largest_share": 0.01,
                "coverage": 0.99, "coverage_of_logged": 1.0, "nowhere": 0.0, "coverage_by_turn": [1.0],
                "unseen": [{"turn": 2, "act": "<b>refund</b>", "mass": 0.03, "elsewhere": True},
                           {"turn": 3, "act": "rare", "mass": 0.0001, "elsewhere": True}],
                "mean_weight": {"value": 0.99, "error": 0.03}},
    "estimates": [{"name": "logs", "words": "what the logs earned"} | _row(-0.3),
                  {"name": "wpdis", "words": "weighted per-decision importance sampling"} | _row(0.2)
                  | {"gain": _row(0.5)},
                  {"name": "fqe", "words": "fitted Q evaluation, uncorrected"} | _row(0.1, None)
                  | {"gain": _row(0.4, None)}],
    "cautious": -0.4, "confounding": 1.5,
    "curve": {"way": "mixed", "steps": [_step(0.0, -0.3, True), _step(0.5, 0.0, True), _step(1.0, 0.2, True)],
              "reached": 1.0},
    "safe": {"t": 1.0, "worth": _row(0.2) | {"gain": _row(0.5)}},
    "verdict": {"word": "vouch", "headline": "", "reasons": []}, "groups": [],
    "partings": [{"turn": 2, "after": "ask", "heard": "<script>alert(1)</script>", "conversations": 40,
                  "apart": 0.5, "share": 0.9, "went_on": _row(0.1),
                  "acts": [{"act": "go", "says": "Let's go", "policy": 0.9, "logged": 0.2, "count": 8,
                            "went_on": _row(0.6)},
                           {"act": "new", "says": "new", "policy": 0.1, "logged": 0.0, "count": 0,
                            "went_on": None}],
                  "talks": [{"id": "t1", "earlier": 2, "messages": [{"role": "user", "content": "hi"}],
                             "agent": "assistant", "logged": "wait", "logged_as": "wait",
                             "policy": "Let's go", "policy_means": "go", "probability": 0.9,
                             "went_on": -1.0}]}],
    "warnings": [],
}  # fmt: skip


def page(folder: Path, **changes: Any) -> str:
    """The page of a bare run with this estimate, without markup."""
    found = copy.deepcopy(FOUND) | changes
    (folder / "config.yaml").write_text("algorithm: act-mc\nfamily: act_agents\n")
    (folder / "estimate.json").write_text(json.dumps(found))
    text = write_report(folder).read_text(encoding="utf-8")
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", text[text.index("<main>") :]))


def test_the_answer_leads(tmp_path: Path) -> None:
    text = page(tmp_path)
    assert text.index("by logs alone") < text.index("The answer")
    assert (
        "In 3,000 logged conversations the agent earned −0.300 (95% interval −0.350 to −0.250). This policy "
        "would earn 0.200 (0.150 to 0.250): 0.500 more (+0.450 to +0.550)." in text
    )
    assert "The logs vouch for this. They hold what it does." in text and "A safe step" not in text
    assert "changed the odds of what it did 1.50 times" in text
    # what is rarer than one in 200 is not named; text of logs is data
    assert "refund" in text and "rare" not in text and "alert(1)" in text
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html and "&lt;script&gt;alert" in html
    assert "never logged here" in text and "… 2 earlier messages" in text


def test_what_cannot_be_told_has_no_number_and_a_safe_step(tmp_path: Path) -> None:
    worth = FOUND["worth"] | {"sure": "cannot tell", "needs": ["More logs."]}
    steps = [_step(0.0, -0.3, True), _step(0.5, 0.0, True), _step(1.0, 0.2, False)]
    curve = {"way": "mixed", "steps": steps, "reached": 0.5}
    safe = {"t": 0.5, "worth": steps[1]["worth"]}
    text = page(tmp_path, worth=worth, curve=curve, safe=safe)
    assert "What this policy would earn is not known." in text and "What would help: More logs." in text
    assert "let the policy take 50% of the turns" in text and "worth 0.000 (−0.050 to 0.050)" in text
    assert "odds" not in text
    text = page(tmp_path, worth=worth, curve=curve | {"reached": 0.0}, safe={"t": 0.0, "worth": None})
    assert "what is safe is the logged agent" in text


def test_live_results_stand_beside(tmp_path: Path) -> None:
    live = {"mean": 0.17, "low": 0.13, "high": 0.21, "episodes": 2000, "score": "mean return"}
    (tmp_path / "evaluation.json").write_text(json.dumps(live))
    text = page(tmp_path)
    assert "In 2,000 live conversations it has earned 0.170 (0.130 to 0.210)" in text
    assert "+0.030 away" in text and "talked: 0.170" in text and "live conversations 0.170" in (
        (tmp_path / "report.html").read_text(encoding="utf-8")
    )  # fmt: skip


@pytest.mark.parametrize("broken", ["{}", "[1]", "{"])
def test_what_is_no_estimate_is_named(tmp_path: Path, broken: str) -> None:
    (tmp_path / "config.yaml").write_text("algorithm: act-mc\nfamily: act_agents\n")
    (tmp_path / "estimate.json").write_text(broken)
    with pytest.raises(InputError, match=r"estimate\.json: "):
        write_report(tmp_path)
