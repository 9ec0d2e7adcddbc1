"""A gated recurrence that is linear in its memory, so that rows are read by a scan and not step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from turnwise.models.memory.base import Core

LONGEST = 1000.0
"""steps that the slowest features of a fresh layer remember"""


class LinearRecurrence(Core):
    """Layers of a diagonal linear recurrence with residuals, then a norm. K = layers * D.

        f, i, v = sigmoid(W_f n), sigmoid(W_i n), W_v n,    n = norm(x_t)
        h_t = f h_{t-1} + i v,                              y_t = x_t + W silu(h_t)

    Bradbury et al. 2016, arXiv:1611.01576, eq. 4 (ifo-pooling) with a filter of width 1, less its output gate
    and tanh: gates read the input and not the memory, so that h is linear in it. Gates begin as in Tallec &
    Ollivier 2018, arXiv:1804.11188, eq. 16, with time scales from 2 to `LONGEST` in equal ratios.
    """

    def __init__(self, width: int, layers: int = 1):
        super().__init__()
        self.width, self.state_size = width, layers * width
        self.layers = nn.ModuleList(_Layer(width) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def unroll(
        self, x: Float[Tensor, "B T D"], state0: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """All positions."""
        before = x.new_zeros(len(x), self.state_size) if state0 is None else state0
        for layer, h0 in zip(self.layers, before.split(self.width, -1), strict=True):
            x, _ = layer(x, h0, scan)
        return self.norm(x)

    def step(
        self, x: Float[Tensor, "N D"], state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N K"]]:
        """One position."""
        after = []
        for layer, h in zip(self.layers, state.split(self.width, -1), strict=True):
            x, h = layer(x, h, _stepped)
            after.append(h)
        return self.norm(x), torch.cat(after, -1)


class _Layer(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, 3 * width)
        self.write = nn.Linear(width, width)
        # A constant decay f forgets as f^t, with a time scale of 1 / (1 - f) steps. sigmoid(log(s - 1)) is
        # 1 - 1/s, so feature j begins with the time scale steps[j]; its input gate begins at 1 - f = 1/s, so
        # that h is a mean of what came in and not a sum that grows with s.
        steps = torch.logspace(math.log10(2.0), math.log10(LONGEST), width)
        with torch.no_grad():
            self.read.bias[: 2 * width] = torch.cat([(steps - 1).log(), -(steps - 1).log()])

    def forward(self, x: Tensor, h: Tensor, recurrence: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
        """What goes to the next layer, and the memory, both [..., D]."""
        D = x.shape[-1]
        gates, value = self.read(self.norm(x)).split((2 * D, D), -1)
        decay, let_in = gates.sigmoid().chunk(2, -1)
        h = recurrence(decay, let_in * value, h)
        return x + self.write(F.silu(h)), h


def _stepped(decay: Tensor, new: Tensor, h: Tensor) -> Tensor:
    return torch.addcmul(new, decay, h)


def scan(
    decay: Float[Tensor, "B T D"], new: Float[Tensor, "B T D"], h0: Float[Tensor, "B D"]
) -> Float[Tensor, "B T D"]:
    """h_t = decay_t h_{t-1} + new_t at every position, in O(sqrt T) operations on tensors.

    Products of decays are formed within a piece of sqrt(T) steps only, and nothing is divided: where they
    vanish, so does what they multiply.
    """
    return _Scan.apply(decay, new, h0)  # type: ignore[no-any-return]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, decay: Tensor, new: Tensor, h0: Tensor) -> Tensor:
        h = _scanned(decay, new, h0)
        ctx.save_for_backward(decay, h0, h)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """g_t = gradient_t + decay_{t+1} g_{t+1}: the same recurrence, run backwards.

        It needs the decays and h alone; autograd would keep every product of the loops in `_scanned`.
        """
        decay, h0, h = ctx.saved_tensors
        following = F.pad(decay[:, 1:], (0, 0, 0, 1)).flip(1)
        g = _scanned(following, gradient.flip(1), torch.zeros_like(h0)).flip(1)
        before = torch.cat([h0.unsqueeze(1), h[:, :-1]], 1)
        return g * before, g, g[:, 0] * decay[:, 0]


def _scanned(decay: Tensor, new: Tensor, h: Tensor) -> Tensor:
    """In pieces of L steps: what each does to a memory, then the memory before each, then all positions.

    The first and the last loop run over the steps of all pieces at once; a shorter piece at the end goes step
    by step.
    """
    T = decay.shape[1]
    L = math.isqrt(T)  # L steps in a piece, T / L pieces: 2 L + T / L operations, few if L is about sqrt(T)
    whole = T // L * L
    h_all = torch.empty_like(new)
    # Lists of L tensors [B, T / L, D]: step i of every piece.
    decays = decay[:, :whole].unflatten(1, (-1, L)).unbind(2)
    news = new[:, :whole].unflatten(1, (-1, L)).unbind(2)
    # 1. What a whole piece does to a memory, h -> product h + total, for all pieces at once.
    product, total = decays[0], news[0]
    for a, b in zip(decays[1:], news[1:], strict=True):
        product, total = product * a, torch.addcmul(b, a, total)
    # 2. From piece to piece: the memory [B, D] before each.
    before = []
    for a, b in zip(product.unbind(1), total.unbind(1), strict=True):
        before.append(h)
        h = torch.addcmul(b, a, h)
    # 3. The steps again, all pieces at once, now from the right memory; written where they belong.
    inside = torch.stack(before, 1)  # [B, T / L, D]
    for a, b, to in zip(decays, news, h_all[:, :whole].unflatten(1, (-1, L)).unbind(2), strict=True):
        inside = torch.addcmul(b, a, inside, out=to)
    for t in range(whole, T):
        h = torch.addcmul(new[:, t], decay[:, t], h, out=h_all[:, t])
    return h_all
