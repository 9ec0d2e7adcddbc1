"""From logged conversations to a plan: acts, a POMDP learnt from them, a plan in it, an agent that speaks.

logs ──► learnt from | held out ──► acts ──► models of the logs and of resamples ──► plan ──► agent, playbook
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.algorithms.acts import pomdp
from turnwise.data.acts.talks import Codes
from turnwise.data.cards.logs import data_card, warnings
from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue
from turnwise.data.splits.choices import evenly, records_of, together, unrated
from turnwise.data.splits.heldout import split_heldout
from turnwise.evaluation.measures.intervals import mean_interval
from turnwise.evaluation.measures.playbook.make import TALKS, make_playbook
from turnwise.evaluation.measures.playbook.overlooked import measure_overlooked
from turnwise.evaluation.measures.playbook.plan import Plan as Shown
from turnwise.evaluation.measures.playbook.predictors import measure_fit
from turnwise.evaluation.measures.playbook.schema import Fit, Warned, Worth
from turnwise.evaluation.measures.playbook.sentences import Held
from turnwise.exact.files.write import write_pomdp
from turnwise.exact.learning.climb import Notes
from turnwise.exact.learning.first_look import with_first_look
from turnwise.exact.learning.fit import iterations_of
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.sequences import Sequences
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.settings.train import ActSettings
from turnwise.recipes.tasks import task_of
from turnwise.recipes.trained import ActPolicy, held_of, open_policy
from turnwise.recipes.training.act_agents import Read, book_of, digest_of_codes, doubts_of, read_acts, sayable
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.logs import expect_outcomes
from turnwise.recipes.training.machine import Machine
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import logged_acts
from turnwise.rollout.acts.clone import Clone
from turnwise.rollout.acts.conversations import LONGEST
from turnwise.rollout.acts.model_voice import ModelVoice
from turnwise.rollout.acts.plan import PlanChooser
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.run.errors import InputError, Interrupted, SettingError
from turnwise.run.files.digests import digest_of
from turnwise.run.files.whole import whole_file
from turnwise.run.folder import digest, write_json
from turnwise.run.rehearsal import at_most, rehearsing
from turnwise.run.training import TrainingRun

NOTES = "learning.npz"
"""what EM has reached, from which a stopped run goes on"""
MODEL, PROBLEM, WORDS, PLAYBOOK = "model.npz", "model.pomdp", "model.json", "playbook.json"
LOGGED = 10
"""iterations of EM between lines of metrics"""
TYPICAL = 0.4, 0.1
"""shares of the iterations, at most, that starts and other climbs take: .24 to .55, and .02 to .23, on logs
of 1,200 and 8,400 turns and on episodes of three problems"""
REHEARSED = 2
"""starts, iterations and trials of a rehearsal"""


@dataclass(frozen=True)
class _Material:
    """What is learnt from, and with which acts."""

    read: Read
    data: Sequences
    voice: LoggedVoice
    allowed: np.ndarray
    clone: Clone | None


def prepare(
    algorithm: Algorithm,
    config: pomdp.Config,
    logs: Logs,
    settings: ActSettings,
    acts: Any,
    policy: Any,
    m: Machine,
    apart: Logs | None = None,
) -> Job[ActPolicy]:
    """Split, and read as acts.

    `acts`: codebooks, or the folder of them or of their run; None: they are made of what is learnt from.
    `policy`: a clone, which speaks if the plan is lost, and words acts if `voice` is "model".
    """
    if config.voice == "model" and policy is None:
        raise SettingError("voice", config.voice, "logged, or a policy that is to word the acts")
    everything = logs if apart is None else together(logs, apart)
    if unrated(everything).all():
        raise InputError(
            f"{logs.source}: nobody said how the conversations went: there is nothing to plan for"
        )
    expect_outcomes(everything, logs.source)
    split = split_heldout(logs, settings.heldout, settings.heldout_by, apart)
    logs = logs if apart is None else replace(logs, items=together(logs, apart))
    if not split.learnt:
        raise SettingError("heldout", settings.heldout, "a smaller share: nothing is left to learn from")
    read = read_acts(split.learnt, split.held, acts, m.seed)
    clone, name = (None, None) if policy is None else open_policy(policy)
    stages = {} if acts is None else {read.source: held_of(acts)}
    stages |= {} if name is None else {name: held_of(policy)}
    material, doubts = _material(config, read, clone)
    made: dict[str, Any] = {}

    def train(run: TrainingRun) -> None:
        with searching(config, m, run) as (notes, watch):
            made["learnt"], made["planned"] = pomdp.train(
                rehearsed(config), material.data, material.allowed, m.seed, notes, watch
            )

    def finish() -> tuple[ActPolicy, dict[str, Any]]:
        agent = _agent(config, material, made["planned"])
        kept = HeldOut.after(settings.heldout, settings.heldout_by, split, stages)
        found = ActPolicy(agent, m.out, held=kept)
        found.save(m.out / "policy")
        kept.save(m.out)
        _write_model(m.out, config, made["learnt"].models[0], read.codes)
        facts = _facts(config, material, made["learnt"], made["planned"])
        worth = facts["worth"]
        document = _playbook(material, made["learnt"], made["planned"], worth, split.held or split.learnt, m)
        write_json(m.out / PLAYBOOK, document)
        facts |= {"policy": str(m.out / "policy"), "task": task, "warnings": document["warnings"]}
        (m.out / NOTES).unlink(missing_ok=True)
        return found, facts

    task = task_of(logs)
    card = data_card(logs, file=logs.source, split=split)
    source = {"logs": logs.source, "agent_role": logs[0].agent_role, "task": task, "acts": read.source}
    source |= logs.reading.facts() | ({} if name is None else {"policy": name})
    content = {"acts": digest_of_codes(read.codes)}
    if clone is not None:
        content["policy"] = digest_of(clone.lm, clone.tokenizer)
    sizes = {
        "algorithm": algorithm.name,
        "conversations": card["conversations"],
        "held_out": card["heldout"],
        "acts": len(read.codes.acts),
        "acts_planned_with": len(material.allowed),
        "answers": len(read.codes.answers),
        "openings": len(read.codes.openings),
        "decisions": len(material.data.actions),
    }
    return Job(
        algorithm=algorithm,
        settings=(source, m.run, settings, config),
        data=digest(records_of(logs)),
        content=content,
        plan=plan_of(config, material.data, m.seed, sizes),
        train=train,
        finish=finish,
        files={"card.json": card},
        warnings=[*logs.reading.notes(), *warnings(card, logs), *doubts],
    )


def _material(config: pomdp.Config, read: Read, clone: Any) -> tuple[_Material, list[str]]:
    """Which acts the plan may take: those that can be said and were logged often enough."""
    voice = LoggedVoice.of(book_of(read.codes))
    can, wordless = sayable(read, voice)
    data = pomdp.sequences_of(read.logs)
    other = book_of(read.codes).other
    tried = np.bincount(data.actions, minlength=len(can))
    known = np.ones(len(can), bool)
    if other is not None:
        known[other] = False
    often = tried >= config.least
    if not (can & known & often).any():  # few logs: better all that can be said than nothing
        often = tried > 0
    doubts = [*doubts_of(read, voice.speakable), *wordless]
    if rare := [read.codes.acts[a] for a in np.flatnonzero(can & known & ~often & (tried > 0))]:
        shown = ", ".join(map(repr, rare[:5])) + (", ..." if len(rare) > 5 else "")
        doubts.append(
            f"{len(rare)} of {len(can)} acts were logged less than {config.least} times and are not planned "
            f"with: {shown}"
        )
    if len(np.unique(data.actions)) == 1 and len(can) > 1:
        doubts.append("only one act was ever logged: there is nothing to choose")
    material = _Material(
        read, data, voice, np.flatnonzero(can & known & often), None if clone is None else Clone(clone)
    )
    return material, doubts


def _agent(config: pomdp.Config, material: _Material, planned: pomdp.Planned) -> ActAgent:
    codes, clone = material.read.codes, material.clone
    chooser = PlanChooser(planned.planner, codes.acts, planned.copies)
    voice: Any = material.voice
    if config.voice == "model":
        assert clone is not None
        voice = ModelVoice(clone, codes.agent, voice, config.tries)
    can = np.zeros(len(codes.acts), bool)
    can[material.allowed] = True
    # What the model makes nothing of leaves the belief as it was, and a plan on that is better than a whim:
    # only a clone, which can read the words themselves, takes over.
    patience = config.patience if clone is not None else LONGEST
    return ActAgent(codes, chooser, voice, logged_acts(material.read.logs, can), clone, patience)


def rehearsed(config: pomdp.Config) -> pomdp.Config:
    """The settings of a rehearsal, if this is one."""
    return replace(
        config,
        starts=at_most(REHEARSED, config.starts),
        iterations=at_most(REHEARSED, config.iterations),
        resamples=at_most(1, config.resamples),
        trials=at_most(REHEARSED, config.trials),
        simulations=at_most(20, config.simulations),
        most_states=at_most(REHEARSED, config.most_states),
    )


@contextlib.contextmanager
def searching(config: pomdp.Config, m: Machine, run: TrainingRun) -> Iterator[tuple[Notes, Any]]:
    """What keeps EM's work in the run folder, and what shows its progress. Interrupted after Ctrl-C."""
    path, arrays = m.out / NOTES, {}
    if path.is_file():
        with np.load(path, allow_pickle=False) as found:
            arrays = {name: found[name] for name in found.files}

    def keep(arrays: Mapping[str, np.ndarray]) -> None:
        with whole_file(path) as part, part.open("wb") as file:
            np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]

    done = 0
    with m.progress("EM", iterations_at_most(config)) as bar:

        def watch(what: str, value: float) -> None:
            nonlocal done
            if done % LOGGED == 0:
                run.log(done, {"log_likelihood": value})
            done += 1
            bar.at(min(done, iterations_at_most(config)), {f"{what}, nats a turn": value})

        try:
            yield Notes(arrays, keep), watch
        except KeyboardInterrupt:
            raise Interrupted(
                "stopped; what EM has reached is kept, and a resumed run goes on there"
            ) from None


