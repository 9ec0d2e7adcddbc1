"""From logged conversations to a plan: acts, a POMDP learnt from them, a plan in it, an agent that speaks.

logs ──► learnt from | held out ──► acts ──► models of the logs and of resamples ──► plan ──► agent, playbook
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from turnwise.algorithms.acts import pomdp
from turnwise.data.acts.phrases import PhraseBook
from turnwise.data.acts.talks import Codes
from turnwise.data.cards.logs import data_card, warnings
from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue
from turnwise.data.splits.choices import records_of, together, unrated
from turnwise.exact.learning.climb import Notes
from turnwise.exact.learning.fit import FEW, iterations_of
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.roles import heard_after, roles_of
from turnwise.exact.learning.sequences import Sequences
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.opened import held_of, open_policy
from turnwise.recipes.settings.train import ActSettings, Ending
from turnwise.recipes.tasks import task_of
from turnwise.recipes.trained import ActPolicy
from turnwise.recipes.training.acts.agents import (
    Read,
    book_of,
    digest_of_codes,
    doubts_of,
    read_acts,
    sayable,
)
from turnwise.recipes.training.acts.playbooks import Material, facts_of, playbook_of, write_model
from turnwise.recipes.training.endings import end_with_estimate
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.machine import Machine
from turnwise.recipes.training.parts import expect_outcomes, origin, parted, sizes_of
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
from turnwise.run.rehearsal import at_most
from turnwise.run.training import TrainingRun

NOTES = "learning.npz"
"""what EM has reached, from which a stopped run goes on"""
PLAYBOOK = "playbook.json"
LOGGED = 10
"""iterations of EM between lines of metrics"""
TYPICAL = 0.4, 0.25, 0.1
"""shares of the iterations, at most, that starts for few states, for many, and other climbs take: .24 to .55
and .02 to .23 for the first and the last, on logs of 1,200 and 8,400 turns and on episodes of three problems;
the second is that of logs of HelpDesk, of which a dozen states that stay are as many as are tried"""
REHEARSED = 2
"""starts, iterations and trials of a rehearsal"""


def prepare(
    algorithm: Algorithm,
    config: pomdp.Config,
    logs: Logs,
    settings: ActSettings,
    acts: Any,
    policy: Any,
    ending: Ending,
    m: Machine,
    apart: Logs | None = None,
) -> Job[ActPolicy]:
    """Split, and read as acts.

    `acts`: codebooks, or the folder of them or of their run; None: they are made of what is learnt from.
    `policy`: a clone, which speaks if the plan is lost, and words acts if `voice` is "model".
    """
    if config.voice == "model" and policy is None:
        raise SettingError("voice", config.voice, "logged, or a policy that is to word the acts")
    _expect_rated(logs if apart is None else together(logs, apart), logs.source)
    split, logs = parted(logs, settings.heldout, settings.heldout_by, apart, m)
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
        codes = with_roles(read.codes, made["learnt"].models[0], material.data, m.seed)
        agent = _agent(config, material, made["planned"], codes)
        kept = HeldOut.after(settings.heldout, settings.heldout_by, split, stages)
        found = ActPolicy(agent, m.out, held=kept)
        found.save(m.out / "policy")
        kept.save(m.out)
        if (note := states_note(rehearsed(config), made["learnt"])) is not None:
            m.warn(note)
        write_model(m.out, config, made["learnt"].models[0], read.codes)
        facts = facts_of(config, material, made["learnt"], made["planned"])
        worth = facts["worth"]
        talks = split.held or split.learnt
        document = playbook_of(material, made["learnt"], made["planned"], worth, talks, m)
        write_json(m.out / PLAYBOOK, document)
        facts |= {"policy": str(m.out / "policy"), "task": task, "warnings": document["warnings"]}
        if ending.estimate:
            facts |= end_with_estimate(found, split, logs, settings.heldout_by, facts, m)
        (m.out / NOTES).unlink(missing_ok=True)
        return found, facts

    task = task_of(logs)
    card = data_card(logs, file=logs.source, split=split)
    source = origin(logs, task, acts=read.source, **({} if name is None else {"policy": name}))
    content = {"acts": digest_of_codes(read.codes)}
    if clone is not None:
        content["policy"] = digest_of(clone.lm, clone.tokenizer)
    numbers = {"acts_planned_with": len(material.allowed), "decisions": len(material.data.actions)}
    names = {name: len(getattr(read.codes, name)) for name in ("acts", "answers", "openings")}
    sizes = sizes_of(algorithm, card, **names, **numbers)
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


def states_note(config: pomdp.Config, learnt: pomdp.Learnt) -> str | None:
    """What is said where as many hidden states were chosen as might be: the best number may be larger."""
    if learnt.choice is None or config.states is not None:
        return None
    size, stays = learnt.choice.size, learnt.choice.size.phases == 1
    name, most = ("most_stays", config.most_stays) if stays else ("most_states", config.most_states)
    tried = max(x.states for x in learnt.choice.heldout if (x.phases == 1) == stays)
    if size.states < tried or tried <= REHEARSED:
        return None
    return (
        f"held-out conversations chose {size.states} hidden states{' that stay' if stays else ''}, the most "
        f"that were tried ({name} is {most}): more of them may explain more"
    )


def _expect_rated(logs: Sequence[Dialogue], source: str) -> None:
    """InputError if there are no outcomes to plan for."""
    if unrated(logs).all():
        raise InputError(f"{source}: nobody said how the conversations went: there is nothing to plan for")
    expect_outcomes(logs, source)


def _material(config: pomdp.Config, read: Read, clone: Any) -> tuple[Material, list[str]]:
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
    material = Material(
        read, data, voice, np.flatnonzero(can & known & often), None if clone is None else Clone(clone)
    )
    return material, doubts


def with_roles(codes: Codes, model: LearntModel, data: Sequences, seed: int) -> Codes:
    """The codebooks, of which the partner's also reads off words what answers tell alike in the model."""
    if not isinstance(codes.partner, PhraseBook):
        return codes
    # Symbol 0 is silence, which has no words.
    roles, follows = roles_of(model, data)[1:], heard_after(data)[:, 1:]
    return replace(codes, partner=codes.partner.with_roles(roles, follows, seed))


