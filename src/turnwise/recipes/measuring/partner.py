"""How good is a partner that was learnt from logs? What it tells, whether it can be told, what it is for.

held-out logs ──► nats and R2 ──► acts beside n-grams ──► a classifier's AUC ──► the same policies in the task
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from turnwise.algorithms.acts.pomdp import sequences_of
from turnwise.data.acts.talks import Codes
from turnwise.data.dataset import Logs
from turnwise.data.dialogue import Dialogue, spoken
from turnwise.data.files.logs import read_logs
from turnwise.data.other_side import TurnedLogs, read_turn
from turnwise.data.rows import token_rows
from turnwise.data.splits.choices import chosen, evenly
from turnwise.envs.dialogue import DialogueTask, Message
from turnwise.evaluation.measures.conversations import hold_conversations
from turnwise.evaluation.measures.partners import downstream, telling, two_sample
from turnwise.evaluation.measures.partners.answers import (
    answer_at,
    measure_answers,
    places_of,
    with_memory,
)
from turnwise.evaluation.measures.partners.two_sample import Talk, Turn
from turnwise.evaluation.pages.partners import QUALITY as FILE
from turnwise.evaluation.pages.report import write_report
from turnwise.models.lm.parts import context_of
from turnwise.recipes.measuring.evaluation import Evaluation
from turnwise.recipes.opened import load, load_codebooks
from turnwise.recipes.settings.measure import PartnerMeasure
from turnwise.recipes.tasks import Task, find_task
from turnwise.recipes.trained import ActPolicy, Codebooks, Counterpart, Policy
from turnwise.rollout.acts.conversations import converse_in_acts
from turnwise.rollout.conversations import Conversation
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.lock import locked
from turnwise.run.folder import write_json
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most

LEAST = 40
"""conversations, at least, that have to be held out"""


class Failing(InputError):
    """A partner that breaks down in nearly all conversations."""


def measure(
    partner: Counterpart,
    logs: Any,
    *,
    policy: Any = None,
    acts: Any = None,
    policies: Sequence[Any] = (),
    task: Any = None,
    settings: PartnerMeasure | None = None,
    reading: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Figures of a partner, each beside what it must beat, and `lines` that say them.

    `logs`: conversations; those that the partner learnt from teach the baselines, the others measure.
    `policy`: the logged agent, cloned, which talks with the partner for the two-sample test of whole talks.
    `acts`: codebooks, by which answers are counted as acts. `policies`, `task`: whose returns are compared,
    with the partner and in the true task. With a run folder partner_quality.json and the page are written.
    InputError for logs of which too few, or all, are held out.
    """
    s = settings or PartnerMeasure()
    if bool(policies) != (task is not None):
        raise SettingError("task", task, "a true task and policies to compare in it, or neither")
    read = logs if isinstance(logs, Logs) else read_logs(logs, **(reading or {}), quiet=quiet)
    learnt, held = _parted(partner, read)
    codes = (
        None if acts is None else acts.codes if isinstance(acts, Codebooks) else load_codebooks(acts).codes
    )
    facts = tuple(dict.fromkeys(k for scene in partner.fitted.scenes.scenes for k in scene.facts))
    turned = TurnedLogs(held, facts)
    found: dict[str, Any] = {"held_out": len(held), "learnt": len(learnt), "lines": []}

    def tell(name: str, value: dict[str, Any], *lines: str) -> None:
        found[name] = value
        found["lines"] += lines

    told = _telling(partner, TurnedLogs(learnt, facts), turned)
    tell("telling", told, *telling.sentences(told))
    if codes is not None:
        counted = codes.talks(chosen(learnt, evenly(len(learnt), s.counted)))
        with Progress("answers", 1, quiet=quiet) as bar:
            said = measure_answers(
                partner.fitted,
                codes,
                counted,
                turned,
                places=at_most(20, s.places),
                samples=at_most(4, s.samples),
                seed=s.seed,
            )
            bar.at(1)
        others = codes.talks(chosen(held, evenly(len(held), 4 * s.places)))
        memory = {} if not said else with_memory(sequences_of(counted), sequences_of(others), s.seed, quiet)
        tell("answers", said | {"with_memory": memory}, *_in_acts(said, memory, told))
    tested = _answers_test(partner, turned, codes, s)
    if tested is not None:
        tell("answers_test", tested, two_sample.sentence(tested, "answers at logged places"))
    try:
        if policy is not None and len(held) >= LEAST:  # fewer are there in rehearsals alone
            tested = _talks_test(partner, _opened(policy), held, codes, s, quiet)
            tell("talks_test", tested, two_sample.sentence(tested, "talks with the policy"))
        if policies:
            tell("downstream", *returns_of(partner.live(), policies, task, s, quiet))
    except Failing as why:  # a partner that breaks down has told enough
        tell("failing", {"why": str(why)}, str(why))
    if partner.folder is not None:
        with locked(partner.folder):
            write_json(partner.folder / FILE, found)
            write_report(partner.folder)
    return found


