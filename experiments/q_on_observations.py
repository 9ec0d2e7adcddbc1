"""Q of observations beside Q of histories, and both beside exact values.

    python experiments/q_on_observations.py                            every run (a minute each), resumable
    python experiments/q_on_observations.py --problems cheese --seeds 0  some of them
    python experiments/q_on_observations.py --table                    merge what is there: .json, .md, .svg

All in Gymnasium's timing: the first observation is shown. `det` is the best deterministic policy without
memory, by enumeration; `stochastic` the best one known that draws its actions; `optimum` the bounds of agents
with memory. Three learners stand beside them:

- *Q(o,a), expected updates.* Nothing is sampled: behaviour is epsilon-greedy, d(s|o) is what it leads to over
  episodes of 100 steps, and each sweep moves Q(o,a) a tenth of the way to
  sum_s d(s|o) [R(s,a) + gamma sum_{s',o'} T O max_a' Q(o',a')]. The value of the greedy policy is exact. With
  epsilon 1 there is one fixed point; with less, d moves with Q, and the policy may never settle: then the
  lowest, the mean and the highest value over the last 2,000 of 6,000 sweeps are given.
- *R2D2 with Q(o,a)*: a memory of the observation alone. What it learnt is a table of actions, its value
  exact.
- *R2D2 with Q(h,a)*: the same with a GRU (on cheese for 150,000 steps, else 100,000), valued by 4,096
  episodes of its greedy policy.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turnwise.algorithms.acting import r2d2
from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import cheese_maze, t_maze
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.controller_search import best_deterministic_memoryless, best_stochastic_memoryless
from turnwise.exact.controllers import Chain, Controller, controller_value
from turnwise.exact.files.pomdp import read_pomdp
from turnwise.exact.sarsop.solve import solve
from turnwise.models.agents.q_network import QNetwork, greedy_table
from turnwise.models.agents.settings import MemorySpec
from turnwise.models.agents.spec import Spaces, memory_of
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.run.seeds import generator
from turnwise.run.training import TrainingRun

HERE = Path(__file__).parent
DATA = Path(os.environ.get("TURNWISE_DATA", HERE.parents[1] / "shared" / "data")) / "pomdp"
HORIZON, EPISODES = 100, 4096
PROBLEMS: dict[str, Any] = {
    "cheese": cheese_maze,
    "4x4": "4x4.pomdp",
    "loadunload": "loadunload.pomdp",
    "t-maze-5": partial(t_maze, 5),
}
MEMORIES = {"none": "Q(o,a)", "gru": "Q(h,a)"}
STEPS, MORE = 100_000, {("cheese", "gru"): 150_000}
SWEEPS, LAST, RATE = 6000, 2000, 0.1


def problem_of(name: str) -> POMDP:
    """With the first observation shown."""
    source = PROBLEMS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows that sum to .999999
        return (read_pomdp(DATA / source) if isinstance(source, str) else source()).showing_initial()


def worth(problem: POMDP, actions: np.ndarray) -> float:
    """J of a table of actions [O], exactly."""
    return controller_value(problem, Controller.memoryless(np.eye(problem.shape[1])[actions]))


def references(name: str) -> dict[str, Any]:
    """Exact values that do not depend on learning, and what expected updates come to."""
    problem = problem_of(name)
    solution = solve(problem, gap=1e-3, deadline=30.0)
    return {
        "det": best_deterministic_memoryless(problem).value,
        "stochastic": best_stochastic_memoryless(problem, np.random.default_rng(0), 100, seconds=30).value,
        "lower": solution.lower,
        "upper": solution.upper,
        "expected": {str(e): expected_updates(problem, e) for e in (1.0, 0.3, 0.1)},
    }


def expected_updates(problem: POMDP, epsilon: float) -> dict[str, float]:
    """Q-learning of Q(o,a) where every update is its own expectation."""
    S, A, O = problem.shape
    onward = problem.continuing().dense().reshape(A, S, S)
    seen = problem.emissions.dense().reshape(A, S, O)
    first = problem.start[:, None] * problem.initial.dense()
    rewards = Chain(problem).rewards
    q, known, values = np.zeros((O, A)), {}, []
    for sweep in range(SWEEPS):
        best = q.argmax(1)
        key = best.tobytes()
        if key not in known:
            policy = np.full((O, A), epsilon / A) + (1 - epsilon) * np.eye(A)[best]
            known[key] = worth(problem, best), visits(first, policy, onward, seen)
        value, d = known[key]
        if sweep >= SWEEPS - LAST:
            values.append(value)
        v = np.einsum("ast,ato,o->as", onward, seen, q.max(1), optimize=True)
        goal = np.einsum("so,as->oa", d, rewards + problem.discount * v)
        met = d.sum(0)[:, None]
        q += RATE * np.where(met > 0, goal / np.where(met > 0, met, 1) - q, 0)
    return {"low": min(values), "mean": float(np.mean(values)), "high": max(values), "policies": len(known)}


def visits(first: np.ndarray, policy: np.ndarray, onward: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """[S, O], expected number of steps of an episode at which the state is s and o is seen."""
    now, total = first, np.zeros_like(first)
    for _ in range(HORIZON):
        total += now
        arrive = np.einsum("so,oa,ast->at", now, policy, onward, optimize=True)
        now = np.einsum("at,ato->to", arrive, seen)
    return total


@dataclass
class Watched(TrainingRun):
    """A run that also notes, whenever metrics are due, what an agent without memory is exactly worth."""

    problem: Any = None
    agent: Any = None

    def log(self, step: int, metrics: Any) -> None:
        """With the value of the greedy table."""
        if not self.agent.state_size:
            table = greedy_table(self.agent, self.problem.shape[2]).numpy()
            metrics = {**metrics, "exact": worth(self.problem, table)}
        super().log(step, metrics)


def one(name: str, memory: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train and measure one agent; a run that was cut off goes on from its checkpoint."""
    problem = problem_of(name)
    env = TabularEnv(problem, HORIZON)
    config = r2d2.Config(gamma=problem.discount, steps=MORE.get((name, memory), STEPS))
    torch.manual_seed(seed)
    spaces = Spaces.of(env)
    agent = QNetwork(memory_of(MemorySpec(memory), spaces), env.action_space.n)  # type: ignore[arg-type]
    run = Watched(
        folder / f"{name}-{memory}-{seed}",
        what=f"{name} {memory} {seed}",
        log_every=4,
        checkpoint_every=40,
        problem=problem,
        agent=agent,
    )
    r2d2.train(config, env, agent, run, seed)
    logged = [json.loads(x) for x in (run.folder / "metrics.jsonl").read_text().splitlines()]
    shown = "exact" if memory == "none" else "discounted_return"
    row = {
        "problem": name,
        "memory": memory,
        "seed": seed,
        "seconds": logged[-1]["seconds"],
        "config": asdict(config),
        "curve": [[int(m["steps"]), round(m[shown], 4)] for m in logged if shown in m],
    }
    if memory == "none":
        return {**row, "mean": worth(problem, greedy_table(agent, problem.shape[2]).numpy()), "error": 0.0}
    returns = play(problem, agent, seed)
    return {**row, "mean": float(returns.mean()), "error": float(returns.std(ddof=1) / EPISODES**0.5)}