def iterations_at_most(config: pomdp.Config) -> int:
    """Iterations of EM, at most."""
    effort = pomdp.Effort(starts=config.starts, iterations=config.iterations)
    again = config.resamples * max(1, config.iterations // 5)
    if config.states is not None and config.smoothing is not None:
        return iterations_of(effort) + again
    numbers = 1 if config.states is not None else config.most_states
    strengths = 1 if config.smoothing is not None else len(pomdp.STRENGTHS)
    return iterations_of(effort, numbers, strengths) + again


def _of_starts(config: pomdp.Config) -> int:
    """Iterations of the starts, at most: all but those of a last climb."""
    return iterations_of(pomdp.Effort(starts=config.starts, iterations=config.iterations)) - config.iterations


def plan_of(config: pomdp.Config, data: Sequences, seed: int, sizes: Mapping[str, int | str]) -> Plan:
    """What a run would be. Its trial is one start, to its end, and two iterations of each other climb.

    EM ends where an iteration gains next to nothing, most often long before it must. So the iterations to be
    expected, and the seconds with them, are `TYPICAL` shares of the most that there may be.
    """
    one = replace(config, starts=1, iterations=REHEARSED, resamples=0)
    most, starts, timed = iterations_at_most(config), _of_starts(config), _of_starts(one)
    total = round(TYPICAL[0] * starts + TYPICAL[1] * (most - starts))
    amount = round(TYPICAL[0] * timed) + iterations_at_most(one) - timed
    sizes = {**sizes, "iterations_at_most": most}
    trial = Trial(lambda run: pomdp.learn(one, data, seed, Notes()), amount)
    return Plan(sizes, max(1, total), "typical_iterations", trial)


def _write_model(out: Path, config: pomdp.Config, model: LearntModel, codes: Codes) -> None:
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


def _facts(
    config: pomdp.Config, material: _Material, learnt: pomdp.Learnt, planned: pomdp.Planned
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
        "bounds": {
            "lower": planned.solution.lower,
            "upper": planned.solution.upper,
            "seconds": planned.solution.seconds,
            "stopped": planned.solution.stopped,
        },
        "in_models": planned.worth.tolist(),
        "conversations": len(material.read.logs),
    }


def _playbook(
    material: _Material,
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


def _fit(material: _Material, learnt: pomdp.Learnt, seed: int) -> Fit:
    """How well the main model predicts conversations that were held out, beside what has no hidden state."""
    choices, choice, held = {}, learnt.choice, material.read.held_logs
    if choice is not None and len(choice.heldout) > 1:
        # Of the best number, and how much better it is by than the others, with the error of that.
        choices = {k: (-nats, choice.errors[k]) for k, (nats, _) in choice.heldout.items()}
    unseen = pomdp.sequences_of(held) if len(held) else material.data.select([])
    return measure_fit(
        learnt.models[0],
        material.data,
        unseen,
        choices=choices,
        chosen=learnt.models[0].shape[0] if choices else None,
        recurrent=not rehearsing(),
        seed=seed,
    )
