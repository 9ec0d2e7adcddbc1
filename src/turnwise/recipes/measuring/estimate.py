"""What a policy is worth, from the logs of another and before anyone talks to it.

logs ──► not learnt from ──► acts, what policy and behaviour would do ──► support ──► estimates ──► verdict
                                                                           └─► steps from one to the other
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue
from turnwise.data.files.logs import read_logs
from turnwise.evaluation.estimates.bounds import cautious_value
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.verdict import judge
from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.recipes.estimating.acts.answer import act_answer
from turnwise.recipes.estimating.acts.behaviour import Behaviour
from turnwise.recipes.estimating.acts.kept import Kept
from turnwise.recipes.estimating.acts.promises import promised
from turnwise.recipes.estimating.acts.spoken import spoken_steps
from turnwise.recipes.estimating.acts.steps import act_steps
from turnwise.recipes.estimating.answer import Answer
from turnwise.recipes.estimating.curve import Curve, Promises
from turnwise.recipes.estimating.estimators import (
    Sampling,
    estimates_of,
    leading,
    mean_weight,
    of_logs,
    part_of,
    row_of,
)
from turnwise.recipes.estimating.facts import column_of, confounding_of, support_of, told_facts
from turnwise.recipes.estimating.leaks import Fresh, both, fresh, within
from turnwise.recipes.estimating.rerated import rerated, reward_name
from turnwise.recipes.estimating.resolution import per_of
from turnwise.recipes.estimating.safe import Asked, expect_free, write_safe
from turnwise.recipes.estimating.text.speakers import LmSpeaker
from turnwise.recipes.estimating.text.tokens import token_answer
from turnwise.recipes.estimating.text.turns import turn_answer
from turnwise.recipes.estimating.words import in_words, in_words_of_run
from turnwise.recipes.opened import load, load_codebooks
from turnwise.recipes.settings.measure import EstimateSettings
from turnwise.recipes.trained import ActPolicy, Codebooks, Policy
from turnwise.recipes.training.parts import expect_outcomes
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.plan import PlanChooser
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.lock import locked
from turnwise.run.files.whole import whole_files
from turnwise.run.folder import as_json
from turnwise.run.rehearsal import at_most

FILE = "estimate.json"
MOST_GROUPS = 50
"""values of a column by which estimates are made"""


def estimate(
    agent: Any,
    logs: Any,
    *,
    acts: Any = None,
    model: Any = None,
    reward: Any = None,
    safe: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Estimate what a policy is worth from logged conversations that it has not learnt from.

    Policies of acts are estimated per act, those that write their own words (any language model, by
    folder, among them) per turn, unless `per` says otherwise. `agent`: what `fit` or `load` returned, or a
    run folder. `logs`: what `read_logs` reads. `acts`: codebooks (of `Acts`), or their folder, by which the
    replies of a policy that writes are read, so that it is estimated per act. `model`: a plan (of
    `LearntPomdp`), or its folder, whose learnt models are to promise what a policy of acts is worth; a plan
    is promised by its own. `reward`: a function of a `Dialogue`, or its name as module:function, whose
    rewards take the place of those that were logged; no model promises anything then, since it has learnt of
    the others. `safe`: a new folder, to which the safe step is written as a run (`write_safe`). `settings`:
    fields of `EstimateSettings` (`per`, `discount`, `cluster`, `by`, `learnt`, `way`, `lowest`, `highest`,
    `resamples`, `samples`, `replies`, `talks`, `seed`).

    The result leads with `worth`: what the logged agent earned (`now`) and the policy would (`then`), `sure`
    (the verdict's word) and `why`. Then `behaviour`, `support`, `estimates` (each with its interval and its
    gain over the logs), `curve`, `verdict`; `lines` are all of it for people. JSON holds it; with a run
    folder it is written there, as estimate.json.

    InputError for logs without outcomes, for propensities that are none, and if the policy has learnt from
    all of the conversations; SettingError for a column that is not there.
    """
    s, out = EstimateSettings(**settings), expect_free(safe)
    policy, codes = policy_of(agent), codebooks_of(acts)
    per_of(policy, codes, s)
    world = policy if isinstance(policy, ActPolicy) else None
    if model is not None:
        world = world_of(model)
        if not isinstance(policy, ActPolicy):
            raise InputError(f"model {world.name}: it promises nothing of a policy that writes its own words")
        expect_same_acts(policy, world)
    read = logs if isinstance(logs, Logs) else read_logs(logs, quiet=quiet)
    if reward is not None:
        if model is not None:
            raise InputError(
                f"model {model}: it has learnt of the logged rewards, and promises nothing of others"
            )
        read, world = rerated(read, reward), None
    s = replace(s, resamples=at_most(200, s.resamples), talks=at_most(20, s.talks))
    one = Estimating(policy, world, read, s, quiet, codes)
    rest = one.rest()
    answer = one.answer(rest)
    found = one.document(rest, answer)
    if out is not None:
        found["safe"] |= write_safe(out, [Asked(policy.name, policy, answer)], found["safe"]["t"], rest)
        found["lines"] += in_words_of_run(found["safe"])
    if reward is not None:
        said = f"returns are by {reward_name(reward)}, and not as they were logged"
        found["warnings"].insert(0, said)
    if policy.folder is not None:
        with locked(policy.folder):
            whole_files(policy.folder, {FILE: as_json(found)}, last=FILE)
    return found


