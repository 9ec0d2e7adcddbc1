"""Estimates from logs against true values: bias, intervals, verdicts, and which estimator when.

    python experiments/estimates.py                                  everything, resumable
    python experiments/estimates.py --worlds whims --sizes 1000 --seeds 0    some of it
    python experiments/estimates.py --table                          merge what is there: .json, .md

HelpDesk in acts, without words, whose true values are computed by dynamic programming. A part is one set of
logs. Each figure stands beside the number of sets it is from; with 50 sets a coverage of .95 is known to
within .06, with 100 to within .04 (two standard errors).

- *whims*: the logs of the whimsical desk. Targets are its probabilities x exp(beta Q*) for beta 2, 4, 8 and
  16, and the optimal plan. Fitted Q evaluation is in tables, cross-fitted in two halves; *direct* is its word
  alone, and doubly robust, weighted doubly robust and MAGIC lean on it. Its tables are of whole *histories*,
  of which most come once, or of *counts*: answers by part and the part tested last, the state of this task.
- Propensities are the desk's own, or frequencies: given turn, last act and last answer (*last answer*), which
  the desk does not go by alone, or given the *counts*, which are all that it looks at; or (in new sets of
  5,000) those of a *network*, as `estimate` makes them: it reads how often each act had which answer, and is
  not told what the desk looks at. Its intervals are not widened here, as `estimate` widens them.
- *many whims*: the same with weighted importance sampling alone, on more sets.
- *near-optimal*: the logged desk is the whims tilted by 16. Candidates are other policies, all but one worse.
- The safe choice: of the candidates that the logs vouch for and whose gain over the logged desk is above 0 in
  an interval that holds for all at once, the one with the highest estimate; else the logged desk. On *whims*
  the candidates are coins between desk and plan and the tilts; on *near-optimal* all of its targets.
- A learnt model is checked at coins between desk and plan. Here it is the true one, and three that believe
  answers to be right in .75, .9 and .95 where .85 is true: the first promises the plan too little, the others
  too much.

A *bias* is the mean of estimates less the truth, *deviation* theirs around their mean. *Covered*: 95%
intervals of the studentised bootstrap (400 resamples) that hold the truth; they hold no error of a model, and
none of estimated propensities. The verdict goes by weighted importance sampling with known propensities.
*Wrongly confident*: it says that the logs vouch, and the interval misses the truth by more than half its
width. Estimates that no number can be put to (no logged conversation has weight) are counted as missing, and
left out of the mean. *Regret*: what the target of the highest estimate is worth less than the plan, which is
the best of the five.

The thresholds of verdicts were set on sets of logs of *whims* that are not among these. That weights must
average 1 was added after the first ten sets of *near-optimal* had shown what happened without it: 42 of 155
verdicts of *vouch* were wrongly confident. All sets here are judged with it, those ten too. The sets of 5,000
of *whims* and *near-optimal* are new: no threshold was set or changed after they were made.

*Rank correlation* is Spearman's between the estimates of the targets of one set and their true values, on
average over sets.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
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
from desks import COINS, WORLDS, Case, coins, plan, targets_of, truth_of
from judging import BY_BOTH, BY_LOGS, FREE, add, confident_and_wrong, number, score
from scipy.stats import spearmanr

from turnwise.evaluation.estimates import importance
from turnwise.evaluation.estimates.intervals import choose, jointly
from turnwise.evaluation.estimates.pointwise import Pointwise
from turnwise.evaluation.estimates.shortfalls import MATERIAL
from turnwise.evaluation.estimates.step_curve import ModelCheck, StepPath
from turnwise.evaluation.estimates.support import Evidence
from turnwise.evaluation.estimates.verdict import judge, vouches
from turnwise.run.rehearsal import at_most

SIZES = (200, 1000, 5000, 20_000)
BELIEVED = {"true model": 0.85, "believes .75": 0.75, "believes .9": 0.9, "believes .95": 0.95}
READ = "propensities of a network"
WORDS = ("vouch", "model only", "cannot tell")


def one(world: str, size: int, seed: int) -> dict[str, Any]:
    """All estimates and verdicts of one set of logs."""
    case = Case(world, size, seed)
    row: dict[str, Any] = {"world": world, "size": size, "seed": seed, "targets": {}}
    weighted, seen = {}, {}
    read = case.read(seed) if reads(world, size) else None
    for name, policy in targets_of(world).items():
        target = case.talks.probabilities(policy)
        logged = case.logged(target)
        found = {k: f(logged) for k, f in BY_LOGS.items() if k == "weighted" or world == "whims"}
        if world == "whims":
            for state, keys in case.keys.items():
                values = case.fitted(target, keys, seed)
                both = replace(logged, q=values.q, v=values.v)
                found |= {f"{k}, {state}": f(both) for k, f in BY_BOTH.items()}
            for how, kind in (("last answer", case.talks.before), ("counts", case.counts())):
                again = case.logged(target, case.estimated(kind))
                found[f"weighted, propensities of {how}"] = importance.weighted(again)
        if read is not None:
            again = case.logged(target, read)
            found |= {f"{k}, {READ}": BY_LOGS[k](again) for k in ("weighted", "weighted per decision")}
        rows = {}
        for k, estimate in found.items():
            i = case.intervals(
                [estimate], **({"within": (-np.inf, np.inf)} if k.split(",")[0] in FREE else {})
            )
            rows[k] = [number(x[0]) for x in (i.values, i.low, i.high)]
        _, low, high = rows["weighted"]
        evidence = case.evidence(target, logged, low, high)
        weighted[name], seen[name] = found["weighted"], evidence
        row["targets"][name] = {
            "estimates": rows,
            "verdict": judge(evidence).word,
            "effective": evidence.evenness.effective,
        }
        if read is not None:
            _, low, high = rows[f"weighted, {READ}"]
            ends = (-np.inf if low is None else low, np.inf if high is None else high)
            row["targets"][name]["verdict, " + READ] = judge(case.evidence(target, again, *ends)).word
    if world == "many whims":
        return row
    row["safe"] = safe(case, weighted, seen)
    if world == "whims":
        row["models"] = checked(case, seen["plan"])
    return row


def reads(world: str, size: int) -> bool:
    """Whether propensities are estimated by networks as well, which takes its time."""
    return world != "many whims" and size == 5000


def safe(case: Case, weighted: dict[str, Pointwise], seen: dict[str, Evidence]) -> str:
    """The name of what is chosen."""
    logs = importance.weighted(case.logged(case.behavior))
    if case.world == "whims":
        for name, policy in coins().items():
            target = case.talks.probabilities(policy)
            logged = case.logged(target)
            weighted = {**weighted, name: importance.weighted(logged)}
            i = case.intervals([weighted[name]])
            seen = {**seen, name: case.evidence(target, logged, i.low[0], i.high[0])}
    names = [n for n in weighted if np.isfinite(weighted[n].value)]
    gains = [weighted[n].minus(logs) for n in names] + [logs.minus(logs)]
    span = case.within[1] - case.within[0]
    found = choose(
        jointly(gains), case.size, len(names), within=(-span, span), resamples=1000, rng=case.rng
    ).gains
    fit = [(found.values[i], n) for i, n in enumerate(names) if vouches(seen[n]) and found.low[i] > 0]
    return max(fit)[1] if fit else "behaviour"


def checked(case: Case, evidence: Evidence) -> dict[str, Any]:
    """What is said of the plan with each of the models."""
    with np.errstate(divide="ignore"):
        logs = (np.log(case.behavior), np.log(case.talks.probabilities(plan())))
    path = StepPath(*logs, case.talks.mask, "mixed")
    steps = [np.exp(path.at(t)) for t in COINS]
    logged = [case.logged(p) for p in steps]
    i = case.intervals([importance.weighted(x) for x in logged], simultaneous=True, resamples=1000)
    fit = [
        vouches(case.evidence(p, x, lo, hi))
        for p, x, lo, hi in zip(steps, logged, i.low, i.high, strict=True)
    ]
    far = np.array([path.distance(t) for t in COINS])
    names = ["behaviour", *coins()]
    said = {}
    for model, reliability in BELIEVED.items():
        promised = np.array([truth_of("whims", n, reliability) for n in names])
        check = ModelCheck(promised, i.values, i.low, i.high, np.array(fit), far, path.distance(1))
        said[model] = {
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
    results = {
        "truths": {w: {n: truth_of(w, n) for n in ("behaviour", *targets_of(w))} for w in WORLDS},
        "estimates": estimates_table(rows, lines),
        "verdicts": verdicts_table(rows, lines),
        "models": models_table(rows, lines),
        "choices": choices_table(rows, lines),
    }
    head = f"# Estimates from logs against true values\n\n{story_of(__doc__)}\n"
    text = head + "\n".join(lines)
    write_page(runs, "estimates", text)
    write_results(runs, "estimates", results)
    print(text)


def cells(rows: list[dict[str, Any]]) -> list[tuple[str, int, list[dict[str, Any]]]]:
    """(world, size, rows), in the order in which they are shown."""
    keys = sorted({(r["world"], r["size"]) for r in rows}, key=lambda k: (WORLDS.index(k[0]), k[1]))
    return [(w, n, [r for r in rows if (r["world"], r["size"]) == (w, n)]) for w, n in keys]


def estimates_table(rows: list[dict[str, Any]], lines: list[str]) -> list[dict[str, Any]]:
    """Every estimator in every cell of the whims."""
    found: list[dict[str, Any]] = []
    for world, size, sets in cells(rows):
        if world == "near-optimal":
            continue
        columns = ("target (true value)", "estimator", "bias", "deviation", "RMSE", "covered", "median width")
        add(lines, f"{size:,} conversations of {world}, {len(sets)} sets", *columns)
        for name in targets_of(world):
            truth = truth_of(world, name)
            for estimator in sets[0]["targets"][name]["estimates"]:
                s = score([r["targets"][name]["estimates"][estimator] for r in sets], truth)
                found.append({"world": world, "size": size, "target": name, "estimator": estimator, **s})
                label = f"| {name} ({truth:.3f}) | {estimator} "
                if "bias" not in s:
                    lines.append(label + "| missing in all | | | | |")
                    continue
                label += f"({s['missing']} missing) " if s["missing"] else ""
                width = "endless" if s["width"] is None else f"{s['width']:.3f}"
                error = f"{s['bias']:+.3f} | {s['deviation']:.3f} | {s['rmse']:.3f}"
                lines.append(f"{label}| {error} | {s['covered']:.2f} | {width} |")
    return found


def verdicts_table(rows: list[dict[str, Any]], lines: list[str]) -> list[dict[str, Any]]:
    """How often the logs vouch, without a model, and how often that was wrongly confident."""
    columns = ("logs", "conversations", "sets", "target (true value)", "effective, median", "vouch")
    add(lines, "What the verdict says", *columns, "wrongly confident", "RMSE, weighted", "covered")
    found = []
    for world, size, sets in cells(rows):
        for name in targets_of(world):
            truth, of = truth_of(world, name), [r["targets"][name] for r in sets]
            vouch = sum(t["verdict"] == "vouch" for t in of)
            wrong = sum(confident_and_wrong(t, truth) for t in of)
            effective = float(np.median([t["effective"] for t in of]))
            s = score([t["estimates"]["weighted"] for t in of], truth)
            row = {"world": world, "size": size, "target": name, "sets": len(of), "vouch": vouch}
            row |= {"wrongly confident": wrong, "effective": effective}
            found.append(row | {"rmse": s.get("rmse"), "covered": s.get("covered")})
            end = f"{s['rmse']:.3f} | {s['covered']:.2f}" if "rmse" in s else " | "
            label = f"| {world} | {size:,} | {len(of)} | {name} ({truth:.3f}) | {effective:,.0f} "
            lines.append(f"{label}| {vouch} | {wrong} | {end} |")
    lines += _of_networks(rows)
    total, vouched = sum(r["sets"] for r in found), sum(r["vouch"] for r in found)
    wrong = sum(r["wrongly confident"] for r in found)
    lines.append(
        f"\nOver all {total:,} verdicts: {vouched:,} times *vouch*, of which {wrong} wrongly confident "
        f"({wrong / max(vouched, 1):.2%} of them, {wrong / total:.2%} of all verdicts)."
    )
    return found


def _of_networks(rows: list[dict[str, Any]]) -> list[str]:
    """A sentence: how the verdict does with estimated propensities."""
    how = f", {READ}"
    said = [
        (r["world"], n, t)
        for r in rows
        for n, t in r["targets"].items()
        if f"weighted{how}" in t["estimates"]
    ]
    if not said:
        return []
    vouched = sum(t["verdict" + how] == "vouch" for *_, t in said)
    wrong = sum(confident_and_wrong(t, truth_of(w, n), how) for w, n, t in said)
    known = sum(t["verdict"] == "vouch" for *_, t in said)
    return [
        f"\nWith propensities of a network instead: {vouched:,} times *vouch* in {len(said):,} verdicts "
        f"(with known ones {known:,} times in the same), {wrong} of them wrongly confident."
    ]


def models_table(rows: list[dict[str, Any]], lines: list[str]) -> list[dict[str, Any]]:
    """What is said of the plan with each of the models beside the logs."""
    columns = (
        "conversations",
        "sets",
        "model",
        "its promise (true: {:.3f})".format(truth_of("whims", "plan")),
    )
    add(lines, "The plan, with a model beside the logs", *columns, *WORDS, "found off where it was checked")
    found = []
    for world, size, sets in cells(rows):
        if world != "whims":
            continue
        for model, reliability in BELIEVED.items():
            said = [r["models"][model] for r in sets]
            counts = {w: sum(s["verdict"] == w for s in said) for w in WORDS}
            off, promise = sum(s["off"] for s in said), truth_of("whims", "plan", reliability)
            found.append(
                {"size": size, "sets": len(sets), "model": model, "promise": promise, **counts, "off": off}
            )
            shown = " | ".join(str(counts[w]) for w in WORDS)
            lines.append(f"| {size:,} | {len(sets)} | {model} | {promise:.3f} | {shown} | {off} |")
    return found


def choices_table(rows: list[dict[str, Any]], lines: list[str]) -> list[dict[str, Any]]:
    """The safe choice, and the regret of whoever takes the highest estimate of a kind."""
    columns = ("logs", "conversations", "sets", "behaviour kept", "truly better", "worse by more than .02")
    add(lines, "The safe choice", *columns, "mean gain", "worst gain")
    found: list[dict[str, Any]] = []
    for world, size, sets in cells(rows):
        if world == "many whims":
            continue
        gains = np.array([truth_of(world, r["safe"]) - truth_of(world, "behaviour") for r in sets])
        kept = sum(r["safe"] == "behaviour" for r in sets)
        better, worse = int((gains > 0).sum()), int((gains < -0.02).sum())
        row = {
            "world": world,
            "size": size,
            "sets": len(sets),
            "kept": kept,
            "better": better,
            "worse": worse,
        }
        found.append(row | {"mean gain": float(gains.mean()), "worst gain": float(gains.min())})
        lines.append(
            f"| {world} | {size:,} | {len(sets)} | {kept} | {better} | {worse} | {gains.mean():+.3f} "
            f"| {gains.min():+.3f} |"
        )
    add(
        lines,
        "Regret of the highest estimate",
        "conversations",
        "sets",
        "estimator",
        "median",
        "mean",
        "largest",
        "rank correlation",
    )
    for world, size, sets in cells(rows):
        if world != "whims":
            continue
        truths = {n: truth_of(world, n) for n in targets_of(world)}
        for estimator in sets[0]["targets"]["plan"]["estimates"]:
            regrets, ranks = [], []
            for r in sets:
                of = {n: t["estimates"][estimator][0] for n, t in r["targets"].items()}
                known = [n for n in of if of[n] is not None]
                if len({of[n] for n in known}) > 1:
                    ranks.append(spearmanr([of[n] for n in known], [truths[n] for n in known]).statistic)
                regrets.append(max(truths.values()) - truths[max(known, key=lambda n: of[n])])
            median, mean, largest = float(np.median(regrets)), float(np.mean(regrets)), max(regrets)
            rank = float(np.mean(ranks))
            row = {"size": size, "estimator": estimator, "median": median, "mean": mean, "largest": largest}
            found.append(row | {"rank correlation": rank})
            lines.append(
                f"| {size:,} | {len(sets)} | {estimator} | {median:.3f} | {mean:.3f} | {largest:.3f} "
                f"| {rank:.2f} |"
            )
    return found


def main() -> None:
    """Make the parts that are missing, and merge."""
    parser = options(__doc__, "estimates")
    add_choice(parser, "--worlds", WORLDS, "logs")
    parser.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="numbers of logs")
    add_seeds(parser, *range(50))
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for size in a.sizes:
            for world in a.worlds:
                make_part(
                    a.runs / f"{world.replace(' ', '-')}-{size}-{seed}.json",
                    partial(one, world, at_most(60, size), seed),
                )
    merge(a.runs)


if __name__ == "__main__":
    main()
