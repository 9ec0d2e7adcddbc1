"""From logged conversations to a policy: a clone of the agent that spoke, or values that guide a clone.

logs ──► learnt from | held out ──► token rows ──► training ──► policy, views for the page
"""

from __future__ import annotations

import copy
import heapq
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from turnwise.algorithms.logs import bc
from turnwise.data.cards.logs import data_card, warnings
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.data.disk.columns import Column
from turnwise.data.order import CRITIC_STEPS, STEPS, BatchOrder, batch_size_for
from turnwise.data.rows import Cuts, TokenRows, decision_counts, lengths, rescaled, token_rows
from turnwise.data.splits.choices import (
    chosen,
    evenly,
    records_of,
    returns_of,
    together,
    unrated,
)
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.conversation_views import (
    MOST,
    annotate_conversation,
    conversation_rows,
    how_many,
)
from turnwise.models.lm.critics import FrozenTrunk, TokenCritic, TurnCritic, on_trunk
from turnwise.models.lm.encoder_decoder.trunk import is_encoder_decoder
from turnwise.models.lm.lora import adapter_of, merged
from turnwise.models.lm.parts import context_of, parameter_count, trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.train import Ending, LogSettings, Start
from turnwise.recipes.tasks import task_of
from turnwise.recipes.trained import Policy, held_of, open_policy
from turnwise.recipes.training.endings import CLONE, end_with_estimate
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.language_model import base_name, begin
from turnwise.recipes.training.learning import (
    How,
    expect_criterion,
    kept_adapter,
    ready,
    ready_beside,
    settled,
)
from turnwise.recipes.training.logs.clones import judge_clone
from turnwise.recipes.training.logs.critics import judge_critic, spread
from turnwise.recipes.training.logs.frozen import FrozenFeatures, expect_frozen
from turnwise.recipes.training.machine import Machine, batch_size_of
from turnwise.recipes.training.parts import expect_outcomes, origin, parted
from turnwise.rollout.agent import Acting, Agent
from turnwise.run import distributed
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.digests import digest_of
from turnwise.run.folder import digest, write_text
from turnwise.run.training import TrainingRun

TOKENIZED = 100_000
"""conversations, at most, whose words a fresh tokenizer is trained on: its pieces have settled by then"""
MEASURED = 10_000
"""held-out conversations, at most, that losses and other figures are measured on: their intervals are narrow
by then, and a model would read millions of them longer than it learns"""
CANDIDATES = 2000
"""conversations, at most, from which those of the page are picked"""
EXTREMES = 5
"""conversations of the highest returns, and of the lowest, that are kept for the page in any case"""


@dataclass(frozen=True)
class Material:
    """What learns from which rows, and how an agent is made of it."""

    chat: ChatFormat
    context: int
    module: nn.Module
    trunk: Any
    """what reads the rows; None if everything has been read"""
    vocab: int
    rows: Sequence[Tokens]
    heldout: Sequence[Tokens]
    lengths: Column
    """tokens of every conversation, those that are not learnt from included"""
    cuts: Cuts
    """what of them does not fit the context"""
    agent: Callable[[nn.Module], Agent]
    begun_from: Any
    """what config.yaml records about the starting model"""
    content: Mapping[str, str]
    """digest of the starting model, if there is one, by the name of the setting that says where it lies"""
    judge: Callable[[Agent], dict[str, Any]]
    """what was learnt, as entries of the result: how a clone speaks, what a critic knows"""
    warnings: Sequence[str] = ()
    features: FrozenFeatures | None = None
    """what a frozen trunk is to read before anything learns"""
    beside: Sequence[nn.Module] = ()
    """models that are held beside what learns"""


