"""The safe step as a run of its own: a clone of the logged agent, and the policy at some of its turns.

The logs vouch for steps from the logged agent itself. Where they say how probable its acts were, a clone of
it is another agent, and what the logs say of steps from the clone is asked once more (`Ground.curve`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.data.disk.hashes import Hashes
from turnwise.data.splits.twins import marks_of
from turnwise.evaluation.pages.report import write_report
from turnwise.recipes.estimating.answer import Answer
from turnwise.recipes.estimating.curve import surely_best, vouched_steps
from turnwise.recipes.estimating.estimators import of_logs, row_of
from turnwise.recipes.estimating.leaks import Fresh
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.trained import ActPolicy, Policy
from turnwise.rollout.acts.imitation.steps import step_of
from turnwise.run.errors import SettingError
from turnwise.run.files.lock import RESULT, locked
from turnwise.run.folder import FORMAT, expect_fresh, write_config, write_json

STEP = "step.json"
"""what a step is, and what it is worth"""
WORDLESS = 0.01
"""share of the logged agent's turns without words that goes without saying"""
KEEP = "nothing is written: the agent that you have is what is safe"
UNSURE = (
    "nothing is written: with a clone in the place of the logged agent no step is better with certainty; let "
    "the agent itself speak at the other turns"
)
UNWRITTEN = (
    "nothing is written: a policy that writes its own words has no clone of the logged agent beside it; to "
    "take the step, let it speak at that share of the turns, drawn at random, and the agent that you have at "
    "the others"
)


@dataclass(frozen=True)
class Asked:
    """A policy and what the logs say of it."""

    name: str
    policy: ActPolicy | Policy
    answer: Answer


@dataclass(frozen=True)
class Step:
    """A step that can talk."""

    to: Asked
    t: float
    worth: dict[str, Any]
    """value, interval and gain over what the logs earned, of the step from the clone"""


def expect_free(out: str | Path | None) -> Path | None:
    """The folder that a safe step is to be written to. SettingError if something is there."""
    if out is None:
        return None
    try:
        expect_fresh(Path(out), resume=False)
    except SettingError as error:
        raise SettingError("safe", str(out), error.expected.replace(", or resume", "")) from None
    return Path(out)


def write_safe(out: Path, asked: Sequence[Asked], t: float, rest: Fresh) -> dict[str, Any]:
    """Write the best step that is better with certainty, among those that can talk; what a result says of it.

    `asked`: the policies that may be gone to; `t`: the safe step from the logged agent itself, 0 if there is
    none; `rest`: the conversations that were asked. `run` is the folder, None if nothing is written; `as_run`
    has the policy that is gone to, how far, and what the logs say of that; `notes` are for people.
    """
    found = best_step(asked) if t else None
    if found is None:
        spoken = t and all(a.answer.ground is None for a in asked)
        return {"run": None, "as_run": None, "notes": [UNWRITTEN if spoken else UNSURE if t else KEEP]}
    notes = [] if found.t == 1 else _notes(found)
    about = {"of": found.to.name, "t": found.t, "worth": found.worth}
    _write(out, found, rest, notes)
    return {"run": str(out), "as_run": about, "notes": notes}


def best_step(asked: Sequence[Asked]) -> Step | None:
    """Of the steps from clones that the logs vouch for and that are better with certainty, all at once, the
    one of the highest estimate. A policy that writes its own words is taken whole or not at all."""
    curves = [a.answer.curve if a.answer.ground is None else a.answer.ground.curve() for a in asked]
    places = [
        (i, k)
        for i, (a, c) in enumerate(zip(asked, curves, strict=True))
        for k in vouched_steps(c.rows)
        if c.rows[k]["t"] == 1 or a.answer.ground is not None
    ]
    best = surely_best(
        [curves[i].rows[k]["worth"]["value"] for i, k in places],
        [curves[i].gains[k] for i, k in places],
        [curves[i].spread[k] for i, k in places],
        asked[0].answer.sampling,
    )
    if best is None:
        return None
    i, k = places[best[0]]
    row = curves[i].rows[k]
    return Step(asked[i], row["t"], row["worth"])


def _write(out: Path, step: Step, rest: Fresh, notes: Sequence[str]) -> None:
    """The run folder."""
    policy, answer = step.to.policy, step.to.answer
    held, made = policy.held, policy
    learnt = HeldOut(0.0, None, unknown=("the policy",))
    if held is not None:
        learnt = HeldOut(0.0, None, (), held.learnt, held.unknown)
    if step.t < 1:
        assert isinstance(policy, ActPolicy) and answer.ground is not None
        made = replace(policy, agent=step_of(policy.agent, answer.ground.clones, step.t, answer.curve.way))
        clones_of = [*rest.logs, *rest.besides]  # the clones have learnt from all of them
        learnt = replace(learnt, learnt=learnt.learnt | Hashes(marks_of(clones_of)))
    first = {"of": step.to.name, "t": step.t, "way": answer.curve.way, "logs": rest.logs.source}
    now = row_of(answer.sampling.intervals([of_logs(answer.logged)]), 0)
    about = first | {"conversations": len(rest.logs), "now": now, "worth": step.worth, "notes": list(notes)}
    about["clone"] = answer.behaviour["model"] if step.t < 1 else None
    family = "act_agents" if isinstance(policy, ActPolicy) else "logs"
    algorithm = {
        "name": "step",
        "title": f"{step.t:.0%} of the way to {step.to.name}",
        "what": "the policy at some of the turns, a clone of the logged agent at the others",
        "family": family,
        "metrics": {},
    }
    with locked(out):
        settings = {"format": FORMAT, "family": family, "algorithm": "step", **first, "task": policy.task}
        write_config(out, settings, resume=False)
        write_json(out / "algorithm.json", algorithm)
        made.save(out / "policy")
        learnt.save(out)
        write_json(out / STEP, about)
        write_json(out / RESULT, {"algorithm": "step", "policy": "policy", "task": policy.task})
        write_report(out)


def _notes(step: Step) -> list[str]:
    """What a step does that is not what the logs were asked about."""
    policy, ground = step.to.policy, step.to.answer.ground
    assert isinstance(policy, ActPolicy) and ground is not None
    # Weights know what the logged agent meant, also where nobody has a sentence for it.
    wordless = float(np.where(policy.agent.voice.speakable, 0.0, ground.acts).sum())
    if wordless < WORDLESS:
        return []
    return [
        f"at {wordless:.0%} of its turns the logged agent means what no sentence is known for: where the "
        "clone would, another act is said"
    ]
