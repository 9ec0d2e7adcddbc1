"""What a run that plans leaves behind: its model as a problem, its result, and its playbook."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.algorithms.acts import pomdp
from turnwise.data.acts.talks import Codes
from turnwise.data.dialogue import Dialogue
from turnwise.data.splits.choices import evenly
from turnwise.evaluation.measures.intervals import mean_interval
from turnwise.evaluation.measures.playbook.make import TALKS, make_playbook
from turnwise.evaluation.measures.playbook.overlooked import measure_overlooked
from turnwise.evaluation.measures.playbook.plan import Plan as Shown
from turnwise.evaluation.measures.playbook.predictors import measure_fit
from turnwise.evaluation.measures.playbook.schema import Fit, Warned, Worth
from turnwise.evaluation.measures.playbook.sentences import Held
from turnwise.exact.files.write import write_pomdp
from turnwise.exact.learning.first_look import with_first_look
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.sequences import Sequences
from turnwise.recipes.training.acts.agents import Read
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.acts.clone import Clone
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.run.folder import write_json
from turnwise.run.rehearsal import rehearsing

MODEL, PROBLEM, WORDS = "model.npz", "model.pomdp", "model.json"


@dataclass(frozen=True)
class Material:
    """What is learnt from, and with which acts."""

    read: Read
    data: Sequences
    voice: LoggedVoice
    allowed: np.ndarray
    clone: Clone | None


def write_model(out: Path, config: pomdp.Config, model: LearntModel, codes: Codes) -> None:
    """The main model: as numbers, as a problem that solvers take, and what its short names stand for."""
    model.save(out / MODEL)
    longest = model.longest or 1
    problem = with_first_look(model.pomdp(config.discount, name="learnt"))
    write_pomdp(problem, out / PROBLEM)

    def words(book: Any, act: int) -> dict[str, Any]:
        examples = book.examples(act)[:5]
        return {"name": book.names[act], "sentences": [e.template for e in examples]}

    partner = [words(codes.partner, i) for i in range(len(codes.partner.names))]
    write_json(
        out / WORDS,
        {
            "actions": {f"a{i}": words(codes.agent, i) for i in range(len(codes.acts))},
            "observations": {"o0": {"name": codes.answers[0], "sentences": []}}
            | {f"o{i}": x for i, x in enumerate(partner, 1)},
            "first_observations": {
                f"f{i}": words(codes.opening, i) for i in range(len(codes.openings)) if problem is not model
            },
            "states": model.shape[0],
            "longest": longest if model.longest is not None else None,
            "note": "State s1@2 is hidden state 1 at the third turn. If there are several openings, the "
            "first action has no effect but to show one.",
        },
    )


def facts_of(
    config: pomdp.Config, material: Material, learnt: pomdp.Learnt, planned: pomdp.Planned
) -> dict[str, Any]:
    """Entries of the run's result."""
    returns = [float(t.rewards.sum()) for t in material.read.logs]
    e = mean_interval(returns, rng=np.random.default_rng(0), resamples=1000) if len(returns) > 1 else None
    low, high = (float(x) for x in np.quantile(planned.worth, [0.025, 0.975]))
    worth: list[Worth] = [
        {
            "role": "predicted",
            "name": "this plan, in models of the logs",
            "mean": float(planned.worth.mean()),
            "low": low,
            "high": high,
            "n": len(planned.worth),
            "note": "simulated in the model that was learnt and in those of resampled logs",
        },
        {
            "role": "logged",
            "name": "the logged agent",
            "mean": float(np.mean(returns)),
            "low": None if e is None else e.low,
            "high": None if e is None else e.high,
            "n": len(returns),
        },
    ]
    model = learnt.models[0]
    return {
        "states": model.shape[0],
        "smoothing": learnt.smoothing,
        "longest": model.longest,
        "acts": list(material.read.codes.acts),
        "answers": list(material.read.codes.answers),
        "worth": worth,
        **planned.facts(),
        "conversations": len(material.read.logs),
    }


def playbook_of(
    material: Material,
    learnt: pomdp.Learnt,
    planned: pomdp.Planned,
    worth: Sequence[Worth],
    candidates: Sequence[Dialogue],
    m: Machine,
) -> dict[str, Any]:
    """`playbook.json`, with what was measured on the way. Warns of what the warnings say."""
    read, rng = material.read, np.random.default_rng((m.seed, 4))
    shown = Shown(planned.planner, planned.copies)
    warned = measure_overlooked(shown, read.logs, read.learnt[0], rng)
    for w in warned:
        if (text := _in_words(w)) is not None:
            m.warn(text)
    solution = planned.solution
    talks = [candidates[i] for i in evenly(len(candidates), TALKS).tolist()]
    document = make_playbook(
        shown,
        read.codes,
        read.logs,
        [Held(d) for d in talks],
        title=f"{len(read.logs):,} conversations",
        worth=worth,
        bounds={
            "lower": solution.lower,
            "upper": solution.upper,
            "seconds": solution.seconds,
            "stopped": solution.stopped,
        },
        fit=_fit(material, learnt, m.seed),
        warnings=warned,
        rng=rng,
    )
    return dict(document)


def _in_words(w: Warned) -> str | None:
    """A sentence for a warning that applies."""
    low = w["gain"]["low"]
    if low is None or low <= 0:
        return None
    amount = f"{w['gain']['mean']:.3f} nats ({low:.3f} to {w['gain']['high']:.3f}, 95%)"
    if w["kind"] == "wording":
        return (
            f"the agent's wording predicts the next answer beyond its act and the belief, by {amount} an "
            "answer: acts are too coarse, or states too few"
        )
    return (
        "the partner's words predict what the logged agent did next beyond what its answer was read as, by "
        f"{amount} an act: the logged agent heard what the model does not, and what followed its acts may be "
        "due to that"
    )


def _fit(material: Material, learnt: pomdp.Learnt, seed: int) -> Fit:
    """How well the main model predicts conversations that were held out, beside what has no hidden state."""
    choices, choice, held = {}, learnt.choice, material.read.held_logs
    if choice is not None and len(choice.heldout) > 1:
        # Of the best number, and how much better it is by than the others, with the error of that.
        choices = {size: (-nats, choice.errors[size]) for size, (nats, _) in choice.heldout.items()}
    unseen = pomdp.sequences_of(held) if len(held) else material.data.select([])
    return measure_fit(
        learnt.models[0],
        material.data,
        unseen,
        choices=choices,
        chosen=choice.size if choice is not None and choices else None,
        recurrent=not rehearsing(),
        seed=seed,
    )
