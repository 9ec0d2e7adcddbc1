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
