"""Weights that move to a target."""

import pytest

from turnwise.run.control import AdaptiveWeight


def test_a_weight_moves_to_its_target() -> None:
    """Twice the target: +.2 / 50 a step, clipped; half of it: -.2 / 50; fixed without a target."""
    weight = AdaptiveWeight(0.5, target=4.0)
    weight.update_(8.0)
    assert weight.value == pytest.approx(0.5 * 1.004)
    weight.update_(4.4)
    assert weight.value == pytest.approx(0.5 * 1.004 * (1 + 0.1 / 50))
    other = AdaptiveWeight(0.1, target=4.0)
    other.load(weight.state())
    assert other.value == weight.value
    low = AdaptiveWeight(0.5, target=4.0)
    low.update_(2.0)
    assert low.value == pytest.approx(0.5 * 0.996)
    fixed = AdaptiveWeight(0.5)
    fixed.update_(100.0)
    assert fixed.value == 0.5
