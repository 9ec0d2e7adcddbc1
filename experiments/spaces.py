"""A cue in every kind of space: seen once, named three steps later by an action of the same kind.

    python experiments/spaces.py                          every run (seconds each), resumable
    python experiments/spaces.py --spaces image --seeds 0  some of them
    python experiments/spaces.py --table                  merge what is there: .json and .md

One environment for all kinds of spaces. The first observation is one of two elements of the space, those of
the next two steps are a third one, and the third action pays between 0 and 1 by how near it is to the cue:
1 if it is the cue. Without memory nothing above `memoryless` can be earned (the better of always naming one
cue and going between both). One setting for all: PPO, 8,000 steps of 16 lanes, learning rate 5e-3, a GRU of
width 32, and otherwise the defaults. Each agent is measured
twice with the same seeds: by `tw.evaluate`, and by the loop that the documentation prints, with a loaded
player in a single environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
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
from gymnasium import spaces

import turnwise as tw

CONFIG = tw.PPO(steps=8_000, lanes=16, rollout=12, optimizer=tw.Adam(5e-3, grad_clip=0.5))
EPISODES = 100
BOX = spaces.Box(-2, 2, (2,), np.float32)
SPACES: dict[str, Any] = {
    "Box, even": BOX,
    "Box, uneven": spaces.Box(np.array([0.0, -40.0]), np.array([1.0, 10.0]), dtype=np.float64),
    "Box, from 0 on": spaces.Box(0, np.inf, (2,), np.float32),
    "Discrete": spaces.Discrete(3),
    "Discrete, from 1 on": spaces.Discrete(3, start=1),
    "MultiDiscrete": spaces.MultiDiscrete([3, 4], start=[0, 5]),
    "MultiDiscrete, 2,187 combinations": spaces.MultiDiscrete([3] * 7),
    "MultiBinary": spaces.MultiBinary(4),
    "Dict": spaces.Dict({"b": BOX, "a": spaces.Dict({"c": spaces.Box(0, 9, (1, 2))})}),
    "Tuple": spaces.Tuple((spaces.Discrete(3, start=-1), spaces.MultiDiscrete([3, 3]))),
}
SEEN = {
    "image": spaces.Box(0, 255, (24, 32, 3), np.uint8),
    "image in a Dict": spaces.Dict(
        {"see": spaces.Box(0, 255, (1, 16, 16), np.uint8), "go": spaces.Discrete(3)}
    ),
}
"""of observations alone; the action is a Discrete(3)"""


def shown(space: Any, i: int, rng: np.random.Generator) -> Any:
    """Element i of a space: 0 and 1 are the cues, 2 is neither."""
    if isinstance(space, spaces.Dict):
        return {key: shown(part, i, rng) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(shown(part, i, rng) for part in space.spaces)
    if isinstance(space, spaces.Discrete):
        return int(space.start) + i
    if isinstance(space, spaces.MultiDiscrete):
        return (space.start + i).astype(space.dtype)
    if isinstance(space, spaces.MultiBinary):
        return ((np.arange(4) + i) % 3 == 0).astype(np.int8)
    if space.dtype == np.uint8:  # a bright half, left or right, in noise
        picture = rng.integers(0, 64, space.shape)
        image = np.moveaxis(picture, 0, -1) if space.shape[0] == 1 else picture
        half = image.shape[1] // 2
        if i < 2:
            image[:, i * half : (i + 1) * half] += 128
        return picture.astype(np.uint8)
    return places(space, i).astype(space.dtype)


def places(box: Any, i: int) -> np.ndarray:
    """A quarter, three quarters or a half of the way from the lowest to the highest; at most 2 from 0 on."""
    low, high = box.low.astype(float), np.where(np.isfinite(box.high), box.high, box.low + 2)
    return low + (0.25, 0.75, 0.5)[i] * (high - low)


def nearness(space: Any, action: Any, i: int) -> float:
    """1 at element i; numbers lose 2 for each width of their range, symbols count one by one."""
    if isinstance(space, spaces.Dict):
        return float(np.mean([nearness(part, action[k], i) for k, part in space.spaces.items()]))
    if isinstance(space, spaces.Tuple):
        return float(np.mean([nearness(p, a, i) for p, a in zip(space.spaces, action, strict=True)]))
    if isinstance(space, spaces.Box):
        width = 2 * (places(space, 1) - places(space, 0))
        return float(np.mean(1 - np.minimum(1, 2 * np.abs(action - places(space, i)) / width)))
    return float(np.mean(np.asarray(action) == shown(space, i, np.random.default_rng(0))))


class Cue(gymnasium.Env[Any, Any]):
    """Name the cue three steps after it was seen."""

    def __init__(self, name: str) -> None:
        self.observation_space = SPACES.get(name) or SEEN[name]
        self.action_space = SPACES.get(name, spaces.Discrete(3))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        """Show a cue."""
        super().reset(seed=seed)
        self.cue, self.time = int(self.np_random.integers(2)), 0
        return shown(self.observation_space, self.cue, self.np_random), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Show neither cue; the third action pays."""
        assert self.action_space.contains(action)
        self.time += 1
        over = self.time == 3
        reward = nearness(self.action_space, action, self.cue) if over else 0.0
        return shown(self.observation_space, 2, self.np_random), reward, over, False, {}


