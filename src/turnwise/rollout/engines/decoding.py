"""From logits to the distribution that is sampled, and a sample from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from turnwise.run.errors import SettingError


@dataclass(frozen=True)
class Decoding:
    """How the policy's logits become a distribution: temperature, then top-k, then top-p."""

    temperature: float = 1.0
    """Divides the logits; 0 is greedy."""
    top_k: int | None = None
    """Keep only the k most likely tokens."""
    top_p: float | None = None
    """Keep only the most likely tokens that together reach probability p."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise SettingError("temperature", self.temperature, "0 (greedy) or more")
        if self.top_k is not None and self.top_k < 1:
            raise SettingError("top_k", self.top_k, "1 or more")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise SettingError("top_p", self.top_p, "a probability above 0")


POLICYS_OWN = Decoding()
"""The policy's distribution as it is."""
WIDE = 2**15
"""tokens of a vocabulary from which on its probabilities are summed up in blocks, and nowhere kept"""
BLOCK = 256
"""tokens of such a block"""
AT_ONCE = 2**16
"""numbers in double precision that a processor keeps at hand"""


def keep_top_k(logits: Float[Tensor, "N V"], k: int) -> Float[Tensor, "N V"]:
    """-inf outside the k largest logits (ties with the k-th stay)."""
    if k >= logits.shape[-1]:
        return logits
    least = logits.topk(k, dim=-1).values[..., -1:]
    return logits.masked_fill(logits < least, -torch.inf)


def keep_top_p(p: Float[Tensor, "N V"], top: float) -> Float[Tensor, "N V"]:
    """The fewest most likely tokens that together reach probability `top`, renormalised."""
    if top == 1:
        return p
    sorted_p, order = p.sort(dim=-1, descending=True, stable=True)
    beyond = sorted_p.cumsum(-1) - sorted_p >= top
    kept = p.masked_fill(torch.zeros_like(beyond).scatter(-1, order, beyond), 0.0)
    return kept / kept.sum(-1, keepdim=True)


def distribution(logits: Float[Tensor, "N V"], how: Decoding) -> Float[Tensor, "N V"]:
    """Probabilities, float64, of the distribution that is actually sampled from."""
    logits = logits.double()
    if how.temperature == 0:
        return torch.zeros_like(logits).scatter(-1, logits.argmax(-1, keepdim=True), 1.0)
    if how.temperature != 1:
        logits = logits / how.temperature
    if how.top_k is not None:
        logits = keep_top_k(logits, how.top_k)
    p = logits.softmax(-1)
    return p if how.top_p is None else keep_top_p(p, how.top_p)


def sample(p: Float[Tensor, "N V"], uniforms: Float[Tensor, "N"]) -> Int[Tensor, "N"]:
    """Inverse of the cumulative distribution at `uniforms` in [0, 1): one number decides one token.

    A token of probability 0 is never drawn.
    """
    cumulative = p.cumsum(-1)
    index = torch.searchsorted(cumulative, uniforms.unsqueeze(-1) * cumulative[:, -1:], right=True)
    return index.squeeze(-1).clamp(max=p.shape[-1] - 1)


def draw(
    logits: Float[Tensor, "N V"], how: Decoding, uniforms: Float[Tensor, "N"]
) -> tuple[Int[Tensor, "N"], Float[Tensor, "N"]]:
    """A sample of `distribution(logits, how)` by `uniforms`, as `sample` draws it, and its log-probability.

    Where nothing is cut off a wide vocabulary, its [N, V] probabilities never exist: each row is summed up in
    blocks, a block is drawn, and then a token in it. What is drawn is the same, but for the order of sums.
    """
    if how.temperature == 0:
        tokens = logits.argmax(-1)
        return tokens, torch.zeros_like(tokens, dtype=torch.float64)
    if logits.shape[-1] >= WIDE and how.top_k is None and how.top_p in (None, 1):
        return _draw_in_blocks(logits, how.temperature, uniforms)
    p = distribution(logits, how)
    tokens = sample(p, uniforms)
    return tokens, p.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).log()


def _draw_in_blocks(
    logits: Float[Tensor, "N V"], temperature: float, uniforms: Float[Tensor, "N"]
) -> tuple[Int[Tensor, "N"], Float[Tensor, "N"]]:
    rows, vocab = logits.shape
    top = logits.amax(-1, keepdim=True).double()

    def weights(some: Tensor, top: Tensor) -> Tensor:  # exp((x - top) / temperature): at most 1
        return some.double().sub_(top).div_(temperature).exp_()

    full = vocab // BLOCK * BLOCK
    sums = top.new_zeros(rows, -(-vocab // BLOCK))  # [N, blocks]
    # On a CPU few rows at a time, so that what is written is read again while it is at hand.
    step = max(1, AT_ONCE // vocab) if logits.device.type == "cpu" else rows
    for first in range(0, rows, step):
        some = slice(first, first + step)
        w = weights(logits[some], top[some])
        torch.sum(w[:, :full].view(len(w), -1, BLOCK), -1, out=sums[some, : full // BLOCK])
        if full < vocab:
            sums[some, -1] = w[:, full:].sum(-1)
    ends = sums.cumsum(-1)
    wanted = uniforms.unsqueeze(-1) * ends[:, -1:]
    block = _first_above(ends, wanted)  # [N, 1]
    # The weights of the drawn block are formed again, [N, BLOCK]; beyond the vocabulary they are 0.
    ids = block * BLOCK + torch.arange(BLOCK, device=logits.device)
    inside = weights(logits.gather(-1, ids.clamp(max=vocab - 1)), top).masked_fill_(ids >= vocab, 0.0)
    left = wanted - (ends - sums).gather(-1, block)
    tokens = block * BLOCK + _first_above(inside.cumsum(-1), left)
    logp = (logits.gather(-1, tokens).double() - top) / temperature - ends[:, -1:].log()
    return tokens.squeeze(-1), logp.squeeze(-1)


def _first_above(ends: Float[Tensor, "N K"], wanted: Float[Tensor, "N 1"]) -> Int[Tensor, "N 1"]:
    """The first end above what is wanted, or, where rounding has left none, the first to reach the last one:
    in either case it lies above the end before it.
    """
    return torch.searchsorted(ends, wanted, right=True).minimum(
        torch.searchsorted(ends, ends[:, -1:].contiguous())
    )
