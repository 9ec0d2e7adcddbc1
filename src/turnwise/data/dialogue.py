"""A logged conversation as a frozen value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from turnwise.envs.dialogue import Message

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Dialogue:
    """Messages in order, which role is the agent's, and how the conversation ended.

    `terminated` is True after a true end, and False if the conversation was cut and could have gone on. Only
    messages of the agent carry rewards: nobody could say which decision another reward belongs to, so
    ValueError refuses it.
    """

    messages: tuple[Message, ...]
    terminated: bool = True
    id: str = ""
    agent_role: str = "assistant"
    metadata: Mapping[str, Any] = field(default_factory=dict)

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
