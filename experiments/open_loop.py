"""What models of a world say of the next five observations, when nothing is seen in between.

    python experiments/open_loop.py                               everything, resumable
    python experiments/open_loop.py --worlds tiger --seeds 0      some of it
    python experiments/open_loop.py --table                       merge what is there: .json, .md, .svg

From 1,000 prefixes of logged episodes that no model learnt from, each cut at a step chosen at random, each
model says how likely every sequence of the next observations is under the same fixed actions (drawn
uniformly). Beside it stands what the problem itself says. Their total variation, half the sum of absolute
differences over all sequences, is 0 if they agree and 1 if each holds impossible what the other holds
possible. That an episode is over counts as something seen. The models are those of `world_models.py`:
one-step counts, and the POMDP learnt by EM from the same episodes of random actions. A one-step model need
not be bad at the next observation; what it cannot do is to keep five of them consistent.
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
from worlds import WORLDS, add_models, kept, logged_beliefs, one_step, true_model

from turnwise.exact.learning.open_loop import futures, total_variation
from turnwise.run.rehearsal import at_most

PREFIXES, AHEAD, CHUNK = 1000, 5, 25
NAMES = ("tiger", "t-maze-5")


def one(name: str, seed: int, models: Path) -> dict[str, Any]:
    """Total variations of the two models, for 1 to 5 observations ahead."""
    world = WORLDS[name]
    logs, learnt, _ = kept(models, name, seed)
    fresh = world.logs(seed + 1_000_000, 2000)
    rng = np.random.default_rng((seed, 3))
    chosen = rng.choice(len(fresh), at_most(20, PREFIXES), replace=len(fresh) < PREFIXES)
    at = fresh.offsets[chosen] + rng.integers(fresh.lengths[chosen])
    actions = rng.integers(fresh.action_symbols, size=(len(at), AHEAD))
    exact = true_model(world.problem())
    found: dict[str, Any] = {"world": name, "seed": seed, "logs": len(logs), "states": learnt.shape[0]}
    believed = logged_beliefs(exact, fresh)[at]
    for kind, model in (("one-step", one_step(logs)), ("learnt", learnt)):
        beliefs = logged_beliefs(model, fresh)[at]
        gaps = np.zeros((AHEAD, len(at)))
        for i in range(0, len(at), CHUNK):
            here = slice(i, i + CHUNK)
            for h in range(1, AHEAD + 1):
                said = futures(model, beliefs[here], actions[here, :h])
                true = futures(exact, believed[here], actions[here, :h])
                gaps[h - 1, here] = total_variation(said, true)
        half = 1.96 * gaps.std(1, ddof=1) / len(at) ** 0.5
        found[kind] = {"mean": gaps.mean(1).tolist(), "half": half.tolist()}
    return found


def figure(rows: list[dict[str, Any]], names: list[str]) -> Any:
    """Total variation by the number of observations ahead."""
    plt = pyplot()
    plot, axes = plt.subplots(1, len(names), figsize=(8, 3), constrained_layout=True, squeeze=False)
    steps = np.arange(1, AHEAD + 1)
    for place, name in zip(axes.flat, names, strict=True):
        for kind, colour in (("one-step", "#cc4433"), ("learnt", "#3366cc")):
            mine = [r[kind] for r in rows if r["world"] == name]
            for i, r in enumerate(mine):
                mean, half = np.array(r["mean"]), np.array(r["half"])
                place.plot(steps, mean, "o-", color=colour, markersize=3, label=kind if i == 0 else None)
                place.fill_between(steps, mean - half, mean + half, color=colour, alpha=0.15)
        place.set_ylim(bottom=0)
        place.set_title(name, fontsize=10)
        place.set_xlabel("observations ahead", fontsize=8)
        place.set_xticks(steps)
        place.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("total variation from the exact one", fontsize=8)
    axes[0, 0].legend(fontsize=7)
    return plot


def merge(runs: Path) -> None:
    """Write everything that is there as .json, .md and .svg."""
    rows = read_truths_and_rows(runs)[1]
    names = [name for name in NAMES if any(r["world"] == name for r in rows)]
    if not names:
        return
    lines = [
        "| world | model | seed | logs | " + " | ".join(f"{h} ahead" for h in range(1, AHEAD + 1)) + " |",
        "|---" * (4 + AHEAD) + "|",
    ]
    for name in names:
        for r in rows:
            if r["world"] != name:
                continue
            for kind in ("one-step", "learnt"):
                label = kind if kind == "one-step" else f"learnt, {r['states']} states"
                cells = [f"{m:.4f}" for m in r[kind]["mean"]]
                cells[-1] += f" ({r[kind]['mean'][-1] - r[kind]['half'][-1]:.4f} to "
                cells[-1] += f"{r[kind]['mean'][-1] + r[kind]['half'][-1]:.4f})"
                lines.append(
                    f"| {name} | {label} | {r['seed']} | {r['logs']:,} | " + " | ".join(cells) + " |"
                )
    lines.append("\nIn brackets: the 95% interval over prefixes. The exact predictor is at 0.")
    lines.append("\n![Total variation by observations ahead](open_loop.svg)")
    head = f"# Open loop: the next five observations\n\n{story_of(__doc__)}\n\n"
    write_page(runs, "open_loop", head + "\n".join(lines))
    write_results(runs, "open_loop", {"rows": rows})
    write_figure(runs, "open_loop", figure(rows, names))
    print("\n".join(lines))


def main() -> None:
    """Make the parts that are missing, and merge."""
    parser = options(__doc__, "open_loop")
    add_choice(parser, "--worlds", NAMES, "worlds")
    add_models(parser)
    add_seeds(parser, 0, 1, 2)
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for name in a.worlds:
            file = a.runs / f"{name}-{seed}.json"
            make_part(file, lambda run=(name, seed): one(*run, a.models))
    merge(a.runs)


if __name__ == "__main__":
    main()
