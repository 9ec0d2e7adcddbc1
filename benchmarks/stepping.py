"""Steps per second of a POMDP: lanes stepped by array operations, against a loop over a plain environment.

    python benchmarks/stepping.py --json stepping.json

The problem is Tiger; actions are uniformly random and drawn before the clock starts. Steps of single episodes
are counted, with all that belongs to them: random numbers, rewards, flags and new episodes. There are two
workloads. In `restarts` (the problem as published) a door hides the tiger anew and an episode is cut after
100 steps, so that all lanes begin anew together. In `ends` a door ends the episode, so that two lanes in
three begin anew after each step.

The peer is what one writes first: a `gymnasium.Env` with an `if` for each action, and a loop that resets it.
It has no wrapper, so that nothing but the environment is measured. `gymnasium` is our lanes behind
Gymnasium's vector interface (NEXT_STEP), whose steps that begin an episode are not counted.

Ways alternate within a repeat. Wall time is what a user waits for; on a machine that others use too, the CPU
time of this process is the steadier clock.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from turnwise.envs.gymnasium.door import PomdpVectorEnv
from turnwise.envs.pomdp import POMDP
from turnwise.envs.tabular import TabularEnv

BAR = 5e6
"""steps per second on one core that lanes have to reach"""
HORIZON = 100
LISTEN, OPEN_LEFT, OPEN_RIGHT = 0, 1, 2


class PlainTiger(gymnasium.Env[int, int]):
    """Tiger as one writes it: one episode at a time, observation 2 at reset."""

    def __init__(self, ends: bool) -> None:
        self.ends = ends
        self.action_space = gymnasium.spaces.Discrete(3)  # type: ignore[assignment]
        self.observation_space = gymnasium.spaces.Discrete(3)  # type: ignore[assignment]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.random = self.np_random.random  # looked up once
        self.tiger = 0 if self.random() < 0.5 else 1
        self.age = 0
        return 2, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        self.age += 1
        if action == LISTEN:
            heard = self.tiger if self.random() < 0.85 else 1 - self.tiger
            return heard, -1.0, False, self.age >= HORIZON, {}
        reward = -100.0 if action - OPEN_LEFT == self.tiger else 10.0
        self.tiger = 0 if self.random() < 0.5 else 1
        heard = 0 if self.random() < 0.5 else 1
        return heard, reward, self.ends, self.age >= HORIZON and not self.ends, {}


def tiger(ends: bool) -> POMDP:
    """The same problem written out; `ends`: whether a door ends the episode."""
    half = np.full((2, 2), 0.5)
    return POMDP.from_arrays(
        np.stack([np.eye(2), half, half]),
        np.stack([np.array([[0.85, 0.15], [0.15, 0.85]]), half, half]),
        np.array([[-1.0, -1.0], [-100.0, 10.0], [10.0, -100.0]]),
        discount=0.95,
        start=np.array([0.5, 0.5]),
        ends=np.broadcast_to(np.array([False, ends, ends])[:, None, None], (3, 2, 2)),
        name="tiger",
    )


@dataclass(frozen=True)
class Timing:
    """One measurement: steps counted, the sum of their rewards, seconds of wall and of this process's CPU."""

    steps: int
    reward: float
    wall: float
    cpu: float


def timed(play: Callable[[], tuple[int, float]]) -> Timing:
    wall, cpu = time.perf_counter(), time.process_time()
    steps, reward = play()
    return Timing(steps, reward, time.perf_counter() - wall, time.process_time() - cpu)


def plain(ends: bool, seed: int, steps: int) -> Timing:
    """A loop over one environment."""
    env = PlainTiger(ends)
    actions: list[int] = np.random.default_rng(seed).integers(0, 3, steps).tolist()
    env.reset(seed=seed)

    def play() -> tuple[int, float]:
        total = 0.0
        for action in actions:
            _, reward, terminated, truncated, _ = env.step(action)
            total += reward
            if terminated or truncated:
                env.reset()
        return steps, total

    return timed(play)


