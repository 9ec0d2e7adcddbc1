"""Q of a history: the worth of each action at every position of a row, from one reading of a memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from turnwise.data.batch import Batch
from turnwise.data.steps import StepInputs
from turnwise.models.agents.actor_critic import ActOutput
from turnwise.models.agents.pop_art import PopArtHead
from turnwise.models.decisions import at_decisions
from turnwise.models.memory.base import Memory


class QHead(nn.Module):
    """Q = v + a - mean(a), or its actions one by one if not `dueling`; in units of the return.

    Wang et al. 2016, arXiv:1511.06581, eq. 9; v and a share their hidden layer here. The last layer works in
    units of the returns it has seen (`PopArtHead`), which is affine. R2D2's rescaling of values,
    h(x) = sign(x)(sqrt(|x|+1) - 1) + 0.001 x, is not: where outcomes are chance, a mean of h is not h of a
    mean, and the agent learns to act for a different goal. After one growl the tiger's door is worth
    .85 * 10 - .15 * 100 = -6.5, and .85 h(10) + .15 h(-100) = .60.
    """

    def __init__(self, width: int, actions: int, dueling: bool = True):
        super().__init__()
        self.dueling = dueling
        self.value = PopArtHead(width, actions + dueling)

    def forward(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """Q of every action."""
        out = self.value(features)
        if not self.dueling:
            return out
        v, a = out[..., :1], out[..., 1:]
        return v + a - a.mean(-1, keepdim=True)


class QNetwork(nn.Module):
    """A memory and a head; it acts greedily. Its state [N, K] is the memory's."""

    def __init__(self, memory: Memory, actions: int, dueling: bool = True):
        super().__init__()
        self.memory, self.head = memory, QHead(memory.width, actions, dueling)
        self.state_size = memory.state_size

    def forward(self, batch: Batch) -> Float[Tensor, "B A1 V"]:
        """Q at the decisions of rows, the final state included."""
        return self.head(at_decisions(self.memory.unroll(batch.inputs, batch.state0), batch.decisions))

    def step(
        self, inputs: StepInputs, state: Float[Tensor, "N K"]
    ) -> tuple[Float[Tensor, "N V"], Float[Tensor, "N K"]]:
        """Q after one more observation in each lane, and the new memory."""
        features, after = self.memory.step(inputs, state)
        return self.head(features), after

    def act(self, inputs: StepInputs, state: Float[Tensor, "N K"]) -> ActOutput:
        """The best action in each lane."""
        q, after = self.step(inputs, state)
        return ActOutput(q.argmax(-1), q.new_zeros(len(q)), after)

    def act_greedily(self, inputs: StepInputs, state: Float[Tensor, "N K"]) -> ActOutput:
        """The same: it never draws."""
        return self.act(inputs, state)

    def initial_state(self, lanes: int) -> Float[Tensor, "N K"]:
        """The memory of nothing."""
        return self.memory.initial_state(lanes)


@dataclass(frozen=True)
class EpsilonGreedy:
    """`agent`, but lane i takes a uniform action with probability `epsilons[i]`; it draws from PyTorch."""

    agent: QNetwork
    epsilons: Tensor
    """[N]"""

    def act(self, inputs: StepInputs, state: Float[Tensor, "N K"]) -> ActOutput:
        """An action in each lane, with its log-probability, exploration included."""
        q, after = self.agent.step(inputs, state)
        best, epsilons = q.argmax(-1), self.epsilons.to(q)
        explores = torch.rand_like(epsilons) < epsilons
        actions = torch.where(explores, torch.randint_like(best, q.shape[-1]), best)
        probability = epsilons / q.shape[-1] + (1 - epsilons) * (actions == best)
        return ActOutput(actions, probability.log(), after)

    def initial_state(self, lanes: int) -> Float[Tensor, "N K"]:
        """The memory of nothing."""
        return self.agent.initial_state(lanes)


def spread(epsilon: float, alpha: float, lanes: int) -> Float[Tensor, "N"]:
    """epsilon^(1 + alpha i / (N - 1)): some lanes explore, others go far. One lane has epsilon.

    Horgan et al. 2018, arXiv:1803.00933 (Ape-X), section 4.1, with epsilon 0.4 and alpha 7.
    """
    return epsilon ** (1 + alpha * torch.arange(lanes) / max(1, lanes - 1))


@torch.no_grad()
def greedy_table(agent: QNetwork, observations: int) -> Int[Tensor, "O"]:
    """What an agent whose memory is of the observation alone does at each of `observations`."""
    symbols = torch.arange(observations)
    nothing = torch.zeros_like(symbols)
    like = next(agent.parameters())
    inputs = StepInputs(symbols, nothing, nothing.to(like), nothing.bool())
    return agent.act(inputs, agent.initial_state(observations)).actions
