"""Which method made the best policy? Candidates of different methods, ranked by other logs.

    python experiments/estimates_methods.py                          everything, resumable
    python experiments/estimates_methods.py --sizes 1000 --seeds 0   some of it
    python experiments/estimates_methods.py --table                  merge what is there: .json, .md

HelpDesk in acts, without words: the whimsical desk's logs, known propensities, true values computed exactly.
A part is one set of logs and as many others: candidates are made from the first, and judged by the others.

- Candidates: a clone; Monte-Carlo values of the desk, which tilt the clone by beta 4 and 16, and their
  greedy policy; implicit Q-learning (an expectile of .9) with beta 4 and 16; greedy fitted Q iteration; the
  plan in a model of four hidden states that was learnt by EM, and the plan in one of two, which is wrong.
  Methods with values have tables of how the parts stand, in which all parts are alike.
- *Highest estimate*: the candidate that an estimator puts first. Fitted Q evaluation has tables of the same
  kind, cross-fitted in two halves of the other logs. *Promise*: what the model of four states says.
- *Vouched for*: the highest weighted estimate among those that the logs vouch for. *Cautious*: the highest
  among candidates and coins between the desk and each, of those that the logs vouch for and whose gain over
  the desk is above 0 in an interval that holds for all at once. *Answered*: the highest number of those that
  `estimate` gives one: the weighted estimate if the logs vouch, the promise if only the model does, which is
  held against the logs at coins of .1 to .4. If there is none, each of them keeps the desk.

*Regret*: what the choice is worth less than the best candidate. *Worse*: choices that are worth less than the
desk by more than .02. *Rank correlation* is Spearman's, of the estimates of a set with the true values.
One set of 5,000 (seed 47) is missing: in one of its models two histories between which the desk tells apart
have the same belief, so that coins between both cannot be counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from belief_graphs import Episodes
from candidates import Candidate, Ordered, behavior, desk_graph, made_from, to_places
from common import (
    add_seeds,
    make_part,
    options,
    parse,
    read_part,
    story_of,
    write_page,
    write_results,
)
from judging import BY_BOTH, BY_LOGS, add, chances_of, fitted_values, frequencies, number
from scipy.stats import spearmanr

from turnwise.envs.pomdp import POMDP
from turnwise.evaluation.estimates import importance
from turnwise.evaluation.estimates.intervals import choose, jointly, studentised_intervals
from turnwise.evaluation.estimates.logged import Logged
from turnwise.evaluation.estimates.pointwise import Pointwise
from turnwise.evaluation.estimates.step_curve import ModelCheck, StepPath
from turnwise.evaluation.estimates.support import Evidence, coverage, evenness
from turnwise.evaluation.estimates.verdict import judge, vouches
from turnwise.run.rehearsal import at_most

SIZES = (1000, 5000)
COINS = (0.0, 0.1, 0.2, 0.3, 0.4)
RESAMPLES = 200
DESK = "the desk"
ESTIMATED = "weighted, propensities of how parts stand"
PROMISE = "promise"
SHOWN = ("weighted", "weighted per decision", PROMISE)
WORDS = ("vouch", "model only", "cannot tell")


class Judge:
    """The other logs."""

    def __init__(self, log: Episodes, rng: np.random.Generator) -> None:
        self.log, self.rng, self.size = log, rng, len(log.mask)
        self.read = Ordered.of(log)
        self.own = log.at(behavior())
        seen = log.at([x.seen for x in desk_graph().layers])
        self.before = np.arange(seen.shape[1]) * (seen.max() + 1) + seen
        returns = log.rewards.sum(1)
        self.within = (float(returns.min()), float(returns.max()))
        self.clone = frequencies(self.read.keys[0][:, :-1], self.read.acts, log.mask, self.own.shape[2])

    def logged(self, target: np.ndarray, behavior: np.ndarray | None = None) -> Logged:
        """The logs as probabilities [B, A, K] see them; `behavior` [B, A], if it is not the desk's own."""
        log = self.log
        done = chances_of(self.own, log.acts, log.mask) if behavior is None else behavior
        with np.errstate(divide="ignore"):
            return Logged(
                log.rewards, log.mask, 1.0, np.log(chances_of(target, log.acts, log.mask)), np.log(done)
            )

    def estimates(self, target: np.ndarray, seed: int) -> dict[str, Pointwise]:
        """Of every estimator."""
        logged = self.logged(target)
        values = fitted_values(self.read.played(to_places(target, self.log)), self.read.keys, 1.0, seed)
        both = replace(logged, q=values.q, v=values.v)
        found = {k: f(logged) for k, f in BY_LOGS.items()} | {k: f(both) for k, f in BY_BOTH.items()}
        return found | {ESTIMATED: importance.weighted(self.logged(target, self.clone))}

    def evidence(self, targets: Sequence[np.ndarray], *, at_once: bool = False) -> list[Evidence]:
        """What the logs hold of policies."""
        logged = [self.logged(p) for p in targets]
        i = studentised_intervals(
            jointly([importance.weighted(x) for x in logged]),
            self.size,
            within=self.within,
            simultaneous=at_once,
            resamples=RESAMPLES,
            rng=self.rng,
        )
        log = self.log
        return [
            Evidence(
                self.size,
                evenness(x.log_weights),
                coverage(p, log.acts, self.before, log.mask, log_ratios=x.log_ratios),
                (lo, hi),
                self.within,
            )
            for p, x, lo, hi in zip(targets, logged, i.low, i.high, strict=True)
        ]

    def check(self, candidate: Candidate, models: Sequence[POMDP]) -> ModelCheck:
        """What models promise of steps towards a candidate, beside what the logs say of them."""
        with np.errstate(divide="ignore"):
            path = StepPath(np.log(self.own), np.log(candidate.on(self.log)), self.log.mask, "mixed")
        steps = [candidate.step(t) for t in COINS]
        targets = [s.on(self.log) for s in steps]
        i = studentised_intervals(
            jointly([importance.weighted(self.logged(p)) for p in targets]),
            self.size,
            within=self.within,
            simultaneous=True,
            resamples=RESAMPLES,
            rng=self.rng,
        )
        promised = np.array([[s.value_in(m) for s in steps] for m in models])
        return ModelCheck(
            promised[0],
            i.values,
            i.low,
            i.high,
            np.array([vouches(e) for e in self.evidence(targets)]),
            np.array([path.distance(t) for t in COINS]),
            path.distance(1),
            1.96 * promised.std(0, ddof=1),
        )


