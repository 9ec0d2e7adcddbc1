"""What default settings learn in few steps, beside RecurrentPPO of sb3-contrib with its own.

    pip install --no-deps sb3-contrib==2.9.0 stable-baselines3==2.9.2
    python benchmarks/small_budgets.py --json small_budgets.json
    python benchmarks/small_budgets.py --steps 4000 --seeds 0        to try it

Three tasks that a person tries first, 60,000 steps each, nothing set but the environment and the steps:

    cue     a cue is shown in the first of 12 steps and asked for in the last; a Dict of a Discrete(3) and a
            Box of two numbers of noise. 1 if the last action is the cue, else -1
    pole    CartPole-v1 without its velocities; the longest episode earns 500
    lake    FrozenLake-v1 as it comes, on slippery ice; the best policy reaches the goal in 74% of episodes

Each is judged by the mean return of 300 new episodes, actions drawn as in training, and by the likeliest
action. One thread. If sb3-contrib is not installed, ours runs alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

import turnwise as tw

EPISODES = 300
LENGTH = 12
BEST = {"cue": 1.0, "pole": 500.0, "lake": 0.74}


class Cue(gymnasium.Env):
    """Remember one of two cues for 12 steps."""

    def __init__(self) -> None:
        shown = {"cue": spaces.Discrete(3), "noise": spaces.Box(-1.0, 1.0, (2,), np.float32)}
        self.observation_space, self.action_space = spaces.Dict(shown), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.cue, self.time = int(self.np_random.integers(2)), 0
        return self._seen(1 + self.cue), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.time += 1
        over = self.time == LENGTH
        reward = (1.0 if int(action) == self.cue else -1.0) if over else 0.0
        return self._seen(0), reward, over, False, {}

    def _seen(self, cue: int) -> dict[str, Any]:
        return {"cue": np.int64(cue), "noise": self.np_random.uniform(-1, 1, 2).astype(np.float32)}


def pole() -> gymnasium.Env:
    env = gymnasium.make("CartPole-v1")
    space: Any = env.observation_space
    kept = spaces.Box(space.low[::2], space.high[::2])
    return gymnasium.wrappers.TransformObservation(env, lambda seen: seen[::2], kept)


TASKS: dict[str, Callable[[], gymnasium.Env]] = {
    "cue": Cue,
    "pole": pole,
    "lake": lambda: gymnasium.make("FrozenLake-v1"),
}


def ours(task: str, algorithm: str, steps: int, seed: int) -> dict[str, float]:
    began = time.process_time()
    config = getattr(tw, algorithm)(steps=steps)
    agent = tw.fit(config, TASKS[task], seed=seed, quiet=True)
    seconds = time.process_time() - began
    means = {
        way: tw.evaluate(agent, TASKS[task], episodes=EPISODES, greedy=greedy, quiet=True).mean
        for way, greedy in (("drawn", False), ("likeliest", True))
    }
    return means | {"seconds": seconds}


def peer(task: str, steps: int, seed: int) -> dict[str, float]:
    from sb3_contrib import RecurrentPPO

    env = TASKS[task]()
    policy = "MultiInputLstmPolicy" if isinstance(env.observation_space, spaces.Dict) else "MlpLstmPolicy"
    began = time.process_time()
    agent = RecurrentPPO(policy, env, device="cpu", seed=seed)
    agent.learn(steps)
    seconds = time.process_time() - began
    means = {
        way: peers_mean(agent, TASKS[task](), likeliest)
        for way, likeliest in (("drawn", False), ("likeliest", True))
    }
    return means | {"seconds": seconds}


def peers_mean(agent: Any, env: gymnasium.Env, likeliest: bool) -> float:
    returns = []
    for episode in range(EPISODES):
        seen, _ = env.reset(seed=episode)
        memory, total, over = None, 0.0, False
        start = np.ones(1, bool)
        while not over:
            action, memory = agent.predict(seen, memory, start, deterministic=likeliest)
            seen, reward, terminated, truncated, _ = env.step(action.item())
            total, over, start = total + float(reward), terminated or truncated, np.zeros(1, bool)
        returns.append(total)
    return float(np.mean(returns))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--algorithms", nargs="+", default=["PPO"], help="of ours: PPO, A2C, R2D2, SAC")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--peers", type=int, nargs="*", help="seeds of the peer; none given: the same")
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    there = importlib.util.find_spec("sb3_contrib") is not None
    if not there:
        print("sb3-contrib is not installed: ours runs alone")
    found = []
    for task in a.tasks:
        for seed in a.seeds:
            rows = {name: ours(task, name, a.steps, seed) for name in a.algorithms}
            if there and seed in (a.seeds if a.peers is None else a.peers):
                rows["RecurrentPPO"] = peer(task, a.steps, seed)
            for name, row in rows.items():
                found.append({"task": task, "seed": seed, "name": name, "steps": a.steps, **row})
                print(
                    f"{task:5}(best {BEST[task]:g})  seed {seed}  {name:13}drawn {row['drawn']:7.3f}  "
                    f"likeliest {row['likeliest']:7.3f}  {row['seconds']:6.1f} s of the processor",
                    flush=True,
                )
    if a.json is not None:
        machine = {"cores": os.cpu_count(), "torch": torch.__version__, "threads": 1}
        a.json.write_text(json.dumps({"machine": machine, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
