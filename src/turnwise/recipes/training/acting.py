"""From an environment to an agent with memory that acts in it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from turnwise.envs.pomdp import POMDP
from turnwise.envs.protocol import Resumable
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Kind, Spaces, agent_of, count_trainable
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.environments import Environment, copy_of
from turnwise.recipes.settings.train import EnvironmentSettings
from turnwise.recipes.trained import Actor
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.step_agent import StepAgent
from turnwise.run.files.digests import digest_of
from turnwise.run.settings import discount_of

KINDS: dict[str, Kind] = {"r2d2": "q", "sac": "soft"}
"""what learns; actors with a critic, unless named here"""


def prepare(
    algorithm: Algorithm,
    config: Any,
    env: Environment,
    memory: MemorySpec,
    critic: CriticSpec | None,
    settings: EnvironmentSettings,
    m: Machine,
) -> Job[Actor]:
    """Build the agent for the environment's spaces."""
    config = replace(config, gamma=discount_of(config.gamma, env.discount))
    # The network's inputs and outputs follow from the environment's spaces; weights from the run's seed.
    kind = KINDS.get(algorithm.name, "actor-critic")
    spaces = Spaces.of(env.lanes)
    agent = agent_of(kind, memory, critic or CriticSpec(), spaces)

    def train(c: Any, run: Any) -> None:
        algorithm.module.train(c, env.lanes, agent, run, m.seed)

    def finish() -> tuple[Actor, dict[str, Any]]:
        saved = StepAgent(agent.cpu().eval(), kind, memory, critic or CriticSpec(), spaces)
        saved.save(m.out / "policy")
        facts = {"env": env.name, "policy": str(m.out / "policy"), "parameters": count_trainable(agent)}
        return Actor(saved, m.out, env=env), facts

    unit = "episodes" if algorithm.name == "reinforce" else "steps"
    amount = getattr(config, unit)
    few = max(1, amount // 50)
    sizes = {"algorithm": algorithm.name, "environment": env.name, "parameters": count_trainable(agent)}
    seen = () if critic is None else (critic,)
    return Job(
        algorithm=algorithm,
        settings=({"env": env.name}, m.run, settings, memory, *seen, config),
        data=None,
        content={} if env.problem is None else {"env": _digest(env.problem)},
        copies={} if env.file is None else {copy_of(env.file): env.file},
        env=env,
        plan=Plan(sizes, amount, unit, Trial(lambda run: train(replace(config, **{unit: few}), run), few)),
        train=lambda run: train(config, run),
        finish=finish,
        warnings=_unresumable(env),
    )


def _digest(problem: POMDP) -> str:
    """Of all that a problem is, but not of its name, which may be a file's."""
    return digest_of(*(getattr(problem, f.name) for f in fields(problem) if f.name != "name"))


def _unresumable(env: Environment) -> list[str]:
    """A warning if episodes under way cannot be taken up again."""
    lanes = env.lanes
    if isinstance(lanes, Resumable) and lanes.resumes:
        return []
    return [
        f"{env.name} cannot say where its episodes stand: a run that is stopped begins them anew, and "
        "does not come to the same bits"
    ]
