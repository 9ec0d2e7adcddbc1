"""POMDPs learnt from logged random episodes: what a plan in them is worth in the true problem.

    python experiments/learnt_models.py                            all problems (an hour of a core), resumable
    python experiments/learnt_models.py --problems tiger --seeds 0 some of them
    python experiments/learnt_models.py --table                    merge what is there into .json and .md

20,000 logged episodes of uniformly random actions, 30 steps each (60 in the T-maze and in heaven-hell). EM
learns a model of as many hidden states as the problem has ("given"), or of the smallest number of 1, 2, 3, 4,
6, 8, 10, 12, 15, 18 and 21 (up to twice the problem's) that explains held-out episodes as well as any
("chosen"). SARSOP plans in the *learnt* model, and the plan acts in the *true* problem, on the learnt belief,
for 100,000 episodes; "predicted" is the lower bound in the learnt model. The bar is 90% of the way from the
best policy without memory (stochastic, exact) to the optimum, for Tiger 95% of the optimum.

Nats per symbol are of 2,000 other episodes: observations and ends, given the actions; less is better. The
one-step model knows the last observation and the action; the 3-gram the last three observations and the
actions between them.

Open loop: how far (total variation, 0 to 1) the distribution of the next five observations under five fixed
actions is from the true one, averaged over 1,000 beginnings of those episodes, each with random actions. That
an episode is over is something seen, for all models alike. Seconds are of one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
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
    read_truths_and_rows,
    story_of,
    write_page,
    write_results,
)
from problems import mean_and_error, read_problem

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import CLASSICS
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.learning.choose import choose
from turnwise.exact.learning.fit import DEFAULT, fit
from turnwise.exact.learning.live import by_vectors, live_returns
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.open_loop import beliefs_after, futures, total_variation
from turnwise.exact.learning.predictors import (
    counted,
    n_gram,
    n_gram_futures,
    nats_per_symbol,
    one_step,
    prefixes,
)
from turnwise.exact.learning.sequences import Sequences
from turnwise.exact.learning.truth import described, random_episodes
from turnwise.exact.sarsop.solve import solve
from turnwise.run.rehearsal import at_most, rehearsing

EPISODES, APART, LIVE = 20_000, 2_000, 100_000
PREFIXES, AHEAD = 1_000, 5
TABLE = 4_000_000
"""numbers that a table of futures of some beginnings may have, about"""
STATES = (1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 21)
"""numbers of hidden states to choose from, up to twice the problem's"""


@dataclass(frozen=True)
class Task:
    """A problem and what is known of it."""

    make: Callable[[], POMDP]
    optimum: float
    memoryless: float
    """the best stochastic policy without memory, nothing shown first"""
    bar: float
    steps: int = 30
    unreached: int = 0
    """states of the file in which an episode is over"""


TASKS = {
    "tiger": Task(CLASSICS["tiger"], 19.3714, -20.0, 0.95 * 19.3714),
    "1d": Task(lambda: read_problem("1d.POMDP"), 1.26034, 1.0448, 1.24),
    "cheese": Task(CLASSICS["cheese"], 3.48621, 2.0612, 3.34),
    "loadunload": Task(lambda: read_problem("loadunload.pomdp"), 4.5633, 1.3993, 4.25),
    "4x3": Task(lambda: read_problem("4x3.95.POMDP"), 1.88989, 0.7362, 1.77),
    "t-maze-5": Task(CLASSICS["t-maze-5"], 1.91319, 1.03631, 1.83, steps=60, unreached=1),
    "heaven-hell": Task(CLASSICS["heaven-hell"], 0.904382, 0.2667, 0.84, steps=60, unreached=1),
}


def logged(problem: POMDP, episodes: int, steps: int, seed: list[int]) -> Sequences:
    """Random episodes in which nothing is shown before the first action."""
    return random_episodes(TabularEnv(problem), episodes, steps, np.random.default_rng(seed))


def learn(name: str, seed: int, chosen: bool, file: Path) -> dict[str, Any]:
    """Learn a model and write it into `file`; how its states were chosen, and how long it took."""
    task = TASKS[name]
    problem = task.make()
    learnt = logged(problem, at_most(50, EPISODES), task.steps, [seed, 0])
    effort = replace(DEFAULT, starts=1, early=2, iterations=2) if rehearsing() else DEFAULT
    began, rng, own = time.process_time(), np.random.default_rng(seed), problem.shape[0] - task.unreached
    heldout: dict[int, Any] = {}
    if chosen:
        numbers = [k for k in STATES if k <= max(4, 2 * own)]
        found = choose(learnt, rng, moves=numbers, effort=replace(effort, starts=min(effort.starts, 4)))
        model, heldout = found.model, {k.states: [*v, found.errors[k]] for k, v in found.heldout.items()}
    else:
        model = fit(learnt, own, rng, effort=effort)
    model.save(file)
    return {"heldout": heldout, "seconds": round(time.process_time() - began, 1)}


