"""Expected policy gradients over whole replies, by enumeration, against the gradient of J = E[reward].

A language of two words and a stop token, replies of at most three tokens: 15 of them, some cut before their
stop. The policy is a table of logits, one row for each of the 7 prefixes; rewards are of whole replies, in no
relation to their words. Groups of replies are enumerated with their probabilities (225 pairs, 3,375 triples),
so that an estimator's expectation is a sum and its bias is a number and not noise. Bias is
|expected - exact| / |exact|; where a factor is arguable, the cosine says how far the direction is off.

    unbiased
        REINFORCE with a constant baseline, RLOO, centring (but for (G - 1)/G), PPO at ratio 1 with the exact
        critic and any lambda, ratios of whole replies, KL as k1 in the reward, k2 or weighted k3 of replies
    biased                                                        bias   cosine
        divided by the group's deviation (GRPO), G = 2 and 3       .42 .23  .953 .974
        divided by the reply's length (GRPO)                       .45      .927
        divided by the tokens of one group (RLOO), G = 2 and 3     .19 .12
        V = 0 with lambda .95, .5, 0                                .04 .38 .66
        replies of another policy, ratios cut at 2, at 1           .59 .73
            no ratios at all                                       .84
            ratios of tokens instead (PPO's, nothing clipped)      1.52     .187
        KL in the reward: k2, k3 of tokens                         .56 .71  .918 .717
            near the reference                                     .99: a hundredth of the length
        KL in the loss: k3 of replies                              .94      .443
            k2 or weighted k3 of tokens                            .77      .640
            k3 of tokens (GRPO)                                    .86      .541
            k1                                                     1: its expected gradient is 0
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.data.batch import Batch, pack_tokens
from turnwise.data.tokens import TokenWriter
from turnwise.losses.groups import group_centred, group_standardised, leave_one_out
from turnwise.losses.kl import exact_kl, k1, k2, k3, truncated_ratio, weighted_k3
from turnwise.losses.policy import action_logp, clipped_surrogate_loss, policy_gradient_loss
from turnwise.losses.returns import lambda_returns

f64 = torch.float64
STOP, LONGEST, PROMPT = 2, 3, 3
REPLIES = [
    reply
    for n in range(1, LONGEST + 1)
    for reply in product(range(3), repeat=n)
    if STOP not in reply[:-1] and (n == LONGEST or reply[-1] == STOP)
]
PREFIXES = [p for n in range(LONGEST) for p in product(range(2), repeat=n)]


class Language:
    """All replies as a batch of 15 rows, and policies over them."""

    def __init__(self) -> None:
        rng = np.random.default_rng(11)
        rows = []
        for reply, reward in zip(REPLIES, rng.normal(size=len(REPLIES)), strict=True):
            writer = TokenWriter()
            writer.read([PROMPT])
            writer.act(reply, reward, None)
            rows.append(writer.tokens(terminated=True, next_known=True, id=""))
        self.batch: Batch = pack_tokens(rows, gamma=1.0, dtype=f64)
        self.mask = self.batch.mask
        self.rewards = self.batch.rewards.sum(1)
        self.lengths = self.mask.sum(1)
        where = {p: i for i, p in enumerate(PREFIXES)}
        self.prefix = torch.tensor([[where.get(r[:k], 0) for k in range(LONGEST)] for r in REPLIES])
        self.logits = torch.tensor(rng.normal(size=(len(PREFIXES), 3)), requires_grad=True)
        self.logp = self.logp_of(self.logits)
        self.p = self.logp.sum(1).exp().detach()
        self.ref_logits = torch.tensor(rng.normal(size=(len(PREFIXES), 3)))
        self.ref_logp = self.logp_of(self.ref_logits)
        self.J = (self.logp.sum(1).exp() * self.rewards).sum()
        self.kl = (self.logp.sum(1).exp() * (self.logp - self.ref_logp).sum(1)).sum()
        self.exact = self.gradient(self.J)

    def logp_of(self, logits: Tensor) -> Tensor:
        """[15, 3], 0 where masked."""
        return action_logp(logits[self.prefix], self.batch.actions).masked_fill(~self.mask, 0.0)

    def gradient(self, total: Tensor) -> Tensor:
        return torch.autograd.grad(total, self.logits, retain_graph=True)[0]

    def groups(self, G: int) -> tuple[Tensor, Tensor]:
        """Replies [P, G] of all groups, and how likely each group is [P]."""
        rows = torch.cartesian_prod(*[torch.arange(len(REPLIES))] * G).view(-1, G)
        return rows, self.p[rows].prod(1)

    def of_groups(self, advantage: Callable[[Tensor], Tensor], G: int, by_length: bool = False) -> Tensor:
        """Expected ascent of the loss per reply, every reply of a group weighted with its advantage."""
        rows, chance = self.groups(G)
        weights = advantage(self.rewards[rows]).flatten()
        each = policy_gradient_loss(self.logp[rows.flatten()], weights.unsqueeze(1).expand(-1, LONGEST)).sum(
            1
        )
        if by_length:
            each = each / self.lengths[rows.flatten()]
        return self.gradient(-(chance * each.view(-1, G).mean(1)).sum())

    def of_replies(self, losses: Tensor, chance: Tensor | None = None) -> Tensor:
        """Expected ascent of losses [15, 3] of single replies, from this policy or with other chances."""
        return self.gradient(-((self.p if chance is None else chance).unsqueeze(1) * losses)[self.mask].sum())

    def values(self) -> Tensor:
        """[15, 4], the exact critic: the expected reward given the prefix; 0 after the end."""
        found = torch.zeros(len(REPLIES), LONGEST + 1, dtype=f64)
        for i, k in self.mask.nonzero().tolist():
            after = torch.tensor([r[:k] == REPLIES[i][:k] for r in REPLIES])
            found[i, k] = (self.p * self.rewards)[after].sum() / self.p[after].sum()
        return found

    def gae(self, values: Tensor, lam: float) -> Tensor:
        b = self.batch
        lams = torch.full_like(b.rewards, lam)
        return lambda_returns(b.rewards, b.discounts, values[:, 1:], b.mask, lams) - values[:, :-1]


@pytest.fixture(scope="module")
def language() -> Language:
    return Language()


def bias(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def cosine(found: Tensor, exact: Tensor) -> float:
    return float((found * exact).sum() / found.norm() / exact.norm())


def assert_exact(found: Tensor, exact: Tensor) -> None:
    assert_close(found, exact, rtol=0, atol=1e-10)


def test_the_language_is_all_there_is(language: Language) -> None:
    """15 replies whose probabilities sum to 1; the exact critic's first value is J."""
    assert len(REPLIES) == 15 and len(PREFIXES) == 7
    assert_close(language.p.sum(), torch.tensor(1.0, dtype=f64))
    assert_close(language.values()[:, 0], language.J.detach().expand(15))
    assert language.exact.norm() > 0.1


