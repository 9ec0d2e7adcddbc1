"""A policy that learns to reply: opened, saved, and measured beside what it was before."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from turnwise.data.chat import ChatFormat
from turnwise.data.feedback import Prompt
from turnwise.evaluation.measures.replies import measure_replies, paired_gains
from turnwise.models.lm.lora import merged, with_lora
from turnwise.models.lm.parts import context_of, parameter_count
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.recipes.settings.train import FeedbackSettings, ReplySettings
from turnwise.recipes.trained import Policy, open_policy, task_of_policy
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.agent import Acting, Agent
from turnwise.rollout.rewards import Reward
from turnwise.run.errors import SettingError
from turnwise.run.folder import write_json
from turnwise.run.rehearsal import at_most

REHEARSED = 8
"""prompts that are replied to in a rehearsal"""
MEASURED_SEED = 1_000_003
"""added to the run's seed for the replies that are measured, so that they are not those learnt from"""


def rehearsed(replies: ReplySettings) -> ReplySettings:
    """The settings; in a rehearsal, few and short replies."""
    return replace(
        replies,
        max_new_tokens=at_most(8, replies.max_new_tokens),
        evaluation_replies=at_most(1, replies.evaluation_replies),
    )


@dataclass(frozen=True)
class Speaker:
    """A language model that is to learn, and as it was before."""

    policy: LmPolicy
    tokenizer: Any
    chat: ChatFormat
    context: int
    name: str
    """how the run's config records where it began"""
    before: Any = field(repr=False)
    """the language model as it was"""
    task: str | None = None
    """the task of the run where it began, if that knows one"""


def open_speaker(source: Any, lora_rank: int) -> Speaker:
    """The policy of a run, a folder or a name, ready to learn (adapters alone, if `lora_rank` is set)."""
    agent, name = open_policy(source)
    before = copy.deepcopy(agent.lm)
    lm = with_lora(agent.lm, lora_rank) if lora_rank else agent.lm
    return Speaker(
        LmPolicy(lm), agent.tokenizer, agent.chat, context_of(before), name, before, task_of_policy(source)
    )


def finish_speaker(
    s: Speaker,
    m: Machine,
    settings: ReplySettings,
    prompts: Sequence[Prompt],
    *,
    held_out: bool,
    reward: Reward | None,
    gold: Reward | None,
    columns: Sequence[Mapping[str, Any]] | None = None,
) -> tuple[Policy, dict[str, Any]]:
    """Save the policy; measure it, and what it was before, on the same `prompts`.

    Nothing is measured if neither `reward` nor `gold` judges.
    """
    prompts = prompts[: at_most(REHEARSED, len(prompts))]
    lm = merged(s.policy.lm)
    agent = Agent(lm, s.tokenizer, None, Acting(max_new_tokens=settings.max_new_tokens))
    agent.save(m.out / "policy")
    measured = _measured(s, lm, m, settings, prompts, reward, gold, columns)
    if measured:
        measured["held_out"] = len(prompts) if held_out else 0
        write_json(m.out / "replies.json", measured)
    lm.cpu()
    facts = {
        "policy": str(m.out / "policy"),
        "parameters": parameter_count(lm),
        "measured": {
            name: {k: v for k, v in measured[name].items() if k != "examples"}
            for name in ("before", "after", "gained")
            if name in measured
        },
    }
    return Policy(agent, m.out), facts


def _measured(
    s: Speaker,
    lm: Any,
    m: Machine,
    settings: ReplySettings,
    prompts: Sequence[Prompt],
    reward: Reward | None,
    gold: Reward | None,
    columns: Sequence[Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Replies before and after, and the difference on the same prompts."""
    judge = reward or gold
    if judge is None or not prompts:
        return {}
    s.before.to(next(lm.parameters()).device)
    reference = Reference(s.before)
    measured: dict[str, Any] = {}
    for name, model in (("before", s.before), ("after", lm)):
        measured[name] = measure_replies(
            LmPolicy(model),
            s.chat,
            prompts,
            group=settings.evaluation_replies,
            seed=m.seed + MEASURED_SEED,
            max_new_tokens=settings.max_new_tokens,
            reward=judge,
            gold=gold,
            reference=reference,
            columns=None if columns is None else columns[: len(prompts)],
        )
        if reward is None:  # gold stood in for it
            del measured[name]["reward"], measured[name]["by_prompt"]["reward"]
    measured["gained"] = paired_gains(measured["before"], measured["after"])
    for name in ("before", "after"):
        del measured[name]["by_prompt"]
    rewards = {measured[x]["reward"][k] for x in ("before", "after") if reward for k in ("low", "high")}
    if len(rewards) == 1 and None not in rewards:
        m.warn("the reward was the same for every prompt; there was nothing to learn from it")
    return measured


def split_settings(feedback: FeedbackSettings, items: int, learnt: int, held: int, m: Machine) -> None:
    """Refuse a held-out share that leaves nothing to learn from; warn if it keeps nothing."""
    if not learnt:
        raise SettingError("heldout", feedback.heldout, "a smaller share: nothing is left to learn from")
    if feedback.heldout and not held:
        m.warn(f"nothing is held out of {items:,} items (heldout is {feedback.heldout})")
