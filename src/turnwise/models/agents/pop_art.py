"""A value head that works in units of the returns it has seen."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PopArtHead(nn.Module):
    """A value head whose last layer works in units of the returns it has seen: v = mean + scale * out.

    `update_scale_` moves mean and scale and leaves every value as it was (Pop-Art, van Hasselt et al. 2016,
    arXiv:1602.07714, section 2.2). So one learning rate does for returns of 0.9 and of -100.
    """

    mean: Tensor
    scale: Tensor
    seen: Tensor

    def __init__(self, width: int, outputs: int = 1):
        super().__init__()
        self.hidden, self.out = nn.Linear(width, width), nn.Linear(width, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        for name, value in (("mean", 0.0), ("scale", 1.0), ("seen", 0.0)):
            self.register_buffer(name, torch.tensor(value))

    def forward(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Values in units of the return."""
        return self.mean + self.scale * self.out(torch.relu(self.hidden(features)))

    @torch.no_grad()
    def update_scale_(self, targets: Float[Tensor, "M"], rate: float = 0.1) -> None:
        """Move mean and scale towards those of `targets` [M], at first quickly (1/n), later at `rate`."""
        self.seen += 1
        rate = max(rate, 1 / float(self.seen))
        mean = torch.lerp(self.mean, targets.mean(), rate)
        spread = (
            torch.lerp(self.scale, targets.std(correction=0), rate)
            if self.seen > 1
            else targets.std(correction=0)
        )
        scale = spread if spread > 1e-6 else torch.ones_like(spread)
        self.out.weight *= self.scale / scale
        self.out.bias.copy_((self.scale * self.out.bias + self.mean - mean) / scale)
        self.mean.copy_(mean)
        self.scale.copy_(scale)
