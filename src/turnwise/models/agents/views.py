"""Critics of agents with memory. What a critic sees is a model of its own: a view.

    V(h)    ActorView (the trunk is shared) or HistoryView (its own)
    V(h,s)  JointView(a view of the history, StateView)         privileged: training only
    V(s)    StateView                                       privileged: training only
    V(o)    ObservationView

As a *baseline* each of them leaves the policy gradient unbiased. As a *bootstrap*, what stands for the value
of what comes next, V(h) and V(h,s) can be right for any policy; V(s) only for a policy without memory, and
only where what is seen does not depend on the action; V(o) is wrong in general, since the same observation
may stand for states of different worth. Baisero & Amato 2022, arXiv:2105.11674, theorems 4.2 and 4.3.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from turnwise.data.batch import Batch
from turnwise.data.steps import StepInputs
from turnwise.envs.protocol import Space
from turnwise.models.agents.pop_art import PopArtHead
from turnwise.models.decisions import at_decisions
from turnwise.models.memory.base import Memory
from turnwise.models.memory.encoders import Embedding


class View(nn.Module, ABC):
    """What a critic sees at each decision, as features."""

    width: int
    """D"""
    state_size: int = 0
    """K, numbers of its own memory"""

    @abstractmethod
    def forward(
        self, batch: Batch, actors: Float[Tensor, "B A1 D"], state0: Float[Tensor, "B K"] | None
    ) -> Float[Tensor, "B A1 D2"]:
        """Features at the decisions, the final state included; `actors` are those of the actor's memory."""

    def step(self, inputs: StepInputs, state: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """Its own memory after one more observation, so that segments can begin where it stood."""
        return state


class ActorView(View):
    """The history as the actor remembers it: one trunk for both."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(
        self, batch: Batch, actors: Float[Tensor, "B A1 D"], state0: Float[Tensor, "B K"] | None
    ) -> Float[Tensor, "B A1 D2"]:
        """The actor's features."""
        return actors


class HistoryView(View):
    """The history in a memory of its own: separate trunks."""

    def __init__(self, memory: Memory):
        super().__init__()
        self.memory = memory
        self.width, self.state_size = memory.width, memory.state_size

    def forward(
        self, batch: Batch, actors: Float[Tensor, "B A1 D"], state0: Float[Tensor, "B K"] | None
    ) -> Float[Tensor, "B A1 D2"]:
        """Features of its memory."""
        return at_decisions(self.memory.unroll(batch.inputs, state0), batch.decisions)

    def step(self, inputs: StepInputs, state: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """Its memory's state."""
        return self.memory.step(inputs, state)[1]


class StateView(View):
    """The hidden state. Only simulators can tell it, and only in training."""

    def __init__(self, states: Space, width: int):
        super().__init__()
        self.width = width
        self.embed = nn.Sequential(Embedding(states, width), nn.Tanh())

    def forward(
        self, batch: Batch, actors: Float[Tensor, "B A1 D"], state0: Float[Tensor, "B K"] | None
    ) -> Float[Tensor, "B A1 D2"]:
        """Features of the states at the decisions."""
        if batch.states is None:
            raise ValueError("this critic sees hidden states, and the environment does not tell them")
        return self.embed(batch.states)


class ObservationView(View):
    """The observation alone: what the state is mistaken for."""

    def __init__(self, observations: Space, width: int):
        super().__init__()
        self.width = width
        self.embed = nn.Sequential(Embedding(observations, width), nn.Tanh())

    def forward(
        self, batch: Batch, actors: Float[Tensor, "B A1 D"], state0: Float[Tensor, "B K"] | None
    ) -> Float[Tensor, "B A1 D2"]:
        """Features of the observations at the decisions."""
        return at_decisions(self.embed(batch.inputs.observation), batch.decisions)


class JointView(View):
    """Two views together."""

    def __init__(self, first: View, second: View):
        super().__init__()
        self.first, self.second = first, second
        self.width, self.state_size = first.width + second.width, first.state_size + second.state_size

    def forward(
        self, batch: Batch, actors: Float[Tensor, "B A1 D"], state0: Float[Tensor, "B K"] | None
    ) -> Float[Tensor, "B A1 D2"]:
        """Both, one beside the other."""
        k = self.first.state_size
        mine, others = (None, None) if state0 is None else (state0[:, :k], state0[:, k:])
        return torch.cat([self.first(batch, actors, mine), self.second(batch, actors, others)], -1)

    def step(self, inputs: StepInputs, state: Float[Tensor, "N K"]) -> Float[Tensor, "N K"]:
        """Both memories."""
        k = self.first.state_size
        return torch.cat([self.first.step(inputs, state[:, :k]), self.second.step(inputs, state[:, k:])], -1)


class Critic(nn.Module):
    """A view and a scaled value head."""

    def __init__(self, view: View):
        super().__init__()
        self.view, self.value = view, PopArtHead(view.width)
        self.state_size = view.state_size

    def forward(
        self, batch: Batch, actors: Float[Tensor, "B A1 D"], state0: Float[Tensor, "B K"] | None
    ) -> Float[Tensor, "B A1"]:
        """V at the decisions, the final state included."""
        return self.value(self.view(batch, actors, state0)).squeeze(-1)

    def step(self, inputs: StepInputs, state: Float[Tensor, "N K"]) -> Any:
        """Its memory, if it has one of its own."""
        return self.view.step(inputs, state)
