"""What a folder, a name or a value holds: opened, as what a run gives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.planner import Planner
from turnwise.recipes.environments import kept_copy
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.solved import Solved, is_solved, load_solved
from turnwise.recipes.trained import (
    IN_MEMORY,
    WORLD,
    Actor,
    ActPolicy,
    Codebooks,
    Counterpart,
    Judge,
    Policy,
    World,
)
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.agent import Agent
from turnwise.rollout.load import load as load_trained
from turnwise.rollout.load import load_agent
from turnwise.rollout.partners.fitted import FittedPartner
from turnwise.rollout.step_agent import StepAgent
from turnwise.run.errors import InputError
from turnwise.run.files.checkpoint import CHECKPOINTS
from turnwise.run.files.lock import expect_ended
from turnwise.run.folder import read_config, read_result


def load_codebooks(path: str | Path, embed: Any = None) -> Codebooks:
    """Codebooks of a run's folder, or of what `Codebooks.save` wrote; `embed` as for `load`.

    InputError for anything else.
    """
    from turnwise.data.acts.files import MARK, load_codes
    from turnwise.rollout.acts.files import features_by_name

    folder = Path(path)
    is_run = (folder / "config.yaml").is_file()
    if is_run:
        expect_ended(folder)
    inside = folder / "acts" if (folder / "acts" / MARK).is_file() else folder
    if not (inside / MARK).is_file():
        raise InputError(
            f"{folder}: no {MARK} is there; expected a folder of codebooks, or the run of train acts"
        )
    codes = load_codes(inside, embed=_embedder(embed) or features_by_name)
    held = HeldOut.read(folder)
    return Codebooks(codes, folder if is_run else None, read_result(folder), held)


def _embedder(embed: Any) -> Callable[[str], Any] | None:
    """What gives `embed` whatever name is asked for; None if nothing was given."""
    if embed is None:
        return None
    from turnwise.recipes.features import features_of

    made = features_of(embed, quiet=True) if isinstance(embed, str | Path | Policy) else embed
    return lambda name: made


def load(
    path: str | Path, *, embed: Any = None
) -> Policy | ActPolicy | Counterpart | Actor | Judge | World | Codebooks | Solved:
    """What a run folder holds: a policy, an agent (of acts, in an environment), a partner, a world, a judge,
    acts, a solved POMDP.

    A `.policy` file of APPL's solvers is a solved POMDP too, of which nothing is proved yet. A saved policy's
    folder, and any language model of `transformers` by folder or name, is a policy. `embed`: what
    makes vectors of texts, for acts that were found with a model or a function and are not to look for it
    where it was: a policy, a folder, a hub name, or a function of texts. InputError for a run that has not
    come to its end, and if that model is not there. A checkpoint of a run on logs, by its file
    (RUN/checkpoints/step-N.safetensors), is the policy as it was then.
    """
    folder = Path(path)
    if is_solved(folder):
        return load_solved(folder)
    if folder.is_file() and folder.parent.name == CHECKPOINTS:
        from turnwise.recipes.checkpoints import policy_at  # which knows policies by what stands here

        return policy_at(folder, load(folder.parent.parent, embed=embed))
    if all((folder / name).is_file() for name in WORLD):
        return _load_world(folder)
    if any((place / "codes.json").is_file() for place in (folder, folder / "acts")):
        return load_codebooks(folder, embed)
    found = load_trained(path, _embedder(embed))
    run = folder if (folder / "config.yaml").is_file() else None
    result = read_result(folder)
    if isinstance(found, StepAgent):
        env = result.get("env")
        return Actor(found, run, result, env if run is None else kept_copy(run, env))
    if isinstance(found, ActAgent):
        return ActPolicy(found, run, result, HeldOut.read(folder))
    if isinstance(found, FittedPartner):
        return Counterpart(found, run, result, HeldOut.read(folder))
    return (
        Policy(found, run, result, HeldOut.read(folder))
        if isinstance(found, Agent)
        else Judge(found, run, result)
    )


def _load_world(folder: Path) -> World:
    expect_ended(folder)
    result = read_result(folder)
    planned = LearntModel.load(folder / WORLD[1])
    planner = Planner.load(folder / WORLD[2], planned)
    env = kept_copy(folder, result.get("env"))
    return World(LearntModel.load(folder / WORLD[0]), planner, folder, result, env)


def held_of(source: Any) -> HeldOut | None:
    """What a policy, codebooks or a run folder say that they learnt from; None if they say nothing of it."""
    if isinstance(source, Policy | ActPolicy | Codebooks):
        return source.held
    return HeldOut.read(Path(source)) if isinstance(source, str | Path) else None


def task_of_policy(source: Any) -> str | None:
    """The task of the run that a policy comes from, if it is a run's and the run knows one."""
    if isinstance(source, Policy):
        return source.task
    if not isinstance(source, str | Path) or not (Path(source) / "config.yaml").is_file():
        return None
    return read_config(Path(source)).get("task")


def open_policy(source: Any, expected: str = "the run of a cloned policy (BC)") -> tuple[Agent, str]:
    """The agent that a run begins with, and how its config records it. InputError if it has a critic.

    Training changes it in place, so a policy in memory is copied: the caller's stays what it was.
    """
    if isinstance(source, Policy | Agent):
        agent, name = (source.agent, source.name) if isinstance(source, Policy) else (source, IN_MEMORY)
        agent = replace(agent, lm=copy.deepcopy(agent.lm))
    elif isinstance(source, str | Path):
        agent, name = load_agent(source), str(source)
    else:
        raise TypeError(f"policy is {type(source).__name__}; expected a trained policy, or a folder or name")
    if agent.critic is not None:
        raise InputError(f"policy {name}: this run has a critic already; expected {expected}")
    return agent, name
