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

import argparse
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turnwise.algorithms.acting import ppo
from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import cheese_maze, t_maze, tiger
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.controller_search import best_stochastic_memoryless
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.exact.sarsop.solve import solve
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, actor_critic_of
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.run.seeds import generator
from turnwise.run.training import TrainingRun

HERE = Path(__file__).parent
DATA = Path(os.environ.get("TURNWISE_DATA", HERE.parents[1] / "shared" / "data")) / "pomdp"
EPISODES = 16_384


@dataclass(frozen=True)
class Task:
    """A problem and how it is trained on."""

    source: Any
    horizon: int = 100
    config: dict[str, Any] = field(default_factory=dict)

    def problem(self) -> POMDP:
        """In Gymnasium's timing, where it can be."""
        table = read_pomdp(DATA / self.source) if isinstance(self.source, str) else self.source()
        with suppress(ValueError):
            table = table.showing_initial()
        return table


COMMON = {"lanes": 256, "rollout": 32, "entropy_weight": 0.2, "steps": 1_500_000}
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
    env = TabularEnv(problem, task.horizon)
    config = ppo.Config(gamma=problem.discount, **(COMMON | task.config))
    torch.manual_seed(seed)
    agent = actor_critic_of(MemorySpec(memory), CriticSpec(), Spaces.of(env))  # type: ignore[arg-type]
    run = TrainingRun(folder / f"{name}-{memory}-{seed}", what=f"{name} {memory} {seed}", checkpoint_every=20)
    ppo.train(config, env, agent, run, seed)
    logged = [json.loads(x) for x in (run.folder / "metrics.jsonl").read_text().splitlines()]
    returns = play(problem, agent, seed)
    return {
        "problem": name,
        "memory": memory,
        "seed": seed,
        "mean": float(returns.mean()),
        "error": float(returns.std(ddof=1) / len(returns) ** 0.5),
        "seconds": logged[-1]["seconds"],
        "config": asdict(config),
        "curve": [[m["steps"], m["discounted_return"]] for m in logged if "discounted_return" in m],
    }


def play(problem: POMDP, agent: Any, seed: int) -> np.ndarray:
    """[EPISODES] discounted returns from the start, cut where what is left is below 1e-4 of a reward."""
    longest = int(np.ceil(np.log(1e-5) / np.log(problem.discount))) if problem.discount < 0.99 else 1000
    torch.manual_seed(seed + 1_000_003)
    lanes = StepLanes(TabularEnv(problem), EPISODES, generator(seed, 7), gamma=problem.discount)
    lanes.episodes(agent, longest)
    return lanes.finished().discounted


def references(name: str) -> dict[str, float]:
    """Bounds of the optimum, and the best value without memory."""
    problem = TASKS[name].problem()
    solution = solve(problem, gap=1e-3, deadline=30.0)
    best = best_stochastic_memoryless(problem, np.random.default_rng(0), 60)
    return {"lower": solution.lower, "upper": solution.upper, "memoryless": best.value}


def table(folder: Path) -> None:
    """Merge what is there."""
    rows = [json.loads(f.read_text()) for f in sorted(folder.glob("*.json")) if "truth" not in f.name]
    truth = {f.stem.removeprefix("truth-"): json.loads(f.read_text()) for f in folder.glob("truth-*.json")}
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
    (HERE / "memory_agents.json").write_text(json.dumps({"truth": truth, "rows": rows}, indent=1) + "\n")
    text = (__doc__ or "").split("\n\n", 2)[2].strip()
    (HERE / "memory_agents.md").write_text(f"# Agents with memory\n\n{text}\n\n" + "\n".join(lines) + "\n")
    print("\n".join(lines))


def main() -> None:
    """TrainingRun what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--memories", nargs="+", default=["gru"])
    parser.add_argument("--out", type=Path, default=Path("runs/memory_agents"))
    parser.add_argument("--table", action="store_true")
    a = parser.parse_args()
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    if not a.table:
        for name in a.problems:
            known = a.out / f"truth-{name}.json"
            if not known.exists():
                known.write_text(json.dumps(references(name)) + "\n")
        for seed in a.seeds:
            for name in a.problems:
                for memory in a.memories:
                    done = a.out / f"{name}-{memory}-{seed}.json"
                    if not done.exists():
                        began = time.time()
                        done.write_text(json.dumps(one(name, memory, seed, a.out)) + "\n")
                        print(f"{done.stem}: {time.time() - began:.0f} s", flush=True)
    table(a.out)


if __name__ == "__main__":
    main()