def prepare(
    algorithm: Algorithm,
    config: Any,
    logs: Logs,
    settings: LogSettings,
    start: Start | Any,
    ending: Ending,
    learning: Learning,
    m: Machine,
    apart: Logs | None = None,
) -> Job[Policy]:
    """Split, encode and build.

    `start`: a model to clone into (`Start`), or the clone that values are for. `apart`: conversations that
    are held out, beside `logs` that are all learnt from.
    """
    if not isinstance(start, Start) or bc.filters(config):
        expect_outcomes(logs if apart is None else together(logs, apart), logs.source)
    before = None if isinstance(start, Start) else held_of(start)
    stages = {} if isinstance(start, Start) else {"the policy that it began with": before}
    alike = before is not None and (before.share, before.by) == (settings.heldout, settings.heldout_by)
    like = before.keys if before is not None and alike else ()
    split, logs = parted(logs, settings.heldout, settings.heldout_by, apart, m, like)
    learnt, held = split.learnt, split.held
    if before is not None and (others := before.keys.strange(split.keys)):
        m.warn(
            f"{others:,} of {len(held):,} held-out conversations are not among those that the policy's run "
            "held out: it may have learnt from them, and then held-out figures look better than they are"
        )
    if len(held) > MEASURED:
        m.warn(f"figures are measured on {MEASURED:,} of {len(held):,} held-out conversations, evenly spread")
    build = _clone if isinstance(start, Start) else _critic
    material = build(algorithm, config, learnt, held, settings, start, learning, m)
    # Settled here, so that the run's config tells what the data decided.
    few = STEPS if isinstance(start, Start) else CRITIC_STEPS
    decided = batch_size_for(len(material.rows), config.epochs, few)
    config = replace(config, batch_size=batch_size_of(config, m, decided))
    expect_criterion(learning, algorithm, len(material.heldout))
    how = settled(
        material.module,
        [] if material.trunk is None else [material.trunk],
        learning,
        m.world,
        rows=config.batch_size,
        longest=lengths(material.rows).max(),
        vocab=material.vocab,
        beside=material.beside,
        copies=int(hasattr(config, "polyak")),
    )
    task = task_of(logs)
    sizes = {"lengths": material.lengths, "context": material.context}
    material.cuts.expect_room(material.context)
    card = data_card(logs, file=logs.source, **sizes, split=split, cuts=material.cuts)
    # On several processes the module that learns is spread over them, and cannot act or be saved. Its twin
    # stays whole, and takes over the weights at the end.
    plain = copy.deepcopy(material.module) if m.world.size > 1 else material.module

    def train(c: Any, rows: Sequence[Tokens], heldout: Sequence[Tokens], run: TrainingRun) -> None:
        algorithm.module.train(c, rows, heldout, material.module, run, m.seed)

    def whole(run: TrainingRun) -> None:
        if material.features is not None:
            material.features.read(m)
        train(config, material.rows, material.heldout, run)
        if plain is not material.module:
            distributed.copy_whole(material.module, plain)

    def finish() -> tuple[Policy, dict[str, Any]]:
        agent = material.agent(plain.cpu())  # on a GPU it learnt there, and acts on the CPU
        agent.save(m.out / "policy")
        kept = HeldOut.after(settings.heldout, settings.heldout_by, split, stages)
        kept.save(m.out)
        # A conversation that was cut has no outcome to hold the values against: those come last.
        candidates = heapq.nsmallest(CANDIDATES, held or learnt, key=lambda d: not d.terminated)
        _write_views(m.out, agent, candidates)
        facts: dict[str, Any] = {
            "policy": str(m.out / "policy"),
            "task": task,
            "parameters": parameter_count(material.module),
            "conversations": len(learnt),
            "rows": len(material.rows),
        }
        facts |= material.judge(agent)
        policy = Policy(agent, m.out, held=kept)
        if ending.estimate and isinstance(start, Start) and not bc.filters(config):
            facts["estimate"] = {"none": CLONE}
        elif ending.estimate:
            facts |= end_with_estimate(policy, split, logs, settings.heldout_by, facts, m)
        return policy, facts

    source = origin(logs, task)
    return Job(
        algorithm=algorithm,
        settings=(source, m.run, settings, learning, material.begun_from, config),
        data=digest(records_of(logs)),
        content=material.content,
        plan=_plan(algorithm.name, config, material, card, train, how, m.seed),
        train=whole,
        finish=finish,
        files={"card.json": card},
        warnings=[
            *logs.reading.notes(),
            *material.chat.notes_on(logs),
            *warnings(card, logs),
            *material.warnings,
        ],
    )


