"""What a bootstrap may see: the same memoryless agents learn from samples, and only the target changes.

    python experiments/bootstrap_bias.py                         every run (half a minute each), resumable
    python experiments/bootstrap_bias.py --problems 4x3 --seeds 0  some of them
    python experiments/bootstrap_bias.py --table                 merge what is there into .json and .md

The actor is pi(a|o). Monte Carlo is REINFORCE with V(o) as baseline. Everything else is A2C with a one-step
bootstrap, r + gamma V(next), or with lambda .9. These differ only in what V sees: the observation, the
history, history and hidden state, or the hidden state. Learned policies are tables, and their values
(discounted, from the start, first observation shown) are exact, by a linear system. `best` is the best known
stochastic memoryless policy (limited_memory.md). `exact` are values of expected updates, in which nothing is
sampled, for the two extremes. Observations of these problems do not depend on the action, so that V(s) is no
worse than V(h) for an actor without memory. With one step the weight of the entropy begins at .1 instead of
.02, so that values are learnt before actions are settled. Both end at 0.

The last table is of an actor with memory (a GRU) on a problem in which looking costs first and pays later.
The hidden state is worth the same before and after the look, so V(s) as a bootstrap never sees what looking
is good for. These values are means of 4,000 episodes. The entropy's weight begins at .5: with less, no agent
would look long enough to learn what to do then.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import add_choice, add_seeds, make_part, options, parse, read_part, write_page, write_results
from problems import policy_table, read_problem

from turnwise.algorithms.acting import a2c, reinforce
from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.envs.tabular import TabularEnv
from turnwise.exact.controllers import Controller, controller_value
from turnwise.models.agents.action_heads import Categorical
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.models.agents.views import Critic, HistoryView, JointView, ObservationView, StateView, View
from turnwise.models.memory.base import LearnedMemory
from turnwise.models.memory.encoders import Encoder, ObservationEncoder
from turnwise.models.memory.recurrent import GRU
from turnwise.models.memory.window import Window
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.run.settings import Adam
from turnwise.run.training import TrainingRun

WIDTH, HORIZON, LANES, STEPS = 32, 120, 128, 1_500_000
PROBLEMS: dict[str, tuple[str, float, float, float]] = {
    # name: file, best stochastic memoryless, exact updates with Monte Carlo, with one-step V(o)
    "4x3": ("4x3.95.POMDP", 0.7784, 0.7771, -0.5666),
    "cheese": ("cheese.95.POMDP", 2.0792, 2.0779, 0.3842),
    "loadunload": ("loadunload.pomdp", 1.4063, 1.4061, 0.4747),
    "shuttle": ("shuttle.95.POMDP", 18.9234, 18.907, 0.0755),
}
TARGETS: dict[str, tuple[str, float | None]] = {
    # name: what V sees, lambda of the bootstrap (None: Monte Carlo)
    "Monte Carlo": ("o", None),
    "V(h), lambda .9": ("h", 0.9),
    "V(h,s), lambda .9": ("hs", 0.9),
    "V(h)": ("h", 0.0),
    "V(s)": ("s", 0.0),
    "V(o)": ("o", 0.0),
}
VIEWS_WITH_MEMORY = {"V(h)": ("h", 0.0), "V(h,s)": ("hs", 0.0), "V(s)": ("s", 0.0), "V(o)": ("o", 0.0)}
LOOK, LOOK_IS_WORTH = "look or leap", 0.45


def look_or_leap() -> POMDP:
    """Left or right pays 1 or -1 and ends it. Looking costs .5 and shows which is which. V* = .95 - .5."""
    stay, even = np.eye(2), np.full((2, 3), [0.0, 0.0, 1.0])
    pays = np.array([[-0.5, -0.5], [1.0, -1.0], [-1.0, 1.0]])
    ends = np.zeros((3, 2, 2), bool)
    ends[1:] = True
    problem = POMDP.from_arrays(
        np.stack([stay] * 3),
        np.stack([np.eye(2, 3), even, even]),
        pays,
        discount=0.95,
        start=np.full(2, 0.5),
        ends=ends,
        name=LOOK,
    )
    return replace(problem, initial=Rows.from_dense(even))


def problem_of(name: str) -> POMDP:
    """With the first observation shown."""
    return look_or_leap() if name == LOOK else read_problem(PROBLEMS[name][0]).showing_initial()


def agent_of(env: TabularEnv, sees: str, memory: bool) -> ActorCritic:
    """An actor with a GRU or without memory, and a critic that sees o, h, s or hs."""
    o, a, s = env.observation_space, env.action_space, env.state_space

    def history() -> View:
        return HistoryView(LearnedMemory(Encoder(o, a, WIDTH), GRU(WIDTH)))

    views = {
        "o": lambda: ObservationView(o, WIDTH),
        "s": lambda: StateView(s, WIDTH),
        "h": history,
        "hs": lambda: JointView(history(), StateView(s, WIDTH)),
    }
    reader = Encoder(o, a, WIDTH) if memory else ObservationEncoder(o, WIDTH)
    core = GRU(WIDTH) if memory else Window(WIDTH, 1)
    return ActorCritic(LearnedMemory(reader, core), Categorical(WIDTH, a.n), Critic(views[sees]()))


def one_run(name: str, target: str, seed: int, memory: bool) -> dict[str, Any]:
    """Train, and value what was learnt."""
    problem = problem_of(name)
    sees, lam = (VIEWS_WITH_MEMORY if memory else TARGETS)[target]
    env, gamma = TabularEnv(problem, HORIZON), problem.discount
    torch.manual_seed(seed)
    agent = agent_of(env, sees, memory)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(Path(folder), quiet=True, log_every=1000)
        if lam is None:
            c = reinforce.Config(
                episodes=STEPS // HORIZON,
                lanes=LANES // 2,
                longest=HORIZON,
                optimizer=Adam(lr=5e-3, grad_clip=5.0),
                gamma=gamma,
                entropy_weight=0.02,
                visit_discount=gamma,
            )
            reinforce.train(c, env, agent, run, seed)
        else:
            c = a2c.Config(
                steps=STEPS // 4 if memory else STEPS,
                lanes=LANES,
                rollout=30,
                optimizer=Adam(lr=3e-3, grad_clip=0.5),
                gamma=gamma,
                estimator="gae",
                lam=lam,
                entropy_weight=0.5 if memory else 0.1 if lam == 0 else 0.02,
                visit_discount=gamma if not memory else 1.0,
            )
            a2c.train(c, env, agent, run, seed)
    seconds = round(time.monotonic() - began, 1)
    row = {"name": name, "target": target, "seed": seed, "memory": memory, "seconds": seconds}
    if not memory:
        table = policy_table(agent, env.symbols)
        return {**row, "value": controller_value(problem, Controller.memoryless(table))}
    lanes = StepLanes(TabularEnv(problem, 300), 4000, np.random.default_rng(10_000 + seed), gamma=gamma)
    lanes.episodes(agent, 300)
    returns = lanes.finished().discounted
    return {**row, "value": float(returns.mean()), "error": float(returns.std() / len(returns) ** 0.5)}


def cell(values: list[float], best: float | None) -> str:
    """Mean and best over seeds; bold where the mean is within 5% of the best known."""
    if not values:
        return ""
    mean, top = float(np.mean(values)), max(values)
    text = f"{mean:.4f}"
    return (f"**{text}**" if best is not None and mean >= 0.95 * best else text) + f" ({top:.4f})"


def table(runs: Path) -> None:
    """Merge every finished run into bootstrap_bias.json and bootstrap_bias.md."""
    rows = [read_part(f) for f in sorted(runs.glob("*.json"))]
    if not rows:
        return

    def found(name: str, target: str, memory: bool) -> list[float]:
        return [r["value"] for r in rows if (r["name"], r["target"], r["memory"]) == (name, target, memory)]

    seeds = len({r["seed"] for r in rows})
    text = [
        f"Agents without memory, mean over {seeds} seeds (best); bold: the mean is within 5% of the best "
        "stochastic memoryless policy.\n",
        "| problem | best | " + " | ".join(TARGETS) + " | exact: Monte Carlo | exact: V(o) |",
        "|---" * (len(TARGETS) + 4) + "|",
    ]
    for name, (_, best, exact_mc, exact_td) in PROBLEMS.items():
        cells = [cell(found(name, t, False), best) for t in TARGETS]
        text.append(f"| {name} | {best:.4f} | " + " | ".join(cells) + f" | {exact_mc:.4f} | {exact_td:.4f} |")
    text += [
        "\nAgents with memory (GRU), one-step bootstrap, mean over seeds (best).\n",
        "| problem | optimum | " + " | ".join(VIEWS_WITH_MEMORY) + " |",
        "|---" * (len(VIEWS_WITH_MEMORY) + 2) + "|",
    ]
    cells = [cell(found(LOOK, t, True), LOOK_IS_WORTH) for t in VIEWS_WITH_MEMORY]
    text.append(f"| {LOOK} | {LOOK_IS_WORTH} | " + " | ".join(cells) + " |")
    write_results(runs, "bootstrap_bias", rows)
    write_page(runs, "bootstrap_bias", "\n".join(text))


def main() -> None:
    """Make the runs that are missing, and merge."""
    parser = options(__doc__, "bootstrap_bias")
    add_choice(parser, "--problems", [*PROBLEMS, LOOK], "problems")
    add_seeds(parser, 0, 1, 2)
    a = parse(parser)
    plan = [(n, t, False) for n in a.problems if n in PROBLEMS for t in TARGETS]
    plan += [(n, t, True) for n in a.problems if n == LOOK for t in VIEWS_WITH_MEMORY]
    for seed in [] if a.table else a.seeds:
        for name, target, memory in plan:
            which = list(VIEWS_WITH_MEMORY if memory else TARGETS).index(target)
            file = a.runs / f"{name.replace(' ', '-')}-{which}-{seed}.json"
            make_part(file, lambda run=(name, target, seed, memory): one_run(*run))
        table(a.runs)
    table(a.runs)


if __name__ == "__main__":
    main()
