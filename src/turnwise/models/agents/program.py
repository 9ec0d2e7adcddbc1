"""An agent as one pure function of tensors, its memory among them: what leaves for other run times.

    program = StepProgram(agent)
    parameters, action, memory = program(observation, previous_action, previous_reward, start, memory)

What only learning needs (critics, their memories) stays behind. Nothing is drawn in it: whoever wants to act
as the agent does in training draws from `parameters`, with random numbers of their own.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from turnwise.data.steps import StepInputs
from turnwise.models.agents.action_heads import Gaussian, MultiCategorical, SquashedGaussian
from turnwise.models.agents.q_network import QNetwork
from turnwise.models.memory.base import Memory

INPUTS = ("observation", "previous_action", "previous_reward", "start", "memory")
"""what a program reads, in order"""


class StepProgram(nn.Module):
    """One step of N lanes. Those where `start` is True begin with an empty memory and nothing before it.

    It gives, for each lane,

        log_probabilities       [N, A]   of actions that can be counted, in nats; of several symbols at once
                                         those of each, one after the other
        q                       [N, A]   instead, of an agent of values: its action is the best one
        mean_and_log_deviation  [N, 2d]  instead, of vectors; in units in which the bounds are -1 and 1, of
                                         sac before they are squashed into these

    then the likeliest action [N] or [N, d] and the memory [N, K] for the next step.
    """

    def __init__(self, agent: Any) -> None:
        """`agent`: an actor with a critic, Q, or a soft actor with critics."""
        super().__init__()
        self.memory: Memory = agent.memory
        self.head = agent.head
        self.state_size = self.memory.state_size
        self.gives = _gives(agent)

    def forward(
        self,
        observation: Tensor,
        previous_action: Tensor,
        previous_reward: Float[Tensor, "N"],
        start: Bool[Tensor, "N"],
        memory: Float[Tensor, "N K"],
    ) -> tuple[Float[Tensor, "N P"], Tensor, Float[Tensor, "N K"]]:
        """What the agent makes of one more observation in each lane."""
        fresh = start.unsqueeze(-1)
        action = torch.where(fresh if previous_action.ndim > 1 else start, 0, previous_action)
        reward = torch.where(start, 0.0, previous_reward)
        before = torch.where(fresh, 0.0, memory)
        features, after = self.memory.step(StepInputs(observation, action, reward, start), before)
        out = self.head(features)
        if isinstance(self.head, SquashedGaussian):
            return out, self.head.mode(out), after
        if self.gives == "mean_and_log_deviation":
            return out, out.chunk(2, -1)[0], after
        if isinstance(self.head, MultiCategorical):
            parts = [x.log_softmax(-1) for x in out.split(self.head.sizes, -1)]
            return torch.cat(parts, -1), torch.stack([x.argmax(-1) for x in parts], -1), after
        if self.gives == "log_probabilities":
            out = out.log_softmax(-1)
        return out, out.argmax(-1), after


def _gives(agent: Any) -> str:
    if isinstance(agent, QNetwork):
        return "q"
    normal = isinstance(agent.head, Gaussian | SquashedGaussian)
    return "mean_and_log_deviation" if normal else "log_probabilities"
