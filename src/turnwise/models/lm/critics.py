"""Critics of language: value heads on the features of a trunk."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from turnwise.models.decisions import in_own_precision
from turnwise.models.lm.parts import features_at
from turnwise.models.value_head import LowRankHead, ValueHead


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


SMALL_VOCABULARY, RANK = 4_096, 64
"""tokens up to which each has weights of its own in every Q head; rank of the heads of larger vocabularies"""


class TokenValues(NamedTuple):
    """What a token critic says at the decisions of a batch; 0 where the batch is masked.

    `q` [E, B, A] of the tokens that were taken, `soft_max` [E, B, A] = log sum_a exp Q(s, a) over all tokens,
    `v` [B, A+1] of each state.
    """

    q: Tensor
    soft_max: Tensor
    v: Tensor


class TokenCritic(nn.Module):
    """A trunk with E heads Q(s, .) over the vocabulary and one head V(s).

    `trunk` maps ids [B, T] to an output whose `last_hidden_state` is [B, T, D] (the base model of a
    `transformers` causal LM). With a `rank` the Q heads tell tokens apart by that many directions in their
    embeddings `tokens` [V, D'] (`LowRankHead`), else by weights of each token's own. Heads compute in the
    precision of their weights, whatever the trunk computes in: a target and a value differ by little.
    """

    def __init__(
        self,
        trunk: nn.Module,
        width: int,
        vocab: int,
        *,
        ensemble: int = 2,
        initial: float = 0.0,
        rank: int = 0,
        tokens: Float[Tensor, "V D2"] | None = None,
    ):
        super().__init__()
        self.trunk, self.rank = trunk, rank

        def head() -> nn.Module:
            if not rank:
                return ValueHead(width, vocab, initial)
            assert tokens is not None
            return LowRankHead(width, tokens, rank, initial)

        self.q = nn.ModuleList(head() for _ in range(ensemble))
        self.v = ValueHead(width, 1, initial)

    def forward(
        self,
        ids: Read,
        decisions: Int[Tensor, "B A1"],
        actions: Int[Tensor, "B A"],
        mask: Bool[Tensor, "B A"],
    ) -> TokenValues:
        """Q of the actions, the soft maximum over all, and V at the states, the final one included."""
        h = self.features(ids, decisions)  # [B, A+1, D]
        counted, taken = h[:, :-1][mask], actions[mask]  # [n, D], [n]: padding has no values
        nothing = h.new_zeros(mask.shape)
        with in_own_precision(h):
            heads: list[Any] = list(self.q)
            found = [head.of_and_soft_max(counted, taken) for head in heads]
            q, soft_max = (
                torch.stack([nothing.masked_scatter(mask, x) for x in each])
                for each in zip(*found, strict=True)
            )
            return TokenValues(q, soft_max, self.v(h).squeeze(-1))

    def q_of_actions(
        self, ids: Read, decisions: Int[Tensor, "B A1"], actions: Int[Tensor, "B A"]
    ) -> Float[Tensor, "E B A"]:
        """Q of the tokens that were taken, nothing else computed."""
        h = self.features(ids, decisions[:, :-1])
        heads: list[Any] = list(self.q)
        with in_own_precision(h):
            return torch.stack([head.of(h, actions) for head in heads])

    def q_min(self, features: Float[Tensor, "*N D"]) -> Float[Tensor, "*N V"]:
        """min over the ensemble of Q(s, .), from features of the trunk."""
        return torch.stack([head(features) for head in self.q]).amin(0)

    def q_min_of(self, features: Float[Tensor, "*N D"], actions: Int[Tensor, "*N"]) -> Float[Tensor, "*N"]:
        """min over the ensemble of Q(s, a), from features of the trunk and the tokens that were taken."""
        heads: list[Any] = list(self.q)
        return torch.stack([head.of(features, actions) for head in heads]).amin(0)

    def features(self, ids: Read, decisions: Int[Tensor, "B A"]) -> Float[Tensor, "B A D"]:
        """What the heads read at those positions."""
        h = features_at(self.trunk, ids, decisions)
        return h.to(self.v.out.weight.dtype)

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
        h = features_at(self.trunk, ids, decisions).to(self.v.out.weight.dtype)
        with in_own_precision(h):
            return self.v(h).squeeze(-1)


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
        places = torch.cat([ends, decisions], 1)
        features = features_at(self.trunk, ids, places).to(self.v.out.weight.dtype)
        after, before = features.split([ends.shape[1], decisions.shape[1]], 1)
        with in_own_precision(after):
            q = torch.stack([head(after).squeeze(-1) for head in self.q])
            return TurnValues(q, self.v(before).squeeze(-1))

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


def token_critic(
    trunk: nn.Module, tokens: Float[Tensor, "V D"], ensemble: int, initial: float, rank: int | None
) -> TokenCritic:
    """A fresh critic of tokens with these embeddings; `rank` None: what the size of the vocabulary asks."""
    vocab, width = tokens.shape
    if rank is None:
        rank = 0 if vocab <= SMALL_VOCABULARY else RANK
    return TokenCritic(trunk, width, vocab, ensemble=ensemble, initial=initial, rank=rank, tokens=tokens)
