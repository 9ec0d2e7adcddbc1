"""A policy measured in live conversations with a task."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from turnwise.evaluation.measures.conversation_views import MOST, annotate_conversation, how_many
from turnwise.evaluation.measures.conversations import (
    conversation_summary,
    hold_conversations,
    measures_in_words,
    tune_acting,
)
from turnwise.evaluation.measures.shifts import measure_shift
from turnwise.evaluation.pages.logs import NOT_COMPARED
from turnwise.evaluation.pages.report import write_report
from turnwise.models.lm.parts import parameter_count
from turnwise.models.lm.policies import LmPolicy
from turnwise.recipes.engines import open_for
from turnwise.recipes.measuring.evaluation import Evaluation
from turnwise.recipes.settings.engine import EngineSettings
from turnwise.recipes.settings.measure import ConversationSettings
from turnwise.recipes.settings.ray import RaySettings
from turnwise.recipes.tasks import Task, choices, find_task, task_called
from turnwise.recipes.trained import ActPolicy, Policy
from turnwise.recipes.workers import ALONE, expect_one, workers_of
from turnwise.rollout.agent import Agent
from turnwise.rollout.engines.servers.engine import Engine
from turnwise.run.errors import SettingError
from turnwise.run.files.lock import locked
from turnwise.run.files.whole import whole_files
from turnwise.run.folder import as_json
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most
from turnwise.run.terminal import say

WORDS_ONLY = "no engine: an agent of acts chooses among acts, and words them here"
WITH_CRITIC = (
    "no engine, or no beta: a critic has a say in this policy's words, and servers know nothing of it"
)
NO_CRITIC = "nothing: this policy has no critic, which could choose among them"
HERE = EngineSettings()
"""no engine: the policy speaks in this process"""
VALIDATION_SEED = 1_000_003
"""added to the seed for validation conversations, so that they are other ones than the evaluation's"""
REHEARSED = 4
"""conversations of a rehearsal"""


def partner_of(policy: Policy | ActPolicy, on: Any = None, settings: Mapping[str, Any] | None = None) -> Task:
    """Whom a policy talks with: `on`, a task, its name, or the run of a partner or of a plan.

    None is the task of the logs that the policy learnt from, with `settings` over its own. SettingError if
    they name none, or if there is no such task.
    """
    if isinstance(on, Task):
        return on
    if on is not None:
        return find_task(on, settings)
    if policy.task is None:
        expected = f"{choices()}; {policy.name} does not say where its logs come from"
        raise SettingError("task", None, expected)
    own = task_called(policy.task)
    return replace(own, settings={**own.settings, **(settings or {})})


def measure(
    policy: Policy,
    task: Any,
    settings: ConversationSettings,
    servers: EngineSettings = HERE,
    shards: RaySettings = ALONE,
    *,
    quiet: bool = False,
) -> Evaluation:
    """Hold conversations and measure the mean return; write evaluation.json, conversations and the page.

    `task`: None is the task of the logs that the policy learnt from. What logs earned in one task is no
    yardstick in another: the result says whether the two are one (`same_task`), and only then has a reference
    for the behaviour policy.

    With betas, the best is picked on validation conversations of another seed first, and the run's policy
    speaks with it from then on, with the number of proposals that is asked for beside it. Nothing is written
    for a policy without a run folder. `servers`: an engine that speaks for the policy. `shards`: who holds
    the conversations. SettingError for proposals where there is no critic.
    """
    expect_one(servers, shards)
    row = partner_of(policy, task)
    a = replace(
        settings,
        episodes=at_most(REHEARSED, settings.episodes),
        validation_episodes=at_most(REHEARSED, settings.validation_episodes),
        betas=settings.betas[: at_most(2, len(settings.betas))],
    )
    agent = _speaker(policy.agent, a, servers)
    validation: list[dict[str, Any]] = []
    with contextlib.ExitStack() as closing:
        workers = closing.enter_context(workers_of(shards))
        if a.betas and agent.critic is not None:
            with Progress("beta", len(a.betas), quiet=quiet) as bar:
                agent, validation = tune_acting(
                    agent,
                    row.live(),
                    [{"beta": beta} for beta in a.betas],
                    episodes=a.validation_episodes,
                    seed=a.seed + VALIDATION_SEED,
                    lanes=a.lanes,
                    progress=bar.at,
                    workers=workers,
                    shards=shards.count,
                )
        engine = _engine(agent, servers, closing, quiet)
        bar = closing.enter_context(Progress("talking", a.episodes, quiet=quiet))
        conversations = hold_conversations(
            agent,
            row.live(),
            episodes=a.episodes,
            seed=a.seed,
            lanes=a.lanes,
            progress=bar.at,
            engine=engine,
            workers=workers,
            shards=shards.count,
        )
    rows = [c.tokens for c in conversations if c.tokens is not None]  # all of them: a language model spoke
    result = _result(row, policy.task == row.words, conversation_summary(conversations, a.seed))
    guide = None if agent.critic is None else agent.acting
    result |= {"beta": guide and guide.beta, "proposals": guide and guide.proposals, "validation": validation}
    if engine is not None:
        result["sampled_by"] = engine.kind
    if workers is not None:
        result["shards"] = shards.count
    result["shift"] = shift = measure_shift(agent, rows, said=True)
    if shift is not None:
        result["beside"].append(shift["sentence"])
    report = None
    if policy.folder is not None:
        size = parameter_count(agent.lm)
        views = [
            annotate_conversation(agent, c.dialogue, [row], source="policy", hidden=c.hidden)
            for c, row in zip(conversations[: how_many([*map(len, rows[:MOST])], size)], rows, strict=False)
        ]
        report = _write(policy.folder, result, views, agent if validation else None)
    return Evaluation(
        result["mean"], result["low"], result["high"], result["episodes"], result["score"], report, result
    )


