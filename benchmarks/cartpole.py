"""Cart-pole without velocities: PPO with memory, beside RecurrentPPO of sb3-contrib.

    pip install --no-deps sb3-contrib==2.9.0 stable-baselines3==2.9.2
    python benchmarks/cartpole.py --json cartpole.json
    python benchmarks/cartpole.py --out /tmp/few --steps 20000 --seeds 0 --repeats 1      to try it

*Throughput*: steps of the environment per second of training from nothing, in chunks that alternate.
`matched` is our PPO with the peer's numbers: 8 lanes of 32 steps, 20 passes in one minibatch, LSTMs of width
64, one for the actor and one for the critic. `equal` has the same networks and 20 passes, on 64 lanes and in
minibatches of 1,024 instead of 256. `own` is our own choice. *Learning*: seconds until the mean return of the
last 100 episodes that ended in training is 475 of 500, the same rule on both sides.

The peer has the settings of rl-baselines3-zoo for CartPoleNoVel-v1 (hyperparams/ppo_lstm.yml: 100,000 steps,
8 environments, rollouts of 32, minibatches of 256, 20 epochs, gamma .98, lambda .8, learning rate and clip
falling linearly from .001 and .2, nothing normalised), except for the width of its LSTMs: 64 instead of 256.
It learns on Gymnasium's CartPole-v1 with two of four numbers shown, ours on the same physics in arrays. If
sb3-contrib is not installed, ours runs alone.

One thread each. Seconds are given twice, of the processor and on the clock: on a machine that is shared only
the first can be compared. Each result is a file in `--out`, and what is there is not run again.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from turnwise.algorithms.acting import ppo
from turnwise.envs.problems.hidden_velocity import CartPole
from turnwise.envs.protocol import Step
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Spaces, actor_critic_of
from turnwise.run.settings import Adam
from turnwise.run.training import TrainingRun

PEER = "sb3"
SOLVED, EPISODES = 475.0, 100
BARS = {"equal width and passes": 5.0, "own steps": 20.0, "learning": 10.0}
"""how many times faster than the peer each is to be"""
MATCHED = (
    MemorySpec("lstm", 64),
    CriticSpec(separate=True),
    ppo.Config(
        steps=100_000, lanes=8, rollout=32, epochs=20, minibatches=1, gamma=0.98, lam=0.8, entropy_weight=0.0
    ),
)
EQUAL = (MATCHED[0], MATCHED[1], replace(MATCHED[2], lanes=64, minibatches=2))
"""the same networks, passes and rollouts on more lanes, and so in larger minibatches"""
OWN = (
    MemorySpec("lstm", 64),
    CriticSpec("history+state"),
    ppo.Config(
        steps=250_000,
        lanes=32,
        rollout=64,
        epochs=4,
        minibatches=4,
        optimizer=Adam(lr=3e-3, grad_clip=0.5),
        gamma=0.99,
        lam=0.95,
        entropy_weight=0.0,
    ),
)
"""chosen on seeds 10 and 11; its critic sees the velocities, in training only"""


class Spent(NamedTuple):
    """Seconds on the clock and of the processor."""

    clock: float
    processor: float

    @staticmethod
    def now() -> Spent:
        """Up to now, in this process."""
        return Spent(time.perf_counter(), time.process_time())

    def since(self, start: Spent) -> dict[str, float]:
        """The seconds between `start` and this."""
        return {"clock": self.clock - start.clock, "processor": self.processor - start.processor}


class Enough(Exception):
    """Training has lasted long enough to be judged."""


class Judge:
    """Hears of episodes as they end; raises `Enough` if the last of them are good, or no step is left."""

    def __init__(self, steps: int, solved: float) -> None:
        self.most, self.solved = steps, solved
        self.last: deque[float] = deque(maxlen=EPISODES)
        self.steps, self.curve, self.reached = 0, [], False
        self.start = Spent.now()

    def hear(self, steps: int, returns: Any) -> None:
        """Count steps that were just taken, and the returns of episodes that ended with them."""
        self.steps += steps
        self.last.extend(float(x) for x in returns)
        mean = statistics.fmean(self.last) if self.last else 0.0
        self.reached = len(self.last) == EPISODES and mean >= self.solved
        if self.reached or self.steps >= self.most or self.steps // 5000 > len(self.curve):
            self.curve.append({"steps": self.steps, "mean": mean, **Spent.now().since(self.start)})
        if self.reached or self.steps >= self.most:
            raise Enough

    def found(self) -> dict[str, Any]:
        """The end of the run and its curve, for JSON."""
        end = self.curve[-1]
        return {**end, "reached": self.reached, "curve": self.curve}


class Watched:
    """Lanes whose episodes are reported to a judge."""

    def __init__(self, env: CartPole, judge: Judge) -> None:
        self._env, self._judge = env, judge

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        """Begin an episode in each lane."""
        self._returns = np.zeros(lanes)
        return self._env.reset(rng, lanes)

    def step(self, actions: np.ndarray) -> Step:
        """One step of each lane."""
        step = self._env.step(actions)
        self._returns += step.rewards
        over = step.terminated | step.truncated
        ended = self._returns[over]
        self._returns[over] = 0
        self._judge.hear(len(actions), ended)
        return step


def ours(settings: tuple[MemorySpec, CriticSpec, ppo.Config], seed: int, judge: Judge) -> None:
    """Our PPO, until the judge has heard enough."""
    memory, critic, config = settings
    torch.manual_seed(seed)
    env: Any = Watched(CartPole(), judge)
    agent = actor_critic_of(memory, critic, Spaces.of(env))
    with tempfile.TemporaryDirectory() as folder:
        judge.start = Spent.now()
        ppo.train(config, env, agent, TrainingRun(Path(folder), quiet=True), seed)


def peer(seed: int, judge: Judge) -> None:
    """RecurrentPPO, until the judge has heard enough."""
    import gymnasium
    from sb3_contrib import RecurrentPPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    class NoVelocities(gymnasium.ObservationWrapper):
        def __init__(self, env: gymnasium.Env) -> None:
            super().__init__(env)
            space: Any = env.observation_space
            self.observation_space = gymnasium.spaces.Box(space.low[::2], space.high[::2])

        def observation(self, observation: np.ndarray) -> np.ndarray:
            return observation[::2]

    class Hears(BaseCallback):
        def _on_step(self) -> bool:
            infos = self.locals["infos"]
            judge.hear(len(infos), [info["episode"]["r"] for info in infos if "episode" in info])
            return True

    env = make_vec_env(lambda: NoVelocities(gymnasium.make("CartPole-v1")), 8, seed=seed)
    agent = RecurrentPPO(
        "MlpLstmPolicy",
        env,
        n_steps=32,
        batch_size=256,
        n_epochs=20,
        gamma=0.98,
        gae_lambda=0.8,
        ent_coef=0.0,
        learning_rate=lambda left: 1e-3 * left,
        clip_range=lambda left: 0.2 * left,
        policy_kwargs={"lstm_hidden_size": 64},
        device="cpu",
        seed=seed,
    )
    judge.start = Spent.now()
    agent.learn(100_000, callback=Hears())


WAYS: dict[str, Callable[[int, Judge], None]] = {
    PEER: peer,
    "matched": lambda seed, judge: ours(MATCHED, seed, judge),
    "equal": lambda seed, judge: ours(EQUAL, seed, judge),
    "own": lambda seed, judge: ours(OWN, seed, judge),
}


def available() -> list[str]:
    """The ways that can run here: all, or ours alone."""
    return [way for way in WAYS if way != PEER or importlib.util.find_spec("sb3_contrib") is not None]


def trained(way: str, seed: int, steps: int, solved: float) -> dict[str, Any]:
    """What the judge of one run found."""
    judge = Judge(steps, solved)
    with contextlib.suppress(Enough):
        WAYS[way](seed, judge)
    return judge.found() | {"load": os.getloadavg()[0]}


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `make` returns, read from its file if it is there."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make()))
    return json.loads(path.read_text())


def chunk(repeat: int, most: int) -> dict[str, Any]:
    """A short piece of training in each way, one after the other."""
    steps = {PEER: 1536, "matched": 5120, "equal": 20480, "own": 20480}
    return {way: trained(way, 100 + repeat, min(most, steps[way]), float("inf")) for way in available()}


def table(chunks: list[dict[str, Any]], runs: dict[int, dict[str, Any]]) -> None:
    """Print both measurements."""
    print("steps per second of the processor (on the clock), from nothing; ratios within a repeat")
    for way in WAYS:
        mine = [c for c in chunks if way in c]
        if not mine:
            continue
        rates = {k: [c[way]["steps"] / c[way][k] for c in mine] for k in ("processor", "clock")}
        ratios = [rate(c[way]) / rate(c[PEER]) for c in mine if PEER in c]
        beside = f"{statistics.median(ratios):5.1f} [{min(ratios):.1f}, {max(ratios):.1f}]" if ratios else ""
        medians = {k: statistics.median(x) for k, x in rates.items()}
        print(f"  {way:8}{medians['processor']:8.0f} ({medians['clock']:.0f})   {beside}")
    print(f"to a mean of {SOLVED:.0f} over {EPISODES} episodes: seconds of the processor (on the clock)")
    for seed, found in runs.items():
        for way, r in found.items():
            how = "reached" if r["reached"] else f"NOT reached, {r['mean']:.0f}"
            print(
                f"  seed {seed} {way:8}{r['processor']:7.1f} ({r['clock']:.1f})  {r['steps']:8,}"
                f"  {rate(r):6.0f} steps/s  {how}, load {r['load']:.1f}"
            )
        if {PEER, "own"} <= set(found):
            a, b = found[PEER], found["own"]
            print(f"  seed {seed} ratio of steps/s {rate(b) / rate(a):.1f}", end="")
            least = "" if a["reached"] else "at least "
            times = f"{a['processor'] / b['processor']:.1f} ({a['clock'] / b['clock']:.1f})"
            print(f", of time {least}{times}" if b["reached"] else ", of time: none, own did not reach it")


def rate(r: dict[str, Any]) -> float:
    """Steps per second of the processor."""
    return r["steps"] / r["processor"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    out = Path("runs/cartpole")
    parser.add_argument("--out", type=Path, default=out, help="folder of parts, from which a run goes on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="to learn with")
    parser.add_argument("--ways", nargs="+", default=[PEER, "own"], choices=list(WAYS), help="to learn in")
    parser.add_argument("--repeats", type=int, default=3, help="of throughput")
    parser.add_argument("--steps", type=int, default=OWN[2].steps, help="most steps of a run")
    parser.add_argument("--json", type=Path, help="file to write")
    a = parser.parse_args()
    torch.set_num_threads(1)
    if PEER not in available():
        print("sb3-contrib is not installed: ours runs alone")
    steps = {PEER: 100_000, "matched": 100_000, "equal": 100_000, "own": OWN[2].steps}
    runs = {
        seed: {
            way: kept(
                a.out / f"{way}-{seed}.json",
                lambda way=way, seed=seed: trained(way, seed, min(a.steps, steps[way]), SOLVED),
            )
            for way in a.ways
            if way in available()
        }
        for seed in a.seeds
    }
    chunks = [kept(a.out / f"chunk-{i}.json", lambda i=i: chunk(i, a.steps)) for i in range(a.repeats)]
    table(chunks, runs)
    if a.json is not None:
        machine = {"cores": os.cpu_count(), "torch": torch.__version__, "threads": 1}
        found = {"bars": BARS, "machine": machine, "throughput": chunks, "learning": runs}
        a.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
