"""An actor with a memory, and a critic beside it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from turnwise.data.batch import Batch
from turnwise.data.steps import StepInputs
from turnwise.models.agents.action_heads import ActionHead
from turnwise.models.agents.views import Critic
from turnwise.models.decisions import at_decisions
from turnwise.models.memory.base import Memory
from turnwise.models.memory.encoders import Embedding


class ActorCriticOutput(NamedTuple):
    """Parameters of the policy [B, A, P] at each decision; values [B, A+1], the final state's included."""

    policy: Tensor
    values: Tensor


class ActOutput(NamedTuple):
    """What each of N lanes does, with what log-probability, and the memory after it."""

    actions: Tensor
    logp: Tensor
    state: Tensor


class ActorCritic(nn.Module):
    """Acts on its memory. Its state [N, K] is the actor's memory and then the critic's, if that has one."""

    def __init__(self, memory: Memory, head: ActionHead, critic: Critic):
        super().__init__()
        self.memory, self.head, self.critic = memory, head, critic
        self.state_size = memory.state_size + critic.state_size

    def forward(self, batch: Batch) -> ActorCriticOutput:
        """Policy and values at the decisions of rows."""
        k = self.memory.state_size
        mine, critics = (None, None) if batch.state0 is None else (batch.state0[:, :k], batch.state0[:, k:])
        features = at_decisions(self.memory.unroll(batch.inputs, mine), batch.decisions)
        return ActorCriticOutput(self.head(features[:, :-1]), self.critic(batch, features, critics))

    def update_standardisers_(self, observations: Shaped[Tensor, "M *d"]) -> None:
        """Show observations to every part of actor and critic that standardises them."""
        for part in self.modules():
            if isinstance(part, Embedding):
                part.update_(observations)

    def act(self, inputs: StepInputs, state: Float[Tensor, "N K"]) -> ActOutput:
        """One sampled action in each lane."""
        parameters, state = self._step(inputs, state)
        actions = self.head.sample(parameters)
        return ActOutput(actions, self.head.logp(parameters, actions), state)

    def act_greedily(self, inputs: StepInputs, state: Float[Tensor, "N K"]) -> ActOutput:
        """The likeliest action in each lane."""
        parameters, state = self._step(inputs, state)
        actions = self.head.mode(parameters)
        return ActOutput(actions, self.head.logp(parameters, actions), state)

    def _step(
        self, inputs: StepInputs, state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N K"]]:
        k = self.memory.state_size
        features, mine = self.memory.step(inputs, state[:, :k])
        if self.critic.state_size:
            mine = torch.cat([mine, self.critic.step(inputs, state[:, k:])], -1)
        return self.head(features), mine

    def initial_state(self, lanes: int) -> Float[Tensor, "N K"]:
        """The memory of nothing."""
        like = next(self.parameters())
        return torch.zeros(lanes, self.state_size, dtype=like.dtype, device=like.device)
