"""Policies over tokens: a language model alone, and one whose choices a critic perturbs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from turnwise.data.batch import Batch
from turnwise.losses.policy import advantage_logits
from turnwise.models.lm.critics import TokenCritic
from turnwise.models.lm.parts import context_of, features_at, lm_head_of, trunk_of
from turnwise.models.lm.replies import Scored, actions_logp, score_replies


class LmPolicy(nn.Module):
    """pi(token | history): a language model of `transformers`, its logits formed at decisions only.

    It never drops out. What was sampled is learnt from as it was sampled: with dropout, the ratio of a policy
    to itself would not be 1, and a held-out loss would be another one than that trained on.
    """

    def __init__(self, lm: Any):
        super().__init__()
        self.lm = lm
        self.train(False)

    def train(self, mode: bool = True) -> LmPolicy:
        """Set the mode of this module; the language model stays in evaluation mode."""
        super().train(mode)
        self.lm.eval()
        return self

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    def context(self) -> int:
        """Tokens of a row at most."""
        return context_of(self.lm)

    @property
    def trunks(self) -> Sequence[nn.Module]:
        """What reads the history when acting."""
        return (trunk_of(self.lm),)

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        """[n, D] of the trunk -> [n, V]."""
        return lm_head_of(self.lm)(features[0])

    def forward(self, ids: Int[Tensor, "B T"], decisions: Int[Tensor, "B A1"]) -> Float[Tensor, "B A V"]:
        """Logits at the decisions (not at the final state)."""
        return lm_head_of(self.lm)(features_at(trunk_of(self.lm), ids, decisions)[:, :-1])

    def score(self, batch: Batch, group: int = 1) -> Scored:
        """Log-probabilities and entropies at the decisions; rows of a group share their prompt."""
        return score_replies(self.lm, batch, group=group)

    def logp(self, batch: Batch, group: int = 1) -> Tensor:
        """The log-probabilities alone."""
        return actions_logp(self.lm, batch, group=group)


class GuidedPolicy(nn.Module):
    """log pi + min(clip, beta (min Q - V)): a frozen LM policy, perturbed by a token critic.

    `beta` is in nats per unit of the critic's values. `top_k` keeps the LM's k likeliest tokens before the
    critic has its say.
    """

    def __init__(
        self,
        policy: LmPolicy,
        critic: TokenCritic,
        *,
        beta: float,
        clip: float | None = None,
        top_k: int | None = None,
    ):
        super().__init__()
        self.policy, self.critic = policy, critic
        self.beta, self.clip, self.top_k = beta, clip, top_k

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    def trunks(self) -> Sequence[nn.Module]:
        """The policy's trunk and the critic's."""
        return (*self.policy.trunks, self.critic.trunk)

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        """[n, D] per trunk -> [n, V]."""
        logp = self.policy.logits(features[:1]).log_softmax(-1)
        q, v = self.critic.q_min(features[1]), self.critic.v(features[1])  # [n, V], [n, 1]
        guided = advantage_logits(logp, q - v, self.beta, self.clip)
        if self.top_k is not None and self.top_k < logp.shape[-1]:
            least = logp.topk(self.top_k, dim=-1).values[..., -1:]
            guided = guided.masked_fill(logp < least, -torch.inf)
        return guided
