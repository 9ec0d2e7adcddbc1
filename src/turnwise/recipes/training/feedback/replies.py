"""From prompts and a reward to a policy that learns from its own replies: RLOO, GRPO, PPO and their kin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from turnwise.data.dataset import PromptRow, Prompts
from turnwise.data.feedback import Prompt, shortened
from turnwise.data.files.prompts import read_prompts
from turnwise.models.lm.parts import parameter_count, trunk_of
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.engines import open_for
from turnwise.recipes.settings.engine import EngineSettings
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.ray import RaySettings
from turnwise.recipes.settings.train import FeedbackReading, FeedbackSettings, ReplySettings, RewardShaping
from turnwise.recipes.tasks import TASKS, gold_of
from turnwise.recipes.trained import Policy
from turnwise.recipes.training.feedback.judges import (
    FoundJudge,
    apart,
    combined,
    content_of,
    find_judges,
    recorded,
    training_rewards,
)
from turnwise.recipes.training.feedback.speakers import (
    Speaker,
    finish_speaker,
    open_speaker,
    rehearsed,
    to_ask,
    two_replies,
    with_room,
)
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.learning import How, settled
from turnwise.recipes.training.machine import Machine
from turnwise.recipes.workers import expect_one, workers_of
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.one_turn import OneTurn
from turnwise.rollout.replies import expect_room
from turnwise.rollout.reward_classifier import ClassifierScorer
from turnwise.rollout.reward_scorer import RewardScorer
from turnwise.rollout.rewards import (
    ClippedReward,
    LengthReward,
    Patient,
    Reward,
    UnfinishedPenalty,
    WeightedSum,
)
from turnwise.rollout.spread import Spread
from turnwise.run.errors import InputError, SettingError
from turnwise.run.folder import digest


def prepare(
    algorithm: Algorithm,
    config: Any,
    parts: tuple[Prompts, Prompts],
    policy: Any,
    reward: Any,
    settings: FeedbackSettings,
    replies: ReplySettings,
    shaping: RewardShaping,
    learning: Learning,
    servers: EngineSettings,
    shards: RaySettings,
    m: Machine,
) -> Job[Policy]:
    """Open the policy, make the reward, and try it on two replies before anything is written.

    `parts`: prompts to learn from, and those that are held out.
    """
    replies = rehearsed(replies)
    source, everything = parts[0].source, [*parts[0], *parts[1]]
    judges = find_judges(reward, parts[0].text)
    gold = gold_of(replies.gold, [row.prompt for row in everything])
    speaker = open_speaker(policy, learning)
    speaker.policy.to(m.device)
    learnt, held = _fitting(parts, speaker, judges, replies.max_new_tokens, m)
    if not learnt:
        raise InputError(f"{source}: only held-out prompts leave room for a reply")
    asked = [row.prompt for row in learnt]
    _expect_one_who_samples(servers, shards, m)
    workers = m.closing.enter_context(workers_of(shards))
    lm, chat = speaker.policy, speaker.chat
    engine = open_for(servers, lm, chat, m.closing, m.warn, run=m.out, before=speaker.before)
    expect_room(lm, chat, [*asked, *(r.prompt for r in held)], replies.max_new_tokens, engine)
    each = training_rewards(judges, shaping.doubt, speaker, asked, replies.max_new_tokens, m, engine)
    measured = to_ask(speaker, replies, held or learnt, held_out=bool(held))
    tried = two_replies(speaker, replies, learnt, engine)
    judge = _shaped(combined(each, judges), shaping)
    if np.isnan(judge(tried)).all():  # what does not answer now is not waited for
        m.warn(f"{recorded(judges)} has no opinion of the {len(tried)} replies that were tried")
    rewards = _rewards(judge, apart(each, judges), gold, shaping, m)
    talk = OneTurn(
        speaker.chat,
        asked,
        rewards["reward"],
        gold,
        columns=[row.columns for row in learnt],
        max_new_tokens=replies.max_new_tokens,
        decoding=Decoding(),
        engine=engine,
        spread=None if workers is None else Spread(workers, shards.count),
    )
    counts = {"prompts": len(learnt), "held_out": len(held)}
    task = source if source in TASKS else speaker.task
    trained = replace(speaker, policy=m.whole(speaker.policy))

    def train(run: Any) -> None:
        algorithm.module.train(config, talk, speaker.policy, run, m.seed)
        m.gather(speaker.policy, trained.policy)

    def finish() -> tuple[Policy, dict[str, Any]]:
        made, facts = finish_speaker(trained, m, replies, measured, rewards, engine)
        return made, facts | counts | {"task": task}

    how = _how(algorithm, config.rows, speaker, asked, replies, m)
    few = replace(config, steps=min(2, config.steps))
    trial = Trial(lambda run: algorithm.module.train(few, talk, speaker.policy, run, m.seed), few.steps)
    sizes = {"algorithm": algorithm.name, **counts, "parameters": parameter_count(speaker.policy.lm)}
    began = {"policy": speaker.name, "prompts": source, "reward": recorded(judges), "task": task}
    began |= parts[0].reading.facts() | ({} if engine is None else {"sampled_by": engine.kind})
    return Job(
        algorithm=algorithm,
        settings=(began, m.run, settings, learning, replies, shaping, config),
        data=digest(everything),
        content={"policy": speaker.content, **content_of(judges)},
        plan=Plan(sizes, config.steps, "steps", trial, how),
        train=train,
        finish=finish,
        warnings=_warnings(parts),
    )


def _expect_one_who_samples(servers: EngineSettings, shards: RaySettings, m: Machine) -> None:
    """SettingError if servers, workers and processes would sample beside each other."""
    expect_one(servers, shards)
    if m.world.size == 1:
        return
    if servers.engine is not None:
        expected = "none on several processes: each of them would give the servers weights of its own"
        raise SettingError("engine", servers.engine, expected)
    if shards.divides:
        name = "ray" if shards.ray is not None else "shards"
        expected = "none on several processes, which divide the sampling among themselves"
        raise SettingError(name, getattr(shards, name), expected)


def _rewards(
    judge: Reward, each: Mapping[str, Reward], gold: Reward | None, shaping: RewardShaping, m: Machine
) -> dict[str, Reward]:
    """`reward`, which is learnt from; beside it `gold`, if the task has one, and what each judge says.

    Who is somewhere else and does not answer is asked again before it is given up.
    """

    def patient(reward: Reward) -> Reward:
        return Patient(reward, shaping.reward_retries, shaping.reward_wait, m.warn)

    beside: dict[str, Reward] = {} if gold is None else {"gold": gold}
    return {"reward": patient(judge), **beside, **{name: patient(one) for name, one in each.items()}}


def _how(
    algorithm: Algorithm, rows: int, s: Speaker, asked: Sequence[Prompt], replies: ReplySettings, m: Machine
) -> How:
    """How `rows` replies go through the policy, and through its critic if it has one."""
    with_critic = algorithm.holds == "a critic"
    return settled(
        s.policy,
        [trunk_of(s.policy.lm)] * (2 if with_critic else 1),
        s.learning,
        m.world,
        rows=rows,
        longest=max(len(s.chat.opening(prompt)) for prompt in asked) + replies.max_new_tokens,
        vocab=s.before.config.vocab_size,
        beside=[s.before],
        copies=int(not s.learning.lora_rank),
        also_learns=[trunk_of(s.before)] if with_critic else [],
    )


def find_prompts(
    source: Any, reading: FeedbackReading, heldout: float, *, quiet: bool = False
) -> tuple[Prompts, Prompts]:
    """(prompts to learn from, prompts held out): of a task by its name, of a path, or of rows in memory."""
    own = TASKS[source].prompts if isinstance(source, str) and source in TASKS else None
    if own is not None:
        learnt, held = (Prompts(tuple(map(PromptRow, part)), source) for part in own())
        return learnt, held
    return read_prompts(source, **vars(reading), quiet=quiet).split(heldout)


def _warnings(parts: tuple[Prompts, Prompts]) -> list[str]:
    found = parts[0].reading.notes()
    if repeated := parts[0].repeated:
        found.append(f"{repeated:,} rows repeat an earlier prompt with other columns, and are left out")
    if not parts[1]:
        found.append(f"none of {len(parts[0]):,} prompts is held out: what is measured, it has learnt from")
    return found


def _fitting(
    parts: tuple[Prompts, Prompts], s: Speaker, judges: Sequence[FoundJudge], max_new_tokens: int, m: Machine
) -> tuple[list[PromptRow], list[PromptRow]]:
    """Both parts with room for a reply, for the policy and for models that judge it; warns of the rest."""
    total = sum(map(len, parts))
    found = [with_room(s, list(part), max_new_tokens) for part in parts]
    rows, context = [part.rows for part in found], s.context
    cut = sum(part.shortened for part in found)
    for j in judges:
        if j.model is not None:
            rooms = [_room_to_judge(j.model, part, max_new_tokens) for part in rows]
            rows = [kept for kept, _ in rooms]
            if any(n for _, n in rooms):
                few = f"{sum(n for _, n in rooms):,} of {total:,} prompts"
                m.warn(
                    f"{j.name} reads {few} without their earliest messages: its context is {j.model.context}"
                )
            context = min(context, j.model.context)
    left = sum(map(len, rows))
    if not left:
        raise InputError(
            f"all {total:,} prompts leave no room for {max_new_tokens} tokens in the context of {context}; "
            "expected shorter replies (max_new_tokens), shorter prompts, or a longer context"
        )
    if cut:
        m.warn(
            f"{cut:,} of {total:,} prompts lose their earliest messages, to leave room for {max_new_tokens} "
            f"tokens in the context of {s.context}"
        )
    if left < total:
        m.warn(
            f"{total - left:,} of {total:,} prompts leave no room for {max_new_tokens} tokens in the context "
            f"of {context}; left out"
        )
    return rows[0], rows[1]


def _room_to_judge(
    model: RewardScorer | ClassifierScorer, rows: Sequence[PromptRow], max_new_tokens: int
) -> tuple[list[PromptRow], int]:
    """The rows whose last message and reply a reward model can read; and how many of them it reads cut."""

    def fits(prompt: Prompt) -> bool:
        return len(model.chat.opening(prompt)) + max_new_tokens + 1 <= model.context

    read = [shortened(row.prompt, fits) for row in rows]
    kept = [row for row, prompt in zip(rows, read, strict=True) if prompt is not None]
    return kept, sum(p is not None and p is not row.prompt for row, p in zip(rows, read, strict=True))


def _shaped(reward: Reward, r: RewardShaping) -> Reward:
    """The reward with its clip and its terms of length."""
    if r.clip_reward is not None:
        reward = ClippedReward(reward, -r.clip_reward, r.clip_reward)
    terms: list[Reward] = []
    if r.per_token:
        terms.append(LengthReward(r.per_token))
    if r.unfinished_penalty:
        terms.append(UnfinishedPenalty(r.unfinished_penalty))
    return WeightedSum((reward,), (1.0,), tuple(terms)) if terms else reward