def test_the_exact_gradient_is_that_of_differences(language: Language) -> None:
    def J(logits: Tensor) -> Tensor:
        return (language.logp_of(logits).sum(1).exp() * language.rewards).sum()

    assert torch.autograd.gradcheck(J, (language.logits,))


@pytest.mark.parametrize("baseline", [0.0, 3.0])
def test_reinforce(baseline: float, language: Language) -> None:
    advantages = (language.rewards - baseline).unsqueeze(1).expand(-1, LONGEST)
    assert_exact(language.of_replies(policy_gradient_loss(language.logp, advantages)), language.exact)


@pytest.mark.parametrize("G", [2, 3])
def test_leaving_one_out_is_unbiased_and_centring_a_fraction(G: int, language: Language) -> None:
    assert_exact(language.of_groups(leave_one_out, G), language.exact)
    assert_exact(language.of_groups(group_centred, G), (G - 1) / G * language.exact)


@pytest.mark.parametrize(("G", "turned", "off"), [(2, 0.953, 0.424), (3, 0.974, 0.228)])
def test_a_deviation_is_a_bias(G: int, turned: float, off: float, language: Language) -> None:
    """Not of scale alone: the direction is another one."""
    found = language.of_groups(group_standardised, G)
    assert cosine(found, language.exact) == pytest.approx(turned, abs=1e-3)
    assert bias(found, language.exact) == pytest.approx(off, abs=1e-3)


def test_a_deviation_forgets_how_good_a_gamble_is() -> None:
    """One token, probabilities .6, .3, .1, rewards 0, 1, 10, G = 2: the middle action should become rarer.

    J = 1.3, so dJ/dlogit = p (r - J) = (-.78, -.09, .87). Divided by its deviation a pair's difference is
    +-1/sqrt 2 for each, so the expected gradient is p_i (P(r < r_i) - P(r > r_i)) / sqrt 2
    = (-.24, .15, .09) / sqrt 2: the middle action grows most. Centred alone it is half of dJ/dlogit.
    """
    logits = torch.tensor([[0.6, 0.3, 0.1]], dtype=f64).log().requires_grad_()
    rewards, p = torch.tensor([0.0, 1.0, 10.0], dtype=f64), torch.tensor([0.6, 0.3, 0.1], dtype=f64)
    rows = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    found = []
    for advantage in (lambda r: group_standardised(r, 0.0).nan_to_num(), group_centred):
        logp = action_logp(logits.expand(9, 2, 3), rows)
        each = policy_gradient_loss(logp, advantage(rewards[rows])).mean(1)
        found.append(torch.autograd.grad(-(p[rows].prod(1) * each).sum(), logits)[0])
    assert_close(found[0], torch.tensor([[-0.24, 0.15, 0.09]], dtype=f64) / 2**0.5)
    assert_close(found[1], torch.tensor([[-0.78, -0.09, 0.87]], dtype=f64) / 2)


