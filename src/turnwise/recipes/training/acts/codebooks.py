"""From logged conversations to acts: what each message means, by the log, a function, or discovered.

logs ──► learnt from | held out ──► codebooks ──► what they tell, whether they agree with themselves ──► page
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from turnwise.algorithms.acts import codebooks
from turnwise.data.acts.build import Built
from turnwise.data.acts.files import save_codes
from turnwise.data.acts.talks import Codes
from turnwise.data.acts.turns import ROUNDS
from turnwise.data.cards.logs import data_card
from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue
from turnwise.data.splits.choices import records_of
from turnwise.evaluation.measures.acts import describe_acts
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.settings.train import ActSettings
from turnwise.recipes.tasks import task_of
from turnwise.recipes.trained import Codebooks
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.machine import Machine
from turnwise.recipes.training.parts import origin, parted, sizes_of
from turnwise.run.folder import digest, write_json
from turnwise.run.training import TrainingRun

DOCUMENT = "acts.json"
"""what the page shows"""
TIMED = 500
"""conversations of a trial"""


def prepare(
    algorithm: Algorithm,
    config: codebooks.Config,
    logs: Logs,
    settings: ActSettings,
    m: Machine,
    apart: Logs | None = None,
) -> Job[Codebooks]:
    """Split. `apart`: conversations that are held out, beside `logs` that are all learnt from."""
    split, logs = parted(logs, settings.heldout, settings.heldout_by, apart, m)
    embed = _embedder(config, m)
    made: dict[str, Any] = {}

    def build(dialogues: Sequence[Dialogue], seed: int, done: Callable[[str], None]) -> Built:
        return codebooks.train(config, dialogues, embed, seed, done)

    def train(run: TrainingRun) -> None:
        total = 4 * ROUNDS * (1 + config.twice)
        with m.progress("acts", total) as progress:
            at = 0

            def done(what: str) -> None:
                nonlocal at
                at += 1
                progress.at(min(at, total))

            built = build(split.learnt, m.seed, done)
            again: list[Codes] = []
            if built.discovered is not None:
                for i in range(config.twice):
                    part = _half(split.learnt, m.seed + 1 + i)
                    again.append(build(part, m.seed + 1 + i, done).codes)
            progress.at(total)
        made["built"], made["again"] = built, again

    def finish() -> tuple[Codebooks, dict[str, Any]]:
        built = made["built"]
        for note in built.notes:
            m.warn(note)
        save_codes(built.codes, m.out / "acts")
        kept = HeldOut.after(settings.heldout, settings.heldout_by, split)
        kept.save(m.out)
        document = describe_acts(built, made["again"], split.held)
        write_json(m.out / DOCUMENT, document)
        facts = {"acts": str(m.out / "acts"), "task": task, "sides": _summary(document)}
        return Codebooks(built.codes, m.out, held=kept), facts

    task = task_of(logs)
    card = data_card(logs, file=logs.source, split=split)
    source = origin(logs, task)
    sizes = sizes_of(algorithm, card, turns=sum(len(d.turns) for d in split.learnt))
    few = split.learnt[:TIMED]
    trial = Trial(lambda run: build(few, m.seed, lambda what: None), len(few))
    total = len(split.learnt) * (1 + config.twice)
    return Job(
        algorithm=algorithm,
        settings=(source, m.run, settings, _recorded(config)),
        data=digest(records_of(logs)),
        plan=Plan(sizes, total, "conversations", trial),
        train=train,
        finish=finish,
        files={"card.json": card},
    )


def _embedder(config: codebooks.Config, m: Machine) -> Any:
    """What makes vectors of texts; None for sparse words."""
    if config.embed == "words":
        return None
    from turnwise.recipes.features import features_of

    return features_of(config.embed, quiet=m.silent)


def _half(dialogues: Sequence[Dialogue], seed: int) -> list[Dialogue]:
    """A random half of the conversations."""
    chosen = np.random.default_rng(seed).permutation(len(dialogues))[: max(1, len(dialogues) // 2)]
    return [dialogues[int(i)] for i in np.sort(chosen)]


def _recorded(config: codebooks.Config) -> dict[str, Any]:
    """Settings as a run records them: functions by name."""
    found = dict(vars(config))
    for name in ("agent_acts", "partner_acts"):
        if callable(value := found[name]):
            found[name] = f"{value.__module__}:{getattr(value, '__qualname__', 'function')}"
    return found


def _summary(document: dict[str, Any]) -> dict[str, Any]:
    """The document in a few numbers a side."""
    found = {}
    for side in document["sides"]:
        kept = {key: side.get(key) for key in ("way", "messages", "told", "agreement", "labels", "other")}
        found[side["side"]] = {"acts": len(side["acts"]), **{k: v for k, v in kept.items() if v is not None}}
    return found
