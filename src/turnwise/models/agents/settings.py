"""What an agent with memory is built of, by the field's names. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from turnwise.run.checks import LAYERS, ONE_OR_MORE, check

MemoryName = Literal["none", "window", "gru", "lstm", "linear", "transformer"]
CriticName = Literal["history", "history+state", "state", "observation"]


@dataclass(frozen=True)
class MemorySpec:
    """Which memory the agent has, and how large."""

    memory: MemoryName = "gru"
    """none sees the observation alone; linear is a diagonal linear recurrence (a state-space model)."""
    width: int = 64
    """Features of the memory."""
    layers: int = 1
    """Layers of the linear recurrence or of the transformer."""
    window: int = 4
    """Inputs that a window holds."""
    context: int = 64
    """Positions that each layer of a transformer attends to."""
    heads: int = 4
    """Attention heads of the transformer."""

    def __post_init__(self) -> None:
        check(
            self,
            width=ONE_OR_MORE,
            layers=LAYERS,
            window=ONE_OR_MORE,
            context=ONE_OR_MORE,
            heads=ONE_OR_MORE,
        )


@dataclass(frozen=True)
class CriticSpec:
    """What the critic of a policy gradient sees."""

    critic: CriticName = "history"
    """history; history+state or state (privileged, in training only); observation (broken as a bootstrap)."""
    separate: bool = False
    """Give the critic a memory of its own; otherwise it reads the actor's."""
