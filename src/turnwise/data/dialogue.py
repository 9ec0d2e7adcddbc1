"""A logged conversation as a frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from turnwise.envs.dialogue import Message

ROLES = ("system", "user", "assistant", "tool")
RatedBy = Literal["outcome", "rewards", "nothing"]


@dataclass(frozen=True)
class Dialogue:
    """Messages in order, which role is the agent's, and how the conversation ended.

    `terminated` is True after a true end, and False if the conversation was cut and could have gone on. Only
    messages of the agent carry rewards: nobody could say which decision another reward belongs to, so
    ValueError refuses it. `rated_by` is where the rewards come from: an outcome of the whole (and rewards of
    messages perhaps), rewards of messages alone, or nothing, where a return of 0 would only mean that nobody
    said how it went.
    """

    messages: tuple[Message, ...]
    terminated: bool = True
    id: str = ""
    agent_role: str = "assistant"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    rated_by: RatedBy = "rewards"

    def __post_init__(self) -> None:
        if not any(m.role == self.agent_role for m in self.messages):
            raise ValueError(f"no message of the agent (role {self.agent_role!r})")
        for i, m in enumerate(self.messages):
            if not math.isfinite(m.reward):
                raise ValueError(f"messages[{i}].reward is {m.reward}; expected a finite number")
            if m.role != self.agent_role and m.reward:
                raise ValueError(f"messages[{i}].reward: only messages of {self.agent_role!r} carry rewards")

    @property
    def turns(self) -> tuple[Message, ...]:
        """The agent's messages."""
        return tuple(m for m in self.messages if m.role == self.agent_role)

    def undiscounted_return(self) -> float:
        """Sum of the rewards, in the units of the task."""
        return math.fsum(m.reward for m in self.turns)


def chat_message(message: Message) -> dict[str, Any]:
    """A message as chat interfaces write it: `role` and `content`, and what else it has.

    `tool_calls` are nested, `{"id", "type": "function", "function": {"name", "arguments"}}`, with the
    arguments as text.
    """
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name is not None:
        row["name"] = message.name
    if message.tool_calls is not None:
        row["tool_calls"] = [
            ({} if call.id is None else {"id": call.id})
            | {"type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        row["tool_call_id"] = message.tool_call_id
    return row


def spoken(message: Message) -> str:
    """What a message says as plain text: its words, then a line `call name(arguments)` for each of its calls.

    `name: ` stands before it, unless the assistant speaks: it would learn to say its own name. Ids of calls
    are left out, because they are drawn at random and nobody could learn them.
    """
    if message.name is None and message.tool_calls is None:
        return message.content
    calls = [f"call {call.name}({call.arguments})" for call in message.tool_calls or ()]
    text = "\n".join([message.content, *calls] if message.content else calls)
    return text if message.name is None or message.role == "assistant" else f"{message.name}: {text}"
