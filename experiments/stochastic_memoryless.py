"""Agents without memory that learn from samples, against the best that a policy without memory can be worth.

    python experiments/stochastic_memoryless.py                      every run (up to a minute), resumable
    python experiments/stochastic_memoryless.py --problems 4x4 --seeds 0   some of them
    python experiments/stochastic_memoryless.py --table              merge what is there: .json, .md, .svg

REINFORCE with the softmax actor pi(a|o) and V(o) as baseline. Decision k weighs gamma^k, so that the gradient
is that of the discounted return. What is learnt is a table of probabilities, and its value is exact. `det` is
the best deterministic memoryless policy by enumeration, `stochastic` the best one found by exact gradients
from 400 starts (a lower bound; nothing learnt may lie above it), `optimum` that of agents with memory. First
observations are shown, except on Tiger, which has none.

Heaven and hell is another matter. A policy that goes to the priest is worth nothing until it comes back on
only one of his two answers. Near a uniform policy the gradient is therefore of second order, and what is
estimated there is noise. So this agent starts from random logits (deviation 1), and it learns by PPO with
V(s), which is unbiased for a policy without memory and leaves less noise.
"""

from __future__ import annotations

import tempfile
import time
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
    write_figure,
    write_page,
    write_results,
)
from problems import logit_table, policy_table, read_metrics, read_problem

from turnwise.algorithms.acting import ppo, reinforce
from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import t_maze
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.controller_search import best_deterministic_memoryless, best_stochastic_memoryless
from turnwise.exact.controllers import Controller, controller_value
from turnwise.models.agents.action_heads import Categorical
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.models.agents.views import Critic, ObservationView, StateView
from turnwise.models.memory.base import LearnedMemory
from turnwise.models.memory.encoders import ObservationEncoder
from turnwise.models.memory.window import Window
from turnwise.run.errors import InputError
from turnwise.run.rehearsal import at_most
from turnwise.run.settings import Adam
from turnwise.run.training import TrainingRun

WIDTH, LANES = 32, 128
PROBLEMS: dict[str, tuple[str, float | None, int]] = {
    # name: file, optimum of the same timing if it is known, longest episode
    "4x4": ("4x4.pomdp", 3.7323, 120),
    "cheese": ("cheese.95.POMDP", None, 120),
    "4x3": ("4x3.95.POMDP", None, 120),
    "loadunload": ("loadunload.pomdp", None, 120),
    "tiger": ("tiger.95.POMDP", 19.3714, 120),
    "t-maze-10": ("", 4 * 0.9**11, 120),
    "heaven-hell": ("episodic/heavenhell.POMDP", None, 200),
}
PRIVILEGED: dict[str, dict[str, Any]] = {
    "heaven-hell": {
        "steps": 6_000_000,
        "lanes": 1024,
        "rollout": 32,
        "optimizer": Adam(lr=1e-3, grad_clip=0.5),
        "entropy_weight": 0.02,
        "visit_discount": 0.99,
    }
}
"""problems for PPO with V(s), and its settings"""
SETTINGS: dict[str, Any] = {
    "episodes": LANES * 300,
    "lanes": LANES,
    "optimizer": Adam(lr=5e-3, grad_clip=5.0),
    "entropy_weight": 0.02,
}


def problem_of(name: str) -> POMDP:
    """The problem in the timing of the experiment."""
    problem = read_problem(PROBLEMS[name][0]) if PROBLEMS[name][0] else t_maze(10)
    return problem if name == "tiger" else problem.showing_initial()


@torch.no_grad()
def spread_logits_(agent: ActorCritic, symbols: int) -> None:
    """Scale the head so that logits begin with deviation 1, not near a uniform policy."""
    scale = logit_table(agent, symbols).std()
    for weights in agent.head.parameters():
        weights /= scale


def reference(name: str) -> dict[str, float | None]:
    """Exact values of the best policies without memory."""
    problem = problem_of(name)
    try:
        det: float | None = best_deterministic_memoryless(problem).value
    except InputError:  # too many to enumerate
        det = None
    best = best_stochastic_memoryless(problem, np.random.default_rng(0), at_most(4, 400), seconds=60)
    return {"det": det, "stochastic": best.value}


