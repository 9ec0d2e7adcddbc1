"""From features to a distribution over actions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from turnwise.losses.policy import entropy


class ActionHead(nn.Module, ABC):
    """`forward` gives the parameters [..., P] of a distribution; the other methods read them."""

    @abstractmethod
    def logp(self, parameters: Float[Tensor, "*N P"], actions: Tensor) -> Float[Tensor, "*N"]:
        """log pi(a) in nats; a log-density for vectors."""

    @abstractmethod
    def entropy(self, parameters: Float[Tensor, "*N P"]) -> Float[Tensor, "*N"]:
        """Entropy of the policy, in nats."""

    @abstractmethod
    def sample(self, parameters: Float[Tensor, "N P"]) -> Tensor:
        """One action per lane, by PyTorch's global generator."""

    @abstractmethod
    def mode(self, parameters: Float[Tensor, "N P"]) -> Tensor:
        """The likeliest action of each lane."""


class Categorical(ActionHead):
    """A softmax over n actions; near uniform at first (last layer scaled by `gain`)."""

    def __init__(self, width: int, n: int, gain: float = 0.01):
        super().__init__()
        self.actions = n
        self.logits = nn.Linear(width, n)
        nn.init.orthogonal_(self.logits.weight, gain)
        nn.init.zeros_(self.logits.bias)

    def forward(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N P"]:
        """Unnormalised logits."""
        return self.logits(features)

    def logp(self, parameters: Float[Tensor, "*N P"], actions: Tensor) -> Float[Tensor, "*N"]:
        """log pi(a)."""
        return parameters.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def entropy(self, parameters: Float[Tensor, "*N P"]) -> Float[Tensor, "*N"]:
        """At most log n."""
        return entropy(parameters)

    def sample(self, parameters: Float[Tensor, "N P"]) -> Tensor:
        """Gumbel's trick: argmax of logits plus Gumbel noise has the softmax's distribution."""
        noise = torch.empty_like(parameters).exponential_()
        return (parameters - noise.log_()).argmax(-1)

    def mode(self, parameters: Float[Tensor, "N P"]) -> Tensor:
        """argmax."""
        return parameters.argmax(-1)


class MultiCategorical(ActionHead):
    """Several independent softmaxes, given the history: one for each symbol of a `MultiDiscrete` action."""

    def __init__(self, width: int, sizes: Sequence[int], gain: float = 0.01):
        super().__init__()
        self.parts = nn.ModuleList(Categorical(width, n, gain) for n in sizes)
        self.sizes = tuple(sizes)

    def forward(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N P"]:
        """Unnormalised logits, one part after the other."""
        return torch.cat([part(features) for part in self.parts], -1)

    def logp(self, parameters: Float[Tensor, "*N P"], actions: Tensor) -> Float[Tensor, "*N"]:
        """log pi(a), summed over the symbols of the action."""
        parts = zip(self._heads(), parameters.split(self.sizes, -1), actions.unbind(-1), strict=True)
        return torch.stack([head.logp(p, a) for head, p, a in parts]).sum(0)

    def entropy(self, parameters: Float[Tensor, "*N P"]) -> Float[Tensor, "*N"]:
        """Summed: the symbols are independent."""
        return torch.stack([entropy(p) for p in parameters.split(self.sizes, -1)]).sum(0)

    def sample(self, parameters: Float[Tensor, "N P"]) -> Tensor:
        """[N, d]"""
        return self._each(parameters, "sample")

    def mode(self, parameters: Float[Tensor, "N P"]) -> Tensor:
        """[N, d], the likeliest of each: together they are the likeliest action."""
        return self._each(parameters, "mode")

    def _each(self, parameters: Tensor, method: str) -> Tensor:
        parts = zip(self._heads(), parameters.split(self.sizes, -1), strict=True)
        return torch.stack([getattr(head, method)(p) for head, p in parts], -1)

    def _heads(self) -> list[Categorical]:
        heads: list = list(self.parts)
        return heads


class Gaussian(ActionHead):
    """Independent normals; the mean depends on the history, the deviation is learnt and does not.

    Actions are in units in which the environment's bounds are -1 and 1 (`rollout/episodes/bounds.py`), and
    clipped there; log-densities are of the unclipped.
    """

    def __init__(self, width: int, size: int, deviation: float = 0.6):
        super().__init__()
        self.mean = nn.Linear(width, size)
        nn.init.orthogonal_(self.mean.weight, 0.01)
        nn.init.zeros_(self.mean.bias)
        self.log_deviation = nn.Parameter(torch.full((size,), math.log(deviation)))

    def forward(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N P"]:
        """Means and log-deviations, one after the other."""
        mean = self.mean(features)
        return torch.cat([mean, self.log_deviation.expand_as(mean)], -1)

    def logp(self, parameters: Float[Tensor, "*N P"], actions: Tensor) -> Float[Tensor, "*N"]:
        """Summed over the parts of the action."""
        mean, log_deviation = parameters.chunk(2, -1)
        z = (actions - mean) / log_deviation.exp()
        return -(0.5 * z**2 + log_deviation + 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self, parameters: Float[Tensor, "*N P"]) -> Float[Tensor, "*N"]:
        """Entropy of the normals before clipping, in nats."""
        _, log_deviation = parameters.chunk(2, -1)
        return (log_deviation + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def sample(self, parameters: Float[Tensor, "N P"]) -> Tensor:
        """[N, size]"""
        mean, log_deviation = parameters.chunk(2, -1)
        return mean + log_deviation.exp() * torch.randn_like(mean)

    def mode(self, parameters: Float[Tensor, "N P"]) -> Tensor:
        """The mean."""
        return parameters.chunk(2, -1)[0]


NARROWEST, WIDEST = -5.0, 1.0
"""log-deviations of a squashed normal, before it is squashed"""


class SquashedGaussian(nn.Module):
    """Independent normals whose mean and deviation depend on the history, squashed into the bounds by tanh.

    Haarnoja et al. 2018, arXiv:1812.05905, appendix C. Actions are in units in which the bounds are -1 and 1;
    numbers that lack a bound are not squashed.
    """

    bounded: Tensor

    def __init__(self, width: int, bounded: Sequence[bool]):
        super().__init__()
        self.parameters_of = nn.Linear(width, 2 * len(bounded))
        nn.init.orthogonal_(self.parameters_of.weight, 0.01)
        nn.init.zeros_(self.parameters_of.bias)
        self.register_buffer("bounded", torch.tensor(list(bounded)), persistent=False)

    def forward(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N P"]:
        """Means and log-deviations before squashing, one after the other."""
        mean, free = self.parameters_of(features).chunk(2, -1)
        middle, half = (WIDEST + NARROWEST) / 2, (WIDEST - NARROWEST) / 2
        # atanh(2/3): at first the deviation is 1, which spreads actions almost evenly over the bounds.
        return torch.cat([mean, middle + half * torch.tanh(free + math.atanh(-middle / half))], -1)

    def draw(self, parameters: Float[Tensor, "*N P"]) -> tuple[Float[Tensor, "*N d"], Float[Tensor, "*N"]]:
        """Actions and their log-densities, differentiable in the parameters."""
        mean, log_deviation = parameters.chunk(2, -1)
        noise = torch.randn_like(mean)
        free = mean + log_deviation.exp() * noise
        return self._squashed(free), self._logp(free, noise, log_deviation)

    def mode(self, parameters: Float[Tensor, "N P"]) -> Float[Tensor, "N d"]:
        """Where the mean is squashed to."""
        return self._squashed(parameters.chunk(2, -1)[0])

    def logp(self, parameters: Float[Tensor, "*N P"], actions: Float[Tensor, "*N d"]) -> Float[Tensor, "*N"]:
        """Log-density of actions, in nats."""
        mean, log_deviation = parameters.chunk(2, -1)
        inside = actions.clamp(-1 + 1e-6, 1 - 1e-6)  # at the bounds themselves there is no density
        free = torch.where(self.bounded, torch.atanh(inside), actions)
        return self._logp(free, (free - mean) / log_deviation.exp(), log_deviation)

    def _squashed(self, free: Tensor) -> Tensor:
        return torch.where(self.bounded, torch.tanh(free), free)

    def _logp(self, free: Tensor, noise: Tensor, log_deviation: Tensor) -> Tensor:
        normal = -(0.5 * noise**2 + log_deviation + 0.5 * math.log(2 * math.pi))
        # log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2u)), which does not round to log 0.
        slope = 2 * (math.log(2) - free - F.softplus(-2 * free))
        return (normal - torch.where(self.bounded, slope, 0.0)).sum(-1)
