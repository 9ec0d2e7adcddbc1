"""Histories as states: every memory beside the exact optimum, how far each reaches, and what it costs.

    python experiments/history_state.py                         all that is missing, one run at a time
    python experiments/history_state.py --part memories --problems cheese --memories gru    some of it
    python experiments/history_state.py --costs memories.json   what benchmarks/memories.py --json wrote
    python experiments/history_state.py --table                 merge what is there: .json, .md, .svg

PPO with a shared critic V(h); one setting per problem, the same for every memory and seed. In Gymnasium's
timing: the first observation is shown where one is defined (not on Tiger). `none` is pi(a|o), whose critic
has a GRU. `belief` is the exact filter, which knows the problem; a perceptron reads it. Each agent plays
4,096 episodes after training; `share` is how far it went from the best value without memory (0), which is
exact, to the lower bound of the optimum (1).

T-mazes of other lengths: the sign is seen at step 0 and needed at step length + 1, so that a window of 6
inputs holds it to the end up to length 4.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    add_choice,
    add_seeds,
    make_part,
    options,
    parse,
    pyplot,
    read_part,
    read_truths_and_rows,
    story_of,
    write_figure,
    write_page,
    write_results,
)
from problems import discounted_returns, in_gymnasium_timing, mean_and_error, read_metrics
from torch import Tensor, nn

from turnwise.algorithms.acting import ppo
from turnwise.data.steps import StepInputs
from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import cheese_maze, t_maze, tiger
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.controller_search import best_stochastic_memoryless
from turnwise.exact.sarsop.solve import solve
from turnwise.models.agents.action_heads import Categorical
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, actor_critic_of
from turnwise.models.agents.views import ActorView, Critic
from turnwise.models.memory.base import Memory
from turnwise.models.memory.belief import BeliefMemory
from turnwise.run.folder import write_text
from turnwise.run.rehearsal import at_most
from turnwise.run.settings import Adam, flattened
from turnwise.run.training import TrainingRun

EPISODES, WIDTH = 4096, 64
COSTS = "costs.json"


@dataclass(frozen=True)
class Task:
    """A problem and how it is trained on."""

    source: Any
    horizon: int = 100
    config: dict[str, Any] = field(default_factory=dict)

    def problem(self) -> POMDP:
        """The problem with its first observation shown, if it has one."""
        return in_gymnasium_timing(self.source())


COMMON = {"lanes": 128, "rollout": 32, "entropy_weight": 0.2, "optimizer": Adam(lr=1e-3, grad_clip=0.5)}
LENGTHS = (2, 4, 6, 10, 14)
TASKS = {
    "cheese": Task(cheese_maze, config={"steps": 300_000}),
    "tiger": Task(tiger, 64, {"steps": 1_000_000, "lam": 1.0, "lanes": 256}),
    **{
        f"t-maze-{n}": Task(partial(t_maze, n), config={"steps": 150_000 if n < 10 else 250_000})
        for n in LENGTHS
    },
}
MEMORIES: dict[str, MemorySpec | None] = {
    "none": MemorySpec("none"),
    "window(4)": MemorySpec("window", window=4),
    "window(8)": MemorySpec("window", window=8),
    "gru": MemorySpec("gru"),
    "lstm": MemorySpec("lstm"),
    "linear": MemorySpec("linear"),
    "transformer": MemorySpec("transformer", context=32),
    "belief": None,
    "window(6)": MemorySpec("window", window=6),
}
PROBLEMS = ("t-maze-10", "cheese", "tiger")
EVERY = [m for m in MEMORIES if m != "window(6)"]
REACH = ["window(6)", "linear", "gru", "none"]


class ReadBelief(Memory):
    """The exact belief, read by a perceptron."""

    def __init__(self, problem: POMDP, width: int):
        super().__init__()
        self.belief = BeliefMemory.of(problem)
        self.width, self.state_size = width, self.belief.state_size
        self.read = nn.Sequential(
            nn.Linear(self.belief.width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
        )

    def unroll(self, inputs: StepInputs, state0: Tensor | None = None) -> Tensor:
        """Features of every position."""
        return self.read(self.belief.unroll(inputs, state0))

    def step(self, inputs: StepInputs, state: Tensor) -> tuple[Tensor, Tensor]:
        """Features after one more observation, and the belief."""
        features, after = self.belief.step(inputs, state)
        return self.read(features), after


def agent_of(memory: str, problem: POMDP, spaces: Spaces) -> ActorCritic:
    """A fresh agent."""
    spec = MEMORIES[memory]
    if spec is not None:
        return actor_critic_of(spec, CriticSpec(), spaces)
    return ActorCritic(
        ReadBelief(problem, WIDTH), Categorical(WIDTH, problem.shape[1]), Critic(ActorView(WIDTH))
    )


def one(name: str, memory: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train and measure one agent; a run that was cut off goes on from its checkpoint."""
    task = TASKS[name]
    problem = task.problem()
    env = TabularEnv(problem, task.horizon)
    config = ppo.Config(gamma=problem.discount, **(COMMON | task.config))
    torch.manual_seed(seed)
    agent = agent_of(memory, problem, Spaces.of(env))
    run = TrainingRun(folder / f"{name}-{memory}-{seed}", what=f"{name} {memory} {seed}", checkpoint_every=20)
    ppo.train(config, env, agent, run, seed)
    returns = discounted_returns(problem, agent, at_most(64, EPISODES), seed)
    return {
        "problem": name,
        "memory": memory,
        "seed": seed,
        **mean_and_error(returns),
        "seconds": read_metrics(run.folder)[-1]["seconds"],
        "config": flattened(asdict(config)),
    }


