"""Ranges of settings, which a `Config` names in `__post_init__`. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from turnwise.run.errors import SettingError


@dataclass(frozen=True)
class Range:
    """Numbers that a setting may have, and the words for them in an error."""

    words: str
    holds: Callable[[float], bool]


ANY = Range("a finite number", lambda x: True)
POSITIVE = Range("a number above 0", lambda x: x > 0)
NOT_NEGATIVE = Range("0 or more", lambda x: x >= 0)
SHARE = Range("a number from 0 to 1", lambda x: 0 <= x <= 1)
PART = Range("a number above 0 and at most 1", lambda x: 0 < x <= 1)
BELOW_ONE = Range("a number from 0 to below 1", lambda x: 0 <= x < 1)
BELOW_HALF = Range("a number from 0 to below 0.5", lambda x: 0 <= x < 0.5)
INSIDE = Range("a number between 0 and 1", lambda x: 0 < x < 1)
ONE_OR_MORE = Range("1 or more", lambda x: x >= 1)
TWO_OR_MORE = Range("2 or more", lambda x: x >= 2)
LAYERS = Range("a whole number from 1 to 10,000", lambda x: 1 <= x <= 10_000)
SEED = Range("a whole number from 0 to 2^63 - 1", lambda x: 0 <= x < 2**63)


def check(settings: Any, **ranges: Range) -> None:
    """SettingError for the first field of `settings` whose number is outside its range.

    A field that is None is left out, the entries of a tuple are checked one by one, and every other number
    of `settings` must be finite.
    """
    for name, given in vars(settings).items():
        for value in given if isinstance(given, tuple) else (given,):
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            allowed = ranges.get(name, ANY)
            if not (math.isfinite(value) and allowed.holds(value)):
                raise SettingError(name, value, allowed.words)


def check_choice(settings: Any, **choices: tuple[str, ...]) -> None:
    """SettingError for the first field of `settings` that is none of the words that it may be."""
    for name, words in choices.items():
        if getattr(settings, name) not in words:
            raise SettingError(name, getattr(settings, name), f"{', '.join(words[:-1])} or {words[-1]}")