def _speaker(agent: Agent, a: ConversationSettings, servers: EngineSettings) -> Agent:
    """Who speaks: the policy's agent, as it is asked to act. SettingError for what it cannot do."""
    if a.proposals is not None and agent.critic is None:
        raise SettingError("proposals", a.proposals, NO_CRITIC)
    if servers.engine is not None and agent.critic is not None and (a.betas or agent.acting.beta):
        raise SettingError("engine", servers.engine, WITH_CRITIC)
    agent = agent.with_acting(temperature=a.temperature)
    return agent if a.proposals is None else agent.with_acting(proposals=a.proposals)


def _result(task: Task, same: bool, summary: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured in a task, and what it stands beside; `same`: the policy's logs are of that task."""
    references = [vars(r) for r in task.references() if same or r.role != "behaviour"]
    beside = [*map(reference_in_words, references), *measures_in_words(summary["measures"])]
    if not same:
        beside.append(f"{NOT_COMPARED} {task.words}")
    return {
        "task": task.words,
        "same_task": same,
        **summary,
        "references": references,
        "beside": beside,
    }


def _engine(
    agent: Agent, servers: EngineSettings, closing: contextlib.ExitStack, quiet: bool
) -> Engine | None:
    """The engine that speaks for the agent, if one is asked for."""
    policy, decoding = agent.token_policy()
    if not isinstance(policy, LmPolicy):  # a critic guides it, and there is no engine
        return None
    tell = (lambda text: None) if quiet else (lambda text: say(f"warning: {text}"))
    return open_for(servers, policy, agent.chat, closing, tell, decoding=decoding)


def reference_in_words(reference: dict[str, Any]) -> str:
    """A reference with its interval and its note, in one line."""
    interval = ""
    if reference.get("low") is not None:
        interval = f" ({reference['low']:.4f} to {reference['high']:.4f}, 95%)"
    note = f": {reference['note']}" if reference.get("note") else ""
    return f"{reference['name']} {reference['mean']:.4f}{interval}{note}"


def _write(
    folder: Path, result: dict[str, Any], views: Sequence[dict[str, Any]], chosen: Agent | None
) -> Path:
    """The files of an evaluation, or none of it; `chosen` is how the run's policy acts from now on."""
    lines = "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in views)
    texts = {"conversations.jsonl": lines, "evaluation.json": as_json(result)}
    with locked(folder):
        if chosen is not None:
            # What was measured before is not of a policy that acts this way.
            (folder / "evaluation.json").unlink(missing_ok=True)
            chosen.save_acting(folder / "policy")
        whole_files(folder, texts, last="evaluation.json")
        return write_report(folder)
