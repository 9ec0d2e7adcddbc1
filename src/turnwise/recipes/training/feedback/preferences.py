"""From feedback to a policy without a reward model: DPO and its kin, KTO, SimPO, ORPO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch

from turnwise.algorithms.feedback import dpo
from turnwise.data.cards.feedback import feedback_card, feedback_warnings
from turnwise.data.comparisons import fit_comparisons, fit_split, replies_of
from turnwise.data.dataset import FeedbackSet, PromptRow
from turnwise.data.feedback import Feedback, Like, Pair, Prompt, Ranking
from turnwise.data.splits.heldout import split_by_prompt
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.judges import cautions, judge
from turnwise.models.lm.parts import parameter_count, trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.train import FeedbackSettings, ReplySettings, RewardShaping
from turnwise.recipes.tasks import gold_of, task_of
from turnwise.recipes.trained import Policy
from turnwise.recipes.training.feedback.judges import (
    FoundJudge,
    apart,
    combined,
    find_judges,
    measuring_rewards,
    recorded,
)
from turnwise.recipes.training.feedback.speakers import (
    Asked,
    Speaker,
    expect_alike,
    finish_speaker,
    open_speaker,
    rehearsed,
    split_settings,
    to_ask,
    two_replies,
    what_fits,
)
from turnwise.recipes.training.job import Job, passes_plan
from turnwise.recipes.training.learning import How, expect_criterion, settled
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.rewards import Patient, Reward
from turnwise.run.errors import InputError, SettingError
from turnwise.run.folder import digest, write_json

WITH_REFERENCE = ("dpo", "kto")
"""algorithms whose implicit rewards are log-ratios to a reference"""
NO_PROBABILITY = ("members", "log_loss", "calibration", "by_margin")
"""entries of a reward model's quality, whose differences are log-odds; a policy's are not"""

BY_THRESHOLD = ("accuracy", "low", "high", "base_rate", "base_log_loss")
"""entries of likes' quality that need a threshold at 0"""


def prepare(
    algorithm: Algorithm,
    config: Any,
    feedback: FeedbackSet,
    policy: Any,
    reward: Any,
    settings: FeedbackSettings,
    replies: ReplySettings,
    learning: Learning,
    m: Machine,
) -> Job[Policy]:
    """Split, open the policy, encode. `reward` judges replies before and after; nothing learns from it."""
    name, replies = algorithm.name, rehearsed(replies)
    items = _usable(name, config, feedback, m)
    judges = find_judges(reward, feedback.text)
    gold = gold_of(replies.gold, {item.prompt for item in items})
    card = {"file": feedback.source, **feedback_card(feedback), "reading": feedback.reading.notes()}
    warnings = [*feedback.reading.notes(), *feedback_warnings(card)]
    if card["margins"] and card["margins"]["count"]:
        warnings = [f"{name} does not use the margins of pairs", *warnings]
    learnt, held = split_by_prompt(items, settings.heldout)
    split_settings(settings, len(items), len(learnt), len(held), m)
    # Only now is the policy loaded: what is wrong with the feedback is said within a second.
    speaker = open_speaker(policy, learning)
    fit, fit_held = fit_split(learnt, held, speaker.chat, speaker.context, feedback.source)
    rows, held_rows = fit.rows, fit_held.rows
    learnt, held = ([row.item for row in part] for part in (rows, held_rows))
    card |= what_fits([fit, fit_held], speaker.context, m)
    measured, rewards = _measuring(held or learnt, bool(held), judges, gold, speaker, replies, m)
    counts = {"learnt": len(learnt), "held_out": len(held)}
    task = task_of(items) or speaker.task

    expect_alike(rows, settings.strategy, m)
    trained = replace(speaker, policy=m.whole(speaker.policy))

    def train(c: Any, few: Sequence[Any], heldout: Sequence[Any], run: Any) -> None:
        algorithm.module.train(c, few, heldout, speaker.policy, run, m.seed)

    def whole(run: Any) -> None:
        train(config, rows, held_rows, run)
        m.gather(speaker.policy, trained.policy)

    def finish() -> tuple[Policy, dict[str, Any]]:
        speaker = trained
        asked, seen = (_comparable(part, feedback, speaker) for part in (held, learnt))
        quality = agreement(algorithm, config, speaker, asked, seen, learning.lora_rank, m) if held else {}
        write_json(m.out / "quality.json", quality)
        made, facts = finish_speaker(speaker, m, replies, measured, rewards)
        return made, {
            **facts,
            **counts,
            "task": task,
            "quality": {k: v for k, v in quality.items() if k != "worst"},
        }

    expect_criterion(learning, algorithm, len(held_rows))
    how = _how(name, config.batch_size, speaker, rows, m)
    sizes = {"algorithm": name, **counts, "parameters": parameter_count(speaker.policy.lm)}
    source = {"policy": speaker.name, "feedback": feedback.source, "kind": feedback.kind, "task": task}
    source |= {"reward": recorded(judges)} if judges else {}
    source |= feedback.reading.facts()
    return Job(
        algorithm=algorithm,
        settings=(source, m.run, settings, learning, replies, config),
        data=digest(feedback),
        content={"policy": speaker.content},
        plan=passes_plan(sizes, config, rows, lambda c, few, run: train(c, few, [], run), how),
        train=whole,
        finish=finish,
        files={"card.json": card | counts},
        warnings=[*warnings, *cautions(_comparable(held, feedback, speaker))],
    )


