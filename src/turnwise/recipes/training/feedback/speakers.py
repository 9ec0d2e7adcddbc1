"""A policy that learns to reply: opened, saved, and measured beside what it was before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from turnwise.data.cards.feedback import context_warnings
from turnwise.data.chat.format import ChatFormat
from turnwise.data.comparisons import Fitted, replies_of
from turnwise.data.dataset import PromptRow
from turnwise.data.feedback import Prompt, shortened
from turnwise.evaluation.measures.replies import measure_replies, paired_gains, spread_over
from turnwise.models.lm.lora import merged
from turnwise.models.lm.parts import context_of, parameter_count
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.served import is_adapted
from turnwise.recipes.opened import open_policy, task_of_policy
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.train import FeedbackSettings, ReplySettings
from turnwise.recipes.trained import Policy
from turnwise.recipes.training.language_model import named_base
from turnwise.recipes.training.learning import kept_adapter, ready_beside
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.agent import Acting, Agent
from turnwise.rollout.engines.servers.engine import Engine
from turnwise.rollout.replies import Reply, has_room, sample_replies
from turnwise.rollout.rewards import Reward
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.digests import digest_of
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
    content: str = ""
    """digest of the language model as it was, and of its tokenizer"""
    task: str | None = None
    """the task of the run where it began, if that knows one"""
    learning: Learning = field(default_factory=Learning)
    base: str | None = None
    """what adapters that are kept name as their base"""


def open_speaker(source: Any, learning: Learning) -> Speaker:
    """The policy of a run, a folder or a name, ready to learn (adapters alone, if there are any)."""
    agent, name = open_policy(source)
    base = named_base(source) if learning.adapters == "kept" else None
    before = agent.lm
    lm = ready_beside(before, learning)
    return Speaker(
        policy=LmPolicy(lm),
        tokenizer=agent.tokenizer,
        chat=agent.chat,
        context=context_of(before),
        name=name,
        before=before,
        content=digest_of(before, agent.tokenizer),
        task=task_of_policy(source),
        learning=learning,
        base=base,
    )


@dataclass(frozen=True)
class Roomy:
    """Prompts after which there is room for a reply."""

    rows: list[PromptRow]
    shortened: int
    """prompts that lost their earliest messages"""
    left_out: int
    """prompts whose last message alone leaves no room"""


def with_room(s: Speaker, rows: Sequence[PromptRow], max_new_tokens: int) -> Roomy:
    """The rows, prompts shortened where needed, so that a reply fits the policy's context after each."""

    def fits(prompt: Prompt) -> bool:
        return has_room(s.policy, s.chat, prompt, max_new_tokens)

    found = [(row, shortened(row.prompt, fits)) for row in rows]
    kept = [row if p is row.prompt else replace(row, prompt=p) for row, p in found if p is not None]
    cut = sum(p is not None and p is not row.prompt for row, p in found)
    return Roomy(kept, cut, len(rows) - len(kept))


@dataclass(frozen=True)
class Asked:
    """What the policy is asked when it is measured."""

    roomy: Roomy
    held_out: bool
    """whether nothing was learnt from these prompts"""

    @property
    def prompts(self) -> list[Prompt]:
        """The prompts."""
        return [row.prompt for row in self.roomy.rows]

    @property
    def columns(self) -> list[Mapping[str, Any]]:
        """What else is known of each, for reward functions."""
        return [row.columns for row in self.roomy.rows]


def to_ask(s: Speaker, settings: ReplySettings, rows: Sequence[PromptRow], held_out: bool) -> Asked:
    """As many of the rows as are measured, with room for a reply."""
    places = spread_over(len(rows), at_most(REHEARSED, settings.evaluation_prompts))
    return Asked(with_room(s, [rows[i] for i in places], settings.max_new_tokens), held_out)


def two_replies(
    s: Speaker, settings: ReplySettings, rows: Sequence[PromptRow], engine: Engine | None = None
) -> list[Reply]:
    """Two replies, to be judged before anything is written: a reward that fails is found now, not after an
    hour.
    """
    if not rows:
        raise InputError(
            f"nothing can be measured: no prompt leaves room for {settings.max_new_tokens} tokens in the "
            f"context of {s.context}; expected shorter replies (max_new_tokens), or a longer context"
        )
    return sample_replies(
        s.policy,
        s.chat,
        [row.prompt for row in rows[:2]],
        seed=0,
        max_new_tokens=settings.max_new_tokens,
        columns=[row.columns for row in rows[:2]],
        engine=engine,
    )


