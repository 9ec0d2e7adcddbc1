"""From feedback to a reward model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from turnwise.data.cards.feedback import feedback_card, feedback_warnings
from turnwise.data.comparisons import fit_split, replies_of
from turnwise.data.dataset import FeedbackSet
from turnwise.data.feedback import Feedback, Score
from turnwise.data.splits.heldout import split_by_prompt
from turnwise.evaluation.measures.judges import cautions, judge
from turnwise.models.lm.classifier import adapted_trunks
from turnwise.models.lm.parts import parameter_count, trunk_of, width_of
from turnwise.models.lm.reward_model import RewardEnsemble, RewardModel
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.train import EnsembleSettings, FeedbackSettings, Start
from turnwise.recipes.trained import Judge
from turnwise.recipes.training.feedback.speakers import expect_alike, split_settings, what_fits
from turnwise.recipes.training.job import Job, passes_plan
from turnwise.recipes.training.language_model import base_name, begin, fresh
from turnwise.recipes.training.learning import expect_criterion, ready, settled
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.reward_scorer import RewardScorer
from turnwise.run.errors import SettingError
from turnwise.run.files.digests import digest_of
from turnwise.run.folder import digest, write_json
from turnwise.run.training import TrainingRun


def prepare(
    algorithm: Algorithm,
    config: Any,
    feedback: FeedbackSet,
    start: Start,
    settings: FeedbackSettings,
    members: EnsembleSettings,
    learning: Learning,
    m: Machine,
) -> Job[Judge]:
    """Split, build, encode."""
    base_name(start, learning)
    if learning.adapters == "kept":
        raise SettingError("adapters", "kept", "merged: a reward model is saved as a whole classifier")
    learnt, held = split_by_prompt(feedback, settings.heldout)
    split_settings(settings, len(feedback), len(learnt), len(held), m)
    scorer = _scorer(start, learning, members, learnt)
    content = {} if start.model is None else {"model": digest_of(scorer.model, scorer.tokenizer)}
    reward = algorithm.module
    fit, fit_held = fit_split(learnt, held, scorer.chat, scorer.context, feedback.source)
    rows, held_rows = fit.rows, fit_held.rows
    learnt, held = ([row.item for row in part] for part in (rows, held_rows))
    counts = {"learnt": len(learnt), "held_out": len(held)}
    card = {"file": feedback.source, **feedback_card(feedback), **counts}
    warnings = [*feedback.reading.notes(), *feedback_warnings(card), *cautions(held)]
    warnings += _far_from_standard(learnt)
    card |= {"reading": feedback.reading.notes(), **what_fits([fit, fit_held], scorer.context, m)}
    expect_alike(rows, settings.strategy, m)

    trained = replace(scorer, model=m.whole(scorer.model))

    def train(run: TrainingRun) -> None:
        reward.train(config, rows, held_rows, scorer.model, run, m.seed)
        m.gather(scorer.model, trained.model)

    def finish() -> tuple[Judge, dict[str, Any]]:
        scorer = trained
        scorer.model.float()  # it judges, and is saved, in single precision
        scorer.save(m.out / "reward")
        quality = judge(scorer.score, held, scorer.chat, learnt) if held else {}
        scorer.model.cpu()
        write_json(m.out / "quality.json", quality)
        facts = {"reward": str(m.out / "reward"), "parameters": parameter_count(scorer.model), **counts}
        facts["quality"] = {k: v for k, v in quality.items() if k != "worst"}
        return Judge(scorer, m.out), facts

    expect_criterion(learning, algorithm, len(held_rows))
    how = settled(
        scorer.model,
        [part.trunk for part in scorer.parts],
        learning,
        m.world,
        rows=config.batch_size,
        longest=max(row.size for row in rows),
        vocab=1,
        each=max(map(replies_of, rows)),
    )
    sizes = {"algorithm": algorithm.name, **counts, "parameters": parameter_count(scorer.model)}
    source = {"feedback": feedback.source, "kind": feedback.kind, **feedback.reading.facts()}
    return Job(
        algorithm=algorithm,
        settings=(source, m.run, settings, learning, members, start.facts(), config),
        data=digest(feedback),
        content=content,
        plan=passes_plan(
            sizes, config, rows, lambda c, few, run: reward.train(c, few, [], scorer.model, run, m.seed), how
        ),
        train=train,
        finish=finish,
        files={"card.json": card},
        warnings=warnings,
    )


def _scorer(
    start: Start, learning: Learning, members: EnsembleSettings, learnt: Sequence[Feedback]
) -> RewardScorer:
    """A reward model on the trunks asked for."""
    trunks = members.ensemble if members.apart == "trunks" else 1
    texts = [x.content for item in learnt for x in item.prompt]
    lm, tokenizer = begin(start, [*texts, *(t for item in learnt for t in item.replies)])
    if start.model is None:
        lms = [lm, *(fresh(start, tokenizer) for _ in range(trunks - 1))]
    else:
        once = bool(learning.lora_rank)  # adapters of several members share one model
        lms = [lm] * trunks if once else [lm, *(copy.deepcopy(lm) for _ in range(trunks - 1))]
    width = width_of(lms[0])
    # Adapters of several members share one frozen trunk; whole trunks are copies, or fresh ones.
    if learning.lora_rank:
        bases = adapted_trunks(lms[0], lambda x: ready(x, learning), trunks)
    else:
        bases = [trunk_of(ready(x, learning)) for x in lms]
    models = [RewardModel(base, width, ensemble=members.ensemble // trunks) for base in bases]
    return RewardScorer(models[0] if trunks == 1 else RewardEnsemble(models), tokenizer)


def _far_from_standard(items: Sequence[Feedback]) -> list[str]:
    """A warning if scores are far from what a head without a constant begins with."""
    scores = np.array([x.score for x in items if isinstance(x, Score)])
    if not len(scores) or (abs(scores.mean()) <= 3 and 0.1 <= scores.std() <= 10):
        return []
    return [
        f"scores have mean {scores.mean():.3g} and deviation {scores.std():.3g}; rewards begin at 0 and "
        "learn slowly to be large: scale scores to mean 0 and deviation 1"
    ]
