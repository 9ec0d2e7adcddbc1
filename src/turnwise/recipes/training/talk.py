"""From a policy and a task to one that has learnt from its own conversations.

a clone ──► conversations with the task, live ──► training ──► a policy that speaks
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from turnwise.data.dataset import Logs
from turnwise.data.rows import TokenRows, token_rows
from turnwise.data.splits.choices import records_of
from turnwise.envs.dialogue import DialogueTask
from turnwise.models.lm.lora import merged
from turnwise.models.lm.parts import parameter_count, trunk_of
from turnwise.models.lm.talk_actor import TalkActor, TurnActor
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.train import TalkSettings
from turnwise.recipes.tasks import Task, choices, find_task, task_called
from turnwise.recipes.trained import Policy
from turnwise.recipes.training.critic import name_of, open_critic
from turnwise.recipes.training.feedback.speakers import Speaker, open_speaker
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.learning import How, kept_adapter, settled
from turnwise.recipes.training.machine import Machine
from turnwise.recipes.training.parts import expect_outcomes
from turnwise.rollout.agent import Acting, Agent
from turnwise.rollout.live import LiveTalk
from turnwise.run.errors import SettingError
from turnwise.run.folder import digest
from turnwise.run.rehearsal import at_most
from turnwise.run.training import TrainingRun

FEW = 2
"""iterations of a trial"""
REHEARSED = 8
"""tokens of an utterance in a rehearsal"""


def prepare(
    algorithm: Algorithm,
    config: Any,
    given: str | Task | DialogueTask,
    policy: Any,
    critic: Any,
    logs: Logs | None,
    settings: TalkSettings,
    learning: Learning,
    m: Machine,
) -> Job[Policy]:
    """Open whom it talks with, what it begins with, and a critic of logs if there is one.

    `given`: a task, or its name and settings in words. `critic`: a policy with a critic of tokens or turns
    (MC, ILQL, TurnIQL) that was learnt on this policy, or its folder. `logs`: conversations that an algorithm
    with a replay learns from too. SettingError for a task or a critic that is none.
    """
    settings = replace(settings, max_new_tokens=at_most(REHEARSED, settings.max_new_tokens))
    task = _task(given)
    s = open_speaker(policy, learning)
    s.policy.to(m.device)
    learns = algorithm.module.new_agent(s.policy)
    warm = {} if critic is None else _warm_(learns, critic, algorithm, s)
    talk = LiveTalk(task.live(), s.chat, settings.max_new_tokens)

    logged = [] if logs is None else [_rows(logs, s, m)]

    def train(c: Any, run: TrainingRun) -> None:
        algorithm.module.train(c, talk, learns, run, m.seed, *logged)

    def finish() -> tuple[Policy, dict[str, Any]]:
        adapter = kept_adapter(s.policy.lm, s.learning, s.base)
        lm = merged(s.policy.lm).float().cpu()
        agent = Agent(lm, s.tokenizer, None, Acting(max_new_tokens=settings.max_new_tokens), adapter)
        agent.save(m.out / "policy")
        # A partner from logs stands for the task that they come from, and is none to be scored in.
        facts = {"policy": str(m.out / "policy"), "task": task.stands_for or task.words}
        facts |= {"parameters": parameter_count(lm)}
        return Policy(agent, m.out), facts

    sizes: dict[str, Any] = {"algorithm": algorithm.name, "task": task.words}
    sizes |= {"parameters": parameter_count(s.policy.lm)}
    if logs is not None:
        sizes |= {"logged": len(logs)}
    few = replace(config, talks=min(config.talks, FEW * config.batch))
    began = {"policy": s.name, "task": task.words, "critic": warm.get("name")}
    if logs is not None:
        began |= {"replay_logs": logs.source, **logs.reading.facts()}
    return Job(
        algorithm=algorithm,
        settings=(began, m.run, learning, settings, config),
        data=None if logs is None else digest(records_of(logs)),
        content={"policy": s.content, **({"critic": warm["content"]} if warm else {})},
        plan=Plan(
            sizes,
            config.talks,
            "conversations",
            Trial(lambda run: train(few, run), few.talks),
            _how(algorithm, -(-config.batch // config.minibatches), s, m),
        ),
        train=lambda run: train(config, run),
        finish=finish,
        warnings=[] if logs is None else logs.reading.notes(),
    )


def _rows(logs: Logs, s: Speaker, m: Machine) -> TokenRows:
    """Logged conversations as the policy reads them. InputError if nobody said how they went."""
    expect_outcomes(logs, logs.source)
    with m.progress("encoding", len(logs)) as bar:
        rows = token_rows(logs, s.chat, s.context, bar.at)
    rows.cuts.expect_room(s.context)
    return rows


def _task(given: str | Task | DialogueTask) -> Task:
    if isinstance(given, Task):
        return given
    if not isinstance(given, str | Path):
        return find_task(given)
    try:
        return task_called(str(given))
    except SettingError as e:
        if e.name != "task":
            raise
        raise SettingError("task", str(given), choices()) from None


def _warm_(learns: Any, critic: Any, algorithm: Algorithm, s: Speaker) -> dict[str, str]:
    """Let V begin as that of a critic of logs; the critic's name, and a digest of it."""
    name = name_of(critic)
    if not isinstance(learns, TalkActor | TurnActor):
        raise SettingError("critic", name, f"none: {algorithm.title} has no critic")
    if s.learning.lora_rank:
        raise SettingError("critic", name, "none beside adapters (lora_rank), which V has too")
    found = open_critic(critic, s.before, s.tokenizer, s.name)
    try:
        learns.warm_(found.critic, found.return_std)
    except ValueError as e:
        raise SettingError("critic", name, str(e)) from None
    return {"name": name, "content": found.content}


def _how(algorithm: Algorithm, rows: int, s: Speaker, m: Machine) -> How:
    """How `rows` conversations go through the policy, and through its critic if it has one."""
    with_critic = algorithm.holds == "a critic"
    return settled(
        s.policy,
        [trunk_of(s.policy.lm)] * (2 if with_critic else 1),
        s.learning,
        m.world,
        rows=rows,
        longest=s.context,
        vocab=s.before.config.vocab_size,
        beside=[s.before],
        copies=int(not s.learning.lora_rank),
        also_learns=[trunk_of(s.before)] if with_critic else [],
    )
