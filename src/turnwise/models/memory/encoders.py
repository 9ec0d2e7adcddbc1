"""What one step shows, as features: the part of a learned memory that sees the environment's own spaces."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from turnwise.data.steps import StepInputs
from turnwise.envs.protocol import Discrete, MultiDiscrete, Space, Vector
from turnwise.models.memory.images import ImageEncoder
from turnwise.models.memory.standardiser import Standardiser


class Embedding(nn.Module):
    """A symbol, several, or a vector as D features; the encoder sums what it gives for different parts.

    Several symbols have a table each, and their features are summed. Images in a vector are read by
    convolutions. With `standardised` numbers go in as a `Standardiser` gives them.
    """

    first: Tensor
    """row of the table at which each symbol's own begins"""
    plain: Tensor
    """numbers of a vector that belong to no image"""

    def __init__(self, space: Space, width: int, *, standardised: bool = False):
        super().__init__()
        self.space = space
        self.standardised: Standardiser | None = None
        self.images = nn.ModuleList()
        if isinstance(space, Vector):
            inside = {i for x in space.images for i in range(x.at, x.at + math.prod(x.shape))}
            plain = [i for i in range(space.size) if i not in inside]
            self.register_buffer("plain", torch.tensor(plain, dtype=torch.int64), persistent=False)
            self.standardised = Standardiser(len(plain)) if standardised else None
            self.layer = nn.Linear(len(plain), width) if plain else None
            self.images = nn.ModuleList(
                ImageEncoder(image, width, Standardiser(image.channels) if standardised else None)
                for image in space.images
            )
            return
        sizes = (space.n,) if isinstance(space, Discrete) else space.sizes
        first = torch.tensor([0, *accumulate(sizes[:-1])])
        self.register_buffer("first", first, persistent=False)
        self.layer = nn.Embedding(sum(sizes), width)
        # Summed, the features of several have the size of those of one.
        nn.init.normal_(self.layer.weight, std=len(sizes) ** -0.5)

    def forward(self, x: Tensor) -> Float[Tensor, "*N D"]:
        """[..., D] of symbols [...], several [..., d] or vectors [..., d]."""
        if not isinstance(self.space, Vector):
            assert self.layer is not None
            several = isinstance(self.space, MultiDiscrete)
            return self.layer(x + self.first).sum(-2) if several else self.layer(x)
        parts = [image(x) for image in self.images]
        if self.layer is not None:
            numbers = self._plain(x)
            parts.append(self.layer(numbers if self.standardised is None else self.standardised(numbers)))
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def update_(self, x: Shaped[Tensor, "M *d"]) -> None:
        """Show observations to what standardises them; nothing else changes."""
        if self.standardised is not None and self.layer is not None:
            self.standardised.update_(self._plain(x))
        images: list[Any] = list(self.images)
        for image in images:
            image.update_(x)

    def _plain(self, x: Tensor) -> Tensor:
        """The numbers of vectors that belong to no image."""
        return x[..., self.plain] if len(self.images) else x


class Encoder(nn.Module):
    """Observation, previous action, previous reward and start flag as one vector of D features.

    Rewards go in as symlog(r) = sign(r) log(1+|r|) (Hafner et al. 2023, arXiv:2301.04104, eq. 9), so that -1
    and -100 are both of a size that a network can tell. Vectors of observations go in standardised, where
    the algorithm shows them (`Embedding.update_`). At a start previous action and reward are silent.
    """

    def __init__(self, observations: Space, actions: Space, width: int):
        super().__init__()
        self.width = width
        self.observation = Embedding(observations, width, standardised=True)
        self.action = Embedding(actions, width)
        self.reward = nn.Linear(1, width, bias=False)
        self.start = nn.Parameter(torch.randn(width))
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, inputs: StepInputs) -> Float[Tensor, "*N D"]:
        """[..., D] of inputs [...]."""
        r = inputs.previous_reward
        before = self.action(inputs.previous_action) + self.reward((r.sign() * r.abs().log1p()).unsqueeze(-1))
        before = torch.where(inputs.start.unsqueeze(-1), self.start, before)
        return self.mix(self.observation(inputs.observation) + before)


class ObservationEncoder(nn.Module):
    """The observation alone as D features: no previous action, reward or start flag.

    `LearnedMemory(ObservationEncoder(observations, width), Window(width, 1))` is the memoryless pi(a|o).
    """

    def __init__(self, observations: Space, width: int):
        super().__init__()
        self.width = width
        self.observation = Embedding(observations, width)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, inputs: StepInputs) -> Float[Tensor, "*N D"]:
        """[..., D] of inputs [...]."""
        return self.mix(self.observation(inputs.observation))
