from __future__ import annotations

import random

import pytest

from turnwise.evaluation.pages.solutions.figures import bounds, rounded_up
from turnwise.run import outwards


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        (-10.949145, "-10.9492", "-10.9491"),
        (19.371362, "19.3713", "19.3714"),
        (0.00012345678, "0.000123456", "0.000123457"),
        (123456.7, "123456", "123457"),
        (999999.9, "999999", "1e+06"),
        (2.6243999999999996, "2.6244", "2.6244"),  # 4 * .9^4, as arithmetic gives it
        (0.0, "0", "0"),
        (-20.0, "-20", "-20"),
    ],
)
def test_a_printed_bound_still_holds(value: float, low: str, high: str) -> None:
    assert (outwards.lower(value), outwards.upper(value)) == (low, high)


def test_no_bound_is_printed_inside_whatever_it_is() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        x = rng.choice([-1, 1]) * rng.random() * 10 ** rng.uniform(-8, 8)
        for digits in (3, 4, 6):
            low, high = float(outwards.lower(x, digits)), float(outwards.upper(x, digits))
            assert (
                low <= x * (1 + 1e-11 * (1 if x > 0 else -1))
                and x * (1 - 1e-11 * (1 if x > 0 else -1)) <= high
            )
            assert high - low <= 1.01 * 10 ** (1 - digits) * abs(x)


@pytest.mark.parametrize("gap", [0.0, 1e-12, 3e-7, 0.002, 0.7, 40.0])
def test_bounds_on_a_page_still_hold(gap: float) -> None:
    rng = random.Random(1)
    for _ in range(300):
        low = rng.uniform(-1, 1) * 10 ** rng.uniform(-2, 4)
        ends = bounds(low, low + gap)
        below, above = (float(x.replace("\u2212", "-").replace(",", "")) for x in ends)
        slack = 1e-11 * max(1.0, abs(low))
        assert below <= low + slack and above >= low + gap - slack
    if gap:
        assert float(rounded_up(gap).replace(",", "")) >= gap


def test_a_value_that_needs_no_rounding_is_one_figure() -> None:
    assert bounds(2.6243999999999996, 2.6244) == ("2.6244", "2.6244")
    assert bounds(-10.949145, -10.949145) == ("\u221210.9492", "\u221210.9491")
