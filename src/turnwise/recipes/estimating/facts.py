"""Parts of an estimate's result: columns of the logs, support and hidden confounding as JSON has them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.evaluation.estimates.confounding import gamma_to_undo
from turnwise.evaluation.estimates.foretelling.questions import Foretold
from turnwise.evaluation.estimates.importance import weighted_per_decision
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.shortfalls import TOLD
from turnwise.evaluation.estimates.support import Evidence
from turnwise.run.errors import SettingError


def column_of(dialogues: Sequence[Dialogue], name: str, setting: str) -> np.ndarray:
    """[B] of text, the values of a column. SettingError if a conversation has none."""
    found = []
    for d in dialogues:
        value = d.id if name == "id" else d.metadata.get(name)
        if value is None:
            known = ", ".join(["id", *sorted(d.metadata)])
            raise SettingError(setting, name, f"a column of every conversation; {d.id!r} has {known}")
        found.append(value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str))
    return np.array(found)


def support_of(evidence: Evidence, names: Sequence[str]) -> dict[str, Any]:
    """What the logs hold of the policy, as JSON has it."""
    even, cover = evidence.evenness, evidence.coverage
    assert cover is not None
    share = even.largest_share
    return {
        "conversations": evidence.conversations,
        "unit": evidence.unit,
        "effective": even.effective,
        "largest_share": share if np.isfinite(share) else None,
        "coverage": cover.overall,
        "coverage_error": cover.error,
        "coverage_of_logged": cover.of_logged,
        "nowhere": cover.nowhere,
        "coverage_by_turn": [float(x) if np.isfinite(x) else None for x in cover.per_decision],
        "unseen": [
            {"turn": u.decision + 1, "act": names[u.act], "mass": u.mass, "elsewhere": u.elsewhere}
            for u in cover.unseen[:10]
        ],
    }


def told_facts(told: Foretold) -> dict[str, Any]:
    """What acts and models leave out, in nats for each thing that followed, as JSON has it."""
    found: dict[str, Any] = {}
    for name, gain in (("words", told.words), ("beyond_model", told.beyond), ("history", told.history)):
        if gain is None:
            found[name] = None
            continue
        low, high = gain.interval
        row = {"value": gain.mean, "low": low, "high": high, "error": gain.error}
        found[name] = {k: x if np.isfinite(x) else None for k, x in row.items()}
        found[name] |= {"count": gain.count, "fault": gain.above(TOLD)}
    return found


def confounding_of(logged: Logged) -> float | None:
    """How strong hidden confounding would have to be to undo the gain; None: as strong as one likes."""
    if not np.isfinite(weighted_per_decision(logged).value):
        return None
    gamma = gamma_to_undo(logged.logp, logged.behavior_logp, logged.mask, logged.returns)
    return gamma if np.isfinite(gamma) else None
