"""From logged conversations to an agent of acts: a clone of what was meant, or values beside it.

logs ──► learnt from | held out ──► acts, by codebooks ──► episodes ──► training ──► an agent that speaks
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.data.acts.build import build_codes
from turnwise.data.acts.pack import ActSymbols, act_episodes
from turnwise.data.acts.phrases import PhraseBook
from turnwise.data.acts.talks import ActLogs, Codes
from turnwise.data.cards.logs import data_card, warnings
from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.data.episode import Episode
from turnwise.data.order import CRITIC_STEPS, MOST_TALKS, BatchOrder, batch_size_for
from turnwise.data.splits.choices import chosen, evenly, records_of, together
from turnwise.evaluation.measures.conversation_views import MOST
from turnwise.evaluation.measures.critics.acts import measure_act_critic
from turnwise.models.agents.act_critic import ActCritic
from turnwise.models.agents.settings import MemorySpec
from turnwise.models.agents.spec import count_trainable
from turnwise.recipes.catalogue import Algorithm
from turnwise.recipes.held_out import HeldOut
from turnwise.recipes.opened import held_of, load_codebooks
from turnwise.recipes.settings.train import ActSettings, Ending
from turnwise.recipes.tasks import task_of
from turnwise.recipes.trained import ActPolicy, Codebooks
from turnwise.recipes.training.endings import end_with_estimate
from turnwise.recipes.training.job import Job, Plan, Trial
from turnwise.recipes.training.logs.critics import spread
from turnwise.recipes.training.machine import Machine, batch_size_of
from turnwise.recipes.training.parts import expect_outcomes, origin, parted, sizes_of
from turnwise.rollout.acts.agent import ActAgent
from turnwise.rollout.acts.chooser import Prefix, logged_acts
from turnwise.rollout.acts.network import ActActing, NetworkChooser
from turnwise.rollout.acts.voice import LoggedVoice
from turnwise.run.errors import InputError
from turnwise.run.files.digests import digest_of
from turnwise.run.folder import digest, write_json, write_text
from turnwise.run.training import TrainingRun

WORDED = 100
"""conversations in which it is tried whether acts can be said"""
Part = tuple[Sequence[Dialogue], list[Episode]]
"""conversations, and their acts in the same order, with rewards in the units of the task"""


@dataclass(frozen=True)
class Read:
    """The logs as acts."""

    codes: Codes
    logs: ActLogs
    """those that are learnt from"""
    held_logs: ActLogs
    """those that are held out"""
    learnt: Part
    held: Part
    source: str
    """where the codebooks come from"""
    notes: Sequence[str] = ()
    """what was noticed when they were made"""


def prepare(
    algorithm: Algorithm,
    config: Any,
    logs: Logs,
    settings: ActSettings,
    memory: MemorySpec,
    acts: Any,
    ending: Ending,
    m: Machine,
    apart: Logs | None = None,
) -> Job[ActPolicy]:
    """Split, read as acts, build.

    `acts`: codebooks, or the folder of them or of their run; None: they are made of what is learnt from.
    `apart`: conversations that are held out, beside `logs` that are all learnt from.
    """
    values = hasattr(config, "gamma")  # a clone has no use for outcomes
    if values:
        expect_outcomes(logs if apart is None else together(logs, apart), logs.source)
    split, logs = parted(logs, settings.heldout, settings.heldout_by, apart, m)
    read = read_acts(split.learnt, split.held, acts, m.seed)
    # It learns in standard deviations of the return: with the same rewards in another unit, the same steps.
    stages = {} if acts is None else {read.source: held_of(acts)}
    mean, std, doubts = spread(split.learnt) if values else (0.0, 1.0, [])
    rows, heldout = (_rescaled(part[1], 1 / std) for part in (read.learnt, read.held))
    decided = batch_size_for(len(rows), config.epochs, CRITIC_STEPS, MOST_TALKS)
    config = replace(config, batch_size=batch_size_of(config, m, decided))
    symbols = ActSymbols.of(read.codes)
    network = algorithm.module.network(memory, symbols.seen, symbols.acts)
    module = network.build(mean / std)
    voice = LoggedVoice.of(book_of(read.codes))
    unsaid, (can, wordless) = doubts_of(read, voice.speakable), sayable(read, voice)
    acting = ActActing(0.0) if not values else ActActing(config.beta, config.support, std)

    def train(c: Any, some: Sequence[Episode], apart: Sequence[Episode], run: TrainingRun) -> None:
        algorithm.module.train(c, some, apart, module, run, m.seed)

    def finish() -> tuple[ActPolicy, dict[str, Any]]:
        trained: Any = module.cpu()
        if isinstance(trained, ActCritic):
            trained.scale_(std)  # back into the units of the task
        chooser = NetworkChooser(trained.eval(), network, symbols, acting, tuple(map(bool, can)))
        agent = ActAgent(read.codes, chooser, voice, logged_acts(read.logs, can))
        kept = HeldOut.after(settings.heldout, settings.heldout_by, split, stages)
        policy = ActPolicy(agent, m.out, held=kept)
        policy.save(m.out / "policy")
        kept.save(m.out)
        facts: dict[str, Any] = {"policy": str(m.out / "policy"), "task": task, **counts}
        facts |= {"acts": list(read.codes.acts), "answers": list(read.codes.answers)}
        if isinstance(trained, ActCritic):
            facts["critic"] = _judged(algorithm, config, trained, read, std, m)
        _write_views(m.out, chooser, read.held if read.held[1] else read.learnt)
        if ending.estimate:
            facts |= end_with_estimate(policy, split, logs, settings.heldout_by, facts, m)
        return policy, facts

    task = task_of(logs)
    card = data_card(logs, file=logs.source, split=split)
    source = origin(logs, task, acts=read.source)
    counts = {"parameters": count_trainable(module), "conversations": len(split.learnt)}
    numbers = {"acts": symbols.acts, "answers": symbols.answers, "decisions": sum(map(len, rows))}
    sizes = sizes_of(algorithm, card, **numbers, parameters=counts["parameters"])
    return Job(
        algorithm=algorithm,
        settings=(source, m.run, settings, memory, config),
        data=digest(records_of(logs)),
        content={"acts": digest_of_codes(read.codes)},
        plan=_plan(config, rows, sizes, train, m.seed),
        train=lambda run: train(config, rows, heldout, run),
        finish=finish,
        files={"card.json": card},
        warnings=[*logs.reading.notes(), *warnings(card, logs), *doubts, *unsaid, *wordless],
    )


def _plan(
    c: Any,
    rows: Sequence[Episode],
    sizes: dict[str, Any],
    train: Callable[[Any, Sequence[Episode], Sequence[Episode], TrainingRun], None],
    seed: int,
) -> Plan:
    """What would be done; a few steps of it are the trial."""
    few, once = rows[: 3 * c.batch_size], replace(c, epochs=1.0)
    trial = Trial(lambda run: train(once, few, [], run), max(1, -(-len(few) // c.batch_size)))
    steps = BatchOrder([len(e) for e in rows], c.batch_size, seed).steps(c.epochs)
    return Plan(sizes, steps, "steps", trial)


def _judged(
    algorithm: Algorithm, config: Any, critic: ActCritic, read: Read, std: float, m: Machine
) -> dict[str, Any]:
    """How well a critic knows the returns, which critic.json keeps."""
    improved = algorithm.module.improved(config)
    found = measure_act_critic(
        critic, read.learnt, read.held, gamma=config.gamma, improved=improved, std=std, seed=m.seed
    )
    write_json(m.out / "critic.json", found)
    return found


def read_acts(learnt: Sequence[Dialogue], held: Sequence[Dialogue], acts: Any, seed: int) -> Read:
    """All conversations as acts."""
    source, notes = "made of these logs", ()
    if acts is None:
        built = build_codes(learnt, seed=seed)
        codes, notes = built.codes, built.notes
    elif isinstance(acts, Codes | Codebooks):
        codes = acts if isinstance(acts, Codes) else acts.codes
        source = "codebooks in memory" if isinstance(acts, Codes) else acts.name
    else:
        opened = load_codebooks(acts)
        codes, source = opened.codes, opened.name
    found = codes.talks(learnt)
    unseen = codes.talks(held) if held else replace(found, talks=())
    return Read(
        codes, found, unseen, (learnt, act_episodes(found)), (held, act_episodes(unseen)), source, notes
    )


def book_of(codes: Codes) -> PhraseBook:
    """The agent's codebook, whose sentences are what the agent says."""
    if not isinstance(codes.agent, PhraseBook):
        kind = type(codes.agent).__name__
        raise InputError(f"the codebook of the agent is {kind}; expected one that knows sentences to say")
    return codes.agent


