"""Trained agents on tasks whose maximum is known: what a memory gets, and what a reset too late costs.

    python experiments/memory_tasks.py                                      all that is missing, run by run
    python experiments/memory_tasks.py --tasks repeat-first --seeds 0 1 2   some of it
    python experiments/memory_tasks.py --table                              merge what is there: .json, .md

PPO with the critic V(h) on the actor's memory; one setting for each task and memory, the same for all seeds.
A row is a whole episode, so that gradients reach its beginning. gamma is 0: actions change rewards and never
what is shown, so that an answer's worth is its own reward, and all that follows would be noise. Each agent
plays 1,024 episodes after training and draws its actions as in training. `steps` are of the environment,
`seconds` of training, on one thread of a machine that did much other work.

The memory of a `late` agent is emptied after the first step of an episode, as if the episode started there.
`late at most` is the best that such an agent can get. `repeat-previous-start` is `repeat_previous(4, cards=5,
suits=5)`: the one answer that counts is the first card. In a deck of 52 it is 1 answer in 48, and in
repeat-first rewards show what it was.
"""

from __future__ import annotations

from collections.abc import Callable
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
    read_part,
    story_of,
    write_page,
    write_results,
)
from problems import mean_and_error, read_metrics
from torch import Tensor

from turnwise.algorithms.acting import ppo
from turnwise.data.steps import StepInputs
from turnwise.envs.problems.memory_tasks import MEMORY_TASKS, MemoryTask, repeat_previous
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, actor_critic_of
from turnwise.models.memory.base import Memory
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.run.rehearsal import at_most
from turnwise.run.seeds import generator
from turnwise.run.settings import Adam, flattened
from turnwise.run.training import TrainingRun

EPISODES, LANES = 1024, 128
EVERY = 100
"""updates between checkpoints"""


@dataclass(frozen=True)
class Task:
    """A task, the settings of PPO on it, and the memories that it is learnt with."""

    make: Callable[..., Any]
    config: dict[str, Any]
    memories: dict[str, dict[str, Any]] = field(default_factory=lambda: {"gru": {}})
    """Memories by name, with their sizes; "late" in front of a name delays its start."""
    late_at_most: float | None = None
    """The best return of an agent whose memory starts late, if it is known."""


COMMON = {
    "gamma": 0.0,
    "lam": 0.0,
    "lanes": 64,
    "optimizer": Adam(lr=3e-3, grad_clip=0.5),
    "entropy_weight": 0.1,
}
TASKS: dict[str, Task] = {
    "repeat-previous": Task(
        MEMORY_TASKS["repeat-previous"], {"steps": 200_000, "entropy_weight": 0.01}, {"gru": {}, "none": {}}
    ),
    "repeat-first": Task(MEMORY_TASKS["repeat-first"], {"steps": 100_000}),
    "autoencode-8": Task(
        MEMORY_TASKS["autoencode-8"],
        {"steps": 400_000, "lanes": 256, "minibatches": 2},
        {"gru": {"width": 128}},
    ),
    "count-recall-8": Task(
        MEMORY_TASKS["count-recall-8"],
        {"steps": 300_000, "lanes": 256, "minibatches": 2, "entropy_weight": 0.4, "entropy_end": 0.02},
    ),
    "count-recall": Task(
        MEMORY_TASKS["count-recall"],
        {"steps": 2_400_000, "lanes": 128, "entropy_weight": 0.4, "entropy_end": 0.02, "epochs": 3},
        {"gru": {"width": 128}},
    ),
    "autoencode": Task(
        MEMORY_TASKS["autoencode"],
        {"steps": 3_200_000, "optimizer": Adam(lr=1e-3, grad_clip=0.5), "minibatches": 2, "epochs": 3},
        {"transformer": {"layers": 2, "context": 104}},
    ),
    "repeat-previous-start": Task(
        partial(repeat_previous, 4, 5, 5),
        {"steps": 60_000, "lanes": 128, "optimizer": Adam(lr=1e-2, grad_clip=0.5), "minibatches": 2},
        {"gru": {"width": 32}, "late gru": {"width": 32}, "none": {"width": 32}},
        late_at_most=0.0,
    ),
    "cue-recall": Task(
        MEMORY_TASKS["cue-recall"], {"steps": 100_000}, {"gru": {}, "late gru": {}}, late_at_most=0.5
    ),
}


