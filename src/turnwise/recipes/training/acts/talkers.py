"""From an agent of acts, or codebooks alone, to one that has learnt from its own talk.

a partner (a task, or a plan's learnt models) ──► talks in acts ──► training ──► an agent that speaks
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turnwise.data.acts.pack import ActSymbols
from turnwise.models.agents.act_actor import ActActor
from turnwise.models.agents.act_critic import ActCritic, ActNetwork
from turnwise.models.agents.settings import MemorySpec
from turnwise.models.agents.spec import count_trainable
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.estimating.leaks import both
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.opened import load, load_codebooks
from turnwise.recipes.settings.train import PrivilegedCritic
from turnwise.recipes.tasks import Task, choices, find_task, is_partner, task_called
from turnwise.recipes.trained import ActPolicy, Codebooks, Counterpart
from turnwise.recipes.training.acts.agents import book_of, digest_of_codes
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.anchors import BeliefAnchors
from turnwise.rollout.acts.chooser import LoggedActs
from turnwise.rollout.acts.facts import HiddenFacts
from turnwise.rollout.acts.network import ActActing, NetworkChooser
from turnwise.rollout.acts.partners import LivePartner, ModelPartner
from turnwise.rollout.acts.plan import PlanChooser
from turnwise.rollout.acts.simulated import siblings
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.digests import digest_of
from turnwise.run.training import TrainingRun

FEW = 2
"""iterations of a trial"""
WANTED = "a task, the run of a plan in learnt models (pomdp), or that of a partner (partner)"


@dataclass(frozen=True)
class _Beginning:
    """What there is before the first talk."""

    agent: ActAgent
    """codebooks, voice and fallback; its chooser is replaced"""
    network: ActNetwork
    actor: ActActor
    name: str | None
    """whose weights they are; None: fresh ones"""
    held: HeldOut | None


def prepare(
    algorithm: Algorithm,
    config: Any,
    partner: Any,
    policy: Any,
    acts: Any,
    memory: MemorySpec,
    critic: PrivilegedCritic,
    belief: Any,
    m: Machine,
) -> Job[ActPolicy]:
    """Open whom it talks with and what it begins with.

    `partner`: a task or its name, or a plan in learnt models or its folder. `policy`: an agent with a
    network of acts (ActBC, ActMC, ...), or its folder; None: a fresh one, which speaks by `acts` (codebooks),
    or by those of the plan. SettingError for partners that are none, InputError where acts differ.
    """
    world, task, name = _partner(partner)
    begun = _begun(policy, acts, world, memory)
    facts, more = _facts(critic, algorithm, task, m), _anchors(belief, algorithm, begun)
    if facts is not None:
        begun = replace(begun, actor=begun.actor.seeing(facts.size))
    chooser = NetworkChooser(
        begun.actor.policy,
        begun.network._replace(ensemble=0, v=False),
        ActSymbols.of(begun.agent.codes),
        ActActing(),
        tuple(begun.actor.allowed.tolist()),
    )
    agent = replace(begun.agent, chooser=chooser, clone=None)
    if world is not None:
        _expect_same_acts(begun, world)
        other: Any = _models_of(world, chooser)
    else:
        assert task is not None
        other = LivePartner(task.live(), agent, chooser, facts)
    start = copy.deepcopy(begun.actor.policy)

    def train(c: Any, run: TrainingRun) -> None:
        actor = begun.actor
        if c is not config:  # a trial must leave what it begins with as it is
            actor = copy.deepcopy(actor)
        algorithm.module.train(c, other, actor, start, run, m.seed, **more)

    def finish() -> tuple[ActPolicy, dict[str, Any]]:
        trained = begun.actor.cpu().eval()
        speaking = replace(agent, chooser=replace(chooser, module=trained.policy))
        held, learnt = begun.held, world if world is not None else task if task and task.learnt else None
        if learnt is not None:
            held = both(held, learnt.held, "the partner") if begun.name is not None else learnt.held
        found = ActPolicy(speaking, m.out, held=held)
        return found, _kept(found, trained, {"task": words, "partner": name}, m)

    # A partner from logs stands for the task that they come from, and is none to be scored in.
    words = world.task if world is not None else (task.stands_for or task.words) if task is not None else None
    sizes: dict[str, Any] = {
        "algorithm": algorithm.name,
        "partner": name,
        "acts": len(agent.codes.acts),
        "parameters": count_trainable(begun.actor),
    }
    few = replace(config, talks=min(config.talks, FEW * config.batch))
    source = {"partner": name, "policy": begun.name, "task": words}
    if belief is not None:
        source["belief"] = belief.name if isinstance(belief, ActPolicy) else str(belief)
    content = {"acts": digest_of_codes(agent.codes), "policy": digest_of(start)}
    return Job(
        algorithm=algorithm,
        settings=(source, m.run, memory, critic, config),
        data=None,
        content=content,
        plan=Plan(sizes, config.talks, "conversations", Trial(lambda run: train(few, run), few.talks)),
        train=lambda run: train(config, run),
        finish=finish,
    )


def _kept(found: ActPolicy, trained: ActActor, of: dict[str, Any], m: Machine) -> dict[str, Any]:
    """Write the policy and what it has not learnt from; what a result has of it."""
    found.save(m.out / "policy")
    if found.held is not None:
        found.held.save(m.out)
    codes = found.agent.codes
    return {
        "policy": str(m.out / "policy"),
        **of,
        "parameters": count_trainable(trained),
        "acts": list(codes.acts),
        "answers": list(codes.answers),
    }


def _models_of(world: ActPolicy, chooser: NetworkChooser) -> ModelPartner:
    """The learnt models of a plan, as somebody to talk with."""
    plan = world.agent.chooser
    assert isinstance(plan, PlanChooser)
    return ModelPartner(tuple(siblings(plan.planner.model, plan.copies)), chooser)


def _partner(given: Any) -> tuple[ActPolicy | None, Task | None, str]:
    """A plan in learnt models or a task, and how the run records it."""
    if isinstance(given, Counterpart) or is_partner(given):
        task = find_task(given)
        return None, task, task.words
    if isinstance(given, ActPolicy) or (isinstance(given, str | Path) and Path(given).is_dir()):
        found = given if isinstance(given, ActPolicy) else load(given)
        name = found.name if isinstance(found, ActPolicy) else str(given)
        if not isinstance(found, ActPolicy) or not isinstance(found.agent.chooser, PlanChooser):
            raise SettingError("partner", name, WANTED)
        if found.agent.chooser.planner.model.pay is None:
            raise SettingError("partner", name, "models that know what conversations earned")
        return found, None, name
    if isinstance(given, str | Path):
        try:
            task = task_called(str(given))
        except SettingError:
            raise SettingError("partner", str(given), f"{WANTED}; tasks are {choices()}") from None
    else:
        task = given if isinstance(given, Task) else find_task(given)
    return None, task, task.words


def _facts(
    critic: PrivilegedCritic, algorithm: Algorithm, task: Task | None, m: Machine
) -> HiddenFacts | None:
    if not critic.critic_sees:
        return None
    if algorithm.holds != "a critic":
        raise SettingError(
            "critic_sees", ", ".join(critic.critic_sees), f"none: {algorithm.title} has no critic"
        )
    if task is None:
        raise SettingError(
            "critic_sees", ", ".join(critic.critic_sees), "nothing: learnt models have no facts of the task"
        )
    return HiddenFacts.of(task.live(), critic.critic_sees, m.seed)


def _anchors(belief: Any, algorithm: Algorithm, begun: _Beginning) -> dict[str, Any]:
    """What stands for a state, if it is not the acts and answers so far."""
    if belief is None:
        return {}
    found = belief if isinstance(belief, ActPolicy) else load(belief)
    name = found.name if isinstance(found, ActPolicy) else str(belief)
    if algorithm.holds == "a critic":
        raise SettingError("belief", name, f"none: {algorithm.title} has a critic, and compares with nobody")
    if not isinstance(found, ActPolicy) or not isinstance(found.agent.chooser, PlanChooser):
        raise SettingError("belief", name, "the run of a plan in learnt models (pomdp)")
    _expect_same_acts(begun, found)
    model = siblings(found.agent.chooser.planner.model, found.agent.chooser.copies)[0]
    return {"anchors": BeliefAnchors(model, ActSymbols.of(begun.agent.codes))}


def _begun(policy: Any, acts: Any, world: ActPolicy | None, memory: MemorySpec) -> _Beginning:
    if policy is not None:
        if acts is not None:
            raise SettingError("acts", str(acts), "none beside policy, which reads with codebooks of its own")
        return _from_policy(policy)
    if acts is None and world is None:
        raise InputError("who talks live begins with a policy (ActBC, ...), or with codebooks (acts)")
    if acts is None:
        assert world is not None
        codes, held = world.agent.codes, world.held
    else:
        opened = acts if isinstance(acts, Codebooks) else load_codebooks(acts)
        codes, held = opened.codes, opened.held
    voice = LoggedVoice.of(book_of(codes))
    can = voice.speakable.copy()
    if (other := book_of(codes).other) is not None:
        can[other] = False
    if world is not None:  # what was hardly ever logged, no model knows
        assert isinstance(world.agent.chooser, PlanChooser)
        can &= np.isin(np.arange(len(can)), world.agent.chooser.planner.allowed)
    if not can.any():
        raise InputError("no act of these codebooks can be said")
    symbols = ActSymbols.of(codes)
    network = ActNetwork(memory, symbols.seen, symbols.acts, ensemble=1, v=True)
    critic = network.build()
    assert isinstance(critic, ActCritic)
    actor = ActActor(critic.policy, critic.memory, torch.tensor(can))
    evenly = can / can.sum()  # nobody logged anything: who does not know how to go on draws among all
    draws = LoggedActs(np.tile(evenly, (len(codes.openings), 1)), np.tile(evenly, (len(codes.answers), 1)))
    return _Beginning(ActAgent(codes, draws, voice, draws), network, actor, None, held)


def _from_policy(policy: Any) -> _Beginning:
    found = policy if isinstance(policy, ActPolicy) else load(policy)
    name = found.name if isinstance(found, ActPolicy) else str(policy)
    if not isinstance(found, ActPolicy) or not isinstance(found.agent.chooser, NetworkChooser):
        raise SettingError("policy", name, "an agent with a network of acts (ActBC, ActMC, ActIQL, ActCQL)")
    chooser = found.agent.chooser
    module, network = copy.deepcopy(chooser.module), chooser.network
    K = len(found.agent.codes.acts)
    allowed = torch.tensor(chooser.allowed or (True,) * K)
    if isinstance(module, ActCritic):
        actor = ActActor(module.policy, copy.deepcopy(module.memory), allowed)
        if module.v is not None:
            actor.warm_(module.memory, module.v, chooser.acting.return_std)
    else:
        beside = network._replace(ensemble=1, v=True).build()  # for the memory of V, as large as the clone's
        assert isinstance(beside, ActCritic)
        actor = ActActor(module, beside.memory, allowed)
    # What was loaded to act is frozen, and is to learn again.
    return _Beginning(found.agent, network, actor.requires_grad_(True), name, found.held)


def _expect_same_acts(begun: _Beginning, world: ActPolicy) -> None:
    mine, its = begun.agent.codes, world.agent.codes
    for what in ("acts", "answers", "openings"):
        if getattr(mine, what) != getattr(its, what):
            raise InputError(
                f"partner {world.name}: its {what} are not those of policy {begun.name}; expected both to be "
                "learnt with the same codebooks (acts)"
            )