def digest_of_codes(codes: Codes) -> str:
    """Of the names of all acts, and of all sentences."""
    books = (codes.agent, codes.partner, codes.opening)
    sentences = [list(b.phrases.templates) for b in books if isinstance(b, PhraseBook)]
    return digest_of(list(codes.acts), list(codes.answers), list(codes.openings), sentences)


def doubts_of(read: Read, can: np.ndarray) -> list[str]:
    """What is to be said of acts before anything learns from them."""
    found = list(read.notes)
    names = np.array(read.codes.acts)
    if can.sum() == 1:
        found.append(f"the agent has one act, {str(names[can][0])!r}: there is nothing to choose")
    known = np.arange(len(names)) != book_of(read.codes).other  # that one stands for what nobody can say
    silent = names[~can & known].tolist()
    if silent:
        shown = ", ".join(map(repr, silent[:5])) + (", ..." if len(silent) > 5 else "")
        found.append(
            f"no sentence is known for {len(silent)} of {len(names)} acts, which are never chosen: {shown}"
        )
    return found


def sayable(read: Read, voice: LoggedVoice) -> tuple[np.ndarray, list[str]]:
    """[A] bool, the acts that can be said in most conversations, and a warning if some cannot.

    An act whose sentences have slots that a conversation has nothing for cannot be said in it. If no act can
    be said in most of them, all that have a sentence are kept.
    """
    learnt = read.learnt[0]
    # Without their last turn: what was said in it cannot fill its own slots.
    talks = [learnt[i].messages[: _last_turn(learnt[i])] for i in evenly(len(learnt), WORDED).tolist()]
    can = voice.speakable & (np.mean([voice.speakable_in(talk) for talk in talks], 0) >= 0.5)
    names = [read.codes.acts[a] for a in np.flatnonzero(voice.speakable & ~can)]
    if not names:
        return can, []
    shown = ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")
    text = (
        f"{len(names)} of {len(can)} acts cannot be said in most conversations, whose words have nothing for "
        f"the slots of their sentences: {shown}. "
    )
    if can.any():
        return can, [text + "They are left out: the agent never chooses them"]
    return voice.speakable, [text + "No other acts are there, so where one cannot be said, another one is"]


