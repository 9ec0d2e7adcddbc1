"""The last k inputs, and no more: what a stack of frames remembers; with k = 1, nothing."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from turnwise.models.memory.base import Core
from turnwise.run.errors import SettingError


class Window(Core):
    """A perceptron of the last k inputs (Mnih et al. 2015 stack k = 4 frames). K = (k-1)(D+1).

    An input goes in with a 1 beside it, which is also its bias; one that was never seen is all zeros. So a
    short history is told from one of silent inputs.
    """

    def __init__(self, width: int, k: int):
        super().__init__()
        if k < 1:
            raise SettingError("window", k, "1 or more")
        self.width, self.k, self.state_size = width, k, (k - 1) * (width + 1)
        self.window = nn.Linear(k * (width + 1), width, bias=False)
        self.out = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU())

    def unroll(
        self, x: Float[Tensor, "B T D"], state0: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """All positions, by a convolution over time."""
        kernel = self.window.weight.view(-1, self.k, self.width + 1).transpose(1, 2)
        before = x.new_zeros(len(x), self.state_size) if state0 is None else state0
        seen = torch.cat([before.view(len(x), self.k - 1, self.width + 1), _present(x)], 1)
        return self.out(F.conv1d(seen.transpose(1, 2), kernel).transpose(1, 2))

    def step(
        self, x: Float[Tensor, "N D"], state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N K"]]:
        """One position; what is oldest leaves the state on the left."""
        seen = torch.cat([state, _present(x)], 1)
        return self.out(self.window(seen)), seen[:, self.width + 1 :]


def _present(x: Tensor) -> Tensor:
    """[..., D+1], a 1 beside each input."""
    return F.pad(x, (0, 1), value=1.0)