def play(problem: POMDP, agent: QNetwork, seed: int) -> np.ndarray:
    """[EPISODES] discounted returns of the greedy policy, cut where what follows weighs 1e-5."""
    longest = int(np.ceil(np.log(1e-5) / np.log(problem.discount)))
    lanes = StepLanes(TabularEnv(problem), EPISODES, generator(seed, 7), gamma=problem.discount)
    lanes.episodes(agent, longest)
    return lanes.finished().discounted


def figure(truth: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Exact values of the greedy tables of Q(o,a), and returns of the acting Q(h,a), by steps."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "turnwise"
    import matplotlib.pyplot as plt

    plot, axes = plt.subplots(1, len(truth), figsize=(11, 3.1), constrained_layout=True, squeeze=False)
    colours = {"none": "#cc4433", "gru": "#3366cc"}
    for place, (name, known) in zip(axes.flat, truth.items(), strict=True):
        for memory, colour in colours.items():
            mine = [r for r in rows if (r["problem"], r["memory"]) == (name, memory)]
            for i, row in enumerate(mine):
                x, y = np.array(row["curve"]).T
                label = MEMORIES[memory] if i == 0 else None
                place.plot(x / 1000, y, color=colour, linewidth=0.8, alpha=0.7, label=label)
                end = {"fmt": "o", "markersize": 3, "linewidth": 1, "color": colour}
                place.errorbar([x[-1] / 1000 + 6], [row["mean"]], [2 * row["error"]], **end)
        for label, at, style in (
            ("det", known["det"], ":"),
            ("stochastic", known["stochastic"], "--"),
            ("optimum", known["lower"], "-"),
        ):
            place.axhline(at, color="black", linestyle=style, linewidth=0.8, label=label)
        place.set_title(name, fontsize=10)
        place.set_xlabel("thousand steps", fontsize=8)
        place.tick_params(labelsize=7)
    axes[0, 0].set_ylabel("discounted return", fontsize=8)
    axes[0, 0].legend(fontsize=7, loc="center right")
    plot.savefig(HERE / "q_on_observations.svg", metadata={"Date": None})
    plt.close(plot)


def table(folder: Path) -> None:
    """Merge what is there."""
    files = {n: folder / f"truth-{n}.json" for n in PROBLEMS}
    truth = {n: json.loads(f.read_text()) for n, f in files.items() if f.exists()}
    rows = [json.loads(f.read_text()) for f in sorted(folder.glob("*.json")) if "truth" not in f.name]
    lines = [
        "| problem | det | stochastic | optimum | Q(o,a), expected, epsilon 1 | epsilon .3 | epsilon .1 |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, t in truth.items():
        found = t["expected"].values()
        cells = [
            f"{e['low']:.4f}"
            if e["high"] - e["low"] < 1e-9
            else f"{e['low']:.4f} / {e['mean']:.4f} / {e['high']:.4f}"
            for e in found
        ]
        lines.append(
            f"| {name} | {t['det']:.4f} | {t['stochastic']:.4f} | {t['lower']:.4f} to {t['upper']:.4f} | "
            + " | ".join(cells)
            + " |"
        )
    lines += [
        "\nThree numbers: it does not settle; lowest, mean and highest value of the last 2,000 sweeps.\n",
        "| problem | agent | seed | return | 1 s.e. | lowest and highest, second half | optimum | seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, t in truth.items():
        for memory, agent in MEMORIES.items():
            for r in sorted(rows, key=lambda r: r["seed"]):
                if (r["problem"], r["memory"]) != (name, memory):
                    continue
                late = [y for _, y in r["curve"][len(r["curve"]) // 2 :]]
                span = f"{min(late):.4f} to {max(late):.4f}" if memory == "none" else ""
                error = "exact" if memory == "none" else f"{r['error']:.4f}"
                lines.append(
                    f"| {name} | {agent} | {r['seed']} | {r['mean']:.4f} | {error} | {span} "
                    f"| {t['lower']:.4f} to {t['upper']:.4f} | {r['seconds']:.0f} |"
                )
    lines.append("\n![Values of greedy policies over training](q_on_observations.svg)")
    text = (__doc__ or "").split("\n\n", 2)[2].strip()
    (HERE / "q_on_observations.json").write_text(json.dumps({"truth": truth, "rows": rows}, indent=1) + "\n")
    head = f"# Q of observations, Q of histories\n\n{text}\n\n"
    (HERE / "q_on_observations.md").write_text(head + "\n".join(lines) + "\n")
    figure(truth, rows)
    print("\n".join(lines))


def main() -> None:
    """TrainingRun what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--memories", nargs="+", default=list(MEMORIES), choices=list(MEMORIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/q_on_observations"))
    parser.add_argument("--table", action="store_true", help="only merge what is there")
    a = parser.parse_args()
    torch.set_num_threads(1)
    a.out.mkdir(parents=True, exist_ok=True)
    for name in [] if a.table else a.problems:
        known = a.out / f"truth-{name}.json"
        if not known.exists():
            known.write_text(json.dumps(references(name)) + "\n")
    for seed in [] if a.table else a.seeds:
        for memory in a.memories:
            for name in a.problems:
                done = a.out / f"{name}-{memory}-{seed}.json"
                if not done.exists():
                    began = time.time()
                    done.write_text(json.dumps(one(name, memory, seed, a.out)) + "\n")
                    print(f"{done.stem}: {time.time() - began:.0f} s", flush=True)
    table(a.out)


if __name__ == "__main__":
    main()
