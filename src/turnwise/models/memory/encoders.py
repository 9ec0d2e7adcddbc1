"""What one step shows, as features: the part of a learned memory that sees the environment's own spaces."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from turnwise.data.steps import StepInputs
from turnwise.envs.protocol import Discrete, Space, Vector


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


class Standardiser(nn.Module):
    """(x - mean) / deviation, of all vectors that it was shown; what it was not shown, as it is.

    An angle of 0.05 beside features of size 1 is next to nothing, and a velocity is a difference of two such
    angles. Moments move only by `update_`, between updates of the weights, so that acting and learning read
    the same numbers.
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
        """x in units of the deviation from the mean."""
        return (x - self.mean) / self.deviation

    @torch.no_grad()
    def update_(self, x: Float[Tensor, "M d"]) -> None:
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
    the algorithm shows them (`Standardiser.update_`). At a start previous action and reward are silent.
    """

    def __init__(self, observations: Space, actions: Space, width: int):
        super().__init__()
        self.width = width
        self.observation, self.action = Embedding(observations, width), Embedding(actions, width)
        vectors = isinstance(observations, Vector)
        self.standardised = Standardiser(observations.size) if vectors else nn.Identity()
        self.reward = nn.Linear(1, width, bias=False)
        self.start = nn.Parameter(torch.randn(width))
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, inputs: StepInputs) -> Float[Tensor, "*N D"]:
        """[..., D] of inputs [...]."""
        r = inputs.previous_reward
        before = self.action(inputs.previous_action) + self.reward((r.sign() * r.abs().log1p()).unsqueeze(-1))
        before = torch.where(inputs.start.unsqueeze(-1), self.start, before)
        return self.mix(self.observation(self.standardised(inputs.observation)) + before)


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