def memoryless(space: Any) -> float:
    """The best mean of one action for both cues, among the elements 0, 1 and 2."""
    element = [shown(space, i, np.random.default_rng(0)) for i in range(3)]
    return max((nearness(space, x, 0) + nearness(space, x, 1)) / 2 for x in element)


def looped(folder: Path, name: str) -> float:
    """The mean return of the loop in docs/how-to/agents.md, from the seeds of `tw.evaluate`."""
    player, env, total = tw.load(folder).player(greedy=True), Cue(name), 0.0
    for seed in np.random.default_rng(0).integers(2**31, size=EPISODES).tolist():
        observation, _ = env.reset(seed=seed)
        player.reset()
        reward, over = 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(player.act(observation, reward))
            over = terminated or truncated
            total += reward
    return total / EPISODES


def run(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """Train with the defaults, and measure twice."""
    agent = tw.fit(CONFIG, lambda: Cue(name), seed=seed, width=32, out=folder, quiet=True)
    numbers = {"episodes": EPISODES, "lanes": EPISODES, "quiet": True}
    drawn = tw.evaluate(agent, lambda: Cue(name), **numbers)
    greedy = tw.evaluate(agent, lambda: Cue(name), greedy=True, **numbers)
    return {
        "space": name,
        "seed": seed,
        "memoryless": memoryless(Cue(name).action_space),
        "drawn": drawn.mean,
        "greedy": greedy.mean,
        "loop": looped(folder, name),
    }


def table(runs: Path) -> None:
    """Merge the parts, in the order of the spaces."""
    _, rows = read_truths_and_rows(runs)
    names = [*SPACES, *SEEN]
    rows.sort(key=lambda r: (names.index(r["space"]), r["seed"]))
    write_results(runs, "spaces", rows)
    lines = [
        "| space | seed | best without memory | actions drawn | likeliest actions | by the page's loop |",
        "|---|---|---|---|---|---|",
    ]
    for r in rows:
        figures = " | ".join(f"{r[key]:.3f}" for key in ("memoryless", "drawn", "greedy", "loop"))
        lines.append(f"| {r['space']} | {r['seed']} | {figures} |")
    title = (__doc__ or "").split("\n\n")[0]
    write_page(runs, "spaces", "\n\n".join([f"# {title.rstrip('.')}", story_of(__doc__), "\n".join(lines)]))


def main() -> None:
    """Make the runs that are missing, and merge."""
    parser = options(__doc__, "spaces")
    add_choice(parser, "--spaces", [*SPACES, *SEEN], "kinds of spaces")
    add_seeds(parser, 0)
    a = parse(parser)
    for seed in [] if a.table else a.seeds:
        for name in a.spaces:
            stem = f"{name.replace(' ', '_').replace(',', '')}-{seed}"
            make_part(a.runs / f"{stem}.json", lambda x=(name, seed, stem): run(x[0], x[1], a.runs / x[2]))
    table(a.runs)


if __name__ == "__main__":
    main()