def evaluation(found: Mapping[str, Any]) -> Evaluation:
    """The same as `evaluate` gives it: the score is nats a message."""
    words = found["telling"]["message"]["partner"]
    n = found["telling"]["turns"]
    return Evaluation(words["mean"], words["low"], words["high"], n, "nats a message", None, dict(found))


def _parted(partner: Counterpart, logs: Logs) -> tuple[Sequence[Dialogue], Sequence[Dialogue]]:
    """What the partner learnt from, and the rest. A saved partner does not know: then half is for either."""
    if partner.held is None:
        places = np.arange(len(logs))
        seen = places % 2 == 0
    else:
        seen = partner.held.learnt_from(logs)
    learnt, held = (chosen(logs, np.flatnonzero(which)) for which in (seen, ~seen))
    if min(len(held), len(learnt)) < at_most(2, LEAST):
        raise InputError(
            f"{logs.source}: the partner learnt from {len(learnt):,} of {len(logs):,} conversations; "
            f"expected {LEAST} or more of them, for the baselines, and {LEAST} others to measure it on"
        )
    return learnt, held


def _telling(partner: Counterpart, learnt: TurnedLogs, held: TurnedLogs) -> dict[str, Any]:
    chat, context = partner.fitted.agent.chat, context_of(partner.fitted.agent.lm)
    rows = [token_rows(part, chat, context) for part in (learnt, held)]
    return telling.measure_telling(partner.fitted.model, rows[0], rows[1])


def _in_acts(found: Mapping[str, Any], memory: Mapping[str, Any], told: Mapping[str, Any]) -> list[str]:
    """The partner beside tables, which know the latest acts, and beside a network, which remembers all.

    The network tells ends with the answers, so that the partner's are added here.
    """
    if not found:
        return []
    both = found["nats"]["partner"]["mean"] + told["end"]["partner"]["mean"]
    remembers = (
        f"answers and ends together: {both:.3f}; a recurrent network of acts {memory['value']:.3f} "
        f"({memory['low']:.3f} to {memory['high']:.3f}), which remembers all that was meant"
    )
    nats, best = found["nats"], found["best"]
    own, other = nats["partner"], nats[best]
    return [
        f"acts: {own['mean']:.3f} ({own['low']:.3f} to {own['high']:.3f}) nats an answer at "
        f"{found['places']:,} places, from {found['samples']} answers at each; the best table of acts "
        f"({best}) {other['mean']:.3f}",
        remembers,
    ]


def _answers_test(
    partner: Counterpart, turned: TurnedLogs, codes: Codes | None, s: PartnerMeasure
) -> dict[str, Any] | None:
    """One place of each conversation: of half of them the partner's answer, of the others the logged one.

    So all talks are of different conversations, and if the partner is right nothing but its last words could
    tell the two kinds apart. None for too few conversations, or answers that ever stopped.
    """
    fitted, rng = partner.fitted, np.random.default_rng((s.seed, 1))
    by_talk: dict[int, list[Any]] = {}
    some = chosen(turned.logs, np.array(turned.places, np.int64))
    some = chosen(some, evenly(len(some), at_most(80, 2 * s.talks)))
    for place in places_of(fitted, TurnedLogs(some, turned.facts)):
        by_talk.setdefault(place.talk, []).append(place)
    if len(by_talk) < LEAST:
        return None
    places = [group[int(rng.integers(len(group)))] for group in by_talk.values()]
    speaks = rng.permutation(len(places)) < len(places) // 2
    asked = [p for p, own in zip(places, speaks, strict=True) if own]
    said = [answers[0] for answers in answer_at(fitted, asked, 1, s.seed)]
    pairs = [(p.history, text) for p, text in zip(asked, said, strict=True) if text is not None]
    real = [(p.history, p.text) for p, own in zip(places, speaks, strict=True) if not own]
    if len(pairs) < LEAST // 2:
        return None
    kinds = [[_talk(_turned_back(h, t), codes) for h, t in part] for part in (pairs, real)]
    return two_sample.two_sample(kinds[0], kinds[1], s.seed) | {"failed": len(asked) - len(pairs)}


