"""How probable what was said is for an agent: teacher forcing, with all that it does before it draws a token.

    ln P(message | before) = sum_k ln p(a_k | h_k),    p = decoding(policy's logits)

p is the distribution that the agent draws from (temperature, top-k, top-p, a critic's shift), so a message
that it would never say has -inf. Every conversation is read once, all of its turns in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from turnwise.data.batch import padded_ids
from turnwise.data.order import alike
from turnwise.data.rows import lengths
from turnwise.data.tokens import Tokens
from turnwise.losses.policy import action_logp
from turnwise.models.lm.parts import features_at
from turnwise.rollout.engines.decoding import POLICYS_OWN, Decoding, distribution
from turnwise.rollout.engines.sampler import Policy

READ = 4096
"""positions that are read at a time, padding included, or one row"""
NUMBERS = 2**23
"""of logits at a time"""


class TokenScores(NamedTuple):
    """Of the decisions of one row, A of them, in their order."""

    logp: np.ndarray
    """[A], of what was said, in nats"""
    top: np.ndarray
    """[A], the probability of the likeliest token"""
    hit: np.ndarray
    """[A] bool, whether that one was said"""


@torch.inference_mode()
def token_scores(
    policy: Policy,
    decoding: Decoding,
    rows: Sequence[Tokens],
    progress: Callable[[int], None] | None = None,
) -> list[TokenScores]:
    """Every decision of every row, burn-in too. `progress` is called with the number of rows read so far."""
    found: dict[int, TokenScores] = {}
    for batch in alike(lengths(rows).array(), READ):
        part = [rows[i] for i in batch]
        found.update(zip(batch, _read(policy, decoding, part), strict=True))
        if progress is not None:
            progress(len(found))
    return [found[i] for i in range(len(rows))]


def _read(policy: Policy, decoding: Decoding, rows: Sequence[Tokens]) -> list[TokenScores]:
    device = next(policy.trunks[0].parameters()).device
    at = [row.decisions for row in rows]
    decisions = np.zeros((len(rows), max(map(len, at)) + 1), np.int64)  # [B, A1], padded as batches are
    for b, (row, k) in enumerate(zip(rows, at, strict=True)):
        decisions[b, : len(k)], decisions[b, len(k) :] = k, len(row) - 1
    said = torch.as_tensor(
        np.concatenate([row.ids[k + 1] for row, k in zip(rows, at, strict=True)]), device=device
    )
    read = padded_ids(rows).to(device)
    places = torch.as_tensor(decisions, device=device)
    real = torch.arange(decisions.shape[1]) < torch.tensor([len(k) for k in at]).unsqueeze(1)
    real = real.to(device)
    trunks = tuple(policy.trunks)
    each = {trunk: features_at(trunk, read, places)[real] for trunk in dict.fromkeys(trunks)}
    features = [each[trunk] for trunk in trunks]  # [n, D] each
    step = 1
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    begin = 0
    while begin < len(said):
        here = slice(begin, begin + step)
        logits = policy.logits([f[here] for f in features])  # [m, V]
        parts.append(_scores(logits, decoding, said[here]))
        begin += step
        step = max(1, NUMBERS // logits.shape[-1])  # the first one told how many there are
    ends = np.cumsum([len(k) for k in at])[:-1]
    columns = [np.split(torch.cat(x).cpu().numpy(), ends) for x in zip(*parts, strict=True)]
    return [TokenScores(*row) for row in zip(*columns, strict=True)]


def _scores(logits: Tensor, decoding: Decoding, said: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if decoding == POLICYS_OWN:  # without a second table of the size of the logits
        logp = action_logp(logits.unsqueeze(0), said.unsqueeze(0))[0]
        likeliest = logits.argmax(-1)
        top = action_logp(logits.unsqueeze(0), likeliest.unsqueeze(0))[0].exp()
    else:
        p = distribution(logits, decoding)
        logp = p.gather(-1, said.unsqueeze(-1)).squeeze(-1).log()
        top, likeliest = p.max(-1)
    return logp.double(), top.double().clamp(max=1), likeliest == said
