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
    """Messages in order, who of them is the agent, and how the conversation ended.

    `terminated` is True after a true end and False when the conversation was cut (its value goes on).
    Rewards sit on the agent's messages; a reward elsewhere is refused here, because nobody could say
    which decision it belongs to.
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
