"""SAC with memory on Pendulum without its velocity, beside stable-baselines3's SAC on stacked frames.

    pip install --no-deps stable-baselines3==2.9.2
    python benchmarks/pendulum.py --json pendulum.json
    python benchmarks/pendulum.py --steps 2000 --seeds 0      to try it

Pendulum-v1 of Gymnasium shows the cosine and the sine of the angle; its velocity is left out. Both learn from
the same number of steps. The peer has its own defaults and the last four observations. Ours has a GRU, and
beside the defaults of `sac` four lanes and 64 gradient steps after each 128 steps, half as many as the peer
takes. Each is judged by the mean return of 100 new episodes of 200 steps, by the likeliest action; -1,200 is
what acting at random earns, and about -150 the best. One thread. If stable-baselines3 is not installed, ours
runs alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch

import turnwise as tw

EPISODES = 100


def pendulum() -> gymnasium.Env:
    env = gymnasium.make("Pendulum-v1")
    kept = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    return gymnasium.wrappers.TransformObservation(env, lambda seen: seen[:2], kept)


def stacked() -> gymnasium.Env:
    return gymnasium.wrappers.FrameStackObservation(pendulum(), 4)


def ours(steps: int, seed: int) -> dict[str, float]:
    began = time.process_time()
    config = tw.SAC(steps=steps, lanes=4, warmup=1_000, updates=64)
    agent = tw.fit(config, pendulum, seed=seed, quiet=True)
    seconds = time.process_time() - began
    mean = tw.evaluate(agent, pendulum, episodes=EPISODES, greedy=True, quiet=True).mean
    return {"mean": mean, "seconds": seconds}


def peer(steps: int, seed: int) -> dict[str, float]:
    from stable_baselines3 import SAC  # type: ignore[import-not-found]

    began = time.process_time()
    agent = SAC("MlpPolicy", stacked(), device="cpu", seed=seed)
    agent.learn(steps)
    seconds = time.process_time() - began
    env, returns = stacked(), []
    for episode in range(EPISODES):
        seen, _ = env.reset(seed=episode)
        total, over = 0.0, False
        while not over:
            action: Any = agent.predict(seen, deterministic=True)[0]
            seen, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return {"mean": float(np.mean(returns)), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    there = importlib.util.find_spec("stable_baselines3") is not None
    if not there:
        print("stable-baselines3 is not installed: ours runs alone")
    found = []
    for seed in a.seeds:
        rows = {"memory": ours(a.steps, seed)} | ({"stacked frames": peer(a.steps, seed)} if there else {})
        for name, row in rows.items():
            found.append({"seed": seed, "name": name, "steps": a.steps, **row})
            figures = f"{row['mean']:8.1f}  {row['seconds']:6.1f} s of the processor"
            print(f"seed {seed}  {name:15}{figures}", flush=True)
    if a.json is not None:
        machine = {"cores": os.cpu_count(), "torch": torch.__version__, "threads": 1}
        a.json.write_text(json.dumps({"machine": machine, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
