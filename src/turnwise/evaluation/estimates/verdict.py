"""What may be said of an estimate: the logs vouch for it, only the model does, or nothing here can tell.

An interval says how far chance may have moved an estimate. It cannot say that the logs hold nothing like the
policy, and looks narrow there. So the verdict comes first, from what the logs hold of the policy, and the
number after it. What the logs must hold, `shortfalls.py` says; what a model must stand, this file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from turnwise.evaluation.estimates.foretelling.gains import Gain
from turnwise.evaluation.estimates.shortfalls import MATERIAL, TOLD, nats, needs_of, part, percent, shortfalls
from turnwise.evaluation.estimates.step_curve import ModelCheck
from turnwise.evaluation.estimates.support import Evidence

Word = Literal["vouch", "model only", "cannot tell"]

MIN_CHECKED = 0.02
"""share of the way to the policy (in nats) that a model must have been checked"""
NOTICED = 1 / 3
"""of the gain that a model promises at a step: an error of this size must be noticed at one step or another,
or the model is as good as unchecked"""


@dataclass(frozen=True)
class Verdict:
    """A word, the sentences that say why, and what data would help."""

    word: Word
    reasons: tuple[str, ...]
    needs: tuple[str, ...] = ()

    @property
    def headline(self) -> str:
        """The verdict as one sentence."""
        return {
            "vouch": "These logs vouch for the estimate.",
            "model only": "Only the learnt model says what this policy is worth: logs do not reach so far.",
            "cannot tell": "Nothing here can tell what this policy is worth.",
        }[self.word]


def judge(
    evidence: Evidence, model: ModelCheck | None = None, *, acts: Sequence[str] | None = None
) -> Verdict:
    """The verdict on one policy. `acts`: names of the K acts; they are numbered if None.

    vouch         the weights are even enough, the acts covered, the interval is narrow
    model only    not that, but the model agrees with the logs at every step that these vouch for, one of
                  these is a test of it, what it says of the next answer is not said better by what was
                  exchanged or how it was worded, and the policy does little that was never logged at all
    cannot tell   else
    """
    missing = shortfalls(evidence, acts)
    if not missing:
        return Verdict("vouch", (*_strengths(evidence), *_said_of(model, evidence)))
    reasons = tuple(m.reason for m in missing)
    needs = needs_of(missing, evidence)
    if any(m.final for m in missing):
        return Verdict("cannot tell", reasons, needs)
    doubt = _doubt(model, evidence)
    if doubt is None:
        return Verdict("model only", (*reasons, *_said_of(model, evidence)), needs)
    return Verdict("cannot tell", (*reasons, doubt), needs)


def vouches(evidence: Evidence) -> bool:
    """Whether the verdict is "vouch": for `farthest`, which looks for the last such step."""
    return not shortfalls(evidence, None)


def _strengths(evidence: Evidence) -> list[str]:
    (low, high), (bottom, top) = evidence.interval, evidence.returns
    coverage = evidence.coverage
    assert coverage is not None, "vouched for without coverage"
    return [
        f"For this policy {evidence.logs} tell as much as {evidence.evenness.effective:,.0f} of its own "
        "would, and the heaviest makes "
        f"{percent(evidence.evenness.largest_share)} of the estimate.",
        f"They hold {part(coverage.overall)} of what it does in like situations, and "
        f"{part(coverage.of_logged)} of what the logged agent did.",
        f"The 95% interval spans {(high - low) / (top - bottom):.0%} of the range of logged returns.",
    ]


def _doubt(model: ModelCheck | None, evidence: Evidence) -> str | None:
    """Why the model cannot be believed either; None if it can."""
    if model is None:
        return "There is no learnt model that could say more."
    material = MATERIAL * (evidence.returns[1] - evidence.returns[0])
    wrong = model.off(material)
    if wrong is not None:
        step, away = wrong
        return (
            f"The learnt model is wrong where it can be checked: {_way(model, step)} of the way from the "
            f"behaviour it promises {model.promised[step]:.3g}{_less_clone(model)}, and the logs say "
            f"{model.measured[step]:.3g} ({model.low[step]:.3g} to {model.high[step]:.3g}). It is too "
            f"{'high' if away > 0 else 'low'} there, and may be more so further on."
        )
    if told := _told_better(model):
        return told
    if not model.share >= MIN_CHECKED:
        return (
            f"The logs can check the learnt model on {percent(model.share)} of the way from the behaviour "
            f"to the policy only; {MIN_CHECKED:.0%} is asked for."
        )
    step, error, limit = model.sharpest(NOTICED, material)
    if not error <= limit:
        return (
            f"The logs are too few to check the learnt model: {_way(model, step)} of the way from the "
            f"behaviour it may be off by {error:.2g} unnoticed, and {limit:.2g} is asked for."
        )
    return None


def _said_of(model: ModelCheck | None, evidence: Evidence) -> list[str]:
    """How the model did, beside a verdict that does not blame it."""
    if model is None or not model.vouched.any():
        return []
    bottom, top = evidence.returns
    wrong = model.off(MATERIAL * (top - bottom))
    if wrong is not None:
        step, _ = wrong
        return [
            f"The learnt model says otherwise ({model.promised[step]:.3g}{_less_clone(model)}, where the "
            f"logs say {model.measured[step]:.3g}): it is the model that is wrong."
        ]
    if told := _told_better(model):
        return [told]
    away = np.abs(model.promised - model.measured)[model.vouched].max()
    return [
        f"Where the logs can check the learnt model, {percent(model.share)} of the way from the behaviour "
        f"to the policy, its promises{_less_clone(model)} differ from what they say by at most {away:.2g}, "
        "which chance explains."
    ]


def _told_better(model: ModelCheck) -> str | None:
    """What says the next answer better than the model: asked of what was done, whoever did it how often."""
    if _above(model.history):
        what = "what was exchanged before tells"
    elif _above(model.words):
        what = "the words of a message tell"
    else:
        return None
    gain = model.history if _above(model.history) else model.words
    assert gain is not None
    return (
        f"The learnt model is wrong about what is answered: {what} {nats(gain)} of each answer, beyond what "
        "it says."
    )


def _above(gain: Gain | None) -> bool:
    return gain is not None and gain.above(TOLD)


def _less_clone(model: ModelCheck) -> str:
    """What is taken off a promise, where the model had to talk with a clone of the logged agent."""
    if model.clone is None:
        return ""
    return f" (less its part of the {model.clone:+.2g} by which it is off for a clone of the logged agent)"


def _way(model: ModelCheck, step: int) -> str:
    return percent(1.0 if model.distance == 0 else float(model.distances[step] / model.distance))
