"""A small causal transformer as a memory: what it carries is a ring of keys and values in each layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from turnwise.models.memory.base import Core
from turnwise.run.errors import SettingError

BLOCK = 256
"""queries whose scores are formed at once, at least; so no row needs a mask of T x T"""


class CausalTransformer(Core):
    """Attention of each position to the last `context` of its layer, itself included.

    Vaswani et al. 2017, arXiv:1706.03762, with norms before the parts (Xiong et al. 2020, arXiv:2002.04745),
    rotary positions (Su et al. 2021, arXiv:2104.09864, eq. 34) and a banded mask (Beltagy et al. 2020,
    arXiv:2004.05150). Angles tell how far back a position lies and not when it was, which a stack played
    back needs (position 103-p reads p); so a linear map of cosines and sines of the step's number, from the
    episode's start, is added to what comes in. The state is the number of positions seen, then for each layer
    keys and values [heads, context-1, D / heads], those of position p in slot p mod (context-1); so K is
    1 + 2 layers (context-1) D.
    """

    def __init__(self, width: int, layers: int = 2, heads: int = 4, context: int = 64):
        super().__init__()
        if width % (2 * heads):
            raise SettingError("width", width, f"a multiple of {2 * heads}, twice the number of heads")
        if context < 2:
            raise SettingError("context", context, "2 or more: with one position nothing is remembered")
        self.width, self.heads, self.held = width, heads, context - 1
        self.state_size = 1 + 2 * layers * self.held * width
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.clock = nn.Linear(width, width, bias=False)

    def unroll(
        self, x: Float[Tensor, "B T D"], state0: Float[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """All positions, by blocks of queries."""
        if state0 is None:
            count, known, seen = x.new_zeros(1, 1), None, None
        else:
            count = state0[:, :1]
            order, known = self._in_time(count)
            seen = self._cache(state0).gather(4, order.expand(-1, len(self.layers), 2, self.heads, -1, -1))
        now = count + torch.arange(x.shape[1], device=x.device)
        turn, x = _rotation(now, self.width // self.heads, x.dtype), x + self._time(now, x.dtype)
        for i, layer in enumerate(self.layers):

            def attend(q: Tensor, k: Tensor, v: Tensor, i: int = i) -> Tensor:
                if seen is not None:
                    k, v = torch.cat([seen[:, i, 0], k], 2), torch.cat([seen[:, i, 1], v], 2)
                return _banded(q, k, v, self.held, known)

            x = layer(x, turn, attend)
        return self.norm(x)

    def step(
        self, x: Float[Tensor, "N D"], state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N D"], Float[Tensor, "N K"]]:
        """One position: it reads the ring, and takes the place of the oldest."""
        count, cache = state[:, :1], self._cache(state)
        y = x.unsqueeze(1) + self._time(count, x.dtype)
        turn = _rotation(count, self.width // self.heads, x.dtype)
        slots = torch.arange(self.held + 1, device=x.device)
        known = (slots < count) | (slots == self.held)
        new = []
        for i, layer in enumerate(self.layers):

            def attend(q: Tensor, k: Tensor, v: Tensor, i: int = i) -> Tensor:
                new.append(torch.stack([k, v], 1).squeeze(3))
                keys, values = torch.cat([cache[:, i, 0], k], 2), torch.cat([cache[:, i, 1], v], 2)
                return F.scaled_dot_product_attention(q, keys, values, known[:, None, None])

            y = layer(y, turn, attend)
        after = state.clone()
        after[:, 0] += 1
        lanes, slot = torch.arange(x.shape[0], device=x.device), (count[:, 0] % self.held).long()
        self._cache(after)[lanes, :, :, :, slot] = torch.stack(new, 1)
        return self.norm(y.squeeze(1)), after

    def _time(self, position: Float[Tensor, "B T"], dtype: torch.dtype) -> Float[Tensor, "B T D"]:
        """What the clock says at positions."""
        return self.clock(torch.cat(_rotation(position, self.width, dtype), -1).squeeze(1))

    def _cache(self, state: Tensor) -> Tensor:
        """[N, layers, 2, heads, context-1, D / heads], a view."""
        return state[:, 1:].unflatten(
            1, (len(self.layers), 2, self.heads, self.held, self.width // self.heads)
        )

    def _in_time(self, count: Float[Tensor, "B 1"]) -> tuple[Tensor, Bool[Tensor, "B P"]]:
        """Slots from the oldest position to the latest, as an index of caches; and which were written."""
        age = torch.arange(self.held, 0, -1, device=count.device)
        position = count - age
        order = (position % self.held).long()[:, None, None, None, :, None]
        return order.expand(*order.shape[:-1], self.width // self.heads), position >= 0


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """x [B, T, D]; `attend` reads [B, heads, T, D / heads]: queries and keys, turned, and values."""
        q, k, v = self.read(self.norm(x)).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        found = attend(_turned(q, turn), _turned(k, turn), v)
        x = x + self.write(found.transpose(1, 2).flatten(2))
        return x + self.perceptron(x)


def _rotation(position: Tensor, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine [B, 1, T, size / 2] of positions [B, T], whose angles need double precision."""
    rates = 10000.0 ** (-torch.arange(0, size, 2, dtype=torch.float64, device=position.device) / size)
    angles = position[:, None, :, None].double() * rates
    return angles.cos().to(dtype), angles.sin().to(dtype)


def _turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """x [B, heads, T, d], feature i and feature i + d/2 as the two axes of a plane."""
    (cos, sin), (a, b) = turn, x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], -1)


def _banded(q: Tensor, k: Tensor, v: Tensor, held: int, known: Tensor | None) -> Tensor:
    """[B, heads, T, d]: query t reads keys P+t-held to P+t, where P keys `known` [B, P] come first."""
    T = q.shape[2]
    P = k.shape[2] - T
    if known is None and held + 1 >= T:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    found = []
    for start in range(0, T, max(BLOCK, held)):
        end = min(T, start + max(BLOCK, held))
        first = max(0, P + start - held)
        query = torch.arange(P + start, P + end, device=q.device).unsqueeze(1)
        key = torch.arange(first, P + end, device=q.device)
        band = (key <= query) & (key >= query - held)
        if known is not None and first < P:
            band = band & F.pad(known[:, first:], (0, end), value=True)[:, None, None]
        keys, values = k[:, :, first : P + end], v[:, :, first : P + end]
        found.append(F.scaled_dot_product_attention(q[:, :, start:end], keys, values, band))
    return torch.cat(found, 2)
