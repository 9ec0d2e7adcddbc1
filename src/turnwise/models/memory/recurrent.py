"""Gated recurrences, by PyTorch's fused kernels over rows and its cells step by step."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from turnwise.models.memory.base import Core


class GRU(Core):
    """Gated recurrent units, Cho et al. 2014, arXiv:1406.1078, as `torch.nn.GRU` writes them. K = D."""

    def __init__(self, width: int):
        super().__init__()
        self.width = self.state_size = width
        self.gru = nn.GRU(width, width, batch_first=True)

    def unroll(
        self, x: Float[Tensor, "B T D"], state0: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """All positions."""
        return self.gru(x, None if state0 is None else state0.unsqueeze(0).contiguous())[0]

    def step(
        self, x: Float[Tensor, "N D"], state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N K"]]:
        """One position."""
        w: Any = self.gru
        h = torch.gru_cell(x, state, w.weight_ih_l0, w.weight_hh_l0, w.bias_ih_l0, w.bias_hh_l0)
        return h, h


class LSTM(Core):
    """Long short-term memory, Hochreiter & Schmidhuber 1997, as `torch.nn.LSTM` writes it. K = 2D: h, c."""

    def __init__(self, width: int):
        super().__init__()
        self.width, self.state_size = width, 2 * width
        self.lstm = nn.LSTM(width, width, batch_first=True)

    def unroll(
        self, x: Float[Tensor, "B T D"], state0: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """All positions."""
        if state0 is None:
            return self.lstm(x)[0]
        h, c = (part.unsqueeze(0).contiguous() for part in state0.chunk(2, -1))
        return self.lstm(x, (h, c))[0]

    def step(
        self, x: Float[Tensor, "N D"], state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N K"]]:
        """One position."""
        w: Any = self.lstm
        before = state.chunk(2, -1)
        h, c = torch.lstm_cell(x, before, w.weight_ih_l0, w.weight_hh_l0, w.bias_ih_l0, w.bias_hh_l0)
        return h, torch.cat([h, c], -1)
