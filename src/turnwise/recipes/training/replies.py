"""From prompts and a reward to a policy that learns from its own replies: RLOO, GRPO, PPO and their kin."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.data.dataset import PromptRow, Prompts
from turnwise.data.files.prompts import read_prompts
from turnwise.models.lm.parts import parameter_count
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.settings.train import FeedbackSettings, ReplySettings, RewardShaping
from turnwise.recipes.tasks import TASKS, gold_of
from turnwise.recipes.trained import Judge, Policy
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.machine import Machine
from turnwise.recipes.training.speakers import Speaker, finish_speaker, open_speaker, rehearsed
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.load import load_reward
from turnwise.rollout.one_turn import OneTurn
from turnwise.rollout.replies import has_room, sample_replies
from turnwise.rollout.reward_scorer import RewardScorer
from turnwise.rollout.rewards import (
    ClippedReward,
    FunctionReward,
    LengthReward,
    ModelReward,
    Patient,
    Reward,
    UnfinishedPenalty,
    WeightedSum,
)
from turnwise.run.errors import InputError, SettingError
from turnwise.run.folder import digest
from turnwise.run.rehearsal import at_most

STANDARDISED_ON = 256
"""prompts whose replies put a reward model's rewards at mean 0 and deviation 1"""


def prepare(
    algorithm: Algorithm,
    config: Any,
    prompts: Any,
    policy: Any,
    reward: Any,
    settings: FeedbackSettings,
    replies: ReplySettings,
    shaping: RewardShaping,
    m: Machine,
) -> Job[Policy]:
    """Open the policy, make the reward, and try it on two replies before anything is written."""
    replies = rehearsed(replies)
    parts = find_prompts(prompts, settings.heldout)
    source, everything = parts[0].source, [*parts[0], *parts[1]]
    found, reward_name = find_reward(reward, parts[0].text)
    gold = gold_of(replies.gold, [row.prompt for row in everything])
    speaker = open_speaker(policy, settings.lora_rank)
    speaker.policy.to(m.device)
    scorer = found if isinstance(found, RewardScorer) else None
    fitting = {row.prompt for row in _with_room(everything, speaker, scorer, replies.max_new_tokens, m)}
    learnt, held = ([row for row in part if row.prompt in fitting] for part in parts)
    if not learnt:
        raise InputError(f"{source}: only held-out prompts leave room for a reply")
    asked, columns = [row.prompt for row in learnt], [row.columns for row in learnt]
    judge: Any = found
    if scorer is not None:
        judge = _of_model(scorer, reward_name, shaping.doubt, speaker, asked, replies.max_new_tokens, m)
    judge = _shaped(judge, shaping)
    # Two replies are judged before anything is written: a reward that fails is found now, not after an hour.
    tried = sample_replies(
        speaker.policy,
        speaker.chat,
        asked[:2],
        seed=0,
        max_new_tokens=replies.max_new_tokens,
        columns=columns[:2],
    )
    if np.isnan(judge(tried)).all():
        m.warn(f"{reward_name} has no opinion of the {len(tried)} replies that were tried")
    judge = Patient(judge, shaping.reward_retries, shaping.reward_wait, m.warn)
    talk = OneTurn(
        speaker.chat,
        asked,
        judge,
        gold,
        columns=columns,
        max_new_tokens=replies.max_new_tokens,
        decoding=Decoding(),
    )
    counts = {"prompts": len(learnt), "held_out": len(held)}
    task = source if source in TASKS else speaker.task
    apart = held or learnt

    def finish() -> tuple[Policy, dict[str, Any]]:
        made, facts = finish_speaker(
            speaker,
            m,
            replies,
            [row.prompt for row in apart],
            held_out=bool(held),
            reward=judge,
            gold=gold,
            columns=[row.columns for row in apart],
        )
        return made, facts | counts | {"task": task}

    few = replace(config, steps=min(2, config.steps))
    trial = Trial(lambda run: algorithm.module.train(few, talk, speaker.policy, run, m.seed), few.steps)
    sizes = {"algorithm": algorithm.name, **counts, "parameters": parameter_count(speaker.policy.lm)}
    began = {"policy": speaker.name, "prompts": source, "reward": reward_name, "task": task}
    return Job(
        algorithm=algorithm,
        settings=(began, m.run, settings, replies, shaping, config),
        data=digest(everything),
        plan=Plan(sizes, config.steps, "steps", trial),
        train=lambda run: algorithm.module.train(config, talk, speaker.policy, run, m.seed),
        finish=finish,
        warnings=_warnings(parts),
    )


