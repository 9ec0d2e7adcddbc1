"""What it takes to build an agent with memory, and to build it again: parts by the field's names."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import nn

from turnwise.envs.protocol import Discrete, Image, LaneEnv, MultiDiscrete, Space, Vector
from turnwise.models.agents.action_heads import ActionHead, Categorical, Gaussian, MultiCategorical
from turnwise.models.agents.actor_critic import ActorCritic
from turnwise.models.agents.q_network import QNetwork
from turnwise.models.agents.settings import CriticSpec, MemorySpec
from turnwise.models.agents.soft_actor_critic import soft_actor_critic_of
from turnwise.models.agents.views import (
    ActorView,
    Critic,
    HistoryView,
    JointView,
    ObservationView,
    StateView,
    View,
)
from turnwise.models.memory.attention import CausalTransformer
from turnwise.models.memory.base import LearnedMemory, Memory
from turnwise.models.memory.encoders import Encoder, ObservationEncoder
from turnwise.models.memory.linear_recurrence import LinearRecurrence
from turnwise.models.memory.recurrent import GRU, LSTM
from turnwise.models.memory.window import Window
from turnwise.models.room import expect_room
from turnwise.run.errors import InputError, SettingError

Kind = Literal["actor-critic", "q", "soft"]
"""an actor with a critic (policy gradients), Q alone (R2D2), an actor with twin Q (soft actor-critic)"""


@dataclass(frozen=True)
class Spaces:
    """The spaces of the environment that an agent was made for."""

    observations: Space
    actions: Space
    states: Space | None

    @staticmethod
    def of(env: LaneEnv) -> Spaces:
        """The spaces of an environment."""
        return Spaces(env.observation_space, env.action_space, env.state_space)

    def written(self) -> dict[str, Any]:
        """The spaces as values that JSON can hold."""
        return {
            k: None if s is None else {type(s).__name__: _written(asdict(s))} for k, s in vars(self).items()
        }

    @staticmethod
    def read(written: dict[str, Any]) -> Spaces:
        """The spaces that `written` gave."""
        kinds = {"Discrete": Discrete, "MultiDiscrete": MultiDiscrete, "Vector": Vector}
        made = {}
        for key, value in written.items():
            if value is None:
                made[key] = None
                continue
            ((kind, fields),) = value.items()
            fields = _read(fields)
            if "images" in fields:
                fields["images"] = tuple(Image(**image) for image in fields["images"])
            made[key] = kinds[kind](**fields)
        return Spaces(**made)


def _written(value: Any) -> Any:
    """Infinities as text, which JSON has not."""
    if isinstance(value, dict):
        return {k: _written(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_written(v) for v in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _read(value: Any) -> Any:
    """What `_written` was given, sequences as tuples."""
    if isinstance(value, dict):
        return {k: _read(v) for k, v in value.items()}
    if isinstance(value, list):
        return tuple(_read(v) for v in value)
    return float(value) if isinstance(value, str) else value


def memory_of(spec: MemorySpec, spaces: Spaces) -> Memory:
    """A fresh memory."""
    w = spec.width
    if spec.memory == "none":
        return LearnedMemory(ObservationEncoder(spaces.observations, w), Window(w, 1))
    encoder = Encoder(spaces.observations, spaces.actions, w)
    if spec.memory == "window":
        return LearnedMemory(encoder, Window(w, spec.window))
    if spec.memory == "gru":
        return LearnedMemory(encoder, GRU(w))
    if spec.memory == "lstm":
        return LearnedMemory(encoder, LSTM(w))
    if spec.memory == "linear":
        return LearnedMemory(encoder, LinearRecurrence(w, layers=spec.layers))
    return LearnedMemory(
        encoder, CausalTransformer(w, layers=spec.layers, heads=spec.heads, context=spec.context)
    )


def head_of(actions: Space, width: int) -> ActionHead:
    """Logits of symbols, of one or of several, or normals of vectors."""
    if isinstance(actions, Discrete):
        return Categorical(width, actions.n)
    if isinstance(actions, MultiDiscrete):
        return MultiCategorical(width, actions.sizes)
    return Gaussian(width, actions.size)


def view_of(spec: CriticSpec, memory: MemorySpec, spaces: Spaces) -> View:
    """What the critic sees."""
    w = memory.width
    if spec.critic == "observation":
        return ObservationView(spaces.observations, w)
    if spec.critic == "state":
        return StateView(_state_space(spec, spaces), w)
    history: View = HistoryView(memory_of(memory, spaces)) if spec.separate else ActorView(w)
    if spec.critic == "history":
        return history
    return JointView(history, StateView(_state_space(spec, spaces), w))


def _state_space(spec: CriticSpec, spaces: Spaces) -> Space:
    if spaces.states is None:
        raise SettingError(
            "critic", spec.critic, "history or observation: this environment does not tell its hidden state"
        )
    return spaces.states


def actor_critic_of(memory: MemorySpec, critic: CriticSpec, spaces: Spaces) -> ActorCritic:
    """A fresh actor and its critic; weights from PyTorch's global generator."""
    actor = memory_of(memory, spaces)
    if memory.memory == "none" and critic.critic.startswith("history") and not critic.separate:
        # A critic of histories needs a memory of its own if the actor has none.
        view: View = HistoryView(memory_of(MemorySpec("gru", memory.width), spaces))
        if critic.critic == "history+state":
            view = JointView(view, StateView(_state_space(critic, spaces), memory.width))
    else:
        view = view_of(critic, memory, spaces)
    return ActorCritic(actor, head_of(spaces.actions, actor.width), Critic(view))


def agent_of(kind: Kind, memory: MemorySpec, critic: CriticSpec, spaces: Spaces) -> Any:
    """A fresh agent of a kind. InputError for one that would not fit this machine's memory."""
    expect_room("an agent of these sizes", lambda: _agent_of(kind, memory, critic, spaces))
    return _agent_of(kind, memory, critic, spaces)


def _agent_of(kind: Kind, memory: MemorySpec, critic: CriticSpec, spaces: Spaces) -> Any:
    if kind == "actor-critic":
        return actor_critic_of(memory, critic, spaces)
    if kind == "soft":
        return soft_actor_critic_of(spaces.actions, memory_of(memory, spaces), memory_of(memory, spaces))
    if not isinstance(spaces.actions, Discrete):
        vectors = isinstance(spaces.actions, Vector)
        found, others = ("vectors", "sac, ppo") if vectors else ("several symbols at once", "ppo")
        raise InputError(
            f"r2d2 chooses among actions that can be counted; expected {others}, a2c or reinforce for {found}"
        )
    if kind == "q":
        return QNetwork(memory_of(memory, spaces), spaces.actions.n)
    raise InputError(f"an agent of kind {kind!r} is not known; expected one that this version saves")


def count_trainable(module: nn.Module) -> int:
    """How many numbers are learnt."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
