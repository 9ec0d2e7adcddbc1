"""Numbers of observations in units of their own deviation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn


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
