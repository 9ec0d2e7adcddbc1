"""From logs to a partner: who answers, ends a talk, and says what it earned.

logs ──► learnt from | held out ──► turned round ──► token rows ──► training ──► a partner, how well it tells
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from turnwise.algorithms.logs import partner
from turnwise.data.cards.logs import data_card, warnings
from turnwise.data.chat.format import ChatFormat
from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.data.order import STEPS, batch_size_for
from turnwise.data.other_side import TurnedLogs, scene_of
from turnwise.data.rows import lengths
from turnwise.data.splits.choices import chosen, evenly, records_of, together
from turnwise.data.splits.heldout import Split
from turnwise.data.tokens import Tokens
from turnwise.evaluation.measures.intervals import bootstrap_interval
from turnwise.evaluation.measures.partners.telling import measure_telling, sentences
from turnwise.models.lm.encoder_decoder.trunk import is_encoder_decoder
from turnwise.models.lm.lora import merged
from turnwise.models.lm.partner import PartnerModel
from turnwise.models.lm.parts import context_of, parameter_count, trunk_of
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.train import PartnerSettings, Start
from turnwise.recipes.tasks import task_of
from turnwise.recipes.trained import Counterpart
from turnwise.recipes.training.job import Job, passes_plan
from turnwise.recipes.training.language_model import base_name, begin
from turnwise.recipes.training.learning import expect_criterion, ready, settled
from turnwise.recipes.training.logs.clones import TOKENIZED
from turnwise.recipes.training.logs.material import encoded
from turnwise.recipes.training.logs.views import write_views
from turnwise.recipes.training.machine import Machine, batch_size_of
from turnwise.recipes.training.parts import expect_outcomes, origin, parted
from turnwise.rollout.agent import Acting
from turnwise.rollout.partners.fitted import FittedPartner, Scenes
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.digests import digest_of
from turnwise.run.folder import digest, write_json
from turnwise.run.training import TrainingRun


def prepare(
    algorithm: Algorithm,
    config: partner.Config,
    logs: Logs,
    settings: PartnerSettings,
    start: Start,
    learning: Learning,
    m: Machine,
    apart: Logs | None = None,
) -> Job[Counterpart]:
    """Split, turn round, encode and build. InputError for logs without outcomes, or without a partner."""
    everything = logs if apart is None else replace(logs, items=together(logs, apart))
    expect_outcomes(everything, logs.source)
    _expect_facts(everything, settings.facts)
    base_name(start, learning)
    if learning.adapters == "kept":
        raise SettingError("adapters", "kept", "merged: a partner is saved as a whole model")
    split, logs = parted(logs, settings.heldout, settings.heldout_by, apart, m)
    learnt, held = (TurnedLogs(part, settings.facts) for part in (split.learnt, split.held))
    if not learnt:
        raise InputError(f"{logs.source}: nobody but the agent speaks; expected conversations with a partner")
    heard = chosen(split.learnt, evenly(len(split.learnt), TOKENIZED))
    lm, tokenizer = begin(start, (spoken(x) for d in heard for x in d.messages))
    if is_encoder_decoder(lm):
        raise SettingError("model", start.model, "a causal language model, which reads its own turns again")
    content = {} if start.model is None else {"model": digest_of(lm, tokenizer)}
    chat, context = ChatFormat(tokenizer), context_of(lm)
    rows, heldout = encoded(learnt, held, chat, context, m)
    rows.cuts.expect_room(context)
    paid = _rewards(learnt)
    module = PartnerModel(ready(lm, learning), *_spread(paid))
    batch_size = batch_size_of(config, m, batch_size_for(len(rows), config.epochs, STEPS))
    config = replace(config, batch_size=batch_size)
    expect_criterion(learning, algorithm, len(heldout))
    size = {"rows": batch_size, "longest": lengths(rows).max(), "vocab": lm.config.vocab_size}
    how = settled(module, [trunk_of(module.policy.lm)], learning, m.world, **size)
    task = task_of(logs)
    card = data_card(logs, file=logs.source, lengths=rows.conversation_lengths, context=context, split=split,
                     cuts=rows.cuts)  # fmt: skip
    plain = m.whole(module)

    def train(c: partner.Config, some: Sequence[Tokens], run: TrainingRun) -> None:
        partner.train(c, some, heldout if some is rows else [], module, run, m.seed)

    def whole(run: TrainingRun) -> None:
        train(config, rows, run)
        m.gather(module, plain)

    def finish() -> tuple[Counterpart, dict[str, Any]]:
        fitted = _fitted(plain.cpu().eval(), tokenizer, split, settings, paid, task)
        told = measure_telling(fitted.model, rows, heldout)
        return _kept(fitted, told, (learnt, held), split, settings, m)

    sizes = {
        "algorithm": algorithm.name,
        "conversations": len(learnt),
        "held_out": len(held),
        "rows": len(rows),
        "tokens": int(lengths(rows).sum()),
        "parameters": parameter_count(module),
    }
    return Job(
        algorithm=algorithm,
        settings=(origin(logs, task), m.run, settings, learning, start.facts(), config),
        data=digest(records_of(logs)),
        content=content,
        plan=passes_plan(sizes, config, rows, train, how),
        train=whole,
        finish=finish,
        files={"card.json": card},
        warnings=[*logs.reading.notes(), *warnings(card, logs)],
    )


def _fitted(
    trained: PartnerModel,
    tokenizer: Any,
    split: Split,
    settings: PartnerSettings,
    paid: np.ndarray,
    task: str | None,
) -> FittedPartner:
    """The partner that speaks: whole weights, the scenes that were logged, no reward beyond those `paid`."""
    trained.policy.lm = merged(trained.policy.lm).float()
    return FittedPartner(
        trained.float(),
        tokenizer,
        Scenes.of(scene_of(d, settings.facts) for d in split.learnt),
        float(paid.min()),
        float(paid.max()),
        Acting(max_new_tokens=settings.max_new_tokens),
        task,
    )


def _kept(
    fitted: FittedPartner,
    told: dict[str, Any],
    turned: tuple[TurnedLogs, TurnedLogs],
    split: Split,
    settings: PartnerSettings,
    m: Machine,
) -> tuple[Counterpart, dict[str, Any]]:
    """Write the partner, what it learnt from and how well it tells; it, and what a result has of it."""
    learnt, held = turned
    fitted.save(m.out / "partner")
    kept = HeldOut.after(settings.heldout, settings.heldout_by, split)
    kept.save(m.out)
    write_views(m.out, fitted.agent, held or learnt)
    told |= {"lines": sentences(told)}
    write_json(m.out / "telling.json", told)
    facts: dict[str, Any] = {
        "task": fitted.task,
        "parameters": parameter_count(fitted.model),
        "conversations": len(learnt),
        "without_a_partner": len(split.learnt) - len(learnt),
        "facts": list(settings.facts),
        "scenes": len(fitted.scenes.scenes),
        "logged": _earned(split),
        "told": told,
    }
    return Counterpart(fitted, m.out, held=kept, result=facts), facts


def _expect_facts(logs: Sequence[Dialogue], facts: Sequence[str]) -> None:
    """SettingError for a column that no row has."""
    for name in facts:
        if all(d.metadata.get(name) is None for d in logs):
            known = sorted({k for d in logs[:100] for k in d.metadata})
            raise SettingError("facts", name, f"columns of the logs: {', '.join(known) or 'they have none'}")


def _rewards(turned: Sequence[Dialogue]) -> np.ndarray:
    """What the turns earned that are learnt from."""
    return np.array([t.reward for d in turned for t in d.turns])


def _spread(paid: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation; 1 in place of a deviation of 0, by which nothing can be divided."""
    mean, std = float(paid.mean()), float(paid.std())
    return mean, std if std > 1e-9 * (1 + abs(mean)) else 1.0


def _earned(split: Split) -> dict[str, float]:
    """Mean return of the logs that were learnt from, with its interval."""
    returns = np.array([d.undiscounted_return() for d in split.learnt])
    if len(returns) < 2:
        return {}
    low, high = bootstrap_interval(returns, rng=np.random.default_rng(0))
    return {"mean": float(returns.mean()), "low": low, "high": high}
