"""A policy of acts that learns from its own talk, and V beside it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from turnwise.data.batch import Batch
from turnwise.models.agents.act_critic import ActClone
from turnwise.models.decisions import at_decisions
from turnwise.models.memory.base import Memory
from turnwise.models.value_head import ValueHead

NEVER = -1e9
"""logit of an act that may not be chosen: its probability is 0, and no number is lost on the way"""


class ActorValues(NamedTuple):
    """At the decisions of rows, the final state included."""

    logits: Tensor
    """[B, A+1, V]"""
    values: Tensor
    """[B, A+1], in the units of the task"""


class ActActor(nn.Module):
    """Logits of the acts that may be chosen, and V(h) on a memory of its own.

    With `facts` F, V(h, z) sees F numbers of hidden facts z too, which are there in training alone: the rows
    have them as their states. The policy never sees them, so that acting needs none. They add nothing at
    first: a V that was learnt without them begins as it was.

    V works in units of `scale`, so that one learning rate does for returns of .9 and of 100. Until the first
    returns are known (`begin_`) the scale is 1.
    """

    scale: Tensor
    known: Tensor
    allowed: Tensor

    def __init__(self, policy: ActClone, memory: Memory, allowed: Bool[Tensor, "V"], facts: int = 0):
        super().__init__()
        self.policy, self.memory = policy, memory
        self.value = ValueHead(memory.width, 1)
        self.told = nn.Linear(facts, memory.width, bias=False) if facts else None
        if self.told is not None:
            nn.init.zeros_(self.told.weight)
        self.register_buffer("scale", torch.tensor(1.0))
        self.register_buffer("known", torch.tensor(False))
        self.register_buffer("allowed", allowed)

    def seeing(self, facts: int) -> ActActor:
        """The same, with a V that sees so many numbers of hidden facts too."""
        other = ActActor(self.policy, self.memory, self.allowed, facts)
        other.value, other.scale, other.known = self.value, self.scale, self.known
        return other

    def forward(self, batch: Batch) -> ActorValues:
        """Logits and values."""
        h = at_decisions(self.memory.unroll(batch.inputs, batch.state0), batch.decisions)
        if self.told is not None:
            h = h + self.told(batch.states)
        logits = self.policy(batch).masked_fill(~self.allowed, NEVER)
        return ActorValues(logits, self.scale * self.value(h).squeeze(-1))

    @torch.no_grad()
    def begin_(self, returns: Float[Tensor, "M"]) -> None:
        """Take units and a first guess of V from returns, if no critic has brought them."""
        if bool(self.known):
            return
        spread = float(returns.std(correction=0)) if len(returns) > 1 else 0.0
        self.scale.fill_(spread if spread > 1e-6 else 1.0)
        self.value.out.bias.fill_(float(returns.mean()) / float(self.scale))
        self.known.fill_(True)

    @torch.no_grad()
    def warm_(self, memory: Memory, value: ValueHead, scale: float) -> None:
        """Take V from a critic whose values are in the units of the task; `scale` is its returns' standard
        deviation."""
        self.memory.load_state_dict(memory.state_dict())
        self.value.load_state_dict(value.state_dict())
        self.value.scale_(1 / scale)
        self.scale.fill_(scale)
        self.known.fill_(True)
