"""Logged conversations from the other side: the partner speaks as the assistant, and the agent as the user.

    logged   system  user        assistant   tool       user       assistant      (ended)
    turned   system  assistant   user        assistant ──────────  user           assistant, without a word

What lies between two turns of the agent is one turn of the partner, whoever spoke in it. A conversation that
truly ended behind the agent's words has a last turn of the partner in which nothing is said: silence is
something that a partner does, and a model of it has to know when.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnwise.data.dialogue import Dialogue, spoken
from turnwise.envs.dialogue import Message

_MARKED = re.compile(r"^\[(user|tool|system)(?: ([^\]\n]+))?\] ?", re.MULTILINE)


@dataclass(frozen=True)
class Scene:
    """What there is before anybody speaks."""

    system: tuple[str, ...] = ()
    """the system messages that open the conversation, which both sides see"""
    facts: Mapping[str, str] = field(default_factory=dict)
    """what the partner alone knows"""
    first: bool = True
    """whether the partner has the first word"""

    def seen(self) -> tuple[Message, ...]:
        """What the partner has before it: its facts, then what both see."""
        told = "\n".join(f"{name}: {value}" for name, value in self.facts.items())
        return tuple(Message("system", text) for text in ((told,) if told else ()) + self.system)


def scene_of(d: Dialogue, facts: Sequence[str] = ()) -> Scene:
    """The scene of a logged conversation. `facts`: columns of the log; one that a row lacks is left out."""
    system = tuple(m.content for m in itertools.takewhile(lambda m: m.role == "system", d.messages))
    known = {name: str(d.metadata[name]) for name in facts if d.metadata.get(name) is not None}
    behind = d.messages[len(system)]
    return Scene(system, known, first=behind.role != d.agent_role)


def turned(d: Dialogue, facts: Sequence[str] = ()) -> Dialogue | None:
    """The conversation as the partner has it; None if the partner never does anything in it.

    A turn of the partner carries the reward of the agent's words before it, since what they earned shows in
    the answer. Words of the agent that nobody answered, in a conversation that was cut, carry none.
    """
    scene = scene_of(d, facts)
    messages, waiting = list(scene.seen()), 0.0
    for mine, group in itertools.groupby(d.messages[len(scene.system) :], lambda m: m.role == d.agent_role):
        part = list(group)
        if mine:
            messages += [Message("user", spoken(m)) for m in part]
            waiting += sum(m.reward for m in part)
        else:
            messages.append(Message("assistant", turn_text(part, d.agent_role), waiting))
            waiting = 0.0
    if d.terminated and messages[-1].role == "user":
        messages.append(Message("assistant", "", waiting))
    if all(m.role != "assistant" for m in messages):
        return None
    return Dialogue(tuple(messages), d.terminated, d.id, "assistant", d.metadata, d.rated_by)


def turn_text(messages: Sequence[Message], agent_role: str = "assistant") -> str:
    """A turn of the partner as one text: plain words, each further message behind a mark `[role name] `."""
    lines = []
    for i, m in enumerate(messages):
        role = m.role if m.role in ("tool", "system") else "user"
        plain = i == 0 and role == "user" and m.name is None
        mark = f"{role} {m.name}" if m.name else role
        # A name stands in the mark, and not before the words as well.
        words = spoken(m) if m.name is None else spoken(Message(m.role, m.content, tool_calls=m.tool_calls))
        lines.append(words if plain else f"[{mark}] {words}")
    return "\n".join(lines)


def read_turn(text: str) -> tuple[Message, ...]:
    """The messages of a turn that was written so; none of an empty one. Every text can be read."""
    found, marks = list[Message](), list(_MARKED.finditer(text))
    plain = text[: marks[0].start() if marks else len(text)].strip("\n")
    if plain:
        found.append(Message("user", plain))
    ends = [m.start() for m in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=True) if marks else ():
        found.append(Message(mark[1], text[mark.end() : end].strip("\n"), name=mark[2]))
    return tuple(found)


class TurnedLogs(Sequence[Dialogue]):
    """Logs from the other side, each conversation turned when it is asked for.

    `places`: those of the logs in which a partner does something; the others are left out.
    """

    def __init__(self, logs: Sequence[Dialogue], facts: Sequence[str] = ()) -> None:
        self.logs, self.facts = logs, tuple(facts)
        self.places = [i for i, d in enumerate(logs) if turned(d) is not None]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return turned(self.logs[self.places[index]], self.facts)

    def __iter__(self) -> Iterator[Dialogue]:
        return (self[i] for i in range(len(self)))
