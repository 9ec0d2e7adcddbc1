"""Probe environments: each can fail for one reason, so the first one that fails names the broken part.

After Andy Jones, "Debugging reinforcement learning systems" (2021), with two more for partial observability.
Every algorithm has to pass them in this order; a failure makes those below it meaningless.

    probe          actions  what is seen       reward                isolates
    value loss     1        nothing            1, once               the loss of values, and their optimizer
    observations   1        -1 or 1            what is seen          the way from an observation to its target
    discounting    1        the step           1 at the second step  discounts, and which step values stand in
    truncation     1        nothing            1, for ever           a cut bootstraps, an end does not
    advantages     2        nothing            1 or -1, by action    advantages, and the policy's loss
    batching       2        one of two signs   1 if action = sign    which action belongs to which observation
    memory         2        a sign, then none  1 if action = sign    what is carried from step to step

The seed is 0. Values have to be right within 0.15; the mistake that a probe is for makes them wrong by 0.36
or more (measured with PPO and R2D2). Policies have to earn 0.7 of 1; guessing earns 0. With seeds 0 to 4 the
largest error of a value is 0.08, and the lowest mean return is 0.99.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.algorithms.acting import a2c, ppo, r2d2, reinforce, sac
from turnwise.data.steps import pack_steps
from turnwise.envs.clock import Clock
from turnwise.envs.protocol import Discrete, Step
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.models.agents.q_network import QNetwork
from turnwise.models.agents.settings import CriticSpec, MemoryName, MemorySpec
from turnwise.models.agents.soft_actor_critic import SoftActorCritic, soft_actor_critic_of
from turnwise.models.agents.spec import Spaces, actor_critic_of, memory_of
from turnwise.rollout.episodes.lanes import StepLanes
from turnwise.run.metrics import COMMON
from turnwise.run.settings import Adam
from turnwise.run.training import TrainingRun

pytestmark = pytest.mark.usefixtures("unchecked")
BLANK = 2
"""The third observation; 0 and 1 are signs."""
GAMMA = 0.5
"""A forgotten discount is then an error of a half."""
Agent = ActorCritic | QNetwork | SoftActorCritic


class Probe:
    """N lanes of episodes of `steps` steps. A random sign, 0 or 1, decides what is seen and what is paid."""

    state_space = states = None
    autoresets = False

    def __init__(
        self,
        actions: int,
        steps: int,
        seen: Callable[[np.ndarray, np.ndarray], np.ndarray],
        paid: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
        ends: bool = True,
    ) -> None:
        """`seen(sign, t)` and `paid(sign, t, action)` of arrays [N]; `ends`: else episodes are cut."""
        self.observation_space, self.action_space = Discrete(3), Discrete(actions)
        self.steps, self.seen, self.paid, self.ends = steps, seen, paid, ends

    def reset(self, rng: np.random.Generator, lanes: int) -> np.ndarray:
        self.clock = Clock(None if self.ends else self.steps)
        self.clock.begin(rng, lanes)
        self.signs = rng.integers(0, 2, lanes)
        return self.seen(self.signs, self.clock.ages)

    def reset_lanes(self, mask: np.ndarray) -> np.ndarray:
        where = self.clock.begin_lanes(mask)
        self.signs[where] = self.clock.rng.integers(0, 2, len(where))
        return self.seen(self.signs[where], self.clock.ages[where])

    def step(self, actions: np.ndarray) -> Step:
        t = self.clock.ages.copy()
        rewards = self.paid(self.signs, t, actions).astype(np.float64)
        terminated = (t + 1 == self.steps) & self.ends
        truncated = self.clock.tick(terminated)
        return Step(self.seen(self.signs, self.clock.ages), rewards, terminated, truncated)


def nothing(sign: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.full(len(sign), BLANK)


def one(sign: np.ndarray, t: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.ones(len(sign))


def at_last(sign: np.ndarray, t: np.ndarray, action: np.ndarray) -> np.ndarray:
    return t == 1


def as_sign(sign: np.ndarray, t: np.ndarray, action: np.ndarray) -> np.ndarray:
    return 2 * sign - 1


def by_action(sign: np.ndarray, t: np.ndarray, action: np.ndarray) -> np.ndarray:
    return 2 * action - 1


def matching(sign: np.ndarray, t: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.where(action == sign, 1, -1)


def remembered(sign: np.ndarray, t: np.ndarray, action: np.ndarray) -> np.ndarray:
    return np.where(t == 1, matching(sign, t, action), 0)


def the_sign(sign: np.ndarray, t: np.ndarray) -> np.ndarray:
    return sign.copy()


def the_step(sign: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.minimum(t, BLANK)


def sign_at_first(sign: np.ndarray, t: np.ndarray) -> np.ndarray:
    return np.where(t == 0, sign, BLANK)


ACTING: dict[str, Any] = {"lanes": 32, "optimizer": Adam(4e-2), "gamma": GAMMA}
REPLAYING: dict[str, Any] = {
    "lanes": 16,
    "rollout": 4,
    "warmup": 200,
    "updates": 3,
    "gamma": GAMMA,
    "polyak": 0.2,
}
ALGORITHMS: dict[str, tuple[Any, Any]] = {
    "reinforce": (reinforce, reinforce.Config(**ACTING, episodes=1_200, longest=8)),
    "a2c": (a2c, a2c.Config(**ACTING, steps=3_000, rollout=3)),
    "ppo": (ppo, ppo.Config(**ACTING, steps=2_000, rollout=8, epochs=2, minibatches=2)),
    "r2d2": (r2d2, r2d2.Config(**REPLAYING, steps=1_300, optimizer=Adam(2e-2))),
    "sac": (sac, sac.Config(**REPLAYING, steps=1_700, optimizer=Adam(1e-2), entropy=0.1)),
}


def fresh(name: str, env: Any, memory: MemoryName) -> Agent:
    """An agent of the kind that the algorithm trains, 16 features wide."""
    spec, spaces = MemorySpec(memory, width=16, window=2), Spaces.of(env)
    if name == "r2d2":
        return QNetwork(memory_of(spec, spaces), env.action_space.n)
    if name == "sac":
        return soft_actor_critic_of(env.action_space, memory_of(spec, spaces), memory_of(spec, spaces))
    return actor_critic_of(spec, CriticSpec(), spaces)


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., Agent]:
    """From the name of an algorithm, a probe and a memory to a trained agent.

    Training is twice as long where memory is needed: what to remember is learnt last.
    """

    def train(name: str, env: Probe, memory: MemoryName = "none", seed: int = 0) -> Agent:
        torch.manual_seed(seed)
        algorithm, c = ALGORITHMS[name]
        if env.steps == 2 and env.action_space.n == 2:
            count = "episodes" if name == "reinforce" else "steps"
            c = replace(c, **{count: 2 * getattr(c, count)})
        run = TrainingRun(tmp_path / name, quiet=True)
        agent = algorithm.train(c, env, fresh(name, env, memory), run, seed)
        lines = [json.loads(x) for x in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        assert {key for line in lines for key in line} <= algorithm.METRICS.keys() | COMMON.keys()
        return agent

    return train


def values_by_observation(agent: Agent, env: Any, longest: int = 4) -> dict[int, float]:
    """What the agent believes that each observation is worth; with one action Q is V."""
    episodes = StepLanes(env, 32, np.random.default_rng(1)).episodes(agent, longest)
    batch = pack_steps(episodes, gamma=GAMMA)
    with torch.no_grad():
        if isinstance(agent, ActorCritic):
            values = agent(batch).values
        elif isinstance(agent, QNetwork):
            values = agent(batch)[..., 0]
        else:
            values = agent.critics(batch, None).mean(0)[..., 0]
    seen = batch.inputs.observation[:, :-1]  # [B, A]: in episodes of steps each position is a decision
    values = values[:, :-1]
    return {int(o): float(values[seen == o].mean()) for o in seen.unique()}


def earned(agent: Agent, env: Any) -> float:
    """The mean return of 1,024 episodes."""
    lanes = StepLanes(env, 1024, np.random.default_rng(2))
    lanes.episodes(agent, env.steps)
    return float(lanes.finished().returns.mean())


@pytest.mark.parametrize("name", ALGORITHMS)
def test_value_loss(name: str, trained: Callable[..., Agent]) -> None:
    """One action, one step, reward 1: V = 1. A value that does not learn stays at 0."""
    env = Probe(1, 1, nothing, one)
    assert values_by_observation(trained(name, env), env) == {BLANK: pytest.approx(1.0, abs=0.15)}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_observations(name: str, trained: Callable[..., Agent]) -> None:
    """The reward is the sign that is seen: V = -1 and 1. A blind agent, or mixed-up rows, say 0 twice."""
    env = Probe(1, 1, the_sign, as_sign)
    expected = {0: pytest.approx(-1.0, abs=0.15), 1: pytest.approx(1.0, abs=0.15)}
    assert values_by_observation(trained(name, env), env) == expected


@pytest.mark.parametrize("name", ALGORITHMS)
def test_discounting(name: str, trained: Callable[..., Agent]) -> None:
    """Reward 1 at the second of two steps: V = 1/2, then 1. Without a discount the first one is 1."""
    env = Probe(1, 2, the_step, at_last)
    expected = {0: pytest.approx(GAMMA, abs=0.15), 1: pytest.approx(1.0, abs=0.15)}
    assert values_by_observation(trained(name, env), env) == expected


@pytest.mark.parametrize("name", [n for n in ALGORITHMS if n != "reinforce"])
def test_truncation(name: str, trained: Callable[..., Agent]) -> None:
    """Reward 1 for ever, cut after two steps: V = 1 / (1 - 1/2) = 2. If a cut were an end, 1.25 on average.

    REINFORCE counts what was seen and nothing after it, as its page says: it is not asked.
    """
    env = Probe(1, 2, nothing, one, ends=False)
    assert values_by_observation(trained(name, env), env) == {BLANK: pytest.approx(2.0, abs=0.15)}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_advantages(name: str, trained: Callable[..., Agent]) -> None:
    """Action 1 pays 1 and action 0 costs 1. A coin earns 0, an advantage of the wrong sign -1."""
    env = Probe(2, 1, nothing, by_action)
    assert earned(trained(name, env), env) > 0.7


@pytest.mark.parametrize("name", ALGORITHMS)
def test_batching(name: str, trained: Callable[..., Agent]) -> None:
    """The action has to be the sign that is seen. Rows whose actions belong to other observations earn 0."""
    env = Probe(2, 1, the_sign, matching)
    assert earned(trained(name, env), env) > 0.7


@pytest.mark.parametrize("name", ALGORITHMS)
def test_memory(name: str, trained: Callable[..., Agent]) -> None:
    """The sign is seen at the first step and asked for at the second: a window of two steps knows it."""
    env = Probe(2, 2, sign_at_first, remembered)
    assert earned(trained(name, env, "window"), env) > 0.7


@pytest.mark.parametrize("name", ["ppo", "r2d2"])
def test_memory_is_needed(name: str, trained: Callable[..., Agent]) -> None:
    """Required to fail: without memory every policy is worth exactly 0.

    1,024 episodes of 1 or -1 have a standard error of 1/32, so 0.16 is 5 of them.
    """
    env = Probe(2, 2, sign_at_first, remembered)
    assert abs(earned(trained(name, env, "none"), env)) < 0.16
