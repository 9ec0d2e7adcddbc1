"""A language model that learns from its own conversations, and V beside it."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from turnwise.data.batch import Batch
from turnwise.models.lm.critics import StateCritic, TokenCritic, TurnCritic, TurnValues
from turnwise.models.lm.parts import trunk_of, width_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.replies import Scored
from turnwise.models.value_head import ValueHead


class TalkActor(nn.Module):
    """The policy, and V(h) on a trunk of its own, which is a copy of the policy's at first.

    V works in units of `scale`, so that one learning rate does for returns of .9 and of 100. Until the first
    returns are known (`begin_`), or a critic has brought its own (`warm_`), the scale is 1.
    """

    scale: Tensor
    known: Tensor

    def __init__(self, policy: LmPolicy):
        super().__init__()
        self.policy = policy
        self.critic = StateCritic(copy.deepcopy(trunk_of(policy.lm)), width_of(policy.lm)).requires_grad_()
        self.critic.v.to(torch.promote_types(next(policy.parameters()).dtype, torch.float32))
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("known", torch.zeros(1, dtype=torch.bool))

    def forward(self, batch: Batch | None, states: Batch | None) -> tuple[Scored | None, Tensor | None]:
        """What the policy gives the tokens of `batch`, and V [B, A+1] at the decisions of `states`; neither
        is computed where its batch is None."""
        scored = None if batch is None else self.policy.score(batch)
        if states is None:
            return scored, None
        return scored, self.scale * self.critic(states.inputs, states.decisions)

    @torch.no_grad()
    def begin_(self, returns: Float[Tensor, "M"]) -> None:
        """Take units and a first guess of V from returns, if no critic has brought them."""
        if bool(self.known):
            return
        spread = float(returns.std(correction=0)) if len(returns) > 1 else 0.0
        self.scale.fill_(spread if spread > 1e-6 else 1.0)
        self.critic.v.out.bias.fill_(float(returns.mean()) / float(self.scale))
        self.known.fill_(True)

    @torch.no_grad()
    def warm_(self, critic: TokenCritic | TurnCritic, scale: float) -> None:
        """Take V, and the trunk that it reads by, from a critic whose values are in the units of the task.

        `scale` is the standard deviation of its returns. ValueError if its trunk is not like the policy's.
        """
        try:
            self.critic.trunk.load_state_dict(critic.trunk.state_dict())
            self.critic.v.load_state_dict(critic.v.state_dict())
        except RuntimeError as e:
            raise ValueError("a critic on another trunk than the policy's") from e
        self.critic.v.scale_(1 / scale)
        self.scale.fill_(scale)
        self.known.fill_(True)


class TurnActor(nn.Module):
    """The policy, and values of whole utterances on a trunk of its own, in units of `scale`: two Q, and V."""

    scale: Tensor
    known: Tensor

    def __init__(self, policy: LmPolicy):
        super().__init__()
        self.policy = policy
        self.critic = TurnCritic(copy.deepcopy(trunk_of(policy.lm)), width_of(policy.lm)).requires_grad_()
        for head in (*self.critic.q, self.critic.v):
            head.to(torch.promote_types(next(policy.parameters()).dtype, torch.float32))
        self.register_buffer("scale", torch.ones(1))
        self.register_buffer("known", torch.zeros(1, dtype=torch.bool))

    def forward(self, batch: Batch | None, turns: Batch | None) -> tuple[Scored | None, TurnValues | None]:
        """What the policy gives the tokens of `batch`, and Q and V of the turns of `turns`, in units of
        `scale`; neither is computed where its batch is None."""
        scored = None if batch is None else self.policy.score(batch)
        if turns is None:
            return scored, None
        return scored, self.critic(turns.inputs, turns.decisions, turns.ends)

    @torch.no_grad()
    def begin_(self, returns: Float[Tensor, "M"]) -> bool:
        """Take units and a first guess of all values from returns; whether they were taken, as no critic has
        brought them."""
        if bool(self.known):
            return False
        spread = float(returns.std(correction=0)) if len(returns) > 1 else 0.0
        self.scale.fill_(spread if spread > 1e-6 else 1.0)
        for head in (*self.critic.q, self.critic.v):
            assert isinstance(head, ValueHead)
            head.out.bias.fill_(float(returns.mean()) / float(self.scale))
        self.known.fill_(True)
        return True

    @torch.no_grad()
    def warm_(self, critic: TokenCritic | TurnCritic, scale: float) -> None:
        """Take all of a critic of utterances whose values are in the units of the task.

        `scale` is the standard deviation of its returns. ValueError if it is no such critic, or if its trunk
        is not like the policy's.
        """
        try:
            self.critic.load_state_dict(critic.state_dict())
        except RuntimeError as e:
            raise ValueError("a critic of two Q of utterances, on the policy's trunk (turn-iql)") from e
        self.critic.scale_(1 / scale)
        self.scale.fill_(scale)
        self.known.fill_(True)
