"""A policy of acts, per act: what it would do at each logged decision, against what the logged agent did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from turnwise.data.acts.talks import Codes
from turnwise.evaluation.estimates.foretelling.questions import DECISIONS, ask
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.recipes.estimating.acts.behaviour import Behaviour, behaviour_of
from turnwise.recipes.estimating.acts.kept import Kept, reading_of
from turnwise.recipes.estimating.acts.partings import partings
from turnwise.recipes.estimating.acts.steps import ActSteps
from turnwise.recipes.estimating.acts.values import fitted_values
from turnwise.recipes.estimating.acts.way import Doubts, clone_curve, doubts_of, path_of, step_curve
from turnwise.recipes.estimating.answer import Answer, Ground
from turnwise.recipes.estimating.curve import Promises
from turnwise.recipes.estimating.estimators import Sampling
from turnwise.recipes.estimating.folds import folds_of
from turnwise.recipes.settings.measure import EstimateSettings
from turnwise.run.rehearsal import at_most

SAME = 1e-9
"""nats between two log-probabilities that are one"""


def act_answer(
    steps: ActSteps,
    codes: Codes,
    sampling: Sampling,
    s: EstimateSettings,
    *,
    promise: Callable[[Behaviour], Promises] | None = None,
    plan: Plan | None = None,
    notes: Sequence[str] = (),
    kept: Kept | None = None,
    quiet: bool,
) -> Answer:
    """All estimates of a policy by its acts. `promise`: what learnt models say, if there are any, and `plan`
    the one that was made in them. `notes`: what people should know of how the policy was asked; without any
    it is said here. `kept`: what was found of the same logs for other policies."""
    fold = folds_of(len(steps.mask), sampling.clusters, s.seed)
    kept = Kept() if kept is None else kept
    read = reading_of(steps, fold)
    behaviour = kept.once(("behaviour", read), lambda: behaviour_of(steps, fold, seed=s.seed, quiet=quiet))
    all_q = fitted_values(steps, fold, s.discount)
    q, v = (
        np.take_along_axis(all_q, steps.acts[:, :, None], 2)[:, :, 0],
        (steps.target.probabilities * all_q).sum(2),
    )
    same = np.allclose(steps.target_logp[steps.mask], behaviour.logp[steps.mask], rtol=0, atol=SAME)
    logged = Logged(
        rewards=steps.rewards,
        mask=steps.mask,
        discount=s.discount,
        logp=behaviour.logp if same else steps.target_logp,
        behavior_logp=behaviour.logp,
        q=q,
        # Of what the logged agent would do, the logs hold what it did: its estimate is their mean.
        v=q if same else v,
    )
    path = path_of(steps, behaviour, s.way)
    promises = None if promise is None else promise(behaviour)
    most = at_most(500, DECISIONS)
    asked = {"clusters": sampling.clusters, "most": most, "seed": s.seed}
    told, _ = kept.once(  # with its plan, so that no other one takes that one's place in memory
        ("told", read, None if plan is None else id(plan.values)),
        lambda: (ask(steps.logs, steps.dialogues, plan, **asked), plan),
    )
    doubts = Doubts() if same else doubts_of(steps, behaviour, logged, all_q, path.way)
    doubts = replace(doubts, told=told)
    ground = Ground(  # of a policy that chooses acts; one whose replies were counted cannot take a step
        behaviour.choosers,
        behaviour.probabilities[steps.mask].mean(0),
        lambda: clone_curve(steps, path, logged, all_q, sampling, doubts),
    )
    return Answer(
        per="act",
        logged=logged,
        sampling=sampling,
        behaviour=behaviour.facts,
        curve=step_curve(steps, path, logged, all_q, sampling, promises, doubts=doubts),
        names=steps.logs.acts,
        warnings=[*(notes or _asked(steps, s.samples)), *_warnings(steps, behaviour)],
        told=told,
        promises=promises,
        partings=partings(steps, behaviour.probabilities, codes, s.seed),
        ground=None if steps.without else ground,
        others=doubts.others,
    )


def _warnings(steps: ActSteps, behaviour: Behaviour) -> list[str]:
    found = []
    turns = int(steps.mask.sum())
    if behaviour.source == "partly logged":
        first = next(
            d.id for d, t in zip(steps.dialogues, steps.logs, strict=True) if np.isnan(t.act_logp).any()
        )
        found.append(
            f"{behaviour.missing:,} of {turns:,} messages of the agent have no act_logp, the first in "
            f"conversation {first!r}: how probable they were is estimated"
        )
    if behaviour.source == "estimated":
        found.append(
            "the logs do not say how probable the agent's acts were (act_logp): that is estimated, and "
            "the intervals hold by how much five models of it differ, not what all of them have wrong"
        )
    if cut := sum(not t.terminated for t in steps.logs):
        found.append(f"{cut:,} conversations were cut: returns count what was earned until then")
    return found


def _asked(steps: ActSteps, samples: int) -> list[str]:
    """A word on turns in which a language model speaks for a policy of acts."""
    drawn = int((steps.target.drawn & steps.mask).sum())
    if not drawn:
        return []
    return [
        f"in {drawn:,} of {int(steps.mask.sum()):,} turns a language model speaks for the policy: what it "
        f"would mean is counted in {samples} replies each"
    ]
