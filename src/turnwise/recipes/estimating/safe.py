"""The safe step as a run of its own: a clone of the logged agent, and the policy at some of its turns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.data.dataset import Logs
from turnwise.data.splits.twins import marks_of
from turnwise.evaluation.pages.report import write_report
from turnwise.recipes.estimating.answer import Answer, Ground
from turnwise.recipes.estimating.estimators import leading, of_logs, row_of
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
UNWRITTEN = (
    "a policy that writes its own words has no clone of the logged agent beside it; to take the step, let "
    "the policy speak at that share of the turns, drawn at random, and the agent that you have at the others"
)


def expect_free(out: str | Path | None) -> Path | None:
    """The folder that a safe step is to be written to. SettingError if something is there."""
    if out is None:
        return None
    try:
        expect_fresh(Path(out), resume=False)
    except SettingError as error:
        raise SettingError("safe", str(out), error.expected.replace(", or resume", "")) from None
    return Path(out)


def write_safe(
    out: Path, policy: ActPolicy | Policy, name: str, answer: Answer, t: float, logs: Logs
) -> dict[str, Any]:
    """Write the step `t` of an answer as a run, if it can talk; what a result says of that. `name`: of the
    policy; `logs`: those that were asked.

    `run` is the folder, None if nothing is written: if the step is the logged agent itself, of whom a clone
    would be a poor copy, and for policies that write their own words. `as_run` is what the same logs say of
    the step with a clone in the place of the logged agent; `notes` are for people.
    """
    if not t:
        note = "nothing is written: the agent that you have is what is safe"
        return {"run": None, "as_run": None, "notes": [note]}
    if t < 1 and (answer.ground is None or not isinstance(policy, ActPolicy)):
        return {"run": None, "as_run": None, "notes": [f"nothing is written: {UNWRITTEN}"]}
    found: dict[str, Any] = {"run": str(out), "as_run": None, "notes": []}
    held = policy.held
    learnt = HeldOut(0.0, None, frozenset(), frozenset(), ("the policy",))
    if held is not None:
        learnt = HeldOut(0.0, None, frozenset(), held.learnt, held.unknown)
    made = policy
    if t < 1:
        assert isinstance(policy, ActPolicy) and answer.ground is not None
        found["as_run"] = as_run(answer, answer.ground, t)
        found["notes"] += _notes(policy, answer.ground, found["as_run"])
        clones = answer.ground.behaviour.choosers
        made = replace(policy, agent=step_of(policy.agent, clones, t, answer.ground.path.way))
        marks = frozenset(marks_of(logs).tolist())  # the clones have learnt from all of them
        learnt = replace(learnt, learnt=learnt.learnt | marks)
    row = next(row for row in answer.curve.rows if row["t"] == t)
    about: dict[str, Any] = {"of": name, "t": t, "way": answer.curve.way, "logs": logs.source}
    about |= {"conversations": len(logs), "now": _now(answer), "worth": row["worth"], **found}
    about |= {"clone": answer.behaviour["model"] if t < 1 else None}
    with locked(out):
        settings = {"format": FORMAT, "family": "act_agents", "algorithm": "step"}
        if not isinstance(policy, ActPolicy):
            settings["family"] = "logs"
        kept = {k: about[k] for k in ("of", "t", "way", "logs")}
        write_config(out, settings | kept | {"task": policy.task}, resume=False)
        title = f"{t:.0%} of the way to {name}"
        what = "the policy at some of the turns, a clone of the logged agent at the others"
        write_json(
            out / "algorithm.json",
            {"name": "step", "title": title, "what": what, "family": settings["family"], "metrics": {}},
        )
        made.save(out / "policy")
        learnt.save(out)
        write_json(out / STEP, {k: v for k, v in about.items() if k != "run"})
        write_json(out / RESULT, {"algorithm": "step", "policy": "policy", "task": policy.task})
        write_report(out)
    return found


def as_run(answer: Answer, ground: Ground, t: float) -> dict[str, Any]:
    """What the logs say of the step `t` from the clone, in place of the logged agent: value, interval, gain.

    The same as of the step itself, if the weights of that were made of the clone as well.
    """
    x = replace(answer.logged, logp=ground.path.logged(t, ground.acts))
    point = leading(x).of(x)
    i = [row["t"] for row in answer.curve.rows].index(t)
    spread = [answer.curve.spread[i]]
    value = row_of(answer.sampling.intervals([point], spread=spread), 0)
    gain = answer.sampling.gains([point.minus(of_logs(answer.logged))], spread=spread)
    return value | {"gain": row_of(gain, 0)}


def _now(answer: Answer) -> dict[str, Any]:
    """What the logged agent earned."""
    return row_of(answer.sampling.intervals([of_logs(answer.logged)]), 0)


def _notes(policy: ActPolicy, ground: Ground, run: Mapping[str, Any]) -> list[str]:
    """What a step has that is not what the logs were asked about."""
    found = []
    if ground.behaviour.source != "estimated" and not (run["gain"]["low"] or 0) > 0:
        found.append(
            "with a clone in the place of the logged agent the step is not better with certainty: let the "
            "agent itself speak at the other turns, if you can"
        )
    # Weights know what the logged agent meant, also where nobody has a sentence for it.
    p = np.exp(ground.path.behavior_logp[ground.path.mask])  # [n, K]
    wordless = float(p[:, ~policy.agent.voice.speakable].sum(1).mean())
    if wordless >= WORDLESS:
        found.append(
            f"at {wordless:.0%} of its turns the logged agent means what no sentence is known for: where the "
            "clone would, another act is said"
        )
    return found
