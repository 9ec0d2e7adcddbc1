"""What a conversation is made of, and what a task (a partner with an outcome) must be able to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Message:
    """One utterance.

    `reward` is what followed it (in the units of the task; 0 for messages that are not the agent's).
    `behavior_logp` is the natural log of the probability with which the logged agent chose this whole
    message, where the log carries it.
    """

    role: str
    content: str
    reward: float = 0.0
    behavior_logp: float | None = None


@dataclass(frozen=True)
class Response:
    """What a task answers to one message of the agent.

    `messages` are what the agent sees next (empty when the conversation is over without a last word).
    `terminated`: the conversation reached a true end; nothing follows. `truncated`: it was cut although
    it could have gone on. At most one of the two is true.
    """

    messages: tuple[Message, ...]
    reward: float
    terminated: bool = False
    truncated: bool = False
    info: Mapping[str, Any] = field(default_factory=dict)


class DialogueTask(Protocol):
    """A partner and an outcome, batched by construction: lanes hold independent conversations.

    A lane is a small integer chosen by the caller. All randomness of a conversation comes from the seed
    given at its reset, so that it does not depend on its neighbours or on the order of calls.
    """

    def reset(self, lanes: Sequence[int], seeds: Sequence[int]) -> list[tuple[Message, ...]]:
        """Begin a new conversation in each lane; the messages that precede the agent's first turn."""
        ...

    def step(self, lanes: Sequence[int], replies: Sequence[str]) -> list[Response]:
        """The agent says `replies[i]` in `lanes[i]`; what follows."""
        ...

    def hidden(self, lane: int) -> Mapping[str, Any]:
        """The hidden state of a lane: privileged, for analysis and for critics at training time."""
        ...
