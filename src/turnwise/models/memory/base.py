"""A memory: history -> features, over whole rows at once or step by step, with the same numbers.

The state of a memory is one tensor [N, K], and zeros are the memory of nothing; so lanes are reset by zeroing
rows, states are stored and stacked like any array, and an algorithm need not know what it remembers with.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from turnwise.data.steps import StepInputs


class Memory(nn.Module, ABC):
    """What is remembered of a history. A row never crosses an episode, so nothing is reset inside one."""

    width: int
    """D, features that it gives"""
    state_size: int
    """K, numbers that it carries from step to step"""

    @abstractmethod
    def unroll(
        self, inputs: StepInputs, state0: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Features of every position of rows [B, T], from the memory before their first position."""

    @abstractmethod
    def step(
        self, inputs: StepInputs, state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N K"]]:
        """Features after one more observation in each of N lanes, and the new state."""

    def initial_state(self, lanes: int) -> Float[Tensor, "N K"]:
        """[lanes, K], the memory before anything was seen."""
        like = next(self.parameters(), torch.zeros(()))
        return torch.zeros(lanes, self.state_size, dtype=like.dtype, device=like.device)


class Core(nn.Module, ABC):
    """The recurrent part of a memory: sequences of vectors in, sequences of vectors out, causally."""

    width: int
    """D, of what comes in and what goes out"""
    state_size: int

    @abstractmethod
    def unroll(
        self, x: Float[Tensor, "B T D"], state0: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """All positions of rows; None is zeros."""

    @abstractmethod
    def step(
        self, x: Float[Tensor, "N D"], state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N K"]]:
        """One position of N lanes, and the new state."""


@runtime_checkable
class StepEncoder(Protocol):
    """What one step's inputs look like to a core; a module, so that it learns with the memory it serves."""

    width: int
    """D, features that it gives"""

    def __call__(self, inputs: StepInputs) -> Float[Tensor, "*N D"]:
        """[..., D] of inputs [...]."""
        ...


class LearnedMemory(Memory):
    """An encoder (`Encoder`, or any module that is a `StepEncoder`) and a core: every learned memory."""

    def __init__(self, encoder: StepEncoder, core: Core):
        super().__init__()
        if encoder.width != core.width:
            raise ValueError(f"the encoder gives {encoder.width} features and the core takes {core.width}")
        self.encoder, self.core = encoder, core
        self.width, self.state_size = core.width, core.state_size

    def unroll(
        self, inputs: StepInputs, state0: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """Features of every position."""
        return self.core.unroll(self.encoder(inputs), state0)

    def step(
        self, inputs: StepInputs, state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N K"]]:
        """Features after one more observation."""
        return self.core.step(self.encoder(inputs), state)