def test_a_mean_within_replies_is_a_bias(language: Language) -> None:
    """1/|o_i| with centred rewards, against (G - 1)/G of the gradient over the mean length."""
    found = language.of_groups(group_centred, 2, by_length=True)
    length = (language.p * language.lengths).sum()
    exact = language.exact / 2 / length
    assert cosine(found, exact) == pytest.approx(0.927, abs=1e-3)
    assert bias(found, exact) == pytest.approx(0.446, abs=1e-3)


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_ppo_with_the_exact_critic(lam: float, language: Language) -> None:
    """At ratio 1, with V of every prefix: right for every lambda, token by token."""
    old = language.logp.detach()
    losses = clipped_surrogate_loss(language.logp, old, language.gae(language.values(), lam), 0.2)
    assert_exact(language.of_replies(losses), language.exact)


@pytest.mark.parametrize(("lam", "off"), [(1.0, 0.0), (0.95, 0.043), (0.5, 0.378), (0.0, 0.664)])
def test_ppo_with_a_critic_that_knows_nothing(lam: float, off: float, language: Language) -> None:
    """V = 0 everywhere is a baseline at lambda = 1, and a lie below: what follows is forgotten."""
    old, nothing = language.logp.detach(), torch.zeros(15, LONGEST + 1, dtype=f64)
    losses = clipped_surrogate_loss(language.logp, old, language.gae(nothing, lam), 0.2)
    assert bias(language.of_replies(losses), language.exact) == pytest.approx(off, abs=1e-3)


def off_policy(language: Language) -> tuple[Tensor, Tensor]:
    """Log-probabilities [15, 3] of another policy, and what it says how often [15]."""
    other = language.logp_of(torch.tensor(np.random.default_rng(5).normal(size=(len(PREFIXES), 3))))
    return other, other.sum(1).exp()


@pytest.mark.parametrize(("most", "off"), [(math.inf, 0.0), (2.0, 0.587), (1.0, 0.725)])
def test_importance_weights_of_replies(most: float, off: float, language: Language) -> None:
    """Replies of another policy, weighted with their ratio: exact, until it is truncated."""
    other, chance = off_policy(language)
    ratio = truncated_ratio(language.logp.detach().sum(1), other.sum(1), most)
    weights = (ratio * language.rewards).unsqueeze(1).expand(-1, LONGEST)
    found = language.of_replies(policy_gradient_loss(language.logp, weights), chance)
    assert bias(found, language.exact) == pytest.approx(off, abs=1e-10 if math.isinf(most) else 1e-3)


def test_ratios_of_tokens_are_not_ratios_of_replies(language: Language) -> None:
    """PPO's surrogate, nothing clipped: a token's ratio says nothing of how it got there. Worse than none."""
    other, chance = off_policy(language)
    rewards = language.rewards.unsqueeze(1).expand(-1, LONGEST)
    found = language.of_replies(clipped_surrogate_loss(language.logp, other, rewards, 1e9), chance)
    assert bias(found, language.exact) == pytest.approx(1.524, abs=1e-3)
    ignored = language.of_replies(policy_gradient_loss(language.logp, rewards), chance)
    assert bias(ignored, language.exact) == pytest.approx(0.839, abs=1e-3)


def test_the_divergence_of_replies_is_that_of_their_tokens(language: Language) -> None:
    """KL(pi, ref) over 15 replies = the expected sum of exact token KLs; so are k1 and k3, in value."""
    tokens = exact_kl(language.logits[language.prefix], language.ref_logits[language.prefix])
    for each in (tokens, k1(language.logp, language.ref_logp), k3(language.logp, language.ref_logp)):
        found = (language.p.unsqueeze(1) * each)[language.mask].sum()
        assert_close(found, language.kl)


def test_divergence_in_the_reward(language: Language) -> None:
    """r - beta k1 of the reply, and of its tokens as PPO has it: the gradient of J - beta KL."""
    exact = language.gradient(language.J - 0.3 * language.kl)
    penalty = 0.3 * k1(language.logp, language.ref_logp).detach()
    whole = (language.rewards - penalty.sum(1)).unsqueeze(1).expand(-1, LONGEST)
    assert_exact(language.of_replies(policy_gradient_loss(language.logp, whole)), exact)
    b = language.batch
    nothing, lams = torch.zeros_like(b.rewards), torch.ones_like(b.rewards)
    onward = lambda_returns(b.rewards - penalty, b.discounts, nothing, b.mask, lams)
    assert_exact(language.of_replies(policy_gradient_loss(language.logp, onward)), exact)


