"""A model of the other side of a conversation: its words, whether the talk ends with them, what was earned.

features ──┬── output layer   which token comes next, at every token of the partner
           ├── end            whether the conversation is over, behind the partner's stop token
           └── reward         what the agent's words before this turn earned, at the same place
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from turnwise.data.batch import Batch, pack_tokens
from turnwise.data.tokens import Tokens
from turnwise.models.decisions import in_own_precision
from turnwise.models.lm.parts import features_at, trunk_of, width_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.replies import token_logp


@dataclass(frozen=True)
class Minibatch:
    """Rows, a decision a token of the partner, and which of them end its turns."""

    batch: Batch
    stops: Tensor
    """[B, A] bool, whether a turn of the partner ends with this token"""


def minibatch(rows: Sequence[Tokens], dtype: torch.dtype = torch.float32) -> Minibatch:
    """Rows packed; discounts are 1 but for a 0 where the conversation is over."""
    batch = pack_tokens(rows, gamma=1.0, dtype=dtype)
    stops = np.zeros(tuple(batch.mask.shape), bool)
    for b, row in enumerate(rows):
        ends = row.turn_end[row.decisions + 1]
        stops[b, : len(ends)] = ends
    return Minibatch(batch, torch.from_numpy(stops))


class Told(NamedTuple):
    """What a partner model says of rows that it reads, at every decision [B, A]."""

    logp: Tensor
    """log-probability of the token, in nats; 0 where masked"""
    end: Tensor
    """logit of the end behind it; means something behind a stop token"""
    reward: Tensor
    """the reward, in standard deviations; means something behind a stop token"""


class PartnerModel(nn.Module):
    """A causal language model with two numbers at the end of each of its turns.

    `scale` [2] holds mean and standard deviation of the rewards to learn from: the head learns in these
    units, and `paid` speaks in those of the task.
    """

    scale: Tensor

    def __init__(self, lm: Any, mean: float = 0.0, std: float = 1.0):
        super().__init__()
        self.policy = LmPolicy(lm)
        self.end = nn.Linear(width_of(lm), 1)
        self.reward = nn.Linear(width_of(lm), 1)
        for head in (self.end, self.reward):  # an even chance, and the mean reward
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        self.register_buffer("scale", torch.tensor([mean, std]))

    def heads(self, features: Float[Tensor, "*N D"]) -> tuple[Float[Tensor, "*N"], Float[Tensor, "*N"]]:
        """Logit of the end and scaled reward, from features of stop tokens."""
        own = features.to(self.end.weight.dtype)
        with in_own_precision(own):
            return self.end(own).squeeze(-1), self.reward(own).squeeze(-1)

    def paid(self, reward: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """A scaled reward in the units of the task."""
        return self.scale[0] + self.scale[1] * reward

    def forward(self, batch: Batch) -> Told:
        """Everything in one reading: tokens at decisions, the two numbers behind them."""
        lm, A = self.policy.lm, batch.ends.shape[1]
        places = torch.cat([batch.decisions[:, :-1], batch.ends, batch.decisions[:, -1:]], 1)  # [B, 2A+1]
        features = features_at(trunk_of(lm), batch.inputs, places)
        logp = token_logp(lm, features[:, :A][batch.mask], batch.actions[batch.mask])
        end, reward = self.heads(features[:, A : 2 * A])
        return Told(logp.new_zeros(batch.mask.shape).masked_scatter(batch.mask, logp), end, reward)
