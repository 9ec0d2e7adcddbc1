"""An agent of acts measured in live conversations with a task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from turnwise.data.dialogue import spoken
from turnwise.envs.dialogue import DialogueTask
from turnwise.evaluation.measures.conversation_views import MOST
from turnwise.evaluation.measures.conversations import conversation_summary, measures_in_words
from turnwise.evaluation.measures.intervals import bootstrap_interval
from turnwise.evaluation.measures.playbook.make import with_live_talks
from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.evaluation.measures.playbook.schema import Playbook
from turnwise.evaluation.measures.playbook.sentences import Held
from turnwise.evaluation.pages.logs import NOT_COMPARED
from turnwise.evaluation.pages.report import write_report
from turnwise.evaluation.pages.run_files import read_object
from turnwise.recipes.measuring.conversations import REHEARSED, partner_of, reference_in_words
from turnwise.recipes.measuring.evaluation import Evaluation
from turnwise.recipes.settings.measure import ConversationSettings
from turnwise.recipes.settings.ray import RaySettings
from turnwise.recipes.trained import ActPolicy
from turnwise.recipes.workers import ALONE, workers_of
from turnwise.rollout.acts.agent import STRANGE, ActAgent
from turnwise.rollout.acts.conversations import converse_in_acts
from turnwise.rollout.acts.plan import PlanChooser
from turnwise.rollout.conversations import Conversation
from turnwise.run.errors import SettingError
from turnwise.run.files.lock import locked
from turnwise.run.files.whole import whole_files
from turnwise.run.folder import as_json
from turnwise.run.progress import Progress
from turnwise.run.rehearsal import at_most
from turnwise.run.shards.here import spread

SET_IN_TRAINING = "none for an agent of acts: how it chooses is set in training"


def measure(
    policy: ActPolicy,
    task: Any,
    settings: ConversationSettings,
    shards: RaySettings = ALONE,
    *,
    quiet: bool = False,
) -> Evaluation:
    """Hold conversations and measure the mean return; write evaluation.json, conversations and the page.

    `task`: None is the task of the logs that the policy learnt from. SettingError for settings that are of
    policies which choose words: betas, proposals and temperature. Nothing is written without a run folder.
    `shards`: who holds the conversations.
    """
    for name, value, of_words in (
        ("betas", settings.betas, ()),
        ("proposals", settings.proposals, None),
        ("temperature", settings.temperature, 1.0),
    ):
        if value != of_words:
            raise SettingError(name, value, SET_IN_TRAINING)
    row = partner_of(policy, task)
    n = at_most(REHEARSED, settings.episodes)
    common = (policy.agent, row.live(), settings.seed, settings.lanes)
    with workers_of(shards) as workers, Progress("talking", n, quiet=quiet) as bar:
        if workers is None:
            talks = _talks(common, range(n), bar.at)
        else:
            talks = spread(workers, _talks, common, n, shards.count, bar.at)
    same = policy.task == row.words
    references = [vars(r) for r in row.references() if same or r.role != "behaviour"]
    summary, talks = conversation_summary(talks, settings.seed), [c for c in talks if not c.failed]
    result: dict[str, Any] = {
        "task": row.words,
        "same_task": same,
        **summary,
        **({"shards": shards.count} if shards.divides else {}),
        "references": references,
        "turns_as_acts": reading(talks, settings.seed),
        "beside": [reference_in_words(r) for r in references],
    }
    result["beside"] += measures_in_words(result["measures"])
    if (promise := promised(talks, settings.seed, policy.result.get("worth", ()))) is not None:
        result["promised"] = promise
        result["beside"].append(promise["sentence"])
    result["beside"].append(result["turns_as_acts"]["sentence"])
    if not same:
        result["beside"].append(f"{NOT_COMPARED} {row.words}")
    report = None
    if policy.folder is not None:
        views, book = [act_view(c) for c in talks[:MOST]], _playbook(policy, talks)
        report = _write(policy.folder, result, views, book)
    figures = (result["mean"], result["low"], result["high"], result["episodes"])
    return Evaluation(*figures, result["score"], report, result)


def _talks(
    common: tuple[ActAgent, DialogueTask, int, int],
    part: range,
    progress: Callable[[int], None] | None = None,
) -> list[Conversation]:
    """Conversations of a shard, or all of them."""
    agent, task, seed, lanes = common
    lanes = min(lanes, len(part))
    return converse_in_acts(agent, task, episodes=part, seed=seed, lanes=lanes, progress=progress)


def reading(talks: Sequence[Conversation], seed: int) -> dict[str, Any]:
    """Shares of the agent's turns, each with its 95% interval over conversations.

    `read_back`: the codebook reads the agent's words as the act that was wanted. `strange`: what was heard
    is like nothing that was logged. `given_up`: the fallback chose, or the clone spoke. `understood`: the
    task's own parser made something of the agent's words, if it says so.
    """
    flags = {
        "read_back": [[t["act"] is None or t["read_as"] == t["act"] for t in c.turns] for c in talks],
        "strange": [[t["heard"]["distance"] >= STRANGE for t in c.turns] for c in talks],
        "given_up": [[t["by"] != "chooser" for t in c.turns] for c in talks],
    }
    if all("read" in t.get("parsed", ()) for c in talks for t in c.turns):
        flags["understood"] = [[bool(t["parsed"]["read"]) for t in c.turns] for c in talks]
    found: dict[str, Any] = {}
    for name, of in flags.items():
        value = float(np.mean([x for turns in of for x in turns]))
        means = [float(np.mean(turns)) for turns in of]
        low, high = bootstrap_interval(means, rng=np.random.default_rng(seed))
        found[name] = {"value": value, "low": low, "high": high}
    said = {name: f"{found[name]['value']:.1%}" for name in flags}
    found["sentence"] = (
        f"its words are read back as the act that it wanted in {said['read_back']} of its turns; what it "
        f"heard was like nothing in the logs in {said['strange']}, and something else than its policy chose "
        f"in {said['given_up']}"
    )
    if "understood" in said:
        found["sentence"] += f"; the task's own parser understood its words in {said['understood']}"
    return found


def promised(
    talks: Sequence[Conversation], seed: int, worth: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any] | None:
    """What was promised, and that less what was earned; None if nothing was.

    A plan's promise is what it earned when it was simulated in models of the logs, which its run wrote down
    as `worth`: the figure of its page. Beside it stands `at_opening`, what its values say before the first
    turn, which is the promise of whatever was not simulated. Values of conversations that go on for long, or
    that discount, promise something else than the return.
    """
    first = [c.turns[0] for c in talks]
    said = [t.get("chosen_q", t.get("v")) for t in first]
    earned = np.array([c.dialogue.undiscounted_return() for c in talks])
    opening = None if any(x is None for x in said) else np.array([float(x) for x in said])
    simulated = next((row for row in worth if row["role"] == "predicted"), None)
    if simulated is None and opening is None:
        return None
    promise = opening if simulated is None else np.full(len(earned), float(simulated["mean"]))
    assert promise is not None
    gap = promise - earned
    low, high = bootstrap_interval(gap, rng=np.random.default_rng(seed))
    found: dict[str, Any] = {"value": float(promise.mean()), "over": float(gap.mean())}
    found |= {"low": low, "high": high}
    text = f"its values promised {found['value']:.4f}"
    if simulated is not None:
        text = f"its models promised {found['value']:.4f}"
        if simulated["low"] is not None:
            found["interval"] = [simulated["low"], simulated["high"]]
            text += f" ({simulated['low']:.4f} to {simulated['high']:.4f})"
    text += f": {abs(found['over']):.4f} too {'much' if found['over'] >= 0 else 'little'}"
    text += f" ({low:+.4f} to {high:+.4f}, 95% over conversations)"
    if simulated is not None and opening is not None:
        found["at_opening"] = float(opening.mean())
        text += f"; before the first turn its values say {found['at_opening']:.4f}"
    return {**found, "sentence": text}


def act_view(c: Conversation) -> dict[str, Any]:
    """One conversation for the page: each message of the agent with its act, and the values there are."""
    messages, turn = [], 0
    for m in c.dialogue.messages:
        shown: dict[str, Any] = {"role": m.role, "content": spoken(m)}
        if m.role == c.dialogue.agent_role:
            trace = c.turns[turn]
            shown |= {"reward": m.reward, "act": trace["act"], **_values(trace)}
            turn += 1
        messages.append(shown)
    return {
        "id": c.dialogue.id,
        "return": c.dialogue.undiscounted_return(),
        "ended": "terminated" if c.dialogue.terminated else "truncated",
        "source": "policy",
        "hidden": dict(c.hidden) if c.hidden else None,
        "messages": messages,
    }


def _values(trace: Mapping[str, Any]) -> dict[str, float]:
    """V before the turn, and Q and advantage of the act, of a chooser that says them."""
    if "chosen_q" not in trace:
        return {}
    return {"v": trace["v"], "q": trace["chosen_q"], "advantage": trace["chosen_q"] - trace["v"]}


def _playbook(policy: ActPolicy, talks: Sequence[Conversation]) -> Playbook | None:
    """The run's playbook with these conversations; None if the run has none."""
    chooser, folder = policy.agent.chooser, policy.folder
    found = None if folder is None else read_object(folder / "playbook.json")
    if found is None or not isinstance(chooser, PlanChooser):
        return None
    held = [Held(c.dialogue, live=True, hidden=c.hidden, traces=c.turns) for c in talks]
    plan = Plan(chooser.planner, chooser.copies)
    return with_live_talks(cast(Playbook, found), plan, policy.agent.codes, held)


def _write(
    folder: Path, result: dict[str, Any], views: Sequence[dict[str, Any]], book: Playbook | None
) -> Path:
    """The files of an evaluation, or none of it."""
    lines = "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in views)
    texts = {"conversations.jsonl": lines, "evaluation.json": as_json(result)}
    if book is not None:
        texts = {"playbook.json": as_json(dict(book)), **texts}
    with locked(folder):
        whole_files(folder, texts, last="evaluation.json")
        return write_report(folder)
