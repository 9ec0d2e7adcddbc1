"""Critics of language: value heads on the features of a trunk."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from turnwise.models.decisions import at_decisions
from turnwise.models.lm.parts import features_at
from turnwise.models.value_head import ValueHead


@dataclass(frozen=True)
class Estimand:
    """What a critic's values predict: the rewards still to come, discounted so."""

    gamma: float = 1.0
    """Discount per turn."""
    gamma_within_turn: float = 1.0
    """Discount between two tokens of a turn."""
    improved: bool = False
    """Whether they are the values of a better policy than the logged agent. Their level is then off the
    logged returns by design, and only what they order can be held against the logs."""


class FeaturesRead(NamedTuple):
    """What a trunk gives, as `transformers` calls it."""

    last_hidden_state: Tensor


class FrozenTrunk(nn.Module):
    """In the place of a trunk whose features have been read already: it hands them on, [B, T, D].

    A critic's heads learn on it at a small part of the cost, and are put on the trunk itself afterwards.
    """

    def forward(self, input_ids: Float[Tensor, "B T D"], use_cache: bool = False) -> FeaturesRead:
        """The features that it is given in the place of ids."""
        return FeaturesRead(input_ids)


Read = Int[Tensor, "B T"] | Float[Tensor, "B T D"]
"""ids; or features, if the trunk is a `FrozenTrunk`"""
C = TypeVar("C", bound="TokenCritic | TurnCritic")


def on_trunk(critic: C, trunk: nn.Module) -> C:
    """The same heads, which both share, on another trunk; `critic` stays what it is."""
    made = copy.copy(critic)  # of a module this is a new one with the same table of parts
    made.__dict__["_modules"] = {**critic._modules, "trunk": trunk}
    return made


class TokenValues(NamedTuple):
    """`q` [E, B, A, V] of every token at each decision, `v` [B, A+1] of each state."""

    q: Tensor
    v: Tensor


class TokenCritic(nn.Module):
    """A trunk with E heads Q(s, .) over the vocabulary and one head V(s).

    `trunk` maps ids [B, T] to an output whose `last_hidden_state` is [B, T, D] (the base model of a
    `transformers` causal LM).
    """

    def __init__(self, trunk: nn.Module, width: int, vocab: int, *, ensemble: int = 2, initial: float = 0.0):
        super().__init__()
        self.trunk = trunk
        self.q = nn.ModuleList(ValueHead(width, vocab, initial) for _ in range(ensemble))
        self.v = ValueHead(width, 1, initial)

    def forward(self, ids: Read, decisions: Int[Tensor, "B A1"]) -> TokenValues:
        """Q at the decisions and V at the states, the final one included. `ids`: what `trunk` reads."""
        h = at_decisions(self.trunk(input_ids=ids, use_cache=False).last_hidden_state, decisions)
        return TokenValues(
            q=torch.stack([head(h[:, :-1]) for head in self.q]),
            v=self.v(h).squeeze(-1),
        )

    def q_of_actions(
        self, ids: Read, decisions: Int[Tensor, "B A1"], actions: Int[Tensor, "B A"]
    ) -> Float[Tensor, "E B A"]:
        """Q of the tokens that were taken, nothing else computed."""
        h = at_decisions(self.trunk(input_ids=ids, use_cache=False).last_hidden_state, decisions[:, :-1])
        heads: list[Any] = list(self.q)
        return torch.stack([head.of(h, actions) for head in heads])

    def q_min(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """min over the ensemble of Q(s, .), from features of the trunk."""
        return torch.stack([head(features) for head in self.q]).amin(0)

    def scale_(self, factor: float) -> None:
        """Multiply all values by `factor`."""
        _scale_(self, factor)


class StateCritic(nn.Module):
    """A trunk with one head V(s), read at every decision and at the final state."""

    def __init__(self, trunk: nn.Module, width: int, *, initial: float = 0.0):
        super().__init__()
        self.trunk = trunk
        self.v = ValueHead(width, 1, initial)

    def forward(self, ids: Read, decisions: Int[Tensor, "B A1"]) -> Float[Tensor, "B A1"]:
        """V at the states, the final one included."""
        return self.v(features_at(self.trunk, ids, decisions)).squeeze(-1)


class TurnValues(NamedTuple):
    """`q` [E, B, A] of each utterance, read at its end; `v` [B, A+1] of each state, read before it."""

    q: Tensor
    v: Tensor


class TurnCritic(nn.Module):
    """A trunk with E heads Q(history, utterance), read where the utterance ends, and one head V(history)."""

    def __init__(self, trunk: nn.Module, width: int, *, ensemble: int = 2, initial: float = 0.0):
        super().__init__()
        self.trunk = trunk
        self.q = nn.ModuleList(ValueHead(width, 1, initial) for _ in range(ensemble))
        self.v = ValueHead(width, 1, initial)

    def forward(self, ids: Read, decisions: Int[Tensor, "B A1"], ends: Int[Tensor, "B A"]) -> TurnValues:
        """Q at `ends` and V at `decisions`, from one pass of the trunk."""
        features = self.trunk(input_ids=ids, use_cache=False).last_hidden_state
        return TurnValues(
            q=torch.stack([head(at_decisions(features, ends)).squeeze(-1) for head in self.q]),
            v=self.v(at_decisions(features, decisions)).squeeze(-1),
        )

    def q_min(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N"]:
        """min over the ensemble of Q, from the trunk's features at the end of an utterance."""
        return torch.stack([head(features).squeeze(-1) for head in self.q]).amin(0)

    def scale_(self, factor: float) -> None:
        """Multiply all values by `factor`."""
        _scale_(self, factor)


def _scale_(critic: TokenCritic | TurnCritic, factor: float) -> None:
    heads: list[Any] = [*critic.q, critic.v]
    for head in heads:
        head.scale_(factor)