def _clone(
    algorithm: Algorithm,
    config: bc.Config,
    learnt: Sequence[Dialogue],
    held: Sequence[Dialogue],
    settings: LogSettings,
    start: Start,
    learning: Learning,
    m: Machine,
) -> Material:
    """A language model to clone into, one that exists or a fresh one."""
    base = base_name(start, learning)
    if settings.frozen_trunk or settings.features is not None:
        name, value = ("frozen_trunk", True) if settings.frozen_trunk else ("features", settings.features)
        raise SettingError(name, value, f"nothing: {algorithm.title} trains the trunk; it is for critics")
    heard = chosen(learnt, evenly(len(learnt), TOKENIZED))
    lm, tokenizer = begin(start, (spoken(x) for d in heard for x in d.messages))
    content = {} if start.model is None else {"model": digest_of(lm, tokenizer)}
    chat, context = ChatFormat(tokenizer), context_of(lm)
    lm = ready(lm, learning)
    acting = Acting(max_new_tokens=settings.max_new_tokens)
    rows, heldout = _encoded(learnt, held, chat, context, m)
    kept: range | np.ndarray = range(len(learnt))
    if bc.filters(config):
        # A conversation that was cut before anybody said how it went is not among the best.
        kept = bc.keep(np.where(unrated(learnt), -np.inf, returns_of(learnt)), config)

    def agent(trained: nn.Module) -> Agent:
        assert isinstance(trained, LmPolicy)
        adapter = kept_adapter(trained.lm, learning, base)
        return Agent(merged(trained.lm).float(), tokenizer, None, acting, adapter)

    learnt_rows = rows.of(kept)  # those to learn from were encoded first, so that their places are the same

    def judge(trained: Agent) -> dict[str, Any]:
        return {"wording": judge_clone(trained, (learnt, learnt_rows), (_measured(held), heldout), m)}

    return Material(
        chat=chat,
        context=context,
        module=LmPolicy(lm),
        trunk=trunk_of(lm),
        vocab=lm.config.vocab_size,
        rows=learnt_rows,
        heldout=heldout,
        lengths=rows.conversation_lengths,
        cuts=rows.cuts,
        agent=agent,
        begun_from=start.facts(),
        judge=judge,
        content=content,
    )


def _critic(
    algorithm: Algorithm,
    c: Any,
    learnt: Sequence[Dialogue],
    held: Sequence[Dialogue],
    settings: LogSettings,
    policy: Any,
    learning: Learning,
    m: Machine,
) -> Material:
    """A critic on a copy of the cloned policy's trunk; its heads start at the mean return."""
    expect_frozen(settings.frozen_trunk, learning.lora_rank, settings.features, m)
    cloned, name = open_policy(policy)
    if is_encoder_decoder(cloned.lm):
        raise InputError(
            f"{name}: an encoder-decoder ({cloned.lm.config.model_type}), on which no values of tokens or "
            "turns are learnt; expected a causal language model, or an algorithm of clones, preferences or "
            "policy gradients (bc, dpo, rloo, grpo, ...)"
        )
    chat, context = cloned.chat, context_of(cloned.lm)
    trunk, tokens = trunk_of(cloned.lm), cloned.lm.get_output_embeddings().weight.detach()
    mean, std, doubts = spread(learnt)
    # It learns in standard deviations of the return: with the same rewards in another unit, the same steps.
    # It learns on a trunk of its own, so that the policy stays exactly the clone; or on none, if the policy's
    # has read everything beforehand.
    own = None if settings.frozen_trunk else ready_beside(cloned.lm, learning)
    learns = FrozenTrunk() if own is None else trunk_of(own)
    critic = algorithm.module.new_critic(c, learns, tokens, mean / std)
    acting = replace(algorithm.module.acting(c), max_new_tokens=settings.max_new_tokens, return_std=std)
    rows, heldout = _encoded(learnt, held, chat, context, m)
    estimand = algorithm.module.estimand(c)

    def agent(trained: nn.Module) -> Agent:
        if not isinstance(trained, TokenCritic | TurnCritic):  # it learns something that guides nobody
            return Agent(cloned.lm, cloned.tokenizer, None, acting)
        trained.scale_(std)  # back into the units of the task
        adapter = None if own is None else adapter_of(own, trained.trunk)
        critic = on_trunk(trained, trunk) if own is None else trained
        if adapter is not None:
            # What acts is what is saved and loaded: adapters beside the policy, in the policy's precision.
            critic.trunk = trunk_of(adapter.folded_into(cloned.lm))
        elif own is not None:
            critic.trunk = critic.trunk.float()
        return Agent(cloned.lm, cloned.tokenizer, critic, acting, critic_adapter=adapter)

    def judge(trained: Agent) -> dict[str, Any]:
        if trained.critic is None:
            return {}
        return {"critic": judge_critic(trained, estimand, (learnt, rows), (_measured(held), heldout), m)}

    read: Sequence[Sequence[Tokens]] = (rows, heldout)
    features = (
        FrozenFeatures(trunk, tokens.shape[1], read, settings.features) if settings.frozen_trunk else None
    )
    if features is not None:
        read = features.rows()
    return Material(
        chat=chat,
        context=context,
        module=critic,
        trunk=None if own is None else learns,
        vocab=len(tokens),
        beside=[cloned.lm],
        rows=rescaled(read[0], 1 / std),
        heldout=rescaled(read[1], 1 / std),
        lengths=rows.conversation_lengths,
        cuts=rows.cuts,
        agent=agent,
        begun_from={"policy": name},
        judge=judge,
        features=features,
        warnings=doubts,
        content={"policy": digest_of(cloned.lm, cloned.tokenizer)},
    )