def lanes(ends: bool, seed: int, n: int, rounds: int) -> Timing:
    """Lanes of a `TabularEnv`."""
    env, rng = TabularEnv(tiger(ends), HORIZON), np.random.default_rng(seed)
    actions = rng.integers(0, 3, (rounds, n))
    env.reset(rng, n)

    def play() -> tuple[int, float]:
        total = 0.0
        for now in actions:
            observations, rewards, terminated, truncated = env.step(now)
            total += float(rewards.sum())
            over = terminated | truncated
            if over.any():
                observations[over] = env.reset_lanes(over)
        return rounds * n, total

    return timed(play)


def vector(ends: bool, seed: int, n: int, rounds: int) -> Timing:
    """The same lanes as a `gymnasium.vector.VectorEnv`."""
    envs = PomdpVectorEnv(tiger(ends), n, HORIZON)
    actions = np.random.default_rng(seed).integers(0, 3, (rounds, n))
    envs.reset(seed=seed)

    def play() -> tuple[int, float]:
        total, begun, over = 0.0, 0, np.zeros(n, bool)
        for now in actions:
            begun += int(over.sum())
            _, rewards, terminated, truncated, _ = envs.step(now)
            total += float(rewards.sum())
            over = terminated | truncated
        return rounds * n - begun, total

    return timed(play)


def measure(ends: bool, n: int, rounds: int, steps: int, repeats: int) -> dict[str, Any]:
    """Timings of all ways, alternating; the first round only warms up."""
    ways: dict[str, Callable[[int], Timing]] = {
        "lanes": lambda seed: lanes(ends, seed, n, rounds),
        "gymnasium": lambda seed: vector(ends, seed, n, rounds),
        "plain": lambda seed: plain(ends, seed, steps),
    }
    timings: dict[str, list[Timing]] = {way: [] for way in ways}
    for repeat in range(repeats + 1):
        for way, play in ways.items():
            timing = play(repeat)
            if repeat:
                timings[way].append(timing)
    return {
        "workload": "ends" if ends else "restarts",
        "reward_per_step": {
            way: sum(t.reward for t in ts) / sum(t.steps for t in ts) for way, ts in timings.items()
        },
        **{clock: compared(timings, clock) for clock in ("wall", "cpu")},
    }


def compared(timings: Mapping[str, Sequence[Timing]], clock: str) -> dict[str, Any]:
    """Steps per second of each way, and ratios of our lanes to the plain loop."""
    speed = {way: [t.steps / getattr(t, clock) for t in ts] for way, ts in timings.items()}
    medians = {way: statistics.median(s) for way, s in speed.items()}
    ratios = [ours / peer for ours, peer in zip(speed["lanes"], speed["plain"], strict=True)]
    return {
        "steps_per_second": speed,
        "medians": medians,
        "ratio": medians["lanes"] / medians["plain"],
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lanes", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=1000, help="steps of each lane in a measurement")
    parser.add_argument("--steps", type=int, default=300_000, help="steps of the plain loop in a measurement")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    rows = []
    print(f"steps/s of Tiger, {a.lanes} lanes, medians of {a.repeats} [min, max]")
    for ends in (False, True):
        row = measure(ends, a.lanes, a.rounds, a.steps, a.repeats)
        rows.append(row)
        rewards = "  ".join(f"{way} {r:.2f}" for way, r in row["reward_per_step"].items())
        print(f"{row['workload']}: reward per step {rewards} (exact -30.33)")
        for clock in ("wall", "cpu"):
            r = row[clock]
            speeds = "  ".join(f"{way} {m / 1e6:6.2f}M" for way, m in r["medians"].items())
            met = "met" if r["medians"]["lanes"] >= BAR else "NOT met"
            print(
                f"  {clock:4}  {speeds}  lanes / plain = {r['ratio']:.0f} "
                f"[{r['ratio_min']:.0f}, {r['ratio_max']:.0f}]  bar {BAR / 1e6:g}M: {met}",
                flush=True,
            )
    if a.json is not None:
        machine = {"cores": os.cpu_count(), "numpy": np.__version__, "gymnasium": gymnasium.__version__}
        found = {"bar": BAR, "lanes": a.lanes, "horizon": HORIZON, "machine": machine, "rows": rows}
        a.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