def judge(name: str, seed: int, chosen: bool, file: Path, how: dict[str, Any]) -> dict[str, Any]:
    """A row of the table, of the model in `file`."""
    task, problem, model = TASKS[name], TASKS[name].make(), LearntModel.load(file)
    learnt = logged(problem, at_most(50, EPISODES), task.steps, [seed, 0])
    apart = logged(problem, at_most(20, APART), task.steps, [seed, 1])
    truth = described(problem)
    plan = solve(model.pomdp(problem.discount), gap=1e-3, deadline=at_most(1, 60))
    returns = live_returns(
        TabularEnv(problem),
        model,
        by_vectors(model, plan.policy),
        at_most(20, LIVE),
        problem.discount,
        np.random.default_rng([seed, 2]),
    )
    return {
        "name": name,
        "seed": seed,
        "chosen": chosen,
        "states": model.shape[0],
        **how,
        "bounds": [plan.lower, plan.upper],
        "true": mean_and_error(returns),
        "nats": {
            "learnt": nats_per_symbol(model.log_likelihoods(apart), apart),
            "true model": nats_per_symbol(truth.log_likelihoods(apart), apart),
            "one step": nats_per_symbol(one_step(learnt, apart), apart),
            "3-gram": nats_per_symbol(n_gram(learnt, apart, 3), apart),
        },
        "open_loop": open_loop(truth, model, learnt, apart, seed),
    }


def open_loop(
    truth: LearntModel, model: LearntModel, learnt: Sequences, apart: Sequences, seed: int
) -> dict[str, float]:
    """Mean total variation from the truth of the learnt model, the one-step model and the 3-gram."""
    rng = np.random.default_rng([seed, 3])
    begun = prefixes(apart, rng, at_most(20, PREFIXES))
    actions = rng.integers(learnt.action_symbols, size=(len(begun), AHEAD))
    counts = {"one step": counted(learnt, 1), "3-gram": counted(learnt, 3)}
    found: dict[str, list[np.ndarray]] = {"learnt": [], **{k: [] for k in counts}}
    S, _, O = truth.shape
    parts = len(begun) * (O + 1) ** (AHEAD - 1) * S // TABLE + 1
    for part in np.array_split(np.arange(len(begun)), min(parts, len(begun))):
        some, acts = begun.select(part), actions[part]
        right = futures(truth, beliefs_after(truth, some), acts)
        ours = futures(model, beliefs_after(model, some), acts)
        found["learnt"].append(total_variation(ours, right))
        for k, n_gram_counts in counts.items():
            found[k].append(total_variation(n_gram_futures(n_gram_counts, some, acts), right))
    return {k: float(np.concatenate(v).mean()) for k, v in found.items()}


def make_row(runs: Path, name: str, seed: int, kind: str) -> None:
    """Learn, unless the model is there; then judge, unless the row is there."""
    models, chosen = runs / "models", kind == "chosen"
    models.mkdir(exist_ok=True)
    file = models / f"{name}-{seed}-{kind}.npz"
    make_part(file.with_suffix(".json"), lambda: learn(name, seed, chosen, file))
    how = read_part(file.with_suffix(".json"))
    make_part(runs / f"{name}-{seed}-{kind}.json", lambda: judge(name, seed, chosen, file, how))


def table(runs: Path) -> None:
    """Merge the parts into learnt_models.json and learnt_models.md."""
    _, rows = read_truths_and_rows(runs)
    rows.sort(key=lambda r: (list(TASKS).index(r["name"]), r["chosen"], r["seed"]))
    write_results(runs, "learnt_models", rows)
    head = (
        "| problem | states | seed | true return (s.e.) | optimum | bar | without memory | predicted "
        "| predicted - true | nats: learnt | true model | one step | 3-gram | open loop: learnt | one step "
        "| 3-gram | seconds |"
    )
    lines = [head, "|" + "---|" * 17]
    for r in rows:
        task, true = TASKS[r["name"]], r["true"]
        met = "" if true["mean"] >= task.bar else ", missed"
        nats = " | ".join(f"{r['nats'][k][0]:.4f}" for k in ("learnt", "true model", "one step", "3-gram"))
        loop = " | ".join(f"{r['open_loop'][k]:.4f}" for k in ("learnt", "one step", "3-gram"))
        lines.append(
            f"| {r['name']} | {r['states']} {'chosen' if r['chosen'] else 'given'} | {r['seed']} "
            f"| {true['mean']:.3f} ({true['error']:.3f}) | {task.optimum:.3f} | {task.bar:.2f}{met} "
            f"| {task.memoryless:.3f} | {r['bounds'][0]:.3f} | {r['bounds'][0] - true['mean']:+.3f} | {nats} "
            f"| {loop} | {r['seconds']:.0f} |"
        )
    write_page(runs, "learnt_models", f"# Learnt models\n\n{story_of(__doc__)}\n\n" + "\n".join(lines))


def main() -> None:
    """The command line."""
    parser = options(__doc__, "learnt_models")
    add_choice(parser, "--problems", TASKS, "problems to learn")
    add_seeds(parser, 0)
    add_choice(parser, "--number", ("given", "chosen"), "who says how many hidden states there are")
    a = parse(parser)
    if not a.table:
        for name in a.problems:
            for seed in a.seeds:
                for kind in a.number:
                    make_row(a.runs, name, seed, kind)
    table(a.runs)


if __name__ == "__main__":
    main()
