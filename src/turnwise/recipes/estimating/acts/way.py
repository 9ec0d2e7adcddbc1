"""The way from the logged agent to a policy of acts, and what the logs hold of each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from turnwise.evaluation.estimates.foretelling.questions import Foretold
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.step_curve import STEPS, ModelCheck, StepPath, Way, mixed
from turnwise.evaluation.estimates.support import Coverage, Evidence, coverage, evenness
from turnwise.evaluation.estimates.verdict import vouches
from turnwise.recipes.estimating.acts.behaviour import Behaviour
from turnwise.recipes.estimating.acts.steps import ActSteps, logged_logp
from turnwise.recipes.estimating.curve import Curve, Promises, curve_of, number
from turnwise.recipes.estimating.estimators import Others, Sampling, jackknife, leading, spread_of

Seen = tuple[StepPath, Logged]
"""a way, and the logs with its propensities"""


@dataclass(frozen=True)
class Doubts:
    """Other ways, where probabilities are estimated or counted."""

    models: tuple[Seen, ...] = ()
    """from each of the models of the behaviour"""
    draws: tuple[Seen, ...] = ()
    """to the policy as it is counted without each part of its replies"""
    told: Foretold = field(default_factory=Foretold)
    """what words and histories tell beyond acts, and beyond a learnt model"""

    def at(self, see: Callable[[StepPath, Logged], Logged]) -> Others:
        """What `see` makes of each."""
        return Others(*(tuple(see(*x) for x in some) for some in (self.models, self.draws)))

    @property
    def others(self) -> Others:
        """The policy itself."""
        return self.at(lambda way, logged: logged)


def doubts_of(steps: ActSteps, behaviour: Behaviour, logged: Logged, all_q: np.ndarray, way: Way) -> Doubts:
    """The same logs as each of the models of the behaviour sees them, and without parts of the policy's
    replies; none of either if probabilities were logged, and are known."""
    models, draws = [], []
    unknown = steps.mask & np.isnan(steps.act_logp)
    for p in behaviour.members:
        logp = np.where(unknown, logged_logp(p, steps.acts), logged.behavior_logp)
        path = path_of(steps, replace(behaviour, probabilities=p), way)
        models.append((path, replace(logged, behavior_logp=logp)))
    for p in steps.without:
        other = replace(steps, target=replace(steps.target, probabilities=p))
        seen = replace(logged, logp=other.target_logp, v=(p * all_q).sum(2))
        draws.append((path_of(other, behaviour, way), seen))
    return Doubts(tuple(models), tuple(draws))


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
    doubts: Doubts | None = None,
) -> Curve:
    """Every estimate at every step. `all_q` [B, A, K]: values of the policy, if it has any. `doubts`: other
    ways, if probabilities are estimated or counted (`doubts_of`), and what acts and models leave out."""
    doubts = Doubts() if doubts is None else doubts
    distances = np.array([path.distance(t) for t in at])
    ways = [at_step(path, t, steps.acts, logged, all_q) for t in at]
    seen = [doubts.at(lambda way, x, t=t: at_step(way, t, steps.acts, x, all_q)) for t in at]

    def held(i: int, interval: tuple[float, float]) -> Evidence:
        # What replies leave open is told of the policy itself: of it alone people read the share.
        draws = doubts.draws if at[i] == 1 else ()
        found = evidence_of(steps, ways[i], path.at(at[i]), interval, sampling, draws)
        # Of the logged agent itself nothing is asked but what it earned.
        return replace(found, words=doubts.told.words) if at[i] else found

    found = curve_of(path.way, at, ways, distances, held, sampling, seen)
    if promises is None:
        return found
    check = _check(steps, path, logged, all_q, sampling, promises, at, distances, doubts)
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
    doubts: Doubts,
    at: Sequence[float] = STEPS,
) -> Curve:
    """The same of steps from the model of the logged agent, which can talk: a clone takes the agent's place.

    If propensities are estimated by that model, these are the steps of the curve.
    """
    ways = [_from_model(path, t, steps.acts, logged, all_q) for t in at]
    seen = [doubts.at(lambda way, x, t=t: _from_model(way, t, steps.acts, x, all_q)) for t in at]

    def held(i: int, interval: tuple[float, float]) -> Evidence:
        found = evidence_of(steps, ways[i], path.at(at[i]), interval, sampling)
        return replace(found, words=doubts.told.words) if at[i] else found

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
    doubts: Doubts,
) -> ModelCheck:
    """What the models promise of each step beside what the logs say of the very same policy.

    That is the step from the *model* of the logged agent, with which the learnt models talked. Where nobody
    knows how probable the logged acts were, weights are made of that model too, so that the logs speak of the
    agent and the promise of its clone. What the promise is off by there is then taken off from every step, by
    the share of turns in which the step is the clone; chance and spread are those of what is left.
    """
    ways = [_from_model(path, t, steps.acts, logged, all_q) for t in at]
    lead = leading(ways[-1])
    points = [lead.of(x) for x in ways]
    spread = [
        spread_of(lead, doubts.at(lambda way, seen, t=t: _from_model(way, t, steps.acts, seen, all_q)))
        for t in at
    ]
    together, each = (
        sampling.intervals(points, simultaneous=at_once, spread=spread) for at_once in (True, False)
    )
    vouched = [
        vouches(evidence_of(steps, x, path.at(t), (each.low[i], each.high[i]), sampling))
        for i, (t, x) in enumerate(zip(at, ways, strict=True))
    ]
    promise, values, low, high = promises.values, together.values, together.low, together.high
    clone, half = None, promises.spread
    if doubts.models:
        rest, half = 1 - np.asarray(at), promises.beside_spread
        clone = float(promise[0] - values[0])
        promise = promise - rest * clone
        left = [p.minus(points[0].times(r)) for p, r in zip(points, rest.tolist(), strict=True)]
        apart = sampling.gains(left, simultaneous=True, spread=spread)
        low, high = values - (apart.values - apart.low), values + (apart.high - apart.values)
    return ModelCheck(
        promised=promise,
        measured=values,
        low=low,
        high=high,
        # As for `farthest`: a step behind one that fails is not believed.
        vouched=np.logical_and.accumulate(np.array(vouched, bool)),
        distances=distances,
        distance=path.distance(1.0),
        spread=half,
        clone=clone,
        history=doubts.told.history,
        words=doubts.told.beyond,
    )


def evidence_of(
    steps: ActSteps,
    logged: Logged,
    logp: np.ndarray,
    interval: tuple[float, float],
    sampling: Sampling,
    draws: Sequence[Seen] = (),
) -> Evidence:
    """What the logs hold of one policy, with log-probabilities [B, A, K] and the interval of its value.

    `draws`: the same policy as it is counted without each part of its replies."""
    clusters = sampling.clusters

    def covered(logp: np.ndarray, logged: Logged) -> Coverage:
        p = np.where(steps.mask[:, :, None], np.exp(logp), 0.0)
        return coverage(
            p / np.where(steps.mask, p.sum(2), 1.0)[:, :, None],
            steps.acts,
            steps.histories,
            steps.mask,
            log_ratios=logged.log_ratios,
            clusters=clusters,
        )

    without = [covered(way.at(1.0), x).overall for way, x in draws]
    return Evidence(
        conversations=len(logged.mask) if clusters is None else len(np.unique(clusters)),
        evenness=evenness(logged.log_weights, clusters),
        coverage=replace(covered(logp, logged), error=jackknife(without)),
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
