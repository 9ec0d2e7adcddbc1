"""Agents with memory beside the exact optimum, on problems where what is seen is not the state.

    python experiments/memory_agents.py                               all that is missing, one run at a time
    python experiments/memory_agents.py --problems tiger --seeds 0 1  some of it
    python experiments/memory_agents.py --table                       merge what is there into .json and .md

PPO with a GRU and a shared critic V(h), one setting per problem, the same for all seeds. Everything is in
Gymnasium's timing: the first observation is shown where one is defined (not on Tiger). Each agent plays
16,384 episodes of its own after training; `share` is how far it went from the best value without memory (0)
to the lower bound of the optimum (1). `seconds` are of training, on the clock, one thread of a machine that
did other work too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    add_choice,
    add_seeds,
    make_part,
    options,
    parse,
    read_truths_and_rows,
    story_of,
    write_page,
    write_results,
)
from problems import discounted_returns, in_gymnasium_timing, mean_and_error, read_metrics, read_problem

import turnwise as tw
from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import cheese_maze, t_maze, tiger
from turnwise.exact.controller_search import best_stochastic_memoryless
from turnwise.exact.sarsop.solve import solve
from turnwise.run.rehearsal import at_most
from turnwise.run.settings import Adam, flattened

EPISODES = 16_384


@dataclass(frozen=True)
class Task:
    """A problem and how it is trained on."""

    source: Any
    horizon: int = 100
    config: dict[str, Any] = field(default_factory=dict)

    def problem(self) -> POMDP:
        """The problem with its first observation shown, if it has one."""
        problem = read_problem(self.source) if isinstance(self.source, str) else self.source()
        return in_gymnasium_timing(problem)


COMMON = {
    "lanes": 256,
    "rollout": 32,
    "entropy_weight": 0.2,
    "steps": 1_500_000,
    "optimizer": Adam(lr=1e-3, grad_clip=0.5),
}
TASKS = {
    "tiger": Task(tiger, 64, {"lam": 1.0, "steps": 3_000_000}),
    "cheese": Task(cheese_maze),
    "4x4": Task("4x4.pomdp", config={"steps": 3_000_000}),
    "loadunload": Task("loadunload.pomdp"),
    "t-maze-10": Task(lambda: t_maze(10), config={"steps": 1_000_000}),
    "heaven-hell": Task(
        "episodic/heavenhell.POMDP",
        200,
        {"lanes": 512, "lam": 0.98, "entropy_weight": 0.03, "steps": 2_500_000},
    ),
}


def one(name: str, memory: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train and measure one agent; a run that was cut off goes on from its checkpoint."""
    task = TASKS[name]
    problem = task.problem()
    out = folder / f"{name}-{memory}-{seed}"
    config = tw.PPO(gamma=problem.discount, **(COMMON | task.config))
    actor = tw.fit(
        config,
        problem,
        out=out,
        seed=seed,
        resume=(out / "config.yaml").exists(),
        checkpoint_every=20,
        memory=memory,
        horizon=task.horizon,
    )
    logged = read_metrics(out)
    returns = discounted_returns(problem, actor.saved.module, at_most(64, EPISODES), seed)
    return {
        "problem": name,
        "memory": memory,
        "seed": seed,
        **mean_and_error(returns),
        "seconds": logged[-1]["seconds"],
        "config": flattened(asdict(config)),
        "curve": [[m["steps"], m["discounted_return"]] for m in logged if "discounted_return" in m],
    }


def references(name: str) -> dict[str, float]:
    """Bounds of the optimum, and the best value without memory."""
    problem = TASKS[name].problem()
    solution = solve(problem, gap=1e-3, deadline=at_most(1, 30))
    best = best_stochastic_memoryless(problem, np.random.default_rng(0), at_most(4, 60))
    return {"lower": solution.lower, "upper": solution.upper, "memoryless": best.value}


def table(folder: Path) -> None:
    """Merge what is there."""
    truth, rows = read_truths_and_rows(folder)
    if not rows:
        return
    lines = [
        "| problem | memory | seed | return | 1 s.e. | without memory | optimum | share | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = list(TASKS)
    for r in sorted(rows, key=lambda r: (order.index(r["problem"]), r["memory"], r["seed"])):
        t = truth[r["problem"]]
        r["share"] = (r["mean"] - t["memoryless"]) / (t["lower"] - t["memoryless"])
        r["above"] = (r["mean"] - t["upper"]) / r["error"] if r["error"] else 0.0
        lines.append(
            f"| {r['problem']} | {r['memory']} | {r['seed']} | {r['mean']:.4f} | {r['error']:.4f} "
            f"| {t['memoryless']:.4f} | {t['lower']:.4f} to {t['upper']:.4f} | {r['share']:.1%} "
            f"| {r['seconds']:.0f} |"
        )
    write_results(folder, "memory_agents", {"truth": truth, "rows": rows})
    head = f"# Agents with memory\n\n{story_of(__doc__)}\n\n"
    write_page(folder, "memory_agents", head + "\n".join(lines))
    print("\n".join(lines))


def main() -> None:
    """Make the runs that are missing, and merge."""
    parser = options(__doc__, "memory_agents")
    add_choice(parser, "--problems", TASKS, "problems")
    add_seeds(parser, 0, 1, 2)
    parser.add_argument("--memories", nargs="+", default=["gru"], help="what the agents remember with")
    a = parse(parser)
    for name in [] if a.table else a.problems:
        make_part(a.runs / f"truth-{name}.json", lambda name=name: references(name))
    for seed in [] if a.table else a.seeds:
        for name in a.problems:
            for memory in a.memories:
                file = a.runs / f"{name}-{memory}-{seed}.json"
                make_part(file, lambda run=(name, memory, seed): one(*run, a.runs))
    table(a.runs)


if __name__ == "__main__":
    main()
