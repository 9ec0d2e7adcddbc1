"""An actor and two critics Q of a history: two memories, one for the actor and one for the critics.

Of actions that can be counted a critic gives every action's Q. Of vectors it is asked about one: then the
actor is a normal, squashed into the bounds.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from turnwise.data.batch import Batch
from turnwise.data.steps import StepInputs
from turnwise.envs.protocol import Discrete, Space, Vector
from turnwise.models.agents.action_heads import Categorical, SquashedGaussian
from turnwise.models.agents.actor_critic import ActOutput
from turnwise.models.agents.pop_art import PopArtHead
from turnwise.models.agents.q_network import QHead
from turnwise.models.decisions import at_decisions
from turnwise.models.memory.base import Memory
from turnwise.run.errors import InputError


class TwinQ(nn.Module):
    """E = 2 heads on one memory, each with a hidden layer of its own; both work in the same units."""

    def __init__(self, memory: Memory, actions: int):
        super().__init__()
        self.memory = memory
        self.heads = nn.ModuleList(QHead(memory.width, actions, dueling=False) for _ in range(2))

    @property
    def scale(self) -> Tensor:
        """[], of the values, in units of the return."""
        heads: list[Any] = list(self.heads)
        return heads[0].value.scale

    def forward(self, batch: Batch, state0: Float[Tensor, "B K"] | None) -> Float[Tensor, "E B A1 V"]:
        """Q at the decisions of rows, the final state included."""
        features = at_decisions(self.memory.unroll(batch.inputs, state0), batch.decisions)
        return torch.stack([head(features) for head in self.heads])

    def update_scale_(self, targets: Float[Tensor, "M"], rate: float) -> None:
        """Move the units of both towards those of `targets`."""
        heads: list[Any] = list(self.heads)
        for head in heads:
            head.value.update_scale_(targets, rate)


class TwinQOfVectors(nn.Module):
    """E = 2 heads on one memory, asked about actions that are vectors; both work in the same units."""

    def __init__(self, memory: Memory, size: int):
        super().__init__()
        self.memory = memory
        self.heads = nn.ModuleList(_QOfVectors(memory.width, size) for _ in range(2))

    @property
    def scale(self) -> Tensor:
        """[], of the values, in units of the return."""
        heads: list[Any] = list(self.heads)
        return heads[0].value.scale

    def features(self, batch: Batch, state0: Float[Tensor, "B K"] | None) -> Float[Tensor, "B A1 D"]:
        """What the memory makes of the decisions of rows, the final state included."""
        return at_decisions(self.memory.unroll(batch.inputs, state0), batch.decisions)

    def q(self, features: Float[Tensor, "*N D"], actions: Float[Tensor, "*N d"]) -> Float[Tensor, "E *N"]:
        """Q of one action at each place."""
        return torch.stack([head(features, actions) for head in self.heads])

    def update_scale_(self, targets: Float[Tensor, "M"], rate: float) -> None:
        """Move the units of both towards those of `targets`."""
        heads: list[Any] = list(self.heads)
        for head in heads:
            head.value.update_scale_(targets, rate)


class _QOfVectors(nn.Module):
    """Q of features and an action beside them."""

    def __init__(self, width: int, size: int):
        super().__init__()
        self.mix, self.value = nn.Linear(width + size, width), PopArtHead(width)

    def forward(self, features: Float[Tensor, "*N D"], actions: Float[Tensor, "*N d"]) -> Float[Tensor, "*N"]:
        """In units of the return."""
        mixed = torch.relu(self.mix(torch.cat([features, actions], -1)))
        return self.value(mixed).squeeze(-1)


class SoftActorCritic(nn.Module):
    """It acts by sampling. Its state [N, K] is the actor's memory and then the critics'.

    Ni et al. 2021, arXiv:2110.05038, section 4: with one memory for both, the critics' gradients, far larger
    than the actor's, drown it.
    """

    def __init__(self, memory: Memory, head: Categorical | SquashedGaussian, critics: TwinQ | TwinQOfVectors):
        super().__init__()
        self.memory, self.head, self.critics = memory, head, critics
        self.slow_log_temperature = nn.Parameter(torch.tensor(0.0))
        self.state_size = memory.state_size + critics.memory.state_size

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """Temperature of the policy, in units of the critics' scale per nat; 1 at first.

        Ten times its parameter is its logarithm, so that it moves faster than weights do.
        """
        return (10 * self.slow_log_temperature).exp()

    def parts(self, state: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The actor's memory and the critics'."""
        k = self.memory.state_size
        return (None, None) if state is None else (state[:, :k], state[:, k:])

    def policy(self, batch: Batch) -> Float[Tensor, "B A1 P"]:
        """Unnormalised logits, or means and log-deviations, at the decisions of rows, the final state too."""
        mine, _ = self.parts(batch.state0)
        return self.head(at_decisions(self.memory.unroll(batch.inputs, mine), batch.decisions))

    def act(self, inputs: StepInputs, state: Float[Tensor, "N K"]) -> ActOutput:
        """One sampled action in each lane."""
        parameters, after = self._step(inputs, state)
        if isinstance(self.head, SquashedGaussian):
            return ActOutput(*self.head.draw(parameters), after)
        actions = self.head.sample(parameters)
        return ActOutput(actions, self.head.logp(parameters, actions), after)

    def act_greedily(self, inputs: StepInputs, state: Float[Tensor, "N K"]) -> ActOutput:
        """The likeliest action in each lane."""
        parameters, after = self._step(inputs, state)
        actions = self.head.mode(parameters)
        return ActOutput(actions, self.head.logp(parameters, actions), after)

    def _step(
        self, inputs: StepInputs, state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N P"], Float[Tensor, "N K"]]:
        k = self.memory.state_size
        features, mine = self.memory.step(inputs, state[:, :k])
        after = torch.cat([mine, self.critics.memory.step(inputs, state[:, k:])[1]], -1)
        return self.head(features), after

    def initial_state(self, lanes: int) -> Float[Tensor, "N K"]:
        """The memory of nothing."""
        return torch.cat([self.memory.initial_state(lanes), self.critics.memory.initial_state(lanes)], -1)


def soft_actor_critic_of(actions: Space, memory: Memory, critics_memory: Memory) -> SoftActorCritic:
    """Fresh heads on two memories. InputError for several symbols at once, which are neither."""
    if isinstance(actions, Discrete):
        head = Categorical(memory.width, actions.n)
        return SoftActorCritic(memory, head, TwinQ(critics_memory, actions.n))
    if not isinstance(actions, Vector):
        raise InputError(
            "sac chooses among actions that can be counted, or vectors; expected ppo, a2c or reinforce for "
            "several symbols at once"
        )
    low, high = actions.bounds
    squashed = SquashedGaussian(memory.width, [math.isfinite(b - a) for a, b in zip(low, high, strict=True)])
    return SoftActorCritic(memory, squashed, TwinQOfVectors(critics_memory, actions.size))
