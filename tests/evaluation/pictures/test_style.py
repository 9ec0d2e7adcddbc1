"""Colours, contrasts and numbers of all pictures."""

from __future__ import annotations

import pytest

from turnwise.evaluation.pictures.style import DARK, LIGHT, level, number


def test_colour_is_symmetric_and_saturates():
    assert [level(x, 0.6) for x in (0, 0.04, 0.06, 0.3, 0.6, 9)] == ["z", "z", "p1", "p3", "p6", "p6"]
    assert [level(-x, 0.6) for x in (0.04, 0.06, 0.3, 0.6, 9)] == ["z", "n1", "n3", "n6", "n6"]


@pytest.mark.parametrize(("palette", "ink"), [(LIGHT, "#1c1b19"), (DARK, "#eceae6")])
def test_text_reads_on_every_colour_and_sides_weigh_the_same(palette, ink):
    """WCAG contrast (L1 + .05) / (L2 + .05) of at least 4.5; equal steps differ by at most 10% of it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(colour: str) -> float:
        high, low = sorted((luminance(colour), luminance(ink)), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for orange, blue in zip(palette["n"], palette["p"], strict=True):
        assert min(contrast(orange), contrast(blue)) >= 4.5
        assert contrast(orange) == pytest.approx(contrast(blue), rel=0.1)


def test_numbers_as_people_write_them():
    assert number(-0.3, 3) == "−0.300" and number(2000, 0) == "2,000"
    assert number(0.0004, 2, signed=True) == "0.00" and number(-0.0004, 2) == "0.00"
    assert number(0.5, 2, signed=True) == "+0.50"
    assert [number(x) for x in (1.234, 12.34, 123.4, 0.01234, 0)] == ["1.23", "12.3", "123", "0.0123", "0.00"]
    assert number(0.0000276) == "2.8e−5"
