"""Figures of solved POMDPs as people write them: bounds that stay apart, columns with equal decimals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from turnwise.evaluation.pictures.style import as_given, number
from turnwise.exact.simulation import NOTHING
from turnwise.run import outwards

_STOPPED = {
    "gap": "reaching the target gap",
    "deadline": "the deadline",
    "interrupted": "an interruption",
}


def bounds(lower: float, upper: float) -> tuple[str, str]:
    """Both as text with the decimals that their gap is worth, rounded outwards so that they stay bounds."""
    gap, largest = upper - lower, max(abs(lower), abs(upper))
    if largest == 0:
        return "0", "0"
    size = math.floor(math.log10(largest))
    if gap <= 1e-9 * max(1.0, largest):  # both are the value: as it is given where that is not rounded
        if outwards.down(lower, 4) == outwards.up(upper, 4):
            text = as_given(upper)
            return text, text
        decimals = max(4, 2 - size)
    else:
        decimals = max(0, 2 - size, min(math.ceil(-math.log10(gap / 5)), 5 - size))
    ends = outwards.down(lower, decimals), outwards.up(upper, decimals)
    below, above = (_trimmed(number(x, decimals)) for x in ends)
    return below, above


def _trimmed(text: str) -> str:
    """Without the fraction if it is all zeros and long."""
    whole, _, fraction = text.partition(".")
    return text if fraction.strip("0") or len(fraction) < 3 else whole


def between(low: float, high: float) -> str:
    """A range of something that cannot be negative, as short as it is true."""
    low = max(0.0, low)
    if high < NOTHING:
        return "nothing"
    if number(low) == number(high):
        return number(high)
    if low < NOTHING:
        return f"at most {rounded_up(high)}"
    return " to ".join(bounds(low, high))


def rounded_up(value: float) -> str:
    """Two significant digits, rounded up."""
    decimals = max(0, 1 - math.floor(math.log10(value)))
    return number(outwards.up(value, decimals), decimals)


def decimals_of(values: Iterable[float]) -> int:
    """Decimals for a column: three significant digits of its largest entry."""
    largest = max((abs(v) for v in values), default=0.0)
    return min(6, max(0, 2 - math.floor(math.log10(largest)))) if largest > NOTHING else 0


def small(value: float, decimals: int) -> str:
    """A column's entry. What is not zero never reads as zero."""
    if abs(value) <= NOTHING:
        return "0"
    return (
        number(value, decimals)
        if abs(value) >= 0.5 * 10**-decimals
        else f"< {number(10**-decimals, decimals)}"
    )


def _episodes(s: Mapping[str, Any]) -> str:
    if s.get("horizon"):
        return f"end after {number(s['horizon'], 0)} steps"
    return "end" if s.get("episodic") else "go on for ever"


def facts_of(s: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What stands under the title: the problem and how it was solved."""
    shown = "shown before the first action" if s["initial_observation"] == "shown" else "not shown"
    facts = [
        ("states", number(s["states"], 0)),
        ("actions", number(s["actions"], 0)),
        ("observations", number(s["observations"], 0)),
        ("discount", f"{s['discount']:g}"),
        ("episodes", _episodes(s)),
        ("initial observation", shown),
        ("solved in", f"{number(s['seconds'])} s"),
    ]
    if "stopped" in s:
        facts.append(("stopped by", _STOPPED.get(s["stopped"], str(s["stopped"]))))
    for key, name in (("plans", "plans"), ("beliefs", "beliefs searched"), ("trials", "trials")):
        if key in s:
            facts.append((name, number(s[key], 0)))
    return facts
