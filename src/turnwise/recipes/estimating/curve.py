"""The step curve: from the behaviour to the policy, what each step is worth, and how far the logs vouch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.pointwise import Pointwise
from turnwise.evaluation.estimates.step_curve import STEPS, ModelCheck, StepPath, Way, farthest, mixed
from turnwise.evaluation.estimates.support import coverage, evenness
from turnwise.evaluation.estimates.verdict import Evidence, vouches
from turnwise.exact.learning.model import LearntModel
from turnwise.recipes.estimating.behaviour import Behaviour
from turnwise.recipes.estimating.estimators import Sampling, leading, of_logs, possible, row_of, spread_of
from turnwise.recipes.estimating.steps import ActSteps, logged_logp
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.logged import Remembering, chances
from turnwise.rollout.acts.simulated import siblings, simulated_talks


@dataclass(frozen=True)
class Promises:
    """What learnt models say of each step."""

    values: np.ndarray
    """[S], means over models"""
    spread: np.ndarray
    """[S], half of a 95% interval over models, and of the chance of simulating"""


@dataclass(frozen=True)
class Curve:
    """S steps of the way."""

    way: Way
    rows: list[dict[str, Any]]
    """of each step: t, distance, support, whether the logs vouch for it, estimates, what models promise"""
    evidence: tuple[Evidence, ...]
    check: ModelCheck | None
    reached: float | None
    """the farthest step that the logs vouch for; None if there is none"""
    safe: float
    """of the steps up to there that are better than the behaviour with certainty, the one of the highest
    estimate; 0, the behaviour itself, if there is none"""
    gains: tuple[Pointwise, ...]
    """[S], the leading estimate of each step less what the logs earned"""
    spread: tuple[float, ...]
    """[S], what estimated propensities may have done to it (`spread_of`)"""


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
    ways = [_step(path, t, steps.acts, logged, all_q) for t in at]
    seen = [[_step(way, t, steps.acts, x, all_q) for way, x in others] for t in at]

    def held(i: int, interval: tuple[float, float]) -> Evidence:
        return evidence_of(steps, ways[i], path.at(at[i]), interval, sampling)

    found = curve_of(path.way, at, ways, distances, held, sampling, seen)
    if promises is None:
        return found
    check = _check(steps, path, logged, all_q, sampling, promises, at, distances, others)
    told = zip(found.rows, promises.values.tolist(), promises.spread.tolist(), check.measured, strict=True)
    for row, value, half, measured in told:
        row["promised"] = {"value": value, "low": value - half, "high": value + half}
        row["promised"]["measured"] = _number(measured)
    return replace(found, check=check)


def curve_of(
    way: Way,
    at: Sequence[float],
    ways: Sequence[Logged],
    distances: np.ndarray,
    held: Callable[[int, tuple[float, float]], Evidence],
    sampling: Sampling,
    seen: Sequence[Sequence[Logged]] = (),
) -> Curve:
    """The steps `at`, which see the logs as `ways`; `seen` [S] is what each model of the behaviour makes of
    each, if it is estimated.

    `held` says what the logs hold of a step, given its number and the interval of its value.
    """
    logs = of_logs(ways[0])
    rows, evidence, gains, spread = [], [], [], []
    for i, (t, x) in enumerate(zip(at, ways, strict=True)):
        made = possible(x)
        points = [e.of(x) for e in made]
        # The first step is the logged agent itself, whatever its probabilities were.
        apart = [spread_of(e, seen[i]) if seen and t else 0.0 for e in made]
        values = sampling.intervals(points, spread=apart)
        lead = [e.name for e in made].index(leading(x).name)
        gains.append(points[lead].minus(logs))
        spread.append(apart[lead])
        gain = row_of(sampling.gains(gains[-1:], spread=spread[-1:]), 0)
        found = held(i, (values.low[lead], values.high[lead]))
        evidence.append(found)
        row: dict[str, Any] = {"t": t, "distance": _number(distances[i]), "vouched": vouches(found)}
        row |= {"worth": row_of(values, lead) | {"gain": gain}, "promised": None}
        even = found.evenness
        row |= {"effective": even.effective, "largest_share": _number(even.largest_share)}
        row["coverage"] = None if found.coverage is None else found.coverage.overall
        rows.append(row | {"estimates": [{"name": e.name} | row_of(values, k) for k, e in enumerate(made)]})
    reached = reached_by(rows)
    asked = vouched_steps(rows)
    best = surely_best(
        [rows[i]["worth"]["value"] for i in asked],
        [gains[i] for i in asked],
        [spread[i] for i in asked],
        sampling,
    )
    safe = 0.0 if best is None else float(rows[asked[best[0]]]["t"])
    return Curve(way, rows, tuple(evidence), None, reached, safe, tuple(gains), tuple(spread))


def reached_by(rows: Sequence[dict[str, Any]]) -> float | None:
    """The farthest step that the logs vouch for, and for all before it."""
    known = {row["t"]: row["vouched"] for row in rows}
    return farthest(lambda t: known[t], tuple(known))


def vouched_steps(rows: Sequence[dict[str, Any]]) -> list[int]:
    """The numbers of the steps up to there, but for the logged agent itself."""
    reached = reached_by(rows) or 0.0
    return [i for i, r in enumerate(rows) if 0 < r["t"] <= reached and r["worth"]["value"] is not None]


def surely_best(
    values: Sequence[float], gains: Sequence[Pointwise], spread: Sequence[float], sampling: Sampling
) -> tuple[int, dict[str, float | None]] | None:
    """The number of the highest of `values` among those whose gain over the logs is above 0 for certain, and
    that gain; None if there is none.

    The intervals of all these gains hold together, so that the best of many is not chosen for its luck.
    """
    if not values:
        return None
    found = sampling.gains(gains, simultaneous=True, spread=spread)
    better = np.flatnonzero(found.low > 0).tolist()
    if not better:
        return None
    best = max(better, key=lambda i: values[i])
    return best, row_of(found, best)


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


def promised(
    model: LearntModel,
    copies: int,
    agent: ActAgent,
    behaviour: Behaviour,
    way: Way,
    *,
    discount: float,
    talks: int,
    seed: int,
    at: Sequence[float] = STEPS,
) -> Promises:
    """Talk with the learnt models, at every step of the way from the behaviour to the policy.

    The behaviour is here what is estimated of it, since nobody logged what it does in talks that never were.
    """
    size = len(agent.codes.acts)
    policy = Remembering(agent.chooser)
    befores = [Remembering(c) for c in behaviour.choosers[:2]]  # they differ little, and take their time
    step = np.repeat(np.asarray(at), talks)  # of each lane

    def chance(prefixes: Sequence[Prefix], lanes: np.ndarray) -> np.ndarray:
        before = np.mean([chances(c, prefixes, size) for c in befores], axis=0)
        return between(before, chances(policy, prefixes, size), step[lanes], way)

    rng = np.random.default_rng((seed, 7))
    worlds = siblings(model, copies)
    found = np.stack(
        [simulated_talks(w, chance, len(step), discount, rng).reshape(len(at), talks) for w in worlds]
    )  # [worlds, S, talks]
    means, chance_variance = found.mean(2), found.var(2, ddof=1).mean(0) / talks  # [worlds, S], [S]
    # Means differ by chance as well, which counts once.
    between_models = means.var(0, ddof=1) - chance_variance if len(worlds) > 1 else np.zeros(len(at))
    variance = np.maximum(between_models, 0.0) + chance_variance / len(worlds)
    return Promises(means.mean(0), 1.96 * np.sqrt(variance))


def between(before: np.ndarray, policy: np.ndarray, t: np.ndarray, way: Way) -> np.ndarray:
    """[N, K], the step t [N] between two sets of probabilities (`StepPath`)."""
    t = t[:, None]
    mixed = (1 - t) * before + t * policy
    if way == "mixed":
        return mixed
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(t == 0, 0.0, t * np.log(policy)) + np.where(t == 1, 0.0, (1 - t) * np.log(before))
        p = np.exp(logs - logs.max(1, keepdims=True))
        p = p / p.sum(1, keepdims=True)
    return np.where(np.isfinite(p).all(1, keepdims=True), p, mixed)  # nothing in common: a coin


def _step(path: StepPath, t: float, acts: np.ndarray, logged: Logged, all_q: np.ndarray | None) -> Logged:
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


def _number(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None