def one(size: int, seed: int) -> dict[str, Any]:
    """Candidates of one set of logs, and what the others say of them."""
    rng, graph = np.random.default_rng((seed, size)), desk_graph()
    made, models = made_from(graph.episodes(behavior(), size, rng), rng)
    judging = Judge(graph.episodes(behavior(), size, rng), rng)
    rows: dict[str, dict[str, Any]] = {}
    targets = {name: c.on(judging.log) for name, c in made.items()}
    seen = judging.evidence(list(targets.values()))
    for (name, c), evidence in zip(made.items(), seen, strict=True):
        found = judging.estimates(targets[name], seed)
        rows[name] = {
            "truth": c.value_in(graph.problem),
            "estimates": {k: number(x.value) for k, x in found.items()} | {PROMISE: c.value_in(models[0])},
            "verdict": judge(evidence, judging.check(c, models)).word,
            "effective": evidence.evenness.effective,
        }
    return {"size": size, "seed": seed, "candidates": rows, "cautious": cautious(judging, made)}


def cautious(judging: Judge, made: dict[str, Candidate]) -> dict[str, Any]:
    """What is chosen among candidates and steps towards them, and what it is worth."""
    desk = Candidate(desk_graph(), behavior())
    steps = {f"{name}, {t:g}": c.step(t) for name, c in made.items() for t in COINS[1:]} | made
    targets = [s.on(judging.log) for s in steps.values()]
    logs = importance.weighted(judging.logged(judging.own))
    found = [importance.weighted(judging.logged(p)) for p in targets]
    held = [vouches(e) for e in judging.evidence(targets)]
    fit = [i for i, x in enumerate(found) if held[i] and np.isfinite(x.value)]
    span = judging.within[1] - judging.within[0]
    gains = [found[i].minus(logs) for i in fit] + [logs.minus(logs)]
    sure = choose(
        jointly(gains), judging.size, len(fit), within=(-span, span), resamples=1000, rng=judging.rng
    ).gains
    best = max(((sure.values[j], i) for j, i in enumerate(fit) if sure.low[j] > 0), default=None)
    name, chosen = (DESK, desk) if best is None else list(steps.items())[best[1]]
    return {"name": name, "truth": chosen.value_in(desk_graph().problem)}


# --- tables ---


