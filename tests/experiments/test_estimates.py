"""What the tables of the estimates' experiment are made of, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "experiments" / "estimates.py"


def test_scores_and_wrong_confidence_by_hand(load_script):
    """Estimates 1 and 3 of a truth of 1, and one that is missing; an end without a number is endless."""
    module = load_script(FILE)
    found = module.score([[1.0, 0.0, 2.0], [3.0, 2.0, None], [None, 0.0, 1.0]], 1.0)
    assert (found["sets"], found["missing"], found["bias"], found["deviation"]) == (3, 1, 1.0, 1.0)
    assert found["rmse"] == pytest.approx(2**0.5)
    assert found["covered"] == 0.5 and found["width"] is None
    assert module.score([[None, 0.0, 1.0]], 1.0) == {"sets": 1, "missing": 1}
    target = {"verdict": "vouch", "estimates": {"weighted": [2.0, 1.0, 3.0]}}  # half the width is 1
    assert module.confident_and_wrong(target, 4.1) and not module.confident_and_wrong(target, 3.9)
    assert module.confident_and_wrong(target, -0.1)
    assert not module.confident_and_wrong({**target, "verdict": "cannot tell"}, 9.0)


def test_a_small_set_of_logs_has_every_estimate(load_script):
    """Of 40 conversations nothing is vouched for, and the behaviour is kept or something better is chosen."""
    module = load_script(FILE)
    row = module.one("near-optimal", 40, 0)
    assert set(row["targets"]) == set(module.targets_of("near-optimal"))
    row = module.one("whims", 40, 0)
    assert {t["verdict"] for t in row["targets"].values()} == {"cannot tell"}
    names = set(row["targets"]["plan"]["estimates"])
    assert {"weighted", "MAGIC, counts", "direct, histories", "weighted, propensities of counts"} <= names
    assert set(row["models"]) == set(module.BELIEVED)