def _last_turn(d: Dialogue) -> int:
    """Place of the agent's last message."""
    return max(i for i, m in enumerate(d.messages) if m.role == d.agent_role)


def _rescaled(episodes: Sequence[Episode], factor: float) -> list[Episode]:
    return [replace(e, rewards=e.rewards * factor) for e in episodes]


def _write_views(folder: Path, chooser: NetworkChooser, part: Part) -> None:
    """Logged conversations with what the network thinks of each turn; those that came to an end go first."""
    dialogues, episodes = part
    order = sorted(range(len(dialogues)), key=lambda i: not dialogues[i].terminated)
    shown = [order[i] for i in evenly(len(order), MOST).tolist()]
    lines = []
    for d, e in zip(chosen(dialogues, np.array(shown, int)), (episodes[i] for i in shown), strict=True):
        first = int(e.observations[0]) - chooser.symbols.answers
        answers = e.observations[1:]
        prefixes = [Prefix.of(first, e.actions[:k], answers[:k]) for k in range(len(e))]
        _, values = chooser.read(prefixes)
        turns: list[Mapping[str, float]] = [{} for _ in prefixes]
        if values is not None:
            v, q = values.v[:, 0].tolist(), values.q[:, :, 0].amin(0)
            taken = [float(q[k, a]) for k, a in enumerate(e.actions.tolist())]
            turns = [{"v": a, "q": b, "advantage": b - a} for a, b in zip(v, taken, strict=True)]
        lines.append(json.dumps(_view(d, turns), ensure_ascii=False))
    write_text(folder / "conversations.jsonl", "".join(line + "\n" for line in lines))


def _view(d: Dialogue, turns: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    values, messages = iter(turns), []
    for m in d.messages:
        shown: dict[str, Any] = {"role": m.role, "content": spoken(m)}
        if m.role == d.agent_role:
            shown |= {"reward": m.reward, **next(values)}
        messages.append(shown)
    return {
        "id": d.id,
        "return": None if d.rated_by == "nothing" else d.undiscounted_return(),
        "ended": "terminated" if d.terminated else "truncated",
        "source": "log",
        "hidden": None,
        "messages": messages,
    }