def _how(name: str, items: int, s: Speaker, rows: Sequence[Any], m: Machine) -> How:
    """How so many items go through the policy, and beside it through a reference if there is one."""
    return settled(
        s.policy,
        [trunk_of(s.policy.lm)],
        s.learning,
        m.world,
        rows=items,
        longest=max(row.size for row in rows),
        vocab=s.before.config.vocab_size,
        beside=[s.before],
        copies=int(name in WITH_REFERENCE and not s.learning.lora_rank),
        each=max(replies_of(row) for row in rows),
    )


def _usable(name: str, config: Any, feedback: FeedbackSet, m: Machine) -> list[Any]:
    """The items in the shape that the algorithm takes. InputError if it takes none such."""
    where, kind = feedback.source, type(feedback[0])
    if name == "kto":
        if kind is Like:
            return list(feedback)
        if kind is Pair:
            return _halves(where, cast(Sequence[Pair], feedback), m)
        found = f"{kind.__name__.lower()}s"
        raise InputError(
            f"{where}: expected likes (prompt, completion, label) or pairs for KTO; found {found}"
        )
    if kind is Pair:
        return list(feedback)
    if kind is Ranking and isinstance(config, dpo.Config):
        if config.formula != "ranking":
            raise SettingError("formula", config.formula, f"ranking: {where} holds rankings")
        return list(feedback)
    expected = "pairs or rankings" if name == "dpo" else "pairs"
    raise InputError(f"{where}: expected {expected} for {name.upper()}; found {kind.__name__.lower()}s")


def _halves(where: str, pairs: Sequence[Pair], m: Machine) -> list[Like]:
    """A like and a dislike for each pair that is no tie."""
    decided = [p for p in pairs if not p.tie]
    if len(decided) < len(pairs):
        ties = len(pairs) - len(decided)
        m.warn(f"{ties:,} of {len(pairs):,} pairs are ties: neither reply is liked; left out")
    if not decided:
        raise InputError(f"{where}: all pairs are ties; expected some with a chosen reply for KTO")
    return [
        Like(p.prompt, text, liked=i == 0, annotator=p.annotator, id=id)
        for p in decided
        for i, (text, id) in enumerate(zip(p.replies, _ids_of(p), strict=True))
    ]


def _ids_of(pair: Pair) -> tuple[str, str]:
    """Ids of the like and of the dislike that KTO makes of a pair."""
    return f"{pair.id}-0", f"{pair.id}-1"


def _comparable(held: Sequence[Any], feedback: Sequence[Feedback], s: Speaker) -> Sequence[Feedback]:
    """What the policy is asked about: the items of one side; the pairs, if its likes were made of pairs."""
    if not held or not isinstance(held[0], Like) or not isinstance(feedback[0], Pair):
        return held
    kept = {like.id for like in held}
    pairs = [p for p in cast(Sequence[Pair], feedback) if set(_ids_of(p)) <= kept]
    return [row.item for row in fit_comparisons(pairs, s.chat, s.context).rows]


def _measuring(
    items: Sequence[Feedback],
    held_out: bool,
    judges: Sequence[FoundJudge],
    gold: Reward | None,
    s: Speaker,
    replies: ReplySettings,
    m: Machine,
) -> tuple[Asked, dict[str, Reward]]:
    """The prompts on which the policy is measured, and what judges it there. Columns are the metadata of the
    first item of a prompt.
    """
    columns: dict[Prompt, Mapping[str, Any]] = {}
    for item in items:
        columns.setdefault(item.prompt, item.metadata)
    asked = to_ask(s, replies, [PromptRow(*x) for x in columns.items()], held_out)
    rewards: dict[str, Reward] = {} if gold is None else {"gold": gold}
    if judges:
        s.policy.to(m.device)
        each = measuring_rewards(judges, s, m)
        rewards = {"reward": combined(each, judges), **rewards, **apart(each, judges)}
        waits = RewardShaping()
        patient = {k: Patient(r, waits.reward_retries, waits.reward_wait, m.warn) for k, r in rewards.items()}
        rewards = dict(patient)
    if rewards:
        tried = two_replies(s, replies, asked.roomy.rows)
        for one in rewards.values():
            one(tried)
    if not asked.prompts:
        m.warn(
            f"what the policy says is not shown: no prompt leaves room for {replies.max_new_tokens} tokens "
            f"in the context of {s.context}"
        )
    return asked, rewards


def agreement(
    algorithm: Algorithm,
    config: Any,
    s: Speaker,
    items: Sequence[Feedback],
    learnt: Sequence[Feedback],
    lora_rank: int,
    m: Machine,
) -> dict[str, Any]:
    """Accuracy of the policy's implicit rewards on held-out `items`, with what needs no model beside it; of
    likes the AUC.

    Methods without a reference also report `before`, the accuracy before training.
    """
    if not items:
        return {}
    device = m.device
    start = s.policy.lm if lora_rank else s.before.to(device)
    reference = (Reference(start),) if algorithm.name in WITH_REFERENCE else ()

    def quality(policy: LmPolicy) -> dict[str, Any]:
        @torch.inference_mode()
        def score(rows: Sequence[Tokens]) -> np.ndarray:
            worth = algorithm.module.implicit_rewards(policy, *reference, rows, config)
            return worth.double().cpu().numpy()[None]

        return {k: v for k, v in judge(score, items, s.chat, learnt).items() if k not in NO_PROBABILITY}

    found = quality(s.policy)
    if isinstance(items[0], Like):
        # KTO sets no threshold on the log-ratio, so accuracy is undefined: AUC alone is reported.
        found = {k: v for k, v in found.items() if k not in BY_THRESHOLD}
    found["criterion"] = "implicit reward" if reference else "log-probability per token"
    if reference:
        return found
    return found | {"before": quality(LmPolicy(s.before.to(device))).get("accuracy")}