def _encoded(
    learnt: Sequence[Dialogue], held: Sequence[Dialogue], chat: ChatFormat, context: int, m: Machine
) -> tuple[TokenRows, TokenRows]:
    """Rows to learn from, and held-out rows to measure on: everything is encoded here, once."""
    n = len(learnt) + len(held)
    with m.progress("encoding", n) as bar:
        rows = token_rows(itertools.chain(learnt, held), chat, context, bar.at)
    return rows.of(range(len(learnt))), rows.of(len(learnt) + evenly(len(held), MEASURED))


def _measured(held: Sequence[Dialogue]) -> Sequence[Dialogue]:
    return chosen(held, evenly(len(held), MEASURED))


def _plan(
    name: str,
    c: Any,
    material: Material,
    card: dict[str, Any],
    train: Callable[[Any, Sequence[Tokens], Sequence[Tokens], TrainingRun], None],
    how: How,
    seed: int,
) -> Plan:
    """What would be done; a few steps of it are the trial."""
    rows = material.rows
    order = BatchOrder(lengths(rows), c.batch_size, seed)
    few = [rows[i] for step in range(min(3, order.batches_per_epoch)) for i in order.rows(step)]
    sizes = {
        "algorithm": name,
        "conversations": card["conversations"],
        "held_out": card["heldout"],
        "rows": len(rows),
        "tokens": lengths(rows).sum(),
        "actions": decision_counts(rows).sum(),
        "parameters": parameter_count(material.module),
    }
    if material.features is not None:
        sizes["tokens_read_once"] = sizes["tokens"] + int(lengths(material.heldout).sum())
    once = replace(c, epochs=1.0)
    trial = Trial(lambda run: train(once, few, [], run), max(1, -(-len(few) // c.batch_size)))
    return Plan(sizes, max(1, round(c.epochs * order.batches_per_epoch)), "steps", trial, how)


def _write_views(folder: Path, agent: Agent, candidates: Sequence[Dialogue]) -> None:
    """Logged conversations with what the trained agent thinks of them, in their order.

    If there are more than a page holds, those of the highest and the lowest returns are among them.
    """
    order = sorted(range(len(candidates)), key=lambda i: candidates[i].undiscounted_return())
    ends = [i for pair in zip(order[::-1], order, strict=True) for i in pair][: 2 * EXTREMES]
    first = list(dict.fromkeys([*ends, *range(len(candidates))]))[:MOST]
    shown = [candidates[i] for i in first]
    found = conversation_rows(token_rows(shown, agent.chat, context_of(agent.lm)))
    kept = how_many([sum(map(len, rows)) for rows in found], parameter_count(agent.lm))
    views = {
        i: annotate_conversation(agent, d, rows, source="log")
        for i, d, rows in list(zip(first, shown, found, strict=True))[:kept]
    }
    lines = [json.dumps(views[i], ensure_ascii=False) for i in sorted(views)]
    write_text(folder / "conversations.jsonl", "".join(line + "\n" for line in lines))