def choices_of(row: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Of every way to choose: the name, and its true value."""
    of, desk = row["candidates"], (DESK, desk_graph().values(behavior())[1])

    def highest(numbers: dict[str, float | None]) -> tuple[str, float]:
        known = {n: v for n, v in numbers.items() if v is not None}
        name = max(known, key=lambda n: known[n]) if known else None
        return desk if name is None else (name, of[name]["truth"])

    names = next(iter(of.values()))["estimates"]
    found = {f"highest, {k}": highest({n: c["estimates"][k] for n, c in of.items()}) for k in names}
    vouched = {n: c["estimates"]["weighted"] for n, c in of.items() if c["verdict"] == "vouch"}
    promised = {n: c["estimates"][PROMISE] for n, c in of.items() if c["verdict"] == "model only"}
    cautious = row["cautious"]
    return found | {
        "vouched for": highest(vouched),
        "cautious": (cautious["name"], cautious["truth"]),
        "answered": highest(vouched | promised),
    }


def merge(runs: Path) -> None:
    """The tables of all sets of logs that are there."""
    rows = [read_part(f) for f in sorted(runs.glob("*.json"))]
    if not rows:
        print("nothing to merge")
        return
    lines: list[str] = []
    results = {"candidates": candidates_table(rows, lines), "choices": choices_table(rows, lines)}
    head = f"# Which method made the best policy, by other logs\n\n{story_of(__doc__)}\n"
    write_page(runs, "estimates_methods", text := head + "\n".join(lines))
    write_results(runs, "estimates_methods", results)
    print(text)


def candidates_table(rows: list[dict[str, Any]], lines: list[str]) -> list[dict[str, Any]]:
    """What candidates are worth and what is said of them."""
    columns = (
        "made from, judged by",
        "sets",
        "candidate",
        "true value, mean (least, largest)",
        "effective, median",
    )
    more = (
        "RMSE, weighted",
        "RMSE, weighted per decision",
        "RMSE, promise",
        "vouch",
        "model only",
        "cannot tell",
    )
    add(lines, "Candidates", *columns, *more)
    found = []
    for size in sorted({r["size"] for r in rows}):
        sets = [r["candidates"] for r in rows if r["size"] == size]
        for name in sets[0]:
            of = [s[name] for s in sets]
            truth = np.array([c["truth"] for c in of])
            row: dict[str, Any] = {
                "size": size,
                "sets": len(of),
                "candidate": name,
                "mean": float(truth.mean()),
            }
            row |= {"least": float(truth.min()), "largest": float(truth.max())}
            row["effective"] = float(np.median([c["effective"] for c in of]))
            for k in SHOWN:
                off = [c["estimates"][k] - c["truth"] for c in of if c["estimates"][k] is not None]
                row[f"rmse, {k}"] = float(np.mean(np.square(off)) ** 0.5) if off else None
            counts = {w: sum(c["verdict"] == w for c in of) for w in WORDS}
            found.append(row | counts)
            known = (row[f"rmse, {k}"] for k in SHOWN)
            shown = [
                f"{size:,}",
                len(of),
                name,
                f"{row['mean']:.3f} ({row['least']:.3f}, {row['largest']:.3f})",
            ]
            shown += [f"{row['effective']:,.0f}", *("" if x is None else f"{x:.3f}" for x in known)]
            lines.append(f"| {' | '.join(map(str, [*shown, *counts.values()]))} |")
    return found


def choices_table(rows: list[dict[str, Any]], lines: list[str]) -> list[dict[str, Any]]:
    """Regret of every way to choose."""
    desk = desk_graph().values(behavior())[1]
    columns = ("made from, judged by", "sets", "choice", "median regret", "mean", "largest", "worse")
    add(lines, "Choices", *columns, "the desk kept", "mean gain", "rank correlation")
    found = []
    for size in sorted({r["size"] for r in rows}):
        sets = [r for r in rows if r["size"] == size]
        chosen = [choices_of(r) for r in sets]
        best = np.array([max(c["truth"] for c in r["candidates"].values()) for r in sets])
        for way in chosen[0]:
            truth = np.array([c[way][1] for c in chosen])
            kept = sum(c[way][0] == DESK for c in chosen)
            regret = best - truth
            rank = rank_of(sets, way.removeprefix("highest, ")) if way.startswith("highest") else None
            row = {"size": size, "sets": len(sets), "choice": way, "median": float(np.median(regret))}
            row |= {"mean": float(regret.mean()), "largest": float(regret.max()), "kept": kept}
            row |= {
                "worse": int((truth < desk - 0.02).sum()),
                "gain": float((truth - desk).mean()),
                "rank": rank,
            }
            found.append(row)
            lines.append(
                f"| {size:,} | {len(sets)} | {way} | {row['median']:.3f} | {row['mean']:.3f} "
                f"| {row['largest']:.3f} | {row['worse']} | {kept} | {row['gain']:+.3f} "
                f"| {'' if rank is None else f'{rank:.2f}'} |"
            )
    return found


def rank_of(sets: list[dict[str, Any]], estimator: str) -> float:
    """Mean rank correlation of the estimates of a set with the true values."""
    found = []
    for r in sets:
        known = [c for c in r["candidates"].values() if c["estimates"][estimator] is not None]
        pairs = [(c["estimates"][estimator], c["truth"]) for c in known]
        found.append(spearmanr(*zip(*pairs, strict=True)).statistic)
    return float(np.mean(found))


def main() -> None:
    """Make the parts that are missing, and merge."""
    parser = options(__doc__, "estimates_methods")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="numbers of logs")
    add_seeds(parser, *range(50))
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for size in a.sizes:
            make_part(a.runs / f"{size}-{seed}.json", partial(one, at_most(60, size), seed))
    merge(a.runs)


if __name__ == "__main__":
    main()
