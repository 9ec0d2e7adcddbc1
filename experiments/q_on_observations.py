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

from dataclasses import asdict, dataclass
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
    read_truths_and_rows,
    story_of,
    write_figure,
    write_page,
    write_results,
)
from problems import discounted_returns, mean_and_error, read_metrics, read_problem

from turnwise.algorithms.acting import r2d2
from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import cheese_maze, t_maze
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.controller_search import best_deterministic_memoryless, best_stochastic_memoryless
from turnwise.exact.controllers import Chain, Controller, controller_value
from turnwise.exact.sarsop.solve import solve
from turnwise.models.agents.q_network import QNetwork, greedy_table
from turnwise.models.agents.settings import MemorySpec
from turnwise.models.agents.spec import Spaces, memory_of
from turnwise.run.rehearsal import at_most
from turnwise.run.settings import flattened
from turnwise.run.training import TrainingRun

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
    return (read_problem(source) if isinstance(source, str) else source()).showing_initial()


def worth(problem: POMDP, actions: np.ndarray) -> float:
    """The exact value of the policy that takes `actions` [O], one for each observation."""
    return controller_value(problem, Controller.memoryless(np.eye(problem.shape[1])[actions]))


def references(name: str) -> dict[str, Any]:
    """Exact values that do not depend on learning, and what expected updates come to."""
    problem = problem_of(name)
    solution = solve(problem, gap=1e-3, deadline=at_most(1, 30))
    return {
        "det": best_deterministic_memoryless(problem).value,
        "stochastic": best_stochastic_memoryless(
            problem, np.random.default_rng(0), at_most(4, 100), seconds=30
        ).value,
        "lower": solution.lower,
        "upper": solution.upper,
        "expected": {str(e): expected_updates(problem, e) for e in (1.0, 0.3, 0.1)},
    }


def expected_updates(problem: POMDP, epsilon: float) -> dict[str, float]:
    """Q-learning of Q(o,a) in which every update is its own expectation."""
    S, A, O = problem.shape
    onward = problem.continuing().dense().reshape(A, S, S)
    seen = problem.emissions.dense().reshape(A, S, O)
    first = problem.start[:, None] * problem.initial.dense()
    rewards = Chain(problem).rewards
    # A greedy policy comes again and again: its value and its visits are computed once.
    q, known, values = np.zeros((O, A)), {}, []
    sweeps = at_most(20, SWEEPS)
    for sweep in range(sweeps):
        best = q.argmax(1)
        key = best.tobytes()
        if key not in known:
            policy = np.full((O, A), epsilon / A) + (1 - epsilon) * np.eye(A)[best]
            known[key] = worth(problem, best), visits(first, policy, onward, seen)
        value, d = known[key]
        if sweep >= sweeps - LAST:
            values.append(value)
        v = np.einsum("ast,ato,o->as", onward, seen, q.max(1), optimize=True)
        sums = np.einsum("so,as->oa", d, rewards + problem.discount * v)
        weight = d.sum(0)[:, None]  # [O, 1], 0 for observations that the policy never makes
        q += RATE * np.where(weight > 0, sums / np.where(weight > 0, weight, 1) - q, 0)
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
class WatchedRun(TrainingRun):
    """A run that also notes, whenever metrics are due, what an agent without memory is exactly worth."""

    problem: Any = None
    agent: Any = None

    def log(self, step: int, metrics: Any) -> None:
        """Log the metrics, and the value of the greedy table."""
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
    run = WatchedRun(
        folder / f"{name}-{memory}-{seed}",
        what=f"{name} {memory} {seed}",
        log_every=4,
        checkpoint_every=40,
        problem=problem,
        agent=agent,
    )
    r2d2.train(config, env, agent, run, seed)
    logged = read_metrics(run.folder)
    shown = "exact" if memory == "none" else "discounted_return"
    row = {
        "problem": name,
        "memory": memory,
        "seed": seed,
        "seconds": logged[-1]["seconds"],
        "config": flattened(asdict(config)),
        "curve": [[int(m["steps"]), round(m[shown], 4)] for m in logged if shown in m],
    }
    if memory == "none":
        return {**row, "mean": worth(problem, greedy_table(agent, problem.shape[2]).numpy()), "error": 0.0}
    return {**row, **mean_and_error(discounted_returns(problem, agent, at_most(64, EPISODES), seed))}


def figure(truth: dict[str, Any], rows: list[dict[str, Any]]) -> Any:
    """Exact values of the greedy tables of Q(o,a), and returns of the acting Q(h,a), by steps."""
    plt = pyplot()
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
    return plot


def table(folder: Path) -> None:
    """Merge what is there."""
    truths, rows = read_truths_and_rows(folder)
    truth = {name: truths[name] for name in PROBLEMS if name in truths}
    if not truth:
        return
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
    write_results(folder, "q_on_observations", {"truth": truth, "rows": rows})
    head = f"# Q of observations, Q of histories\n\n{story_of(__doc__)}\n\n"
    write_page(folder, "q_on_observations", head + "\n".join(lines))
    write_figure(folder, "q_on_observations", figure(truth, rows))
    print("\n".join(lines))


def main() -> None:
    """Make the runs that are missing, and merge."""
    parser = options(__doc__, "q_on_observations")
    add_choice(parser, "--problems", PROBLEMS, "problems")
    add_choice(parser, "--memories", MEMORIES, "memories: none for Q(o,a), gru for Q(h,a)")
    add_seeds(parser, 0, 1, 2)
    a = parse(parser)
    for name in [] if a.table else a.problems:
        make_part(a.runs / f"truth-{name}.json", lambda name=name: references(name))
    for seed in [] if a.table else a.seeds:
        for memory in a.memories:
            for name in a.problems:
                file = a.runs / f"{name}-{memory}-{seed}.json"
                make_part(file, lambda run=(name, memory, seed): one(*run, a.runs))
    table(a.runs)


if __name__ == "__main__":
    main()