def _talks_test(
    partner: Counterpart,
    policy: Policy | ActPolicy,
    held: Sequence[Dialogue],
    codes: Codes | None,
    s: PartnerMeasure,
    quiet: bool,
) -> dict[str, Any]:
    """Whole talks of a policy with the partner beside logged ones."""
    talks, failed = _held(policy, partner.live(), at_most(40, s.talks), s, quiet, "talking")
    logged = chosen(held, evenly(len(held), s.talks))
    found = two_sample.two_sample(
        [_talk(c.dialogue, codes) for c in talks], [_talk(d, codes) for d in logged], s.seed
    )
    return found | {"failed": failed}


def _turned_back(history: Sequence[Message], text: str) -> Dialogue:
    """As the agent has it, without what only the partner knew."""
    roles, found = {"assistant": "user", "user": "assistant"}, list[Message]()
    for m in history:
        if m.role == "assistant":
            found += read_turn(m.content)
        elif m.role == "user":
            found.append(Message(roles[m.role], m.content))
    return Dialogue((*found, *read_turn(text)), terminated=False)


def _talk(d: Dialogue, codes: Codes | None) -> Talk:
    """For the classifier: what both sides said, and meant if there are codebooks; no system messages."""
    turns = [(m.role == d.agent_role, spoken(m)) for m in d.messages if m.role != "system"]
    if codes is None:
        return [Turn(mine, text) for mine, text in turns]
    read = codes.talks([d])[0]
    acts = [codes.acts[a] for a in read.acts]
    answers = [codes.answers[o] for o in read.answers]
    found, k, told = list[Turn](), -1, False
    for mine, text in turns:
        k, told = (k + 1, False) if mine else (k, told)
        # What is said in several messages means one thing, and the opening is none of the answers.
        act = acts[k] if mine else answers[k] if k >= 0 and not told else None
        told = told or not mine
        found.append(Turn(mine, text, act))
    return found


def _opened(given: Any) -> Policy | ActPolicy:
    found = load(given) if isinstance(given, str | Path) else given
    if not isinstance(found, Policy | ActPolicy):
        raise SettingError("policy", str(given), "the run of a policy that converses")
    return found


def _held(
    policy: Policy | ActPolicy, task: DialogueTask, n: int, s: PartnerMeasure, quiet: bool, what: str
) -> tuple[list[Conversation], int]:
    """Conversations, and in how many more the partner failed. Failing if it did in nearly all."""
    with Progress(what, n, quiet=quiet) as bar:
        if isinstance(policy, ActPolicy):
            lanes = min(s.lanes, n)
            talks = converse_in_acts(
                policy.agent, task, episodes=range(n), seed=s.seed, lanes=lanes, progress=bar.at
            )
        else:
            talks = hold_conversations(
                policy.agent, task, episodes=n, seed=s.seed, lanes=s.lanes, progress=bar.at
            )
    good = [c for c in talks if not c.failed]
    if len(good) < 20:
        raise Failing(f"the partner failed in {n - len(good):,} of {n:,} conversations with {policy.name}")
    return good, n - len(good)


def returns_of(
    partner: DialogueTask, policies: Sequence[Any], task: Any, s: PartnerMeasure, quiet: bool
) -> tuple[dict[str, Any], str]:
    """What policies earn with a partner and in the true task, and the sentence that says it."""
    opened = [_opened(p) for p in policies]
    names = [p.name if p.folder is not None else f"policy {i + 1}" for i, p in enumerate(opened)]
    if len(set(names)) < len(names):
        raise SettingError("policies", names, "each policy once")
    true = task if isinstance(task, Task) else find_task(task)
    returns: list[dict[str, list[float]]] = [{}, {}]
    failed = 0
    n = at_most(30, s.episodes)
    for name, policy in zip(names, opened, strict=True):
        for found, live in zip(returns, (partner, true.live()), strict=True):
            talks, wrong = _held(policy, live, n, s, quiet, name)
            found[name] = [c.dialogue.undiscounted_return() for c in talks]
            failed += wrong
    result = downstream.downstream_gap(returns[0], returns[1], s.seed)
    return result | {"task": true.words, "failed": failed}, downstream.sentence(result)
