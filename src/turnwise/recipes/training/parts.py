"""What is learnt from and what is held out of logs, and what a run records of where they came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue
from turnwise.data.disk.hashes import Hashes
from turnwise.data.splits.choices import Ratings, together
from turnwise.data.splits.heldout import Split, split_heldout
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.training.machine import Machine
from turnwise.run.errors import InputError, SettingError


def parted(
    logs: Logs,
    share: float,
    by: str | None,
    apart: Logs | None,
    m: Machine,
    like: Hashes | Iterable[int] = (),
) -> tuple[Split, Logs]:
    """Hold out a share, and all conversations in one: those of `logs`, then those of `apart`.

    `apart`: conversations that are held out, beside `logs` that are all learnt from. SettingError if nothing
    is left to learn from; a warning if nothing is held out of what should give a share.
    """
    split = split_heldout(logs, share, by, apart, like)
    everything = logs if apart is None else replace(logs, items=together(logs, apart))
    if not split.learnt:
        raise SettingError("heldout", share, "a smaller share: nothing is left to learn from")
    if share and not split.held:
        m.warn(f"nothing is held out of {len(everything):,} conversations (heldout is {share})")
    return split, everything


def origin(logs: Logs, task: str | None, **more: Any) -> dict[str, Any]:
    """What a run's config says of its logs."""
    found = {"logs": logs.source, "agent_role": logs[0].agent_role, "task": task}
    return found | logs.reading.facts() | more


def sizes_of(algorithm: Algorithm, card: Mapping[str, Any], **counts: int) -> dict[str, Any]:
    """What a plan tells of a training on logs: how many conversations, and what else there is of them."""
    known = {"conversations": card["conversations"], "held_out": card["heldout"]}
    return {"algorithm": algorithm.name, **known, **counts}


def expect_outcomes(logs: Sequence[Dialogue], name: str) -> None:
    """SettingError where some conversations lack an outcome that others have, InputError if all do."""
    ratings = Ratings.of(logs)
    if ratings.all_unrated:
        expected = "an outcome of conversations, or rewards of messages, to learn from"
        raise InputError(f"{name}: expected {expected}; found neither in {len(logs):,} conversations")
    if missing := ratings.missing:
        expected = "leave-out, or a number that they count as"
        found = f"{missing:,} of {len(logs):,} conversations ended without an outcome, which is not 0"
        raise SettingError("missing_outcome", None, f"{expected}: {found}")