def find_prompts(source: Any, heldout: float) -> tuple[Prompts, Prompts]:
    """(prompts to learn from, prompts held out): of a task by its name, of a path, or of rows in memory."""
    own = TASKS[source].prompts if isinstance(source, str) and source in TASKS else None
    if own is not None:
        learnt, held = (Prompts(tuple(map(PromptRow, part)), source) for part in own())
        return learnt, held
    return read_prompts(source).split(heldout)


def _warnings(parts: tuple[Prompts, Prompts]) -> list[str]:
    found = []
    if repeated := parts[0].repeated:
        found.append(f"{repeated:,} rows repeat an earlier prompt with other columns, and are left out")
    if not parts[1]:
        found.append(f"none of {len(parts[0]):,} prompts is held out: what is measured, it has learnt from")
    return found


def find_reward(reward: Any, text: bool = False) -> tuple[Any, str]:
    """(what judges, how the run's config records it).

    `reward`: a reward model (in memory, or its run folder), any function in TRL's signature, such a function
    as `module:function`, the built-in task whose gold is known by its name, or a `Reward`. A function is
    given plain text if `text`.
    """
    if isinstance(reward, Judge):
        return reward.scorer, "a reward model in memory" if reward.folder is None else str(reward.folder)
    if isinstance(reward, RewardScorer):
        return reward, "a reward model in memory"
    if isinstance(reward, str | Path):
        return _named_reward(str(reward), text), str(reward)
    if not callable(reward):
        raise TypeError(f"reward is {type(reward).__name__}; expected a reward model, a function, or a name")
    if isinstance(reward, _REWARDS):
        return reward, type(reward).__name__
    return FunctionReward(reward, text), f"{reward.__module__}:{getattr(reward, '__qualname__', 'function')}"


_REWARDS = (ClippedReward, FunctionReward, ModelReward, LengthReward, UnfinishedPenalty, WeightedSum)
"""rewards of ours, which take replies; any other function is in TRL's signature"""


def _named_reward(name: str, text: bool) -> Any:
    if name in TASKS and TASKS[name].worth is not None:
        return gold_of(name, ())
    if Path(name).is_dir():
        return load_reward(name)
    if ":" in name:
        return FunctionReward(_function_of(name), text)
    golden = ", ".join(row.name for row in TASKS.values() if row.worth is not None)
    expected = "the run folder of a reward model (train reward), a function as module:function, or " + golden
    raise SettingError("reward", name, expected)


def _function_of(name: str) -> Callable[..., Any]:
    """`module:function`, looked for in the working directory too."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as e:
        raise SettingError("reward", name, f"module:function that can be imported ({e})") from e
    if not callable(found):
        raise SettingError("reward", name, f"a function; found {type(found).__name__}")
    return found


def _with_room(
    asked: Sequence[Any], s: Speaker, scorer: RewardScorer | None, max_new_tokens: int, m: Machine
) -> list[Any]:
    """Prompts after which there is room for a reply, for the policy and for the model that judges it."""
    kept = [x for x in asked if has_room(s.policy, s.chat, x.prompt, max_new_tokens)]
    context = s.context
    if scorer is not None:
        context = min(context, scorer.context)
        own = scorer.chat
        kept = [x for x in kept if len(own.opening(x.prompt)) + max_new_tokens + 1 <= scorer.context]
    why = f"prompts leave no room for {max_new_tokens} tokens in the context of {context}"
    if not kept and asked:
        raise InputError(
            f"all {len(asked):,} {why}; expected shorter replies (max_new_tokens), shorter prompts, or a "
            "longer context"
        )
    if len(kept) < len(asked):
        m.warn(f"{len(asked) - len(kept):,} of {len(asked):,} {why}; left out")
    return kept


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


def _of_model(
    scorer: RewardScorer,
    name: str,
    doubt: float,
    s: Speaker,
    prompts: Sequence[Any],
    max_new_tokens: int,
    m: Machine,
) -> Reward:
    """A reward model's opinion, standardised on replies of the policy before training."""
    scorer.model.to(m.device)
    if doubt and scorer.members == 1:
        expected = f"0: {name} is one model, which has no doubt; an ensemble (ensemble of 2 or more) has"
        raise SettingError("doubt", doubt, expected)
    chat = scorer.chat
    same = scorer.tokenizer.get_vocab() == s.tokenizer.get_vocab() and chat.stop == s.chat.stop
    same = same and chat.opening(prompts[0]) == s.chat.opening(prompts[0])
    model = ModelReward(scorer.score, None if same else chat, doubt=doubt)
    # Mean 0 and deviation 1 over the policy's own replies, so that beta means the same for every model.
    few = list(prompts)[: at_most(8, STANDARDISED_ON)]
    own = sample_replies(s.policy, s.chat, few, group=2, seed=m.seed + 7, max_new_tokens=max_new_tokens)
    try:
        return model.standardised_on(own)
    except ValueError as e:
        raise InputError(f"reward {name}: {e}") from e
