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
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.run.seeds import generator
from turnwise.run.training import TrainingRun

HERE = Path(__file__).parent
EPISODES, WIDTH = 4096, 64


@dataclass(frozen=True)
class Task:
    """A problem and how it is trained on."""

    source: Any
    horizon: int = 100
    config: dict[str, Any] = field(default_factory=dict)

    def problem(self) -> POMDP:
        """In Gymnasium's timing, where it can be."""
        table = self.source()
        with suppress(ValueError):
            table = table.showing_initial()
        return table


COMMON = {"lanes": 128, "rollout": 32, "entropy_weight": 0.2}
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
    }


def play(problem: POMDP, agent: Any, seed: int) -> np.ndarray:
    """[EPISODES] discounted returns from the start, cut where what follows weighs 1e-5."""
    longest = int(np.ceil(np.log(1e-5) / np.log(problem.discount)))
    torch.manual_seed(seed + 1_000_003)
    lanes = StepLanes(TabularEnv(problem), EPISODES, generator(seed, 7), gamma=problem.discount)
    lanes.episodes(agent, longest)
    return lanes.finished().discounted


def references(name: str) -> dict[str, float]:
    """Bounds of the optimum, and the best value without memory."""
    problem = TASKS[name].problem()
    solution = solve(problem, gap=1e-3, deadline=20.0)
    best = best_stochastic_memoryless(problem, np.random.default_rng(0), 24, seconds=10)
    return {"lower": solution.lower, "upper": solution.upper, "memoryless": best.value}


def plan(a: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Problems and memories that were asked for, in order."""
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


def figure(truth: dict[str, Any], rows: list[dict[str, Any]], costs: dict[str, Any] | None) -> None:
    """Shares by memory; shares by length; cost of a step and of a memory by length."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "turnwise"
    import matplotlib.pyplot as plt

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
    plot.savefig(HERE / "history_state.svg", metadata={"Date": None})
    plt.close(plot)


def merge(folder: Path) -> None:
    """Everything that is there as .json, .md and .svg."""
    found = {f.stem: json.loads(f.read_text()) for f in sorted(folder.glob("*.json"))}
    costs = found.pop("costs", None)
    truth = {k.removeprefix("truth-"): v for k, v in found.items() if k.startswith("truth-")}
    rows = [v for k, v in found.items() if not k.startswith("truth-")]
    if not rows:
        return
    lines = tables(truth, rows, costs)
    text = (__doc__ or "").split("\n\n", 2)[2].strip()
    lines.append("\n![Shares, reach and cost](history_state.svg)")
    (HERE / "history_state.md").write_text(f"# Histories as states\n\n{text}\n\n" + "\n".join(lines) + "\n")
    kept = {"truth": truth, "rows": rows, "costs": costs}
    (HERE / "history_state.json").write_text(json.dumps(kept, indent=1) + "\n")
    figure(truth, rows, costs)
    print("\n".join(lines))


def main() -> None:
    """TrainingRun what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--part", choices=("all", "memories", "lengths"), default="all")
    parser.add_argument("--problems", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--memories", nargs="+", default=list(MEMORIES), choices=list(MEMORIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--out", type=Path, default=Path("runs/history_state"))
    parser.add_argument("--costs", type=Path, help="what benchmarks/memories.py --json wrote")
    parser.add_argument("--table", action="store_true", help="only merge what is there")
    a = parser.parse_args()
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    if a.costs is not None:
        (a.out / "costs.json").write_text(a.costs.read_text())
    for seed in [] if a.table or a.costs else a.seeds:
        for name, memory in plan(a):
            done = a.out / f"{name}-{memory}-{seed}.json"
            if name not in a.problems or memory not in a.memories or done.exists():
                continue
            known = a.out / f"truth-{name}.json"
            if not known.exists():
                known.write_text(json.dumps(references(name)) + "\n")
            began = time.time()
            done.write_text(json.dumps(one(name, memory, seed, a.out)) + "\n")
            print(f"{done.stem}: {time.time() - began:.0f} s", flush=True)
    merge(a.out)


if __name__ == "__main__":
    main()
