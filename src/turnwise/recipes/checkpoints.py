"""Policies as they were on the way: what a run had learnt at a checkpoint, as a policy that speaks."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from turnwise.algorithms.logs import bc
from turnwise.models.agents.act_critic import ActCritic
from turnwise.models.lm.critics import FrozenTrunk, on_trunk
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.recipes.trained import ActPolicy, Policy
from turnwise.rollout.acts.network import NetworkChooser
from turnwise.run.distributed import load_module, module_state
from turnwise.run.errors import InputError
from turnwise.run.files.checkpoint import Checkpoints, read_checkpoint
from turnwise.run.files.fits import expect_like

EXPECTED = "a checkpoint of bc, mc, ilql, turn-iql, act-bc, act-mc, act-iql or act-cql, without adapters"


def earlier_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Steps and files of a run's checkpoints, without the last one, which is what the run came to."""
    kept = Checkpoints(run)
    return [(step, kept.path(step)) for step in kept.steps()[:-1]]


def policy_at(path: Path, ended: Any) -> Policy | ActPolicy:
    """The policy of a checkpoint. `ended`: what the run came to, which is the same but for what was learnt.

    It has no run folder, so that nothing is written for it. InputError for runs that learn something else.
    """
    agent: Any = getattr(ended, "agent", None)
    state = read_checkpoint(path)["module"]
    if isinstance(ended, ActPolicy) and isinstance(chooser := agent.chooser, NetworkChooser):
        module = _as_it_was(chooser.module, state, path)
        if isinstance(module, ActCritic):
            module.scale_(chooser.acting.return_std)  # it learns in deviations of the return
        made = replace(agent, chooser=replace(chooser, module=module.eval()))
        return replace(ended, agent=made, folder=None)
    if isinstance(ended, Policy):
        if agent.critic is None:
            found = _as_it_was(bc.Objective(LmPolicy(agent.lm)), state, path)
            return replace(ended, agent=replace(agent, lm=found.policy.lm), folder=None)
        trunk, frozen = agent.critic.trunk, agent.critic.trunk is trunk_of(agent.lm)
        learnt = on_trunk(agent.critic, FrozenTrunk()) if frozen else agent.critic
        critic = _as_it_was(learnt, state, path)
        critic.scale_(agent.acting.return_std)
        critic = on_trunk(critic, trunk) if frozen else critic
        return replace(ended, agent=replace(agent, critic=critic.eval()), folder=None)
    raise InputError(f"{path}: its run has trained no policy by steps; expected {EXPECTED}")


def _as_it_was(module: nn.Module, state: Any, path: Path) -> Any:
    """A copy of the module with the weights of a checkpoint."""
    made = copy.deepcopy(module)
    try:
        expect_like("module", state, module_state(made))
    except InputError as error:
        raise InputError(f"{path}: {error}; expected {EXPECTED}") from None
    load_module(made, state)
    return made.requires_grad_(False)
