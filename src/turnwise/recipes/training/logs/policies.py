"""From logged conversations to a policy: a clone of the agent that spoke, or values that guide a clone.

logs ──► learnt from | held out ──► token rows ──► training ──► policy, views for the page
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from turnwise.algorithms.logs import bc
from turnwise.data.cards.logs import data_card, warnings
from turnwise.data.dataset import Logs
from turnwise.data.order import CRITIC_STEPS, STEPS, BatchOrder, batch_size_for
from turnwise.data.rows import decision_counts, lengths
from turnwise.data.splits.choices import (
    records_of,
    together,
)
from turnwise.data.splits.heldout import Split
from turnwise.data.tokens import Tokens
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.opened import held_of
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.train import Ending, LogSettings, Start
from turnwise.recipes.tasks import task_of
from turnwise.recipes.trained import Policy
from turnwise.recipes.training.endings import CLONE, end_with_estimate
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.learning import (
    How,
    expect_criterion,
    settled,
)
from turnwise.recipes.training.logs.clones import clone_from
from turnwise.recipes.training.logs.critics import critic_on
from turnwise.recipes.training.logs.material import MEASURED, Material
from turnwise.recipes.training.logs.views import write_views
from turnwise.recipes.training.logs.weighed import weighed_by
from turnwise.recipes.training.machine import Machine, batch_size_of
from turnwise.recipes.training.parts import expect_outcomes, origin, parted, sizes_of
from turnwise.run.folder import digest
from turnwise.run.training import TrainingRun


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
    critic: Any = None,
) -> Job[Policy]:
    """Split, encode and build.

    `start`: a model to clone into (`Start`), or the clone that values are for. `apart`: conversations that
    are held out, beside `logs` that are all learnt from. `critic`: a policy with a critic, or its folder, for
    an algorithm that learns under one.
    """
    if not isinstance(start, Start) or bc.filters(config):
        expect_outcomes(logs if apart is None else together(logs, apart), logs.source)
    before = None if isinstance(start, Start) else held_of(start)
    stages = {} if isinstance(start, Start) else {"the policy that it began with": before}
    split, logs = _divided(logs, apart, settings, before, m)
    learnt, held = split.learnt, split.held
    material = _material(algorithm, config, split, settings, start, critic, learning, m)
    under = [] if material.under is None else [material.under.in_deviations()]
    if material.under is not None:
        stages["the critic that it learnt under"] = material.under.held
    # Settled here, so that the run's config tells what the data decided.
    few = STEPS if isinstance(start, Start) else CRITIC_STEPS
    decided = batch_size_for(len(material.rows), config.epochs, few)
    config = replace(config, batch_size=batch_size_of(config, m, decided))
    expect_criterion(learning, algorithm, len(material.heldout))
    how = _how(algorithm, config.batch_size, material, learning, m)
    task = task_of(logs)
    sizes = {"lengths": material.lengths, "context": material.context}
    material.cuts.expect_room(material.context)
    card = data_card(logs, file=logs.source, **sizes, split=split, cuts=material.cuts)
    plain = m.whole(material.module)

    def train(c: Any, rows: Sequence[Tokens], heldout: Sequence[Tokens], run: TrainingRun) -> None:
        algorithm.module.train(c, rows, heldout, material.module, *under, run, m.seed)

    def whole(run: TrainingRun) -> None:
        if material.features is not None:
            material.features.read(m)
        train(config, material.rows, material.heldout, run)
        m.gather(material.module, plain)

    def finish() -> tuple[Policy, dict[str, Any]]:
        agent = material.agent(plain.cpu())  # on a GPU it learnt there, and acts on the CPU
        agent.save(m.out / "policy")
        kept = HeldOut.after(settings.heldout, settings.heldout_by, split, stages)
        kept.save(m.out)
        write_views(m.out, agent, held or learnt)
        facts: dict[str, Any] = {"policy": str(m.out / "policy"), "task": task, **material.counts}
        facts |= {"conversations": len(learnt), **material.judge(agent)}
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
        plan=_plan(algorithm, config, material, card, train, how, m.seed),
        train=whole,
        finish=finish,
        files={"card.json": card},
        warnings=[*logs.reading.notes(), *warnings(card, logs), *material.notes_on(logs)],
    )


def _material(
    algorithm: Algorithm,
    config: Any,
    split: Split,
    settings: LogSettings,
    start: Start | Any,
    critic: Any,
    learning: Learning,
    m: Machine,
) -> Material:
    """What learns, from what: a clone, values beside a clone, or a clone under a critic."""
    if algorithm.holds == "a critic":
        return weighed_by(algorithm, critic, split.learnt, split.held, settings, start, learning, m)
    build = clone_from if isinstance(start, Start) else critic_on
    return build(algorithm, config, split.learnt, split.held, settings, start, learning, m)


def _how(algorithm: Algorithm, rows: int, material: Material, learning: Learning, m: Machine) -> How:
    """How `rows` rows go through what learns."""
    return settled(
        material.module,
        [] if material.trunk is None else [material.trunk],
        learning,
        m.world,
        rows=rows,
        longest=lengths(material.rows).max(),
        vocab=material.vocab,
        beside=material.beside,
        copies=int(algorithm.holds == "a slow copy"),
    )


def _divided(
    logs: Logs, apart: Logs | None, settings: LogSettings, before: HeldOut | None, m: Machine
) -> tuple[Split, Logs]:
    """What is learnt from and what is held out, and the logs of both.

    `before`: what the run of the policy held out. The same stays held out where that can be.
    """
    alike = before is not None and (before.share, before.by) == (settings.heldout, settings.heldout_by)
    like = before.keys if before is not None and alike else ()
    split, logs = parted(logs, settings.heldout, settings.heldout_by, apart, m, like)
    held = len(split.held)
    if before is not None and (others := before.keys.strange(split.keys)):
        m.warn(
            f"{others:,} of {held:,} held-out conversations are not among those that the policy's run "
            "held out: it may have learnt from them, and then held-out figures look better than they are"
        )
    if held > MEASURED:
        m.warn(f"figures are measured on {MEASURED:,} of {held:,} held-out conversations, evenly spread")
    return split, logs


def _plan(
    algorithm: Algorithm,
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
    sizes = sizes_of(
        algorithm,
        card,
        tokens=lengths(rows).sum(),
        actions=decision_counts(rows).sum(),
        **material.counts,
    )
    if material.features is not None:
        sizes["tokens_read_once"] = sizes["tokens"] + int(lengths(material.heldout).sum())
    once = replace(c, epochs=1.0)
    trial = Trial(lambda run: train(once, few, [], run), max(1, -(-len(few) // c.batch_size)))
    return Plan(sizes, max(1, round(c.epochs * order.batches_per_epoch)), "steps", trial, how)
