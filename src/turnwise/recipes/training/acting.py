"""From an environment to an agent with memory that acts in it."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from turnwise.envs.gymnasium.lanes import translation_of
from turnwise.envs.pomdp import POMDP
from turnwise.envs.protocol import Resumable
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.spec import Kind, Spaces, agent_of, count_trainable
from turnwise.recipes.catalogue import ALGORITHMS, Algorithm
from turnwise.recipes.environments import Environment, copy_of
from turnwise.recipes.settings.train import EnvironmentSettings
from turnwise.recipes.trained import Actor
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.load import load_step_agent
from turnwise.rollout.step_agent import StepAgent
from turnwise.run.errors import SettingError
from turnwise.run.files.digests import digest_of
from turnwise.run.folder import read_config
from turnwise.run.settings import discount_of, lanes_of

KINDS: dict[str, Kind] = {"r2d2": "q", "sac": "soft"}
"""what learns; actors with a critic, unless named here"""


def lanes_for(config: Any, m: Machine) -> int:
    """What was set, else what a resumed run began with (it may be longer now), else what its length gives."""
    if config.lanes is None and m.run.resume and (m.out / "config.yaml").is_file():
        begun = read_config(m.out).get("lanes")
        if isinstance(begun, int):
            return begun
    length = "episodes" if hasattr(config, "episodes") else "steps"
    return lanes_of(config.lanes, getattr(config, length) / getattr(type(config), length))


def prepare(
    algorithm: Algorithm,
    config: Any,
    env: Environment,
    memory: MemorySpec,
    critic: CriticSpec | None,
    policy: Any,
    settings: EnvironmentSettings,
    m: Machine,
) -> Job[Actor]:
    """Build the agent for the environment's spaces, or begin with `policy`: an agent, or its folder."""
    config = replace(config, gamma=discount_of(config.gamma, env.discount))
    # The network's inputs and outputs follow from the environment's spaces; weights from the run's seed.
    kind = KINDS.get(algorithm.name, "actor-critic")
    spaces = Spaces.of(env.lanes)
    begun, name = (None, None) if policy is None else _begun(policy, kind, spaces, env.name)
    if begun is not None:
        memory = _brought(str(name), memory, begun.memory)
        critic = critic and _brought(str(name), critic, begun.critic)
    agent = agent_of(kind, memory, critic or CriticSpec(), spaces)
    if begun is not None:
        agent.load_state_dict(begun.module.state_dict())

    def train(c: Any, run: Any) -> None:
        with env.at_work():
            algorithm.module.train(c, env.lanes, agent, run, m.seed)

    def finish() -> tuple[Actor, dict[str, Any]]:
        translation = translation_of(env.lanes)
        saved = StepAgent(agent.cpu().eval(), kind, memory, critic or CriticSpec(), spaces, translation)
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
        settings=(
            {"env": env.name} | ({} if name is None else {"policy": name}),
            m.run,
            settings,
            memory,
            *seen,
            config,
        ),
        data=None,
        content=({} if env.problem is None else {"env": _digest(env.problem)})
        | ({} if begun is None else {"policy": digest_of(begun.module)}),
        copies={} if env.file is None else {copy_of(env.file): env.file},
        env=env,
        plan=Plan(sizes, amount, unit, Trial(lambda run: train(replace(config, **{unit: few}), run), few)),
        train=lambda run: train(config, run),
        finish=finish,
        warnings=_unresumable(env),
    )


def _begun(policy: Any, kind: Kind, spaces: Spaces, env: str) -> tuple[StepAgent, str]:
    """The agent to begin with, and how the run records it. InputError for one that cannot go on here."""
    if isinstance(policy, Actor | StepAgent):
        saved = policy.saved if isinstance(policy, Actor) else policy
        folder = policy.folder if isinstance(policy, Actor) else None
        name = "an agent in memory" if folder is None else str(folder)
    elif isinstance(policy, str | Path):
        saved, name = load_step_agent(policy), str(policy)
    else:
        raise TypeError(f"policy is {type(policy).__name__}; expected a trained agent, or its run folder")
    if saved.kind != kind:
        learners = (learners_of(saved.kind), learners_of(kind))
        raise SettingError("policy", name, "an agent of {1}; this one is of {0}".format(*learners))
    mine, its = (
        (s.observations, s.actions, s.states if "state" in saved.critic.critic else None)
        for s in (spaces, saved.spaces)
    )
    if mine != its:
        words = "observations {}, actions {}" + (", hidden states {}" if its[2] is not None else "")
        here, there = words.format(*mine), words.format(*its)
        raise SettingError("policy", name, f"an agent for {env}: {here}; this one was made for {there}")
    return saved, name


def learners_of(kind: Kind) -> str:
    """The algorithms that train agents of a kind: `ppo, a2c or reinforce`."""
    names = [row.name for row in ALGORITHMS.values() if row.family == "acting"]
    *others, last = [n for n in names if KINDS.get(n, "actor-critic") == kind]
    return f"{', '.join(others)} or {last}" if others else last


def _brought(name: str, asked: Any, brought: Any) -> Any:
    """The settings that an agent brings along. SettingError for one that was asked for and is another."""
    for f in fields(asked):
        wanted, own = getattr(asked, f.name), getattr(brought, f.name)
        if wanted not in (f.default, own):
            expected = f"{own!r}, or nothing, beside policy {name}, which brings its own"
            raise SettingError(f.name, wanted, expected)
    return brought


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