def references(name: str) -> dict[str, float]:
    """Bounds of the optimum, and the best value without memory."""
    problem = TASKS[name].problem()
    solution = solve(problem, gap=1e-3, deadline=at_most(1, 20))
    best = best_stochastic_memoryless(problem, np.random.default_rng(0), at_most(4, 24), seconds=10)
    return {"lower": solution.lower, "upper": solution.upper, "memoryless": best.value}


def plan(a: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Problems and memories of the part of the experiment, in order."""
    if a.part != "lengths":
        for name in PROBLEMS:
            yield from ((name, memory) for memory in EVERY)
    if a.part != "memories":
        for memory in REACH:
            yield from ((f"t-maze-{n}", memory) for n in LENGTHS)


def tables(truth: dict[str, Any], rows: list[dict[str, Any]], costs: dict[str, Any] | None) -> list[str]:
    """Lines of the page."""
    lines = [
        "| problem | memory | seed | return | 1 s.e. | without memory | optimum | share | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    order = list(TASKS), list(MEMORIES)
    rows.sort(key=lambda r: (order[0].index(r["problem"]), order[1].index(r["memory"]), r["seed"]))
    for r in rows:
        t = truth[r["problem"]]
        r["share"] = (r["mean"] - t["memoryless"]) / (t["lower"] - t["memoryless"])
        lines.append(
            f"| {r['problem']} | {r['memory']} | {r['seed']} | {r['mean']:.4f} | {r['error']:.4f} "
            f"| {t['memoryless']:.4f} | {t['lower']:.4f} to {t['upper']:.4f} | {r['share']:.1%} "
            f"| {r['seconds']:.0f} |"
        )
    lines += [
        "\nShare of the way from the best without memory to the optimum, by the length of the T-maze; means "
        "over seeds.\n",
        "| memory | " + " | ".join(map(str, LENGTHS)) + " |",
        "|---" * (len(LENGTHS) + 1) + "|",
    ]
    for memory in REACH:
        cells = []
        for n in LENGTHS:
            mine = [r["share"] for r in rows if (r["problem"], r["memory"]) == (f"t-maze-{n}", memory)]
            cells.append(
                f"{np.mean(mine):.1%}" + (f" ({len(mine)})" if len(mine) > 1 else "") if mine else ""
            )
        lines.append(f"| {memory} | " + " | ".join(cells) + " |")
    if costs is not None:
        acting = costs["acting"]
        histories = sorted({r["history"] for r in acting})
        lines += [
            "\nActing as the history that is held grows: milliseconds a step of "
            f"{costs['settings']['lanes']} lanes of width {costs['settings']['width']}, and kibibytes of "
            "memory a lane. Other work ran on the machine: the least of the repeats.\n",
            "| memory | " + " | ".join(f"{h} steps" for h in histories) + " |",
            "|---" * (len(histories) + 1) + "|",
        ]
        for memory in dict.fromkeys(r["memory"] for r in acting):
            mine = {r["history"]: r for r in acting if r["memory"] == memory}
            pairs = [(1e3 * min(mine[h]["seconds"]), mine[h]["bytes_per_lane"] / 1024) for h in histories]
            cells = [f"{ms:.2f} / {kib:.1f}" for ms, kib in pairs]
            lines.append(f"| {memory} | " + " | ".join(cells) + " |")
    return lines


def figure(rows: list[dict[str, Any]], costs: dict[str, Any] | None) -> Any:
    """Shares by memory; shares by length; cost of a step and of a memory by length."""
    plt = pyplot()
    plot, ((left, reach), (time_, room)) = plt.subplots(2, 2, figsize=(10, 7), constrained_layout=True)
    for i, (name, marker) in enumerate(zip(PROBLEMS, "os^", strict=True)):
        mine = [r for r in rows if r["problem"] == name and r["memory"] in EVERY]
        x = [EVERY.index(r["memory"]) + 0.2 * (i - 1) for r in mine]
        left.set_xlim(-0.5, len(EVERY) - 0.5)
        left.plot(x, [100 * r["share"] for r in mine], marker, markersize=4, label=name if x else None)
    left.set_xticks(range(len(EVERY)), EVERY, rotation=30, fontsize=7)
    left.set_title("every memory", fontsize=10)
    for memory in REACH:
        mine = [r for r in rows if r["memory"] == memory and r["problem"].startswith("t-maze")]
        lengths = sorted({int(r["problem"].split("-")[-1]) for r in mine})
        means = [100 * np.mean([r["share"] for r in mine if r["problem"] == f"t-maze-{n}"]) for n in lengths]
        reach.plot(lengths, means, "o-", markersize=3, linewidth=1, label=memory if lengths else None)
    reach.axvline(4.5, color="grey", linewidth=0.8, linestyle=":")
    reach.set_title("T-mazes; a window of 6 holds the sign left of the dots", fontsize=10)
    reach.set_xlabel("length of the corridor", fontsize=8)
    for place in (left, reach):
        place.axhline(0, color="black", linestyle="--", linewidth=0.8)
        place.axhline(100, color="black", linewidth=0.8)
        place.set_ylim(-20, 110)
        place.set_ylabel("% of the way to the optimum", fontsize=8)
        place.legend(fontsize=7, loc="center right")
    if costs is not None:
        for memory in dict.fromkeys(r["memory"] for r in costs["acting"]):
            mine = [r for r in costs["acting"] if r["memory"] == memory]
            x = [r["history"] for r in mine]
            style = "o--" if memory == "LSTM" else "o-"
            time_.loglog(
                x, [1e3 * min(r["seconds"]) for r in mine], style, markersize=3, linewidth=1, label=memory
            )
            room.loglog(x, [r["bytes_per_lane"] for r in mine], style, markersize=3, linewidth=1)
        time_.set_title("a step of 64 lanes, ms", fontsize=10)
        room.set_title("memory of a lane, bytes", fontsize=10)
        time_.legend(fontsize=7)
        for place in (time_, room):
            place.set_xlabel("steps of history held", fontsize=8)
    for place in (left, reach, time_, room):
        place.tick_params(labelsize=7)
    return plot


def merge(runs: Path) -> None:
    """Write everything that is there as .json, .md and .svg."""
    costs = read_part(runs / COSTS) if (runs / COSTS).exists() else None
    truth, rows = read_truths_and_rows(runs)
    rows = [r for r in rows if "problem" in r]
    if not rows:
        return
    lines = tables(truth, rows, costs)
    lines.append("\n![Shares, reach and cost](history_state.svg)")
    head = f"# Histories as states\n\n{story_of(__doc__)}\n\n"
    write_page(runs, "history_state", head + "\n".join(lines))
    write_results(runs, "history_state", {"truth": truth, "rows": rows, "costs": costs})
    write_figure(runs, "history_state", figure(rows, costs))
    print("\n".join(lines))


def main() -> None:
    """Make the runs that are missing, and merge."""
    parser = options(__doc__, "history_state")
    parser.add_argument("--part", choices=("all", "memories", "lengths"), default="all", help="of the story")
    add_choice(parser, "--problems", TASKS, "problems")
    add_choice(parser, "--memories", MEMORIES, "memories")
    add_seeds(parser, 0)
    parser.add_argument("--costs", type=Path, help="what benchmarks/memories.py --json wrote; makes no run")
    a = parse(parser)
    if a.costs is not None:
        write_text(a.runs / COSTS, a.costs.read_text())
    for seed in [] if a.table or a.costs else a.seeds:
        for name, memory in plan(a):
            if name in a.problems and memory in a.memories:
                make_part(a.runs / f"truth-{name}.json", lambda name=name: references(name))
                file = a.runs / f"{name}-{memory}-{seed}.json"
                make_part(file, lambda run=(name, memory, seed): one(*run, a.runs))
    merge(a.runs)


if __name__ == "__main__":
    main()
