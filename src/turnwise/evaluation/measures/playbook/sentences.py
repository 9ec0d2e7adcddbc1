"""Acts, answers, openings and whole conversations as they were worded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from turnwise.data.acts.codebook import OTHER, Codebook, Utterance
from turnwise.data.acts.talks import SILENCE, ActTalk, Codes, Turns, cut_turns
from turnwise.data.dialogue import Dialogue
from turnwise.evaluation.measures.playbook.plan import Plan
from turnwise.evaluation.measures.playbook.schema import Phrase, Talk, Turn
from turnwise.rollout.acts.plan import IMPOSSIBLE

EXAMPLES = 5
"""sentences of an act beside the typical one"""


def phrases(book: Codebook) -> list[Phrase]:
    """Each act of a codebook with its sentences: the one that is said most often stands for it."""
    found: list[Phrase] = []
    for i, name in enumerate(book.names):
        said = book.examples(i)
        phrase: Phrase = {
            "name": name,
            "sentence": said[0].template if said and name != OTHER else None,
            "count": sum(x.count for x in said),
            "examples": [x.template for x in said[: EXAMPLES + 1]][name != OTHER :],
            "other": name == OTHER,
        }
        found.append(phrase)
    return found


def answer_phrases(codes: Codes) -> list[Phrase]:
    """The answers, of which the first is silence."""
    return [{"name": SILENCE, "sentence": None, "other": False}, *phrases(codes.partner)]


@dataclass(frozen=True)
class Held:
    """A conversation to show. `traces` are what the agent meant at each of its turns, if it says so.

    A trace says `by`: `chooser`, or `fallback` or `clone` where the plan did not speak itself.
    """

    dialogue: Dialogue
    live: bool = False
    hidden: Mapping[str, Any] | None = None
    traces: Sequence[Mapping[str, Any]] = ()


def show_talks(plan: Plan, codes: Codes, talks: Sequence[Held]) -> list[Talk]:
    """Conversations as the model sees them: acts, distances, and the belief from turn to turn."""
    cut = [cut_turns(h.dialogue.messages, h.dialogue.agent_role) for h in talks]
    logs = codes.talks([h.dialogue for h in talks])
    beliefs, chances = plan.follow(logs.talks)
    said = _distances(codes.agent, [t.said for t in cut])
    heard = _distances(codes.partner, [t.heard for t in cut])
    shown = zip(talks, cut, logs, beliefs, chances, said, heard, strict=True)
    return [_talk(plan, *one, rated=logs.rated) for one in shown]


def _distances(book: Codebook, talks: Sequence[Sequence[Utterance | None]]) -> list[list[float | None]]:
    """Of each utterance of each talk from what its act stands for; None for silence."""
    spoken = [u for talk in talks for u in talk if u is not None]
    found = iter(book.read(spoken).distances.tolist() if spoken else [])
    return [[None if u is None else next(found) for u in talk] for talk in talks]


def _talk(
    plan: Plan,
    held: Held,
    cut: Turns,
    talk: ActTalk,
    beliefs: np.ndarray,
    chances: np.ndarray,
    said: Sequence[float | None],
    heard: Sequence[float | None],
    *,
    rated: bool,
) -> Talk:
    d = held.dialogue
    shown = plan.shown(beliefs)
    planned = plan.best(beliefs[:-1], np.arange(len(talk)))
    turns: list[Turn] = []
    for k in range(len(talk)):
        last = k == len(talk) - 1 and d.terminated
        answer = cut.heard[k]
        trace = held.traces[k] if k < len(held.traces) else {}
        turns.append(
            {
                "said": cut.said[k].text,
                "act": int(talk.acts[k]),
                "distance": said[k],
                "planned": int(planned[k]),
                "heard": None if answer is None else answer.text,
                "answer": int(talk.answers[k]),
                "heard_distance": heard[k],
                "probability": None if last and answer is None else float(chances[k]),
                "impossible": bool(chances[k] < IMPOSSIBLE),
                "fallback": trace.get("by", "chooser") != "chooser",
                "reward": float(talk.rewards[k]) if rated else None,
                "belief": None if last else shown[k + 1].tolist(),
            }
        )
    return {
        "id": d.id,
        "source": "live" if held.live else "log",
        "opening": cut.opening.text,
        "first": talk.first,
        "first_belief": shown[0].tolist(),
        "turns": turns,
        "worth": d.undiscounted_return() if rated and d.rated_by != "nothing" else None,
        "ended": "terminated" if d.terminated else "truncated",
        "hidden": {k: str(v) for k, v in held.hidden.items()} if held.hidden else None,
    }