def one_run(name: str, seed: int) -> dict[str, Any]:
    """Train; the exact value of what was learnt, and what episodes were worth on the way."""
    _, _, longest = PROBLEMS[name]
    problem = problem_of(name)
    env, gamma = TabularEnv(problem, longest), problem.discount
    torch.manual_seed(seed)
    memory = LearnedMemory(ObservationEncoder(env.observation_space, WIDTH), Window(WIDTH, 1))
    privileged = name in PRIVILEGED
    view = StateView(env.state_space, WIDTH) if privileged else ObservationView(env.observation_space, WIDTH)
    agent = ActorCritic(memory, Categorical(WIDTH, env.action_space.n), Critic(view))
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(Path(folder), quiet=True, log_every=3)
        if privileged:
            spread_logits_(agent, env.symbols)
            ppo.train(ppo.Config(**PRIVILEGED[name], gamma=gamma), env, agent, run, seed)
        else:
            c = reinforce.Config(**SETTINGS, longest=longest, gamma=gamma, visit_discount=gamma)
            reinforce.train(c, env, agent, run, seed)
        logged = read_metrics(Path(folder))
    value = controller_value(problem, Controller.memoryless(policy_table(agent, env.symbols)))
    # PPO logs how many episodes have ended since its last line, REINFORCE how many it has seen.
    seen = np.cumsum([m["episodes"] for m in logged]) if privileged else [m["seen"] for m in logged]
    curve = [
        (int(x), round(m["discounted_return"], 4))
        for x, m in zip(seen, logged, strict=True)
        if "discounted_return" in m
    ]
    seconds = round(time.monotonic() - began, 1)
    return {"name": name, "seed": seed, "value": value, "seconds": seconds, "curve": curve}


def figure(rows: list[dict[str, Any]], references: dict[str, dict[str, float | None]]) -> Any:
    """Discounted returns of training by episode, exact values as lines."""
    plt = pyplot()
    names = [n for n in references if n != "tiger"]  # from -600 to -20: nothing to see
    columns = 3
    plot, axes = plt.subplots(2, columns, figsize=(10, 5.2), constrained_layout=True, squeeze=False)
    for place, name in zip(axes.flat, names, strict=False):
        for row in rows:
            if row["name"] == name and len(row["curve"]) > 5:
                x, y = np.array(row["curve"]).T
                smooth = np.convolve(y, np.ones(5) / 5, "valid")
                place.plot(x[4:], smooth, color="#3366cc", linewidth=0.9, alpha=0.8)
        lines = {**references[name], "optimum": PROBLEMS[name][1]}
        for (label, at), style in zip(lines.items(), (":", "--", "-"), strict=True):
            if at is not None:
                place.axhline(at, color="black", linestyle=style, linewidth=0.8, label=f"{label} {at:.4g}")
        place.set_title(name, fontsize=10)
        place.legend(fontsize=7, loc="lower right")
        place.tick_params(labelsize=7)
    for place in axes[-1]:
        place.set_xlabel("episodes", fontsize=8)
    for place in axes[:, 0]:
        place.set_ylabel("discounted return", fontsize=8)
    for place in axes.flat[len(names) :]:
        place.set_axis_off()
    return plot


def table(runs: Path) -> None:
    """Merge every finished run into stochastic_memoryless.json, .md and .svg."""
    references, rows = {}, []
    lines = [
        "| problem | det | stochastic | learnt, best seed | mean | of the best | seeds | seconds each |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in PROBLEMS:
        file = runs / f"{name}-reference.json"
        mine = [read_part(f) for f in sorted(runs.glob(f"{name}-[0-9]*.json"))]
        if not file.exists() or not mine:
            continue
        known = references[name] = read_part(file)
        rows += mine
        values, best = [r["value"] for r in mine], known["stochastic"]
        short = (best - max(values)) / abs(best)
        det = "too many" if known["det"] is None else f"{known['det']:.4f}"
        lines.append(
            f"| {name} | {det} | {best:.4f} | {max(values):.4f} | {np.mean(values):.4f} | {1 - short:.1%} "
            f"| {len(values)} | {np.mean([r['seconds'] for r in mine]):.0f} |"
        )
    if not rows:
        return
    kept = [{k: v for k, v in r.items() if k != "curve"} for r in rows]
    found = {"references": references, "runs": kept}
    write_results(runs, "stochastic_memoryless", found)
    lines.append("\n![Learning curves](stochastic_memoryless.svg)")
    write_page(runs, "stochastic_memoryless", "\n".join(lines))
    write_figure(runs, "stochastic_memoryless", figure(rows, references))


def main() -> None:
    """Make the runs that are missing, and merge."""
    parser = options(__doc__, "stochastic_memoryless")
    add_choice(parser, "--problems", PROBLEMS, "problems")
    add_seeds(parser, 0, 1, 2)
    a = parse(parser)
    for name in [] if a.table else a.problems:
        make_part(a.runs / f"{name}-reference.json", lambda name=name: reference(name))
        for seed in a.seeds:
            make_part(a.runs / f"{name}-{seed}.json", lambda name=name, seed=seed: one_run(name, seed))
        table(a.runs)
    table(a.runs)


if __name__ == "__main__":
    main()