class LateStart(Memory):
    """A memory that is emptied after the first step of an episode, and not before it, as if it started there.

    What was seen first is lost: at the second step nothing is known but what is shown then, as the last
    action and reward are silent at a start. Rows have to be whole episodes.
    """

    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory, self.width, self.state_size = memory, memory.width, memory.state_size + 1

    def unroll(self, inputs: StepInputs, state0: Tensor | None = None) -> Tensor:
        """[B, T, D]: first positions alone, then the rest as if nothing had been before."""
        if state0 is not None and state0.any():
            raise ValueError("a row begins in mid-episode; expected whole episodes")
        late = torch.zeros_like(inputs.start)
        late[:, 1:2] = True
        inputs = inputs._replace(start=late)
        first = StepInputs(*(x[:, :1] for x in inputs))
        rest = StepInputs(*(x[:, 1:] for x in inputs))
        return torch.cat([self.memory.unroll(first), self.memory.unroll(rest)], 1)

    def step(self, inputs: StepInputs, state: Tensor) -> tuple[Tensor, Tensor]:
        """The last number of the state says that the step before was the first."""
        second = state[:, -1:] > 0
        state_before = state[:, :-1].masked_fill(second, 0.0)
        features, after = self.memory.step(inputs._replace(start=second[:, 0]), state_before)
        return features, torch.cat([after, inputs.start.unsqueeze(-1).to(after.dtype)], 1)


def agent_of(env: MemoryTask, name: str, sizes: dict[str, Any]) -> ActorCritic:
    """A fresh agent; "late gru" has a GRU whose start comes one step late."""
    spec: Any = {"memory": name.removeprefix("late "), **sizes}
    agent = actor_critic_of(MemorySpec(**spec), CriticSpec(), Spaces.of(env))
    if name.startswith("late "):
        agent = ActorCritic(LateStart(agent.memory), agent.head, agent.critic)
    return agent


def one(name: str, memory: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train and measure one agent; a run that was cut off goes on from its checkpoint."""
    task = TASKS[name]
    env = task.make()
    config = ppo.Config(rollout=env.length, **(COMMON | task.config))
    torch.manual_seed(seed)
    agent = agent_of(env, memory, task.memories[memory])
    label = f"{name}-{memory.replace(' ', '_')}-{seed}"
    run = TrainingRun(folder / label, what=label, checkpoint_every=EVERY)
    ppo.train(config, env, agent, run, seed)
    logged = read_metrics(run.folder)
    returns = play(env, agent, seed)
    return {
        "task": name,
        "memory": memory,
        "sizes": task.memories[memory],
        "seed": seed,
        **mean_and_error(returns),
        "episodes": len(returns),
        "steps": logged[-1]["steps"],
        "seconds": logged[-1]["seconds"],
        "config": flattened(asdict(config)),
        "curve": [[m["steps"], m["episode_return"]] for m in logged if "episode_return" in m],
    }


def play(env: MemoryTask, agent: ActorCritic, seed: int) -> np.ndarray:
    """[EPISODES], returns of the trained agent."""
    torch.manual_seed(seed + 1_000_003)
    lanes = StepLanes(env, LANES, generator(seed, 7))
    for _ in range(at_most(1, EPISODES // LANES)):
        lanes.episodes(agent, env.length)
    return lanes.finished().returns


def table(folder: Path) -> None:
    """Merge what is there."""
    order = list(TASKS)
    rows = [read_part(f) for f in folder.glob("*.json")]
    rows = [r for r in rows if r["seed"] < 3]  # other seeds are for tuning
    rows.sort(key=lambda r: (order.index(r["task"]), r["memory"], r["seed"]))
    if not rows:
        return
    lines = [
        "| task | memory | seed | return | 1 s.e. | random | late at most | steps | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in rows:
        task = TASKS[r["task"]]
        late = "" if task.late_at_most is None else f"{task.late_at_most:g}"
        lines.append(
            f"| {r['task']} | {r['memory']} | {r['seed']} | {r['mean']:.4f} | {r['error']:.4f} "
            f"| {task.make().random:.3f} | {late} | {r['steps']:,.0f} | {r['seconds']:.0f} |"
        )
    write_results(folder, "memory_tasks", {"rows": rows})
    head = f"# Agents on tasks that need memory\n\n{story_of(__doc__)}\n\n"
    write_page(folder, "memory_tasks", head + "\n".join(lines))
    print("\n".join(lines))


def main() -> None:
    """Make the runs that are missing, and merge."""
    parser = options(__doc__, "memory_tasks")
    add_choice(parser, "--tasks", TASKS, "tasks")
    add_seeds(parser, 0, 1, 2)
    parser.add_argument("--memories", nargs="+", help="memories; by default all that are set for a task")
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for name in a.tasks:
            for memory in a.memories or TASKS[name].memories:
                file = a.runs / f"{name}-{memory.replace(' ', '_')}-{seed}.json"
                make_part(file, lambda run=(name, memory, seed): one(*run, a.runs))
    table(a.runs)


if __name__ == "__main__":
    main()
