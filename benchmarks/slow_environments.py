"""An environment that takes 5 ms a step: PPO in one process and with workers, in one run, as ratios.

    python benchmarks/slow_environments.py --json slow_environments.json

The environment sleeps for the time and does nothing else, as one that waits for a simulator or for a device
does. 16 lanes. `stepping` is the environment alone, `training` is training from nothing, its updates
included; ways alternate. Sleeping needs no core: an environment that computes for 5 ms gains no more than the
machine has cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

import turnwise as tw
from turnwise.recipes.environments import find_environment

SLEEPS = 0.005
LANES, ROLLOUT = 16, 16


class Sleeper(gymnasium.Env):
    """Guess what was shown a step ago; each step takes its time."""

    observation_space, action_space = spaces.Discrete(2), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.time, self.shown = 0, int(self.np_random.integers(2))
        return np.int64(self.shown), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(SLEEPS)
        reward, self.time = float(int(action) == self.shown), self.time + 1
        self.shown = int(self.np_random.integers(2))
        return np.int64(self.shown), reward, self.time == 20, False, {}


def measured(workers: int, updates: int) -> dict[str, Any]:
    lanes = find_environment(Sleeper, LANES, None, workers=workers).lanes
    lanes.reset(np.random.default_rng(0), LANES)
    began = time.perf_counter()
    for _ in range(ROLLOUT):
        step = lanes.step(np.zeros(LANES, np.int64))
        if (ended := step.terminated | step.truncated).any():
            lanes.reset_lanes(ended)
    stepping = LANES * ROLLOUT / (time.perf_counter() - began)
    lanes.close()  # type: ignore[attr-defined]
    config = tw.PPO(steps=updates * LANES * ROLLOUT, lanes=LANES, rollout=ROLLOUT)
    began = time.perf_counter()
    agent = tw.fit(config, Sleeper, seed=0, workers=workers, quiet=True, width=32)
    seconds = time.perf_counter() - began
    weights = torch.cat([x.flatten().double() for x in agent.saved.module.state_dict().values()])
    return {
        "workers": workers,
        "stepping": stepping,
        "training": config.steps / seconds,
        "weights": float(weights.sum()),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--updates", type=int, default=4, help="of 256 steps")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    runs = [[measured(n, a.updates) for n in a.workers] for _ in range(a.repeats)]
    print(f"{LANES} lanes, {1000 * SLEEPS:g} ms a step; steps a second, and ratios within a repeat")
    for what in ("stepping", "training"):
        for i, n in enumerate(a.workers):
            rates = [row[i][what] for row in runs]
            ratios = [row[i][what] / row[0][what] for row in runs]
            print(
                f"  {what}, {n:>2} workers {statistics.median(rates):7.0f}   "
                f"{statistics.median(ratios):5.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
            )
    print(f"the same weights in all: {len({r['weights'] for row in runs for r in row}) == 1}")
    if a.json is not None:
        machine = {"cores": os.cpu_count(), "torch": torch.__version__, "threads": 1}
        a.json.write_text(json.dumps({"machine": machine, "runs": runs}, indent=1) + "\n")


if __name__ == "__main__":
    main()
