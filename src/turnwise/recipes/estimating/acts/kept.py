"""What was found of logs before, for other policies that are asked about the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import numpy as np

from turnwise.recipes.estimating.acts.steps import ActSteps

T = TypeVar("T")


class Kept:
    """What the logged agent did, and what foretells what, is no matter of the policy that is asked about."""

    def __init__(self) -> None:
        self._found: dict[Hashable, Any] = {}

    def once(self, what: Hashable, make: Callable[[], T]) -> T:
        """What `make` gave for this, or gives now."""
        if what not in self._found:
            self._found[what] = make()
        return self._found[what]


def reading_of(steps: ActSteps, fold: np.ndarray) -> bytes:
    """A hash of the conversations as acts, those that teach beside them, and their parts."""
    found = hashlib.sha256(repr((steps.logs.acts, steps.logs.answers, steps.logs.openings)).encode())
    for x in (steps.acts, steps.mask, steps.act_logp, fold):
        found.update(np.ascontiguousarray(x).tobytes())
    for talk in (*steps.talks, *steps.besides):
        found.update(f"{talk.first}".encode() + talk.acts.tobytes() + talk.answers.tobytes())
    return found.digest()
