"""Two layers from features to values, which begin as a constant."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class ValueHead(nn.Module):
    """Two layers, D -> 2D -> `outputs`; starts as the constant `initial` (in the units of the return).

    A zero last layer with a plausible bias spares the first updates the work of unlearning noise
    (LMRL-Gym, Abdulhai et al. 2023, arXiv:2311.18232, starts its heads this way).
    """

    def __init__(self, width: int, outputs: int, initial: float = 0.0):
        super().__init__()
        self.hidden = nn.Linear(width, 2 * width)
        self.out = nn.Linear(2 * width, outputs)
        nn.init.zeros_(self.out.weight)
        nn.init.constant_(self.out.bias, initial)

    def forward(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """All outputs."""
        return self.out(torch.relu(self.hidden(features)))

    def of(self, features: Float[Tensor, "*N D"], index: Int[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """One output per feature: the V-wide product is never formed."""
        hidden = torch.relu(self.hidden(features))
        return (hidden * self.out.weight[index]).sum(-1) + self.out.bias[index]

    def scale_(self, factor: float) -> None:
        """Multiply what it says by `factor`: from one unit of the return to another."""
        with torch.no_grad():
            self.out.weight.mul_(factor)
            self.out.bias.mul_(factor)
