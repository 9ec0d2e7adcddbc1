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
from turnwise.envs.protocol import Discrete, Space, Vector


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

    def nothing(self, lanes: int) -> Float[Tensor, "N K"]:
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


class Embedding(nn.Module):
    """A symbol or a vector as D features; what it gives for different parts is summed by the encoder."""

    def __init__(self, space: Space, width: int):
        super().__init__()
        self.space = space
        discrete = isinstance(space, Discrete)
        self.layer = nn.Embedding(space.n, width) if discrete else nn.Linear(space.size, width)
        if discrete:
            nn.init.normal_(self.layer.weight, std=1.0)

    def forward(self, x: Tensor) -> Float[Tensor, "*N D"]:
        """[..., D] of symbols [...] or vectors [..., d]."""
        return self.layer(x)


class Standardised(nn.Module):
    """(x - mean) / deviation, of all vectors that it was shown; what it was not shown, as it is.

    An angle of 0.05 beside features of size 1 is next to nothing, and a velocity is a difference of two such
    angles. Moments move only by `see_`, between updates, so that acting and learning read the same numbers.
    """

    mean: Tensor
    variance: Tensor
    deviation: Tensor
    """1 where nothing has varied"""
    seen: Tensor

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("variance", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        self.register_buffer("seen", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Float[Tensor, "*N d"]) -> Float[Tensor, "*N d"]:
        """In units of the deviation."""
        return (x - self.mean) / self.deviation

    @torch.no_grad()
    def see_(self, x: Float[Tensor, "M d"]) -> None:
        """Mean and deviation of these vectors and all before them, each counting once.

        Chan, Golub & LeVeque 1983, eq. 2.1: moments of two sets joined.
        """
        share = len(x) / (self.seen + len(x))
        apart = x.mean(0) - self.mean
        self.variance += share * (x.var(0, correction=0) - self.variance + (1 - share) * apart**2)
        self.mean += share * apart
        self.deviation.copy_(torch.where(self.variance > 1e-12, self.variance, 1.0).sqrt())
        self.seen += len(x)


class Encoder(nn.Module):
    """Observation, previous action, previous reward and start flag as one vector of D features.

    Rewards go in as symlog(r) = sign(r) log(1+|r|) (Hafner et al. 2023, arXiv:2301.04104, eq. 9), so that -1
    and -100 are both of a size that a network can tell. Vectors of observations go in standardised, where
    the algorithm shows them (`Standardised.see_`). At a start previous action and reward are silent.
    """

    def __init__(self, observations: Space, actions: Space, width: int):
        super().__init__()
        self.width = width
        self.observation, self.action = Embedding(observations, width), Embedding(actions, width)
        vectors = isinstance(observations, Vector)
        self.standardised = Standardised(observations.size) if vectors else nn.Identity()
        self.reward = nn.Linear(1, width, bias=False)
        self.start = nn.Parameter(torch.randn(width))
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, inputs: StepInputs) -> Float[Tensor, "*N D"]:
        """[..., D] of inputs [...]."""
        r = inputs.previous_reward
        before = self.action(inputs.previous_action) + self.reward((r.sign() * r.abs().log1p()).unsqueeze(-1))
        before = torch.where(inputs.start.unsqueeze(-1), self.start, before)
        return self.mix(self.observation(self.standardised(inputs.observation)) + before)


@runtime_checkable
class Reader(Protocol):
    """What one step's inputs look like to a core; a module, so that it learns with the memory it serves."""

    width: int
    """D, features that it gives"""

    def __call__(self, inputs: StepInputs) -> Float[Tensor, "*N D"]:
        """[..., D] of inputs [...]."""
        ...


class Remembering(Memory):
    """An encoder (`Encoder`, or any module that is a `Reader`) and a core: every learned memory."""

    def __init__(self, encoder: Reader, core: Core):
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
