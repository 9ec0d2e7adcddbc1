"""Rehearsals: with TURNWISE_REHEARSAL=1 every run is tiny, to try a script before the long run.

A rehearsal does everything that the real run does, files and pages included, with a few steps, conversations
and episodes. Its results mean nothing, and its config says so.
"""

from __future__ import annotations

import os

VARIABLE = "TURNWISE_REHEARSAL"


def rehearsing() -> bool:
    """Whether this is a rehearsal."""
    return os.environ.get(VARIABLE, "0") not in ("", "0")


def at_most(few: int, amount: int) -> int:
    """`amount`, and in a rehearsal no more than `few`."""
    return min(few, amount) if rehearsing() else amount
