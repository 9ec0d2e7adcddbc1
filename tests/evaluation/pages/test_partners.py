"""The page of a partner: it leads with how good it is, and says what nobody asked."""

from __future__ import annotations

from typing import Any

from turnwise.evaluation.pages.partners import partner_view


def quality() -> dict[str, Any]:
    sign = {"sign": "the partner says “<b>”", "held": 0.25, "logged": 0.0}
    mean = {"mean": 0.5, "low": 0.4, "high": 0.6, "conversations": 10}
    return {
        "held_out": 40,
        "lines": ["words: 1.000 nats a message"],
        "answers_test": {"signs": [sign]},
        "downstream": {
            "task": "helpdesk",
            "policies": [{"policy": "runs/a", "partner": mean, "task": {**mean, "mean": 0.45}, "gap": 0.05}],
        },
    }


def test_what_was_found_is_shown_by_its_figures():
    view = partner_view(quality(), {"lines": ["of training"]})
    assert view["asked"] and view["lines"] == ["words: 1.000 nats a message"]
    assert view["signs"] == [("answers at logged places", [("the partner says “<b>”", "25%", "0%")])]
    (row,) = view["returns"]
    assert row == {
        "policy": "runs/a",
        "gap": "+0.050",
        "partner": "0.500 (0.400 to 0.600)",
        "task": "0.450 (0.400 to 0.600)",
    }


def test_before_anybody_asked_training_says_what_it_held_out():
    view = partner_view(None, {"lines": ["of training"]})
    assert (
        not view["asked"] and view["lines"] == ["of training"] and not view["signs"] and not view["returns"]
    )
    assert partner_view(None, None)["lines"] == []
