"""Returns side by side by hand: gaps, errors and ranks."""

from __future__ import annotations

import numpy as np
import pytest

from turnwise.evaluation.measures.partners.downstream import downstream_gap, sentence


def returns(*means: float) -> dict[str, list[float]]:
    """Policies a, b, ... whose returns scatter a little about their means."""
    return {
        chr(97 + i): (m + 0.01 * np.random.default_rng(i).permutation(np.linspace(-1, 1, 40))).tolist()
        for i, m in enumerate(means)
    }


def test_gaps_by_hand():
    """Gaps .5, -.1 and -.3: absolute mean .3, mean .1 / 3. Ranks (3, 2, 1) and (2, 3, 1): 1 - 6 x 2 / 24."""
    found = downstream_gap(returns(1.0, 0.5, 0.0), returns(0.5, 0.4 + 0.2, 0.3))
    assert [row["gap"] for row in found["policies"]] == pytest.approx([0.5, -0.1, -0.3])
    assert found["error"] == pytest.approx(0.3) and found["bias"] == pytest.approx(0.1 / 3)
    assert found["rank"]["mean"] == pytest.approx(0.5)
    first = found["policies"][0]["partner"]
    assert first["low"] < 1.0 < first["high"] and first["conversations"] == 40


def test_the_same_order_has_rank_one_for_certain_where_means_lie_apart():
    found = downstream_gap(returns(3, 2, 1, 0), returns(0.9, 0.6, 0.3, 0.0))
    assert found["rank"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert "rank correlation 1.00 (1.00 to 1.00)" in sentence(found)


def test_a_partner_that_pays_everyone_alike_ranks_nobody():
    same = {name: [1.0, 1.0] for name in "abc"}
    assert downstream_gap(same, {"a": [0.0, 1.0], "b": [1.0, 2.0], "c": [4.0, 5.0]})["rank"]["mean"] == 0.0


def test_two_policies_have_no_rank_and_other_policies_no_comparison():
    assert downstream_gap(returns(1, 2), returns(1, 2))["rank"] is None
    with pytest.raises(ValueError, match="expected the same policies in both"):
        downstream_gap(returns(1, 2), returns(1))
