"""Which logged conversations a policy has learnt from, at any of its stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue
from turnwise.data.splits.choices import chosen, evenly
from turnwise.recipes.held_out import HeldOut
from turnwise.run.errors import InputError

BESIDES = 1600
"""conversations that were learnt from, at most, which teach what the logged agent would do"""


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
    unasked: int = 0
    """conversations that are left out because the policy cannot be asked about so many"""
    besides: Sequence[Dialogue] = ()
    """some of those that were learnt from: nothing is estimated from them, but they teach what the logged
    agent would do"""

    @property
    def facts(self) -> dict[str, Any]:
        """What a result says of it."""
        return {
            "left_out": self.left_out,
            "kept": self.kept,
            "unknown": list(self.unknown),
            "unasked": self.unasked,
        }

    @property
    def notes(self) -> list[str]:
        """What people are told."""
        found = []
        if self.left_out:
            found.append(
                f"{self.left_out:,} conversations are left out: the policy, or what it is made of, has "
                "learnt from them"
            )
        if self.unasked:
            found.append(
                f"the policy replies in {len(self.logs):,} conversations, drawn at random: {self.unasked:,} "
                "more would take more replies than it is allowed (replies), or fewer a turn (samples)"
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


def both(policy: HeldOut | None, other: HeldOut | None, name: str) -> HeldOut | None:
    """What a policy and what stands beside it (its `name`) have learnt from."""
    if policy is None:
        return None
    if other is None:
        return replace(policy, unknown=(*policy.unknown, name))
    unknown = (*policy.unknown, *(f"{name}: {part}" for part in other.unknown))
    return replace(policy, learnt=policy.learnt | other.learnt, unknown=unknown)


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
    left = np.flatnonzero(known)
    besides = chosen(logs, left[evenly(len(left), BESIDES)])
    return Fresh(_some(logs, np.flatnonzero(~known)), len(left), 0, held.unknown, besides=besides)


def within(rest: Fresh, held: HeldOut | None, turns: int, seed: int) -> Fresh:
    """As many conversations, at random, as have no more than so many turns of the agent together; one at
    least. `held`: see `fresh`."""
    sizes = np.array([len(d.turns) for d in rest.logs])
    if sizes.sum() <= turns:
        return rest
    order = np.random.default_rng((seed, 10)).permutation(len(sizes))
    count = max(1, int(np.searchsorted(np.cumsum(sizes[order]), turns, side="right")))
    logs = _some(rest.logs, np.sort(order[:count]))
    kept = int(held.learnt_from(logs).sum()) if rest.kept and held is not None else 0
    return replace(rest, logs=logs, kept=kept, unasked=len(sizes) - count)


def _some(logs: Logs, which: np.ndarray) -> Logs:
    return Logs(chosen(logs, which), logs.source, logs.reading)
