"""What a conversation is made of, what a task (a partner with an outcome) can do, and what is known of it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable


class ToolCall(NamedTuple):
    """A function that a message calls."""

    id: str | None
    """What the message with its result refers to; None if the log does not have it."""
    name: str
    arguments: str
    """As text, nearly always JSON: what was written, and never parsed."""


@dataclass(frozen=True, slots=True)  # there may be millions of them
class Message:
    """One utterance.

    `reward` follows the utterance, in the units of the task; it is 0 for messages that are not the agent's.
    `behavior_logp` is the natural log of the probability with which the logged agent chose this whole
    message; None if the log does not have it. `name` is who of several speaks in the role, or whose result a
    tool's message is. `tool_calls` are the functions that the message calls, beside its words or in their
    place; `tool_call_id` is the call that a tool's message answers. `act` is what was meant, in a word of the
    log's own, and `act_logp` the natural log of the probability with which the logged agent meant it,
    whatever words it would have taken. None wherever there is no such thing.
    """

    role: str
    content: str
    reward: float = 0.0
    behavior_logp: float | None = None
    name: str | None = None
    tool_calls: tuple[ToolCall, ...] | None = None
    tool_call_id: str | None = None
    act: str | None = None
    act_logp: float | None = None


@dataclass(frozen=True)
class Response:
    """A task's answer to one message of the agent.

    `messages` are what the agent sees next; there are none if the conversation ends without a last word.
    `terminated`: the conversation reached a true end, and nothing follows. `truncated`: it was cut although
    it could have gone on. At most one of the two is true. `failed`, beside `truncated`: the partner broke
    down (a server that is gone, an answer that nobody can read), so that the conversation counts for nothing
    and against nobody. `info` is for analysis: at the end of a conversation "success" in it is counted, and
    of "measures", a mapping of names to numbers, means are shown beside the return.
    """

    messages: tuple[Message, ...]
    reward: float
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)
    failed: bool = False


class DialogueTask(Protocol):
    """A partner and an outcome, batched by construction: each lane has a conversation of its own.

    A lane is a small integer that the caller chooses. All randomness of a conversation comes from the seed
    given at its reset, so that it does not depend on its neighbours or on the order of calls.
    """

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """Begin a new conversation in each lane. Returns the messages before the agent's first turn."""
        ...

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """The agent says `replies[i]` in `lanes[i]`. Returns what follows, in the same order."""
        ...

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """The hidden state of a lane: privileged, for analysis and for critics at training time."""
        ...


TASK_COLUMN = "turnwise_task"
"""column of logs that says which task they come from, in the words of `task_words`. The name is our own: a
column "task" of somebody's logs means what they mean by it"""


def task_words(name: str, settings: Mapping[str, Any]) -> str:
    """A task with its settings as one types them: `negotiation notes=false`."""
    return shlex.join([name, *(f"{k}={_value(v)}" for k, v in sorted(settings.items()))])


def _value(value: Any) -> str:
    """Text as it is, unless it would be read back as something else (a number, true, null)."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except json.JSONDecodeError:
            return value
    return json.dumps(value, default=str)


def signed(rows: Iterable[Mapping[str, Any]], task: str) -> Iterator[dict[str, Any]]:
    """The rows of logs, each with the task that it comes from."""
    return ({**row, TASK_COLUMN: task} for row in rows)


Role = Literal["optimum", "behaviour", "baseline"]


@dataclass(frozen=True)
class Reference:
    """A return that is known of a task, to stand beside what a policy earns.

    `mean` is the expected undiscounted return. `low` and `high` are its 95% interval if it was estimated, and
    None if it is exact. `role` is what pages go by, `name` is free: "optimum" is what no policy exceeds,
    "behaviour" what the task's logs earned, "baseline" anything else worth beating. `note` says how it is
    known.
    """

    name: str
    role: Role
    mean: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@runtime_checkable
class HasReferences(Protocol):
    """A task of which something is known."""

    def references(self) -> list[Reference]:
        """What is known of it."""
        ...


@runtime_checkable
class HasRows(Protocol):
    """A task that can write logs."""

    def rows(self, conversations: int, seed: int) -> Iterator[dict[str, Any]]:
        """Conversations in the log format, the same ones for the same seed."""
        ...


@runtime_checkable
class HasSettings(Protocol):
    """A task that was made with settings."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """Those that differ from the defaults: tasks of other settings are other tasks."""
        ...
