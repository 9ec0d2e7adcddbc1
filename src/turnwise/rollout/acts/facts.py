"""Hidden facts of a live task as numbers: privileged, for values in training alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.envs.dialogue import DialogueTask
from turnwise.rollout.conversations import episode_seed
from turnwise.run.errors import SettingError

LOOKED_AT = 512
"""conversations whose hidden facts say which values there are"""
KINDS = 64
"""values up to which a fact is one of a few kinds; a fact of more numbers than that is a number"""


@dataclass(frozen=True)
class Fact:
    """One fact: one of a few `kinds`, or a number of a mean and a spread."""

    name: str
    kinds: tuple[Any, ...] = ()
    mean: float = 0.0
    spread: float = 1.0

    @property
    def size(self) -> int:
        """How many numbers stand for it."""
        return len(self.kinds) or 1

    def numbers(self, value: Any) -> list[float]:
        """A 1 at its kind, or nothing at a kind that was never seen; a number in standard deviations."""
        if not self.kinds:
            return [(float(value) - self.mean) / self.spread]
        return [float(value == kind) for kind in self.kinds]


@dataclass(frozen=True)
class HiddenFacts:
    """Facts that stay the same throughout a conversation, in a fixed order."""

    facts: tuple[Fact, ...]

    @property
    def size(self) -> int:
        """How many numbers they are."""
        return sum(fact.size for fact in self.facts)

    def numbers(self, hidden: Mapping[str, Any]) -> np.ndarray:
        """[F], of one conversation."""
        return np.array([x for fact in self.facts for x in fact.numbers(hidden[fact.name])])

    @staticmethod
    def of(task: DialogueTask, names: Sequence[str], seed: int) -> HiddenFacts:
        """Those of a task, as they are in conversations that begin. SettingError for a name that it has not,
        and for a fact that is neither a text nor a number."""
        seen: list[Mapping[str, Any]] = []
        for i in range(LOOKED_AT):
            task.reset([0], [episode_seed(seed, i, 1)])
            seen.append(dict(task.hidden(0)))
        known = sorted(set.intersection(*(set(x) for x in seen)))
        for name in names:
            if name not in known:
                expected = f"hidden facts of the task: {', '.join(known) or 'it has none'}"
                raise SettingError("critic_sees", name, expected)
        return HiddenFacts(tuple(_fact(name, [x[name] for x in seen]) for name in names))


def _fact(name: str, values: Sequence[Any]) -> Fact:
    if not all(isinstance(x, str | bool | int | float) for x in values):
        raise SettingError("critic_sees", name, "a fact that is a text or a number")
    kinds = sorted(set(values), key=str)
    if len(kinds) <= KINDS:
        return Fact(name, tuple(kinds))
    if any(isinstance(x, str) for x in values):
        expected = f"a fact of at most {KINDS} texts; it has {len(kinds)} or more"
        raise SettingError("critic_sees", name, expected)
    x = np.array(values, np.float64)
    return Fact(name, (), float(x.mean()), float(x.std()) or 1.0)
