"""A language model whose choices a token critic perturbs, by hand and in lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.models.lm.critics import TokenCritic
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import GuidedPolicy, LmPolicy
from turnwise.rollout.conversations import Conversation, converse
from turnwise.rollout.engines.sampler import Policy, Sampler


class Table(LmPolicy):
    """The same logits everywhere."""

    def __init__(self, row: Tensor) -> None:
        super().__init__(torch.nn.Identity())
        self.row = row

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        return self.row.expand(len(features[0]), -1)


def small_critic(q: list[list[float]], v: float) -> TokenCritic:
    """Heads that say these numbers wherever they are asked."""
    critic = TokenCritic(nn.Identity(), 2, len(q[0]), ensemble=len(q))
    with torch.no_grad():
        for head, row in zip(critic.q, q, strict=True):
            head.out.bias.copy_(torch.tensor(row))
        critic.v.out.bias.fill_(v)
    return critic


PI = torch.tensor([[0.5, 0.25, 0.25]]).log()
Q = [[1.0, 3.0, 2.0], [2.0, 2.0, 0.0]]
FEATURES = [torch.zeros(1, 2), torch.zeros(1, 2)]


@pytest.mark.parametrize(
    ("v", "options", "shift"),
    [
        (1.5, {"beta": 0.0}, [0.0, 0.0, 0.0]),
        (1.5, {"beta": 2.0}, [-1.0, 1.0, -3.0]),
        (1.5, {"beta": 2.0, "clip": 0.25}, [-1.0, 0.25, -3.0]),
        (1.5, {"beta": 2.0, "clip": 0.0}, [-1.0, 0.0, -3.0]),
        (1.0, {"beta": 2.0}, [0.0, 2.0, -2.0]),
        (1.5, {"beta": 2.0, "top_k": 1}, [-1.0, -np.inf, -np.inf]),
        (1.5, {"beta": 2.0, "top_k": 3}, [-1.0, 1.0, -3.0]),
    ],
)
def test_guided_logits(v: float, options: dict[str, Any], shift: list[float]) -> None:
    """pi = 1/2 1/4 1/4, Q = (1 3 2) and (2 2 0), so min Q = 1 2 0.

    With V = 1.5 and beta 2 the shifts are 2 (1 - 1.5), 2 (2 - 1.5), 2 (0 - 1.5) = -1, 1, -3. With V = 1
    they are 0, 2, -2. Top-k looks at pi, not at Q: the likeliest is the first.
    """
    guided = GuidedPolicy(Table(PI), small_critic(Q, v), **options).logits(FEATURES)
    torch.testing.assert_close(guided - PI, torch.tensor([shift]))


def test_clip_0_never_raises_a_log_odds(tiny: Callable[..., Any], chat: Any) -> None:
    """Against whatever token the critic finds no worse than the state, no other becomes likelier."""
    lm = tiny()
    guided = GuidedPolicy(LmPolicy(lm), noisy_critic(lm), beta=8.0, clip=0.0)
    features = [torch.randn(20, 32, generator=torch.Generator().manual_seed(i)).double() for i in (0, 1)]
    with torch.inference_mode():
        plain = LmPolicy(lm).logits(features[:1]).log_softmax(-1)
        q, v = guided.critic.q_min(features[1]), guided.critic.v(features[1])
        shifted = guided.logits(features) - plain
    assert shifted.max() <= 1e-12
    assert (shifted[q >= v].abs() < 1e-12).all()
    assert (shifted[q < v] < 0).all()
    assert 0.2 < (q >= v).double().mean() < 0.8


def noisy_critic(lm: Any, seed: int = 5) -> TokenCritic:
    """A critic with a trunk of its own whose heads say something everywhere."""
    torch.manual_seed(seed)
    critic = TokenCritic(trunk_of(lm), 32, lm.config.vocab_size).double().eval()
    with torch.no_grad():
        for head in (*critic.q, critic.v):
            nn.init.normal_(head.out.weight, std=0.3)
    return critic


@pytest.fixture(scope="module")
def hold(chat: Any) -> Callable[[Policy], list[Conversation]]:
    def hold(policy: Policy) -> list[Conversation]:
        sampler = Sampler(policy, lanes=5, context=160, stop=chat.stop, max_new_tokens=8)
        return converse(sampler, HelpDesk(), chat, episodes=range(9), seed=4, lanes=5)

    return hold


def test_beta_0_says_what_the_language_model_says(
    tiny: Callable[..., Any], hold: Callable[[Policy], list[Conversation]]
) -> None:
    lm, critic = tiny(), noisy_critic(tiny("gpt2"))
    plain, guided = hold(LmPolicy(lm)), hold(GuidedPolicy(LmPolicy(lm), critic, beta=0.0))
    for a, b in zip(plain, guided, strict=True):
        np.testing.assert_array_equal(a.tokens.ids, b.tokens.ids)
        np.testing.assert_allclose(a.tokens.token_logp, b.tokens.token_logp, rtol=0, atol=1e-12)


def test_both_trunks_keep_up(
    tiny: Callable[..., Any],
    hold: Callable[[Policy], list[Conversation]],
    worst_logp_error: Callable[..., float],
) -> None:
    """Recorded log-probabilities are those of log pi + min(1, beta (min Q - V)) from one uncached pass of the
    policy's trunk and one of the critic's, among the ten tokens likeliest under pi."""
    lm, critic = tiny(), noisy_critic(tiny("gpt2"))
    held = hold(GuidedPolicy(LmPolicy(lm), critic, beta=3.0, clip=1.0, top_k=10))

    def logp(ids: Tensor) -> Tensor:
        pi = lm(ids).logits.log_softmax(-1)
        features = critic.trunk(input_ids=ids).last_hidden_state
        q = torch.minimum(critic.q[0](features), critic.q[1](features))
        shift = (3.0 * (q - critic.v(features))).clamp(max=1.0)
        outside = pi < pi.topk(10).values[..., -1:]
        return (pi + shift).masked_fill(outside, -torch.inf).log_softmax(-1)

    assert worst_logp_error(held, logp) < 1e-10
    assert worst_logp_error(held, lambda ids: lm(ids).logits.log_softmax(-1)) > 0.1
