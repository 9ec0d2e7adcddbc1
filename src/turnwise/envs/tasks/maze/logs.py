"""The walker that strolls through parts of the maze, and the conversations it leaves behind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.grammar import draw, pick
from turnwise.envs.tasks.maze.exact import behavior_probabilities, by_sight, moved
from turnwise.envs.tasks.maze.rules import MOVES, PARTS, STARTS, Cell, Observed, sight
from turnwise.envs.tasks.maze.walks import Walks
from turnwise.envs.tasks.maze.words import WALKER, Guide


def maze_logs(
    conversations: int, seed: int, observed: Observed = "full", *, halved: bool = False, acts: bool = False
) -> Iterator[dict[str, Any]]:
    """Conversations of the strolling walker in the log format, one dict each.

    Each begins in a cell drawn uniformly, and belongs to a part of the maze that has that cell, drawn where
    there are two. It ends at the goal, or is cut when the walker has left the part, which is told by then, or
    by the horizon: only the first is `terminated`. No conversation knows the whole maze.

    Agent messages carry `reward` and `behavior_logp`, the exact log-probability of the very message: of its
    move under the mixture of whims, and of its wording. `start`, `part` and `success` are metadata, not for
    the agent's eyes. `halved`: the guide speaks with half of its wordings. `acts`: every message carries its
    act, and the agent's ones `act_logp`, the log of the move's probability, whatever its wording. The first n
    conversations are the same whatever the number asked for.
    """
    seeds = np.random.default_rng(seed).integers(2**63, size=(conversations, 2))
    walks = Walks(Guide(halved), observed)
    for i, (maze_seed, walker_seed) in enumerate(seeds.tolist()):
        rng = np.random.default_rng(walker_seed)
        start = pick(STARTS, rng)
        part = pick([name for name, cells in PARTS.items() if start in cells], rng)
        row = _walk(walks, start, PARTS[part], np.random.default_rng(maze_seed), rng)
        if not acts:
            for message in row["messages"]:
                del message["act"]
                message.pop("act_logp", None)
        yield {"id": f"z-{i + 1:06d}", **row, "start": f"{start[0]} {start[1]}", "part": part}


def _walk(
    walks: Walks, start: Cell, part: frozenset[Cell], guide: np.random.Generator, rng: np.random.Generator
) -> dict[str, Any]:
    messages = [_as_dict(m) for m in walks.begin(0, start, guide)]
    belief = by_sight(STARTS, walks.observed)[sight(start, walks.observed)]
    while True:
        probabilities = behavior_probabilities(belief, walks.observed)
        chosen = draw(probabilities, rng)
        said = WALKER.say(MOVES[chosen], rng)
        (response,) = walks.step([0], [said.text])
        logp = math.log(probabilities[chosen])
        row = {"role": "assistant", "content": said.text, "act": MOVES[chosen], "reward": response.reward}
        messages.append(row | {"act_logp": logp, "behavior_logp": logp + said.logp})
        messages += [_as_dict(m) for m in response.messages]
        cell = walks.cell(0)
        if response.terminated or response.truncated or cell not in part:
            done = response.terminated
            return {"messages": messages, "terminated": done, "success": done}
        belief = moved(belief, MOVES[chosen], walks.observed)[1][sight(cell, walks.observed)]


def _as_dict(message: Message) -> dict[str, Any]:
    return {"role": message.role, "content": message.content, "act": message.act}