def _agent(config: pomdp.Config, material: Material, planned: pomdp.Planned, codes: Codes) -> ActAgent:
    clone = material.clone
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
        most_stays=at_most(REHEARSED, config.most_stays),
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
    # Of what mostly is, as few searches take all that they may; one that takes more waits at the last step.
    most = max(1, round(_typical(iterations_at_most(config))))
    with m.progress("EM", most) as bar:

        def watch(what: str, value: float) -> None:
            nonlocal done
            if done % LOGGED == 0:
                run.log(done, {"log_likelihood": value})
            done += 1
            bar.at(min(done, most - 1), {f"{what}, nats a turn": value})

        try:
            yield Notes(arrays, keep), watch
        except KeyboardInterrupt:
            raise Interrupted(
                "stopped; what EM has reached is kept, and a resumed run goes on there"
            ) from None


def iterations_at_most(config: pomdp.Config) -> tuple[int, int, int]:
    """Iterations of EM, at most: of starts for few states, of those for many, and of all other climbs."""
    effort = pomdp.Effort(starts=config.starts, iterations=config.iterations)
    sizes = pomdp.sizes_of(config, sys.maxsize)
    few, many, climbs = iterations_of(effort, sizes.moves, len(sizes.stays) + len(sizes.both))
    again = config.resamples * max(1, config.iterations // 5)
    if config.states is not None and config.smoothing is not None and config.hidden in ("moves", "stays"):
        return few, many, climbs + again
    strengths = 1 if config.smoothing is not None else len(pomdp.STRENGTHS)
    return few, many, climbs + (strengths + 1) * config.iterations + again


def _typical(most: Sequence[float]) -> float:
    """Iterations to be expected, where so many are the most."""
    return sum(share * n for share, n in zip(TYPICAL, most, strict=True))


def plan_of(config: pomdp.Config, data: Sequences, seed: int, sizes: Mapping[str, int | str]) -> Plan:
    """What a run would be. Its trial is one start, to its end, and two iterations of each other climb.

    EM ends where an iteration gains next to nothing, most often long before it must. So the iterations to be
    expected, and the seconds with them, are `TYPICAL` shares of the most that there may be.
    """
    kind = "stays" if config.hidden == "stays" else "moves"
    few = min(FEW, config.most_states)
    one = replace(
        config, hidden=kind, most_states=few, most_stays=few, starts=1, iterations=REHEARSED, resamples=0
    )
    most, total = sum(iterations_at_most(config)), round(_typical(iterations_at_most(config)))
    *starts, climbs = iterations_at_most(one)
    amount = round(_typical((*starts, 0))) + climbs
    sizes = {**sizes, "iterations_at_most": most}
    trial = Trial(lambda run: pomdp.learn(one, data, seed, Notes()), amount)
    return Plan(sizes, max(1, total), "typical_iterations", trial)
