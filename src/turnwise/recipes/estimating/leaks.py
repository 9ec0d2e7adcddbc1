"""Which logged conversations a policy has learnt from, at any of its stages."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from turnwise.data.dataset import Logs
from turnwise.data.splits.choices import chosen
from turnwise.recipes.held_out import HeldOut
from turnwise.run.errors import InputError


@dataclass(frozen=True)
class Fresh:
    """Conversations to estimate from."""

    logs: Logs
    left_out: int
    """conversations that were learnt from and are not among them"""
    kept: int
    """conversations that were learnt from and are among them"""
    unknown: tuple[str, ...]
    """stages of the policy of which nobody knows what they learnt from"""

    @property
    def facts(self) -> dict[str, Any]:
        """What a result says of it."""
        return {"left_out": self.left_out, "kept": self.kept, "unknown": list(self.unknown)}

    @property
    def notes(self) -> list[str]:
        """What people are told."""
        found = []
        if self.left_out:
            found.append(
                f"{self.left_out:,} conversations are left out: the policy, or what it is made of, has "
                "learnt from them"
            )
        if self.kept:
            found.append(
                f"the policy, or what it is made of, has learnt from {self.kept:,} of {len(self.logs):,} "
                "conversations: as a rule the estimate is too high"
            )
        if self.unknown:
            found.append(
                f"nobody knows what {', '.join(self.unknown)} learnt from: if it was from these logs, the "
                "estimate is too high as a rule"
            )
        return found


def both(policy: HeldOut | None, model: HeldOut | None) -> HeldOut | None:
    """What a policy and a model beside it have learnt from."""
    if policy is None:
        return None
    if model is None:
        return replace(policy, unknown=(*policy.unknown, "the model"))
    unknown = (*policy.unknown, *(f"the model: {part}" for part in model.unknown))
    return replace(policy, learnt=policy.learnt | model.learnt, unknown=unknown)


def fresh(logs: Logs, held: HeldOut | None, name: str, learnt: Literal["leave-out", "keep"]) -> Fresh:
    """Leave out what was learnt from, or keep and count it.

    InputError if nothing else is there. `held`: what the policy says of itself, None if it says nothing.
    """
    if held is None:
        return Fresh(logs, 0, 0, ("the policy",))
    known = held.learnt_from(logs)
    if learnt == "keep":
        return Fresh(logs, 0, int(known.sum()), held.unknown)
    if known.all():
        raise InputError(
            f"{logs.source}: {name} has learnt from all {len(logs):,} conversations; expected some that it "
            "has not seen: other logs, or those that training held out (a larger heldout leaves more)"
        )
    if not known.any():
        return Fresh(logs, 0, 0, held.unknown)
    rest = Logs(chosen(logs, np.flatnonzero(~known)), logs.source, logs.reading)
    return Fresh(rest, int(known.sum()), 0, held.unknown)