@pytest.mark.parametrize(
    ("estimator", "far", "near"),
    [(k1, (0.0, 1.0), 1.0), (k2, (0.562, 0.918), 0.010), (k3, (0.712, 0.717), 0.010)],
)
def test_only_k1_in_the_reward_has_the_gradient_of_the_divergence(
    estimator: Callable[..., Tensor], far: tuple[float, float], near: float, language: Language
) -> None:
    """In a reward only the value of sum_k estimator acts, by the score function: (bias, cosine) of its pull.

    Near the reference that is of second order for k2 and k3, where the KL's gradient is of first: with
    logits some .02 away, a hundredth of its length.
    """
    L = language

    def pull(ref_logp: Tensor) -> tuple[Tensor, Tensor]:
        kl = (L.logp.sum(1).exp() * (L.logp - ref_logp).sum(1)).sum()
        value = estimator(L.logp, ref_logp).detach().masked_fill(~L.mask, 0.0).sum(1)
        found = L.of_replies(policy_gradient_loss(L.logp, value.unsqueeze(1).expand(-1, LONGEST)))
        return found, L.gradient(kl)

    assert (bias(*pull(L.ref_logp)), cosine(*pull(L.ref_logp))) == pytest.approx(far, abs=1e-3)
    step = torch.tensor(np.random.default_rng(0).normal(size=L.logits.shape))
    found, exact = pull(L.logp_of(L.logits.detach() + 0.02 * step))
    assert float(found.norm() / exact.norm()) == pytest.approx(near, abs=5e-3)


@pytest.mark.parametrize(("G", "off"), [(2, 0.191), (3, 0.119)])
def test_dividing_by_the_tokens_of_the_sample_is_a_bias(G: int, off: float, language: Language) -> None:
    """RLOO of one prompt, its sum over the tokens of its G replies, against the gradient over their mean."""
    L = language
    rows, chance = L.groups(G)
    weights = leave_one_out(L.rewards[rows]).flatten()
    each = policy_gradient_loss(L.logp[rows.flatten()], weights.unsqueeze(1).expand(-1, LONGEST)).sum(1)
    tokens = L.lengths[rows].sum(1)
    found = L.gradient(-(chance * each.view(-1, G).sum(1) / tokens).sum())
    exact = L.exact * G / (chance * tokens).sum()
    assert bias(found, exact) == pytest.approx(off, abs=1e-3)


def test_k1_in_the_loss_does_nothing(language: Language) -> None:
    """Its expected gradient is 0: the policy drifts as if there were no reference."""
    found = language.of_replies(k1(language.logp, language.ref_logp))
    assert_exact(found, torch.zeros_like(found))
    assert language.gradient(language.kl).norm() > 0.3


def test_divergences_of_replies_in_the_loss(language: Language) -> None:
    """Given sums over tokens: k2 is right, k3 is the other divergence's, weighted k3 is right."""
    now, ref = language.logp.sum(1, keepdim=True), language.ref_logp.sum(1, keepdim=True)

    def down(losses: Tensor) -> Tensor:
        return language.gradient((language.p.unsqueeze(1) * losses).sum())

    exact = language.gradient(language.kl)
    reverse = language.gradient((ref.exp() * (ref - now)).sum())
    assert_exact(down(k2(now, ref)), exact)
    assert_exact(down(weighted_k3(now, ref, now.detach())), exact)
    assert_exact(down(k3(now, ref)), reverse)
    assert cosine(reverse, exact) == pytest.approx(0.443, abs=1e-3)
    assert bias(reverse, exact) == pytest.approx(0.945, abs=1e-3)


def test_divergences_of_tokens_in_the_loss(language: Language) -> None:
    """Token by token k2 and weighted k3 are the exact token KL's at the states visited, and k3 is not.

    None is the gradient of the KL over replies: what a token does to the divergence of those after it is
    left out.
    """
    L = language
    visited = (L.p.unsqueeze(1) * exact_kl(L.logits[L.prefix], L.ref_logits[L.prefix]))[L.mask].sum()
    exact, nearby = L.gradient(L.kl), L.gradient(visited)
    assert_exact(-L.of_replies(k2(L.logp, L.ref_logp)), nearby)
    assert_exact(-L.of_replies(weighted_k3(L.logp, L.ref_logp, L.logp.detach())), nearby)
    assert bias(nearby, exact) == pytest.approx(0.768, abs=1e-3)
    found = -L.of_replies(k3(L.logp, L.ref_logp))
    assert cosine(found, exact) == pytest.approx(0.541, abs=1e-3)
    assert bias(found, exact) == pytest.approx(0.858, abs=1e-3)
