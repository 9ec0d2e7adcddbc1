"""The way from the logged agent to a policy of acts, and what the logs hold of each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.step_curve import STEPS, ModelCheck, StepPath, Way, mixed
from turnwise.evaluation.estimates.support import coverage, evenness
from turnwise.evaluation.estimates.verdict import Evidence, vouches
from turnwise.recipes.estimating.acts.behaviour import Behaviour
from turnwise.recipes.estimating.acts.steps import ActSteps, logged_logp
from turnwise.recipes.estimating.curve import Curve, Promises, curve_of, number
from turnwise.recipes.estimating.estimators import Sampling, leading, spread_of

Seen = tuple[StepPath, Logged]
"""the way from a model of the behaviour, and the logs with its propensities"""


def others_of(steps: ActSteps, behaviour: Behaviour, logged: Logged, way: Way) -> tuple[Seen, ...]:
    """The same logs as each of the models of the behaviour sees them; none if probabilities were logged."""
    found = []
    unknown = steps.mask & np.isnan(steps.act_logp)
    for p in behaviour.members:
        logp = np.where(unknown, logged_logp(p, steps.acts), logged.behavior_logp)
        path = path_of(steps, replace(behaviour, probabilities=p), way)
        found.append((path, replace(logged, behavior_logp=logp)))
    return tuple(found)


def path_of(steps: ActSteps, behaviour: Behaviour, way: Way) -> StepPath:
    """From the behaviour, as it is modelled, to the policy."""
    with np.errstate(divide="ignore"):
        policy, before = np.log(steps.target.probabilities), np.log(behaviour.probabilities)
    return StepPath(before, policy, steps.mask, way)


def step_curve(
    steps: ActSteps,
    path: StepPath,
    logged: Logged,
    all_q: np.ndarray | None,
    sampling: Sampling,
    promises: Promises | None,
    at: Sequence[float] = STEPS,
    others: Sequence[Seen] = (),
) -> Curve:
    """Every estimate at every step. `all_q` [B, A, K]: values of the policy, if it has any. `others`: what
    each of the models of the behaviour sees (`others_of`)."""
    distances = np.array([path.distance(t) for t in at])
    ways = [at_step(path, t, steps.acts, logged, all_q) for t in at]
    seen = [[at_step(way, t, steps.acts, x, all_q) for way, x in others] for t in at]

    def held(i: int, interval: tuple[float, float]) -> Evidence:
        return evidence_of(steps, ways[i], path.at(at[i]), interval, sampling)

    found = curve_of(path.way, at, ways, distances, held, sampling, seen)
    if promises is None:
        return found
    check = _check(steps, path, logged, all_q, sampling, promises, at, distances, others)
    told = zip(found.rows, promises.values.tolist(), promises.spread.tolist(), check.measured, strict=True)
    for row, value, half, measured in told:
        row["promised"] = {"value": value, "low": value - half, "high": value + half}
        row["promised"]["measured"] = number(measured)
    return replace(found, check=check)


def clone_curve(
    steps: ActSteps,
    path: StepPath,
    logged: Logged,
    all_q: np.ndarray | None,
    sampling: Sampling,
    others: Sequence[Seen] = (),
    at: Sequence[float] = STEPS,
) -> Curve:
    """The same of steps from the model of the logged agent, which can talk: a clone takes the agent's place.

    If propensities are estimated by that model, these are the steps of the curve.
    """
    ways = [_from_model(path, t, steps.acts, logged, all_q) for t in at]
    seen = [[_from_model(way, t, steps.acts, x, all_q) for way, x in others] for t in at]

    def held(i: int, interval: tuple[float, float]) -> Evidence:
        return evidence_of(steps, ways[i], path.at(at[i]), interval, sampling)

    distances = np.array([path.distance(t) for t in at])
    return curve_of(path.way, at, ways, distances, held, sampling, seen)


def _check(
    steps: ActSteps,
    path: StepPath,
    logged: Logged,
    all_q: np.ndarray | None,
    sampling: Sampling,
    promises: Promises,
    at: Sequence[float],
    distances: np.ndarray,
    others: Sequence[Seen],
) -> ModelCheck:
    """What the models promise of each step beside what the logs say of the very same policy.

    That is the step from the *model* of the logged agent, with which the learnt models talked.
    """
    ways = [_from_model(path, t, steps.acts, logged, all_q) for t in at]
    points = [leading(x).of(x) for x in ways]
    spread = [
        spread_of(leading(x), [_from_model(way, t, steps.acts, seen, all_q) for way, seen in others])
        for x, t in zip(ways, at, strict=True)
    ]
    together, each = (
        sampling.intervals(points, simultaneous=at_once, spread=spread) for at_once in (True, False)
    )
    vouched = [
        vouches(evidence_of(steps, x, path.at(t), (each.low[i], each.high[i]), sampling))
        for i, (t, x) in enumerate(zip(at, ways, strict=True))
    ]
    return ModelCheck(
        promised=promises.values,
        measured=together.values,
        low=together.low,
        high=together.high,
        # As for `farthest`: a step behind one that fails is not believed.
        vouched=np.logical_and.accumulate(np.array(vouched, bool)),
        distances=distances,
        distance=path.distance(1.0),
        spread=promises.spread,
        estimated=bool(others),
    )


def evidence_of(
    steps: ActSteps, logged: Logged, logp: np.ndarray, interval: tuple[float, float], sampling: Sampling
) -> Evidence:
    """What the logs hold of one policy, with log-probabilities [B, A, K] and the interval of its value."""
    clusters = sampling.clusters
    p = np.where(steps.mask[:, :, None], np.exp(logp), 0.0)
    return Evidence(
        conversations=len(logged.mask) if clusters is None else len(np.unique(clusters)),
        evenness=evenness(logged.log_weights, clusters),
        coverage=coverage(
            p / np.where(steps.mask, p.sum(2), 1.0)[:, :, None],
            steps.acts,
            steps.histories,
            steps.mask,
            log_ratios=logged.log_ratios,
            clusters=clusters,
        ),
        interval=(float(interval[0]), float(interval[1])),
        returns=(float(logged.returns.min()), float(logged.returns.max())),
        unit="conversation" if clusters is None else "cluster",
    )


def at_step(path: StepPath, t: float, acts: np.ndarray, logged: Logged, all_q: np.ndarray | None) -> Logged:
    """The logs as the step t sees them; 0 is the logged agent itself, exactly. A tilted step is one from the
    model of the agent."""
    return _from_model(path, t, acts, logged, all_q) if t and path.way == "tilted" else mixed(logged, t)


def _from_model(
    path: StepPath, t: float, acts: np.ndarray, logged: Logged, all_q: np.ndarray | None
) -> Logged:
    """The same of a step from the model of the logged agent: a policy of histories, whatever was done.

    Values are those of the policy; an estimate corrects them.
    """
    v = logged.v
    if all_q is not None:
        v = (np.where(path.mask[:, :, None], np.exp(path.at(t)), 0.0) * all_q).sum(2)
    return replace(logged, logp=path.logged(t, acts), v=v)
