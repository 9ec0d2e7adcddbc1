"""Estimates from logs on two POMDPs whose values are exact: what is lost if the last observation is all.

    python experiments/estimates_pomdps.py                                     everything, resumable
    python experiments/estimates_pomdps.py --worlds tiger-remembers --sizes 200 --seeds 0     some of it
    python experiments/estimates_pomdps.py --table                             merge what is there: .json, .md

Beliefs of both tasks can be counted, so that the value of any policy that remembers is a sum. A part is one
set of logs.

- *tiger*: Tiger, whose episode ends with an opened door and after eight steps. Listening costs 1, a door pays
  10 or -100. To open after one sound is wrong in 15%: what was heard before counts.
- *t-maze*: a sign at the start, a corridor of four cells that look alike, a turn to the side that the sign
  named, which pays 4. The sign is misread in 10% of looks and may be looked at again; the episode ends after
  twelve steps. What counts at the turn was seen five steps ago or more.
- *sees*: the logged agent goes by the last observation alone. *remembers*: the same agent, which in 30% of
  its steps does what is best after all that it has seen.
- Targets are behaviour x exp(beta Q*) with three betas, *near*, *middle* and *far*, and the *optimal* policy.
  All of them remember.
- Fitted Q evaluation is in tables by step and *last observation*, *history* (all of it, rare ones drawn
  towards shorter ones) or *belief* (the true one), cross-fitted in two halves. Propensities are known, or
  frequencies by step and last observation, or by belief.

A *bias* is the mean of estimates less the truth, with the 95% interval of that mean; *deviation* is around
the mean. *Covered*: 95% intervals of the studentised bootstrap (200 resamples) that hold the truth; they
hold no error of a model and none of estimated propensities. The verdict goes by weighted importance
sampling, as in estimates.md. *Wrongly confident*: it says that the logs vouch, and the interval misses the
truth by more than half its width; *per decision*: the same said of weighted per-decision importance sampling.
Its thresholds come from HelpDesk, and none was changed for these tasks.

A *model* is a table of fitted Q from other logs of the same number. It promises values to coins between the
logged agent and the *optimal* target, and is checked there (`ModelCheck`); its own error is that of four
resamples.
With more than 5,000 episodes MAGIC, tables of histories and models are left out: they take their time.
*Rank correlation* is Spearman's between the estimates of the four targets of one set and their true values.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from belief_graphs import TARGETS, WORLDS, Episodes, Policy, behavior_of, graph, mixed, targets_of, truth_of
from common import (
    add_choice,
    add_seeds,
    make_part,
    options,
    parse,
    read_part,
    story_of,
    write_page,
    write_results,
)
from judging import BY_BOTH, BY_LOGS, FREE, chances_of, fitted_values, frequencies, number
from pomdp_tables import (
    GOES_BY,
    LARGE,
    OF_BELIEF,
    OF_LAST,
    biases_table,
    estimates_table,
    models,
    models_table,
    ranks_table,
    scores_of,
    truths_table,
    verdicts_table,
)

from turnwise.evaluation.estimates import doubly_robust, importance
from turnwise.evaluation.estimates.fitted_q import Played, fit_tables, turn_keys
from turnwise.evaluation.estimates.intervals import jointly, studentised_intervals
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.pointwise import Pointwise
from turnwise.evaluation.estimates.shortfalls import MATERIAL
from turnwise.evaluation.estimates.step_curve import ModelCheck, StepPath
from turnwise.evaluation.estimates.support import Evidence, coverage, evenness
from turnwise.evaluation.estimates.verdict import judge, vouches
from turnwise.run.rehearsal import at_most

RESAMPLES, MODEL_RESAMPLES = 200, 4
COINS = (0.0, 0.1, 0.2, 0.4)
"""shares of the target at which a model is checked"""
SIZES = (200, 1000, 5000, 20_000)
STATES = ("last observation", "history", "belief")


class Case:
    """One set of logs, and what is asked of it."""

    def __init__(self, world: str, size: int, seed: int, number: int = 0) -> None:
        self.task, self.memory = WORLDS[world]
        self.graph = graph(self.task)
        self.size, self.discount = size, self.graph.problem.discount
        self.rng = np.random.default_rng((seed, size, list(WORLDS).index(world), number))
        self.behavior = behavior_of(self.task, self.memory)
        self.log: Episodes = self.graph.episodes(self.behavior, size, self.rng)
        O = len(self.graph.problem.observations)
        seen = np.where(self.log.mask, self.log.at([x.seen for x in self.graph.layers]), O)
        self.before = np.arange(seen.shape[1]) * (O + 1) + seen
        seen, nodes = (np.pad(x, [(0, 0), (0, 1)]) for x in (seen, self.log.nodes))  # nothing behind the end
        self.keys = {"last observation": [seen], "belief": [nodes]}
        if size <= LARGE:
            self.keys["history"] = turn_keys(seen, self.log.acts, seen.shape[1])
        self.estimated = {
            how: frequencies(kind, self.log.acts, self.log.mask, self.behavior[0].shape[1])
            for how, kind in ((OF_LAST, self.before), (OF_BELIEF, _named(self.log.nodes)))
        }
        returns = self.log.rewards @ self.discount ** np.arange(seen.shape[1] - 1)
        self.within = (float(returns.min()), float(returns.max()))

    def logged(self, policy: Policy, how: str = "") -> Logged:
        """The logs as a policy sees them; `how` propensities are estimated, if they are."""
        log = self.log
        done = self.estimated[how] if how else chances_of(log.at(self.behavior), log.acts, log.mask)
        with np.errstate(divide="ignore"):
            target = np.log(chances_of(log.at(policy), log.acts, log.mask))
        return Logged(log.rewards, log.mask, self.discount, target, np.log(done))

    def played(self, policy: Policy) -> Played:
        """The logs and what a policy would do."""
        target = np.pad(self.log.at(policy), [(0, 0), (0, 1), (0, 0)])
        return Played(self.log.acts, self.log.rewards, self.log.mask, target, np.ones(self.size, bool))

    def evidence(self, policy: Policy, logged: Logged, low: float | None, high: float | None) -> Evidence:
        """What a verdict is made of."""
        log = self.log
        held = coverage(log.at(policy), log.acts, self.before, log.mask, log_ratios=logged.log_ratios)
        ends = (-np.inf if low is None else low, np.inf if high is None else high)
        return Evidence(self.size, evenness(logged.log_weights), held, ends, self.within)

    def interval(self, estimate: Pointwise, free: bool = False) -> list[float | None]:
        """Value and ends."""
        within = (-np.inf, np.inf) if free else self.within
        i = studentised_intervals(
            jointly([estimate]), self.size, within=within, resamples=RESAMPLES, rng=self.rng
        )
        return [number(x[0]) for x in (i.values, i.low, i.high)]


def _named(nodes: np.ndarray) -> np.ndarray:
    """[B, A], a number for each node of each layer."""
    return np.arange(nodes.shape[1]) * (nodes.max() + 1) + nodes


def one(world: str, size: int, seed: int) -> dict[str, Any]:
    """All estimates and verdicts of one set of logs."""
    case = Case(world, size, seed)
    row: dict[str, Any] = {"world": world, "size": size, "seed": seed, "targets": {}}
    for name, policy in targets_of(case.task, case.memory).items():
        logs = {how: case.logged(policy, how) for how in ("", OF_LAST, OF_BELIEF)}
        found: dict[str, Pointwise] = {k: f(logs[""]) for k, f in BY_LOGS.items()}
        for state in STATES if size <= LARGE else GOES_BY:
            values = fitted_values(case.played(policy), case.keys[state], case.discount, seed)
            both = {how: replace(x, q=values.q, v=values.v) for how, x in logs.items()}
            made = (k for k in BY_BOTH if k != "MAGIC" or size <= LARGE)
            found |= {f"{k}, {state}": BY_BOTH[k](both[""]) for k in made}
            for how in (OF_LAST, OF_BELIEF):
                if how.endswith(state):  # all that is estimated goes by the same state
                    found[f"weighted doubly robust{how}"] = doubly_robust.weighted(both[how])
        for how in (OF_LAST, OF_BELIEF):
            found |= {f"{k}{how}": BY_LOGS[k](logs[how]) for k in ("weighted", "weighted per decision")}
        rows = {k: case.interval(x, k.split(",")[0] in FREE) for k, x in found.items()}
        seen = {how: case.evidence(policy, x, *rows[f"weighted{how}"][1:]) for how, x in logs.items()}
        row["targets"][name] = {
            "estimates": rows,
            "effective": seen[""].evenness.effective,
            "mean weight": {how: x.evenness.mean for how, x in seen.items()},
            "models": checked(case, Case(world, size, seed, 1), policy, seen[""])
            if models(name, size)
            else {},
        } | {f"verdict{how}": judge(x).word for how, x in seen.items()}
    return row


def checked(case: Case, other: Case, policy: Policy, evidence: Evidence) -> dict[str, Any]:
    """What is said of a target with each of the models, which have learnt from other logs."""
    with np.errstate(divide="ignore"):
        ends = (np.log(case.log.at(case.behavior)), np.log(case.log.at(policy)))
    path = StepPath(*ends, case.log.mask, "mixed")
    steps = [mixed(t, case.behavior, policy) for t in COINS]
    logged = [case.logged(p) for p in steps]
    i = studentised_intervals(
        jointly([importance.weighted(x) for x in logged]),
        case.size,
        within=case.within,
        simultaneous=True,
        resamples=RESAMPLES,
        rng=case.rng,
    )
    fit = [
        vouches(case.evidence(p, x, lo, hi))
        for p, x, lo, hi in zip(steps, logged, i.low, i.high, strict=True)
    ]
    far, said = np.array([path.distance(t) for t in COINS]), {}
    draws = [np.ones(case.size)] + [
        np.bincount(other.rng.integers(case.size, size=case.size), minlength=case.size)
        for _ in range(MODEL_RESAMPLES)
    ]
    for state in ("last observation", "belief"):
        promised, spread = [], []
        for p in (*steps, policy):
            played, keys = other.played(p), other.keys[state]
            found = [
                (w @ fit_tables(keys, played, case.discount, weights=w).values(keys, played).v[:, 0])
                / w.sum()
                for w in draws
            ]
            promised.append(found[0])
            spread.append(1.96 * float(np.std(found[1:], ddof=1)))
        check = ModelCheck(
            np.array(promised[:-1]),
            i.values,
            i.low,
            i.high,
            np.array(fit),
            far,
            path.distance(1),
            np.array(spread[:-1]),
        )
        said[state] = {
            "promise": promised[-1],
            "verdict": judge(evidence, check).word,
            "off": check.off(MATERIAL * (case.within[1] - case.within[0])) is not None,
        }
    return said


def merge(runs: Path) -> None:
    """The tables of all sets of logs that are there."""
    rows = [read_part(f) for f in sorted(runs.glob("*.json"))]
    if not rows:
        print("nothing to merge")
        return
    lines: list[str] = []
    scores = scores_of(rows)
    truths = {w: {n: truth_of(*WORLDS[w], n) for n in ("behaviour", *TARGETS)} for w in WORLDS}
    truths_table(truths, lines)
    biases_table(scores, lines)
    verdicts = verdicts_table(rows, lines)
    of_models = models_table(rows, lines)
    ranks = ranks_table(rows, lines)
    estimates_table(scores, lines)
    head = f"# Estimates from logs on two POMDPs\n\n{story_of(__doc__)}\n"
    write_page(runs, "estimates_pomdps", text := head + "\n".join(lines))
    results = {"truths": truths, "estimates": scores, "verdicts": verdicts, "models": of_models}
    write_results(runs, "estimates_pomdps", results | {"ranks": ranks})
    print(text)


def main() -> None:
    """Make the parts that are missing, and merge."""
    parser = options(__doc__, "estimates_pomdps")
    add_choice(parser, "--worlds", WORLDS, "tasks and logged agents")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="numbers of logs")
    add_seeds(parser, *range(50))
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for size in a.sizes:
            for world in a.worlds:
                make_part(
                    a.runs / f"{world}-{size}-{seed}.json", partial(one, world, at_most(60, size), seed)
                )
    merge(a.runs)


if __name__ == "__main__":
    main()
