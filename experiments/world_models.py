"""One-step models plan into luck, models with a learnt hidden state do not.

    python experiments/world_models.py                               everything, resumable
    python experiments/world_models.py --worlds two-doors --seeds 0  some of it
    python experiments/world_models.py --table                       merge what is there: .json, .md, .svg

Both models learn from the same logged episodes of uniformly random actions. The *one-step* model counts
p(o'|o,a), ends and rewards by (o,a): it has no hidden state, and believes that what is not seen now is drawn
anew at every step. The *learnt* model is a POMDP by EM; its number of hidden states is the smallest that
explains held-out episodes as well as any. The *true* model is the problem itself. In each of them a plan is
made by SARSOP, at the file's discount. *In the model* is what the plan promises there (its lower bound at the
start); *in the world* is what it earns in 100,000 episodes, with its 95% interval. `optimum` is the exact
value of the best policy with memory, `det` and `stochastic` that of the best without: functions of what is
seen now, and those that draw their actions.

Two doors: each is locked or not for the whole episode; pushing a locked one shows the same hall again. The
one-step model takes the second push of the same door for a new chance, and promises more than any policy can
earn. T-maze(5): a sign at the start tells which way to turn behind a corridor in which it is not seen any
more. There the one-step model promises too little, since every step of the corridor is a new chance of being
at its end or not; and it turns one way whatever the sign said.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from common import (
    add_choice,
    add_seeds,
    make_part,
    options,
    parse,
    pyplot,
    read_truths_and_rows,
    story_of,
    write_figure,
    write_page,
    write_results,
)
from worlds import (
    WORLDS,
    PlanAgent,
    add_models,
    kept,
    one_step,
    plan,
    references,
    returns_of,
    summary,
    true_model,
)

from turnwise.run.rehearsal import at_most

EPISODES = 100_000
NAMES = ("two-doors", "t-maze-5")
MODELS = {"one-step": "one-step", "learnt": "learnt, {states} states", "true": "true"}


def one(name: str, seed: int, models: Path) -> list[dict[str, Any]]:
    """What the plan of each model promises and earns, from the logs of one seed."""
    problem = WORLDS[name].problem()
    logs, learnt, choice = kept(models, name, seed)
    rows = []
    for kind, model in (
        ("one-step", one_step(logs)),
        ("learnt", learnt),
        ("true", true_model(problem)),
    ):
        planner, solution = plan(model, problem.discount)
        rng = np.random.default_rng((seed, 2))
        world = summary(returns_of(problem, PlanAgent(planner), at_most(500, EPISODES), rng))
        row = {"world": name, "seed": seed, "model": kind, "states": model.shape[0], "logs": len(logs)}
        row |= {"promised": solution.lower, "upper": solution.upper, **world}
        row["difference"] = row["promised"] - row["mean"]
        rows.append(row | ({"choice": choice} if kind == "learnt" else {}))
    return rows


def lines_of(truth: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """The tables of the page."""
    lines = ["| world | det | stochastic | optimum |", "|---|---|---|---|"]
    for name, t in truth.items():
        lines.append(f"| {name} | {t['det']:.4f} | {t['stochastic']:.4f} | {t['lower']:.4f} |")
    lines += [
        "",
        "| world | model | seed | logs | in the model | in the world | 95% interval | model minus world "
        "| optimum |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        low, high = r["mean"] - r["half"], r["mean"] + r["half"]
        lines.append(
            f"| {r['world']} | {MODELS[r['model']].format(**r)} | {r['seed']} | {r['logs']:,} "
            f"| {r['promised']:.4f} | {r['mean']:.4f} | {low:.4f} to {high:.4f} | {r['difference']:+.4f} "
            f"| {truth[r['world']]['lower']:.4f} |"
        )
    lines += [
        "\nThe number of states, by the likelihood of held-out episodes (every fifth): nats per step that "
        "each number explains worse than the best one, with one standard error.\n",
        "| world | seed | states: nats worse (1 s.e.) |",
        "|---|---|---|",
    ]
    for r in rows:
        if "choice" in r:
            cells = ", ".join(f"{c['states']}: {c['worse']:.4f} ({c['error']:.4f})" for c in r["choice"])
            lines.append(f"| {r['world']} | {r['seed']} | {cells} |")
    return lines


def figure(truth: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """What each model promises beside what the world pays, mean and range over seeds."""
    plt = pyplot()
    plot, axes = plt.subplots(1, len(truth), figsize=(9, 3.2), constrained_layout=True, squeeze=False)
    for place, (name, t) in zip(axes.flat, truth.items(), strict=True):
        for i, kind in enumerate(MODELS):
            mine = [r for r in rows if (r["world"], r["model"]) == (name, kind)]
            for shift, key, colour, label in (
                (-0.18, "promised", "#cc4433", "promised by the model"),
                (0.18, "mean", "#3366cc", "paid by the world"),
            ):
                values = [r[key] for r in mine]
                if values:
                    first = label if i == 0 else None
                    place.bar(i + shift, np.mean(values), 0.34, color=colour, alpha=0.5, label=first)
                    place.plot([i + shift] * len(values), values, "o", color=colour, markersize=3)
        for label, at, style in (
            ("best without memory", t["stochastic"], "--"),
            ("optimum", t["lower"], "-"),
        ):
            place.axhline(at, color="black", linestyle=style, linewidth=0.8, label=label)
        place.set_xticks(range(len(MODELS)), list(MODELS), fontsize=8)
        place.set_title(name, fontsize=10)
        place.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("discounted return", fontsize=8)
    axes[0, 0].legend(fontsize=7, loc="lower right")
    return plot


def merge(runs: Path) -> None:
    """Write everything that is there as .json, .md and .svg."""
    truths, parts = read_truths_and_rows(runs)
    truth = {name: truths[name] for name in NAMES if name in truths}
    rows = [r for name in NAMES for part in parts for r in part if r["world"] == name]
    if not rows:
        return
    lines = [*lines_of(truth, rows), "\n![What plans promise and what the world pays](world_models.svg)"]
    head = f"# One-step models plan into luck\n\n{story_of(__doc__)}\n\n"
    write_page(runs, "world_models", head + "\n".join(lines))
    write_results(runs, "world_models", {"truth": truth, "rows": rows})
    write_figure(runs, "world_models", figure(truth, rows))
    print("\n".join(lines))


def main() -> None:
    """Make the parts that are missing, and merge."""
    parser = options(__doc__, "world_models")
    add_choice(parser, "--worlds", NAMES, "worlds")
    add_models(parser)
    add_seeds(parser, 0, 1, 2)
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for name in a.worlds:
            make_part(a.runs / f"truth-{name}.json", lambda name=name: references(name))
            file = a.runs / f"{name}-{seed}.json"
            make_part(file, lambda run=(name, seed): one(*run, a.models))
    merge(a.runs)


if __name__ == "__main__":
    main()