@dataclass(frozen=True)
class Estimating:
    """One policy, one log."""

    policy: ActPolicy | Policy
    world: ActPolicy | None
    """whose learnt models promise, if it has any"""
    logs: Logs
    s: EstimateSettings
    quiet: bool
    codes: Codebooks | None = None
    """by which the replies of a policy that writes are read, if it is asked per act"""
    kept: Kept | None = None
    """what was found of the same logs for other policies"""

    def rest(self) -> Fresh:
        """The conversations to ask."""
        held = self.policy.held
        if self.world is not None and self.world is not self.policy:
            held = both(held, self.world.held, "the model")
        if self.codes is not None:
            held = both(held, self.codes.held, "the codebooks")
        rest = fresh(expect_logs(self.logs), held, self.policy.name, self.s.learnt)
        if self.codes is not None:
            rest = within(rest, held, self.s.replies // self.s.samples, self.s.seed)
        return rest

    def answer(self, rest: Fresh) -> Answer:
        """What these conversations say."""
        s = self.s
        clusters = None if s.cluster is None else column_of(rest.logs, s.cluster, "cluster")
        possible = self._range(discounted_returns(rest.logs, s.discount))
        sampling = Sampling(possible, clusters, s.resamples, s.seed, self.quiet)
        asking = {"seed": s.seed, "samples": s.samples, "quiet": self.quiet, "besides": rest.besides}
        if isinstance(self.policy, ActPolicy):
            agent = self.policy.agent
            steps = act_steps(agent, rest.logs, **asking)
            promise, plan = self._promising(agent), self._plan()
            shown = None if plan is None else Plan(plan.planner, plan.copies)
            return act_answer(
                steps, agent.codes, sampling, s, promise=promise, plan=shown, kept=self.kept, quiet=self.quiet
            )
        if self.codes is not None:
            codes = self.codes.codes
            steps, notes = spoken_steps(self.policy.agent, codes, rest.logs, **asking)
            return act_answer(steps, codes, sampling, s, notes=notes, kept=self.kept, quiet=self.quiet)
        speaker = LmSpeaker(self.policy.agent)
        answer = token_answer if s.per == "token" else turn_answer
        asked = {"discount": s.discount, "quiet": self.quiet, "besides": rest.besides}
        return answer(speaker, rest.logs, sampling, **asked)

    def document(self, rest: Fresh, answer: Answer) -> dict[str, Any]:
        """The answer as a result says it."""
        names, logged, sampling = answer.names, answer.logged, answer.sampling
        curve, promises = answer.curve, answer.promises
        verdict = judge(curve.evidence[-1], curve.check, acts=names)
        sure, reasons = verdict.word, list(verdict.reasons)
        weight = mean_weight(logged, sampling.clusters)
        if rest.kept and sure == "vouch":
            sure = "cannot tell"
            reasons.insert(0, "The policy has learnt from these conversations: nothing here is a test of it.")
        rows = estimates_of(logged, sampling, answer.others)
        rows = [row | {"words": answer.words.get(row["name"], row["words"])} for row in rows]
        if promises is not None:
            rows.append(self._direct(promises, rows[0]))
        lead = next(row for row in rows if row["name"] == leading(logged).name)
        direct = next((row for row in rows if row["name"] == "direct"), None)
        found: dict[str, Any] = {
            "policy": self.policy.name,
            "logs": rest.logs.source,
            "per": answer.per,
            "conversations": len(rest.logs),
            "decisions": int(logged.mask.sum()),
            "discount": self.s.discount,
            "learnt_from": rest.facts,
            "worth": {
                "now": rows[0],
                "then": direct if sure == "model only" and direct is not None else lead,
                "sure": sure,
                "why": reasons,
                "needs": list(verdict.needs),
            },
            "behaviour": answer.behaviour,
            "support": support_of(curve.evidence[-1], names) | {"mean_weight": weight} | dict(answer.support),
            "estimates": rows,
            "cautious": self._cautious(logged, sampling),
            "confounding": confounding_of(answer.messages or logged),
            "meanings": told_facts(answer.told),
            "curve": {"way": curve.way, "steps": curve.rows, "reached": curve.reached},
            "safe": self._safe(curve, rest.kept > 0),
            "verdict": {"word": verdict.word, "headline": verdict.headline, "reasons": list(verdict.reasons)},
            "groups": self._groups(rest.logs, logged, sampling),
            "partings": list(answer.partings),
            "warnings": [*rest.notes, *answer.warnings],
        }
        return found | {"lines": in_words(found)}

    def _safe(self, curve: Curve, learnt: bool) -> dict[str, Any]:
        """The step to take, and what it is worth; no step if the policy has learnt from these logs."""
        t = 0.0 if learnt else curve.safe
        row = next((row for row in curve.rows if row["t"] == t), None)
        return {"t": t, "worth": None if row is None else row["worth"]}

    def _range(self, returns: np.ndarray) -> tuple[float, float]:
        """Returns that are possible."""
        low, high = float(returns.min()), float(returns.max())
        for name, value, beyond in (
            ("lowest", self.s.lowest, self.s.lowest is not None and self.s.lowest > low),
            ("highest", self.s.highest, self.s.highest is not None and self.s.highest < high),
        ):
            if beyond:
                raise SettingError(name, value, f"no narrower range than was logged, {low:g} to {high:g}")
        return (
            low if self.s.lowest is None else self.s.lowest,
            high if self.s.highest is None else self.s.highest,
        )

    def _promising(self, agent: ActAgent) -> Callable[[Behaviour], Promises] | None:
        """What says what learnt models promise of each step; None if there are none."""
        plan = self._plan()
        if plan is None:
            return None
        s, model = self.s, plan.planner.model
        talks = {"discount": s.discount, "talks": s.talks, "seed": s.seed}
        return lambda behaviour: promised(model, plan.copies, agent, behaviour, s.way, **talks)

    def _plan(self) -> PlanChooser | None:
        """The plan in learnt models that have learnt of rewards; None if there is none."""
        plan = None if self.world is None else self.world.agent.chooser
        return plan if isinstance(plan, PlanChooser) and plan.planner.model.pay is not None else None

    def _direct(self, promises: Promises, now: dict[str, Any]) -> dict[str, Any]:
        """The row of what the models promise of the policy itself."""
        worths = () if self.world is not self.policy else self.policy.result.get("worth", ())
        worth = next((w for w in worths if w["role"] == "predicted"), None)
        value, half = float(promises.values[-1]), float(promises.spread[-1])
        low, high = value - half, value + half
        # Its run has simulated more, and planned by it; of returns without a discount.
        if worth is not None and self.s.discount == 1 and worth["low"] is not None:
            value, low, high = worth["mean"], min(worth["low"], worth["mean"] - half), worth["high"]
            high = max(high, value + half)
        row = {"name": "direct", "words": "the learnt models' promise", "value": value}
        row |= {"low": low, "high": high, "error": half / 1.96}
        gain = {"value": value - now["value"], "low": None, "high": None, "error": None}
        if now["low"] is not None and now["high"] is not None:
            # Of two independent numbers: half widths join as the root of the sum of squares.
            gain["low"] = gain["value"] - float(np.hypot(value - low, now["high"] - now["value"]))
            gain["high"] = gain["value"] + float(np.hypot(high - value, now["value"] - now["low"]))
        return row | {"gain": gain}

    def _cautious(self, logged: Logged, sampling: Sampling) -> float:
        weights = logged.ratios[:, -1]
        returns = np.clip(logged.returns, *sampling.within)  # a sum in another order may differ by rounding
        return cautious_value(weights, returns, sampling.within, clusters=sampling.clusters)

    def _groups(self, logs: Logs, logged: Logged, sampling: Sampling) -> list[dict[str, Any]]:
        """The leading estimate for each value of a column, the most frequent first."""
        if self.s.by is None:
            return []
        column = column_of(logs, self.s.by, "by")
        names, counts = np.unique(column, return_counts=True)
        found, way = [], leading(logged).of
        for name in names[np.argsort(-counts, kind="stable")][:MOST_GROUPS].tolist():
            rows = np.flatnonzero(column == name)
            part = part_of(logged, rows)
            clusters = None if sampling.clusters is None else sampling.clusters[rows]
            own = replace(sampling, clusters=clusters)
            points = [logs_point := of_logs(part), way(part)]
            values = own.intervals(points)
            gains = own.gains([points[1].minus(logs_point)])
            row: dict[str, Any] = {"value": name, "conversations": len(rows), "now": row_of(values, 0)}
            found.append(row | {"then": row_of(values, 1) | {"gain": row_of(gains, 0)}})
        return found


def expect_logs(logs: Logs) -> Logs:
    """The same logs; InputError if there are no conversations, or no outcomes."""
    if not len(logs):
        raise InputError(f"{logs.source}: expected logged conversations; found none")
    expect_outcomes(logs, logs.source)
    return logs


def policy_of(given: Any) -> ActPolicy | Policy:
    """What is estimated. InputError for what has no policy of conversations."""
    found = load(given) if isinstance(given, str | Path) else given
    if not isinstance(found, Policy):
        return _opened(found if isinstance(found, ActPolicy) else given, "a policy that converses")
    return found


def codebooks_of(given: Any) -> Codebooks | None:
    """Codebooks, themselves or by their folder; None if there are none."""
    return load_codebooks(given) if isinstance(given, str | Path) else given


def discounted_returns(dialogues: Sequence[Dialogue], discount: float) -> np.ndarray:
    """[B], what each conversation earned, discounted per turn of the agent."""
    return np.array([sum(m.reward * discount**k for k, m in enumerate(d.turns)) for d in dialogues])


def _opened(given: Any, expected: str) -> ActPolicy:
    """A policy of acts, itself or by its folder."""
    found = load(given) if isinstance(given, str | Path) else given
    if not isinstance(found, ActPolicy):
        name = given if isinstance(given, str | Path) else type(found).__name__
        raise InputError(f"{name}: expected {expected}")
    return found


def world_of(model: Any) -> ActPolicy:
    """The plan whose learnt models are asked, itself or by its folder. InputError if it has none."""
    world = _opened(model, "a plan in learnt models (pomdp)")
    if not is_plan(world):
        raise InputError(f"model {world.name}: expected a plan in learnt models (pomdp)")
    return world


def is_plan(policy: ActPolicy) -> bool:
    """Whether a policy is a plan in learnt models, which promise what it is worth."""
    return isinstance(policy.agent.chooser, PlanChooser)


def expect_same_acts(policy: ActPolicy, world: ActPolicy) -> None:
    """InputError if a model speaks of other acts than a policy."""
    for name in ("acts", "answers", "openings"):
        if getattr(policy.agent.codes, name) != getattr(world.agent.codes, name):
            raise InputError(
                f"model {world.name}: its {name} are not those of {policy.name}; expected a plan that was "
                "learnt with the same codebooks (acts=...)"
            )
