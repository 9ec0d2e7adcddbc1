"""Bounds as text: a lower bound is rounded down and an upper bound up, so that what is printed still holds.

Digits from the twelfth on are taken for the rounding of the arithmetic that made the number: 2.6244 that was
computed as 2.6243999999999996 is printed as 2.6244.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

EXACT = 12
"""significant digits that are taken as they are"""


def down(value: float, decimals: int) -> float:
    """The largest number of so many decimals that is not above `value`."""
    return _moved(value, decimals, ROUND_FLOOR)


def up(value: float, decimals: int) -> float:
    """The smallest number of so many decimals that is not below `value`."""
    return _moved(value, decimals, ROUND_CEILING)


def lower(value: float, digits: int = 6) -> str:
    """A lower bound in so many significant digits, rounded down."""
    return _text(value, digits, down)


def upper(value: float, digits: int = 6) -> str:
    """An upper bound in so many significant digits, rounded up; of a gap, too."""
    return _text(value, digits, up)


def _moved(value: float, decimals: int, way: str) -> float:
    known = Decimal(f"{value:.{EXACT}g}")
    return float(known.quantize(Decimal(1).scaleb(-decimals), rounding=way))


def _text(value: float, digits: int, move: Callable[[float, int], float]) -> str:
    if value == 0 or value != value or abs(value) == float("inf"):
        return f"{value:g}"
    size = Decimal(f"{value:.{EXACT}g}").adjusted()  # 10^size is the first digit's place
    return f"{move(value, digits - 1 - size):.{digits}g}"