def finish_speaker(
    s: Speaker,
    m: Machine,
    settings: ReplySettings,
    asked: Asked,
    rewards: Mapping[str, Reward],
    engine: Engine | None = None,
) -> tuple[Policy, dict[str, Any]]:
    """Save the policy; measure what it says, and what it said before, to the same prompts."""
    adapter = kept_adapter(s.policy.lm, s.learning, s.base)
    if engine is not None and is_adapted(s.policy.lm):
        engine.follow(s.policy)
        lm = merged(s.policy.lm).float()
        engine.folded(lm)
    else:
        lm = merged(s.policy.lm).float()
    acting = Acting(max_new_tokens=settings.max_new_tokens)
    agent = Agent(lm, s.tokenizer, None, acting, adapter)
    agent.save(m.out / "policy")
    measured = _measured(s, lm, m, settings, asked, rewards, engine)
    if measured:
        measured["held_out"] = len(asked.prompts) if asked.held_out else 0
        measured |= {"shortened": asked.roomy.shortened, "left_out": asked.roomy.left_out}
        write_json(m.out / "replies.json", measured)
    lm.cpu()
    facts = {"policy": str(m.out / "policy"), "parameters": parameter_count(lm), "measured": measured}
    return Policy(agent, m.out), facts


def _measured(
    s: Speaker,
    lm: Any,
    m: Machine,
    settings: ReplySettings,
    asked: Asked,
    rewards: Mapping[str, Reward],
    engine: Engine | None,
) -> dict[str, Any]:
    """Replies before and after, and the difference on the same prompts."""
    if not asked.prompts:
        return {}
    s.before.to(next(lm.parameters()).device)
    reference = Reference(s.before)
    measured: dict[str, Any] = {}
    for name, model in (("before", s.before), ("after", lm)):
        measured[name] = measure_replies(
            LmPolicy(model),
            s.chat,
            asked.prompts,
            group=settings.evaluation_replies,
            seed=m.seed + MEASURED_SEED,
            max_new_tokens=settings.max_new_tokens,
            rewards=rewards,
            reference=reference,
            columns=asked.columns,
            engine=engine,
        )
    gained = paired_gains(measured["before"], measured["after"])
    measured["gained"] = {name: x for name, x in gained.items() if name != "kl"}  # before, it is 0
    for name in ("before", "after"):
        del measured[name]["by_prompt"]
    sides = [measured[x].get("reward") for x in ("before", "after")]
    if "reward" in rewards and None in sides:
        m.warn("the reward has no opinion of any reply that was measured; there is no figure of it")
    ends = {side[k] for side in sides if side is not None for k in ("low", "high")}
    if len(ends) == 1 and None not in ends:
        m.warn("the reward was the same for every prompt; there was nothing to learn from it")
    return measured


def expect_alike(rows: Sequence[Any], strategy: str, m: Machine) -> None:
    """SettingError for what a model that is split cannot read: it is put together once for each number of
    replies of an item, and processes that have other numbers would wait for each other.
    """
    if m.world.splits and len({replies_of(row) for row in rows}) > 1:
        expected = "ddp: items have unequally many replies, which a model that is split cannot read"
        raise SettingError("strategy", strategy, expected)


def split_settings(feedback: FeedbackSettings, items: int, learnt: int, held: int, m: Machine) -> None:
    """Refuse a held-out share that leaves nothing to learn from; warn if it keeps nothing."""
    if not learnt:
        raise SettingError("heldout", feedback.heldout, "a smaller share: nothing is left to learn from")
    if feedback.heldout and not held:
        m.warn(f"nothing is held out of {items:,} items (heldout is {feedback.heldout})")


def what_fits(parts: Sequence[Fitted[Any]], context: int, m: Machine) -> dict[str, int]:
    """What a context did to feedback, as entries of its card; said to people, too."""
    card = {
        "context": context,
        "shortened": sum(part.shortened for part in parts),
        "left_out": sum(part.left_out for part in parts),
    }
    items = sum(len(part.rows) + part.left_out for part in parts)
    for text in context_warnings(card, items):
        m.warn(text)
    return card
