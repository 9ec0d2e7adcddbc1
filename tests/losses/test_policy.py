"""Log-probabilities and the perturbed policy."""

import math

import pytest
import torch
from torch.testing import assert_close

from turnwise.losses.policy import (
    action_logp,
    advantage_logits,
    advantage_weights,
    clipped_surrogate_loss,
    entropy,
    policy_gradient_loss,
)

f64 = torch.float64


def test_log_probability_by_hand() -> None:
    """Logits 0, log 2, log 5 plus any constant are probabilities 1/8, 2/8, 5/8."""
    logits = torch.tensor([1.0, 2.0, 5.0], dtype=f64).log() + 100.0
    found = action_logp(logits.expand(1, 3, 3), torch.tensor([[0, 1, 2]]))
    assert_close(found, torch.tensor([[1.0, 2.0, 5.0]], dtype=f64).div(8).log())


def test_log_probability_of_huge_logits_is_finite() -> None:
    """Logits 1000 and 0: log pi = 0 - log(1 + e^-1000) = 0 and -1000."""
    found = action_logp(torch.tensor([[[1000.0, 0.0]] * 2]), torch.tensor([[0, 1]]))
    assert_close(found, torch.tensor([[0.0, -1000.0]]))


def test_gradient_of_log_probability_is_one_hot_minus_pi(rng) -> None:
    logits = torch.tensor(rng.normal(size=(2, 3, 4)), requires_grad=True)
    actions = torch.tensor(rng.integers(0, 4, (2, 3)))
    assert torch.autograd.gradcheck(lambda x: action_logp(x, actions), (logits,))
    action_logp(logits, actions).sum().backward()
    one_hot = torch.nn.functional.one_hot(actions, 4).to(f64)
    assert_close(logits.grad, one_hot - logits.detach().softmax(-1))


def test_perturbed_policy_by_hand() -> None:
    """pi = (1/2, 1/2), advantages (log 3, 0): weights 3 and 1 under beta 1, (3/4, 1/4); 9 and 1 with 2."""
    logp, advantages = torch.tensor([0.5, 0.5]).log(), torch.tensor([math.log(3), 0.0])
    assert_close(advantage_logits(logp, advantages, 1.0).softmax(-1), torch.tensor([0.75, 0.25]))
    assert_close(advantage_logits(logp, advantages, 2.0).softmax(-1), torch.tensor([0.9, 0.1]))


def test_weights_of_advantages_by_hand() -> None:
    """exp(2 A) of A = (0, log 2, -log 3, 50): 1, 4, 1/9, and the bound; exp(0 A) = 1 of all of them."""
    advantages = torch.tensor([0.0, math.log(2), -math.log(3), 50.0], dtype=f64)
    assert_close(advantage_weights(advantages, 2.0, 20.0), torch.tensor([1, 4, 1 / 9, 20], dtype=f64))
    assert advantage_weights(torch.tensor([-1e9, 0.0, 1e9]), 1.0, 20.0).tolist() == [0.0, 1.0, 20.0]
    assert advantage_weights(advantages, 0.0).tolist() == [1.0] * 4


def test_weighted_cloning_has_the_gradient_of_the_perturbed_policy(rng) -> None:
    """sum_a pi_b(a) w(a) (-log pi(a)) has no gradient where pi is the softmax of `advantage_logits`: one
    closed form in two places."""
    logp = torch.tensor(rng.normal(size=(1, 5))).log_softmax(-1)
    advantages = torch.tensor(rng.normal(size=(1, 5)))
    logits = advantage_logits(logp, advantages, 1.7).requires_grad_()
    weights = logp.exp() * advantage_weights(advantages, 1.7)
    (-weights * logits.log_softmax(-1)).sum().backward()
    assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-12)


def test_without_beta_or_advantage_the_policy_is_itself(rng) -> None:
    logp = torch.tensor(rng.normal(size=(2, 5))).log_softmax(-1)
    advantages = torch.tensor(rng.normal(size=(2, 5)))
    assert_close(advantage_logits(logp, advantages, 0.0), logp)
    assert_close(advantage_logits(logp, torch.full_like(logp, 7.0), 3.0).softmax(-1), logp.exp())


def test_a_clip_bounds_what_is_gained_and_not_what_is_lost() -> None:
    """beta A = (4, 1, -4): unclipped as it is, clip 2 gives (2, 1, -4), clip 0 gives (0, 0, -4)."""
    logp, advantages = torch.zeros(3), torch.tensor([2.0, 0.5, -2.0])
    assert advantage_logits(logp, advantages, 2.0).tolist() == [4.0, 1.0, -4.0]
    assert advantage_logits(logp, advantages, 2.0, clip=2.0).tolist() == [2.0, 1.0, -4.0]
    assert advantage_logits(logp, advantages, 2.0, clip=0.0).tolist() == [0.0, 0.0, -4.0]


def test_a_large_clip_is_none(rng) -> None:
    logp, advantages = torch.tensor(rng.normal(size=(2, 3, 4)))
    assert_close(advantage_logits(logp, advantages, 8.0, clip=1e9), advantage_logits(logp, advantages, 8.0))


def test_the_best_perturbed_policy_has_the_known_value() -> None:
    """pi exp(beta A) / Z maximises E[A] - KL(. || pi) / beta, and the maximum is log Z / beta."""
    beta, pi = 3.0, torch.tensor([0.2, 0.5, 0.3], dtype=f64)
    advantages = torch.tensor([0.4, -0.1, 0.05], dtype=f64)
    best = advantage_logits(pi.log(), advantages, beta).softmax(-1)
    worth = (best * advantages).sum() - (best * (best / pi).log()).sum() / beta
    log_z = (pi * (beta * advantages).exp()).sum().log()
    assert worth.item() == pytest.approx(log_z.item() / beta, abs=1e-12)


def test_clipped_surrogate_by_hand() -> None:
    """Clip .2. Ratio 2 with A = 1: min(2, 1.2); with A = -1: min(-2, -1.2). Ratio 1/2: .5 and -.8."""
    old, ratio = torch.zeros(1, 4, dtype=f64), torch.tensor([[2.0, 2.0, 0.5, 0.5]], dtype=f64)
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]], dtype=f64)
    found = clipped_surrogate_loss(ratio.log(), old, advantages, 0.2)
    assert_close(found, -torch.tensor([[1.2, -2.0, 0.5, -0.8]], dtype=f64))


def test_clipping_stops_the_gradient_of_what_went_far_enough() -> None:
    """Better actions that are 20% likelier already, worse ones that are 20% rarer; never the way back."""
    logp = torch.tensor([[2.0, 2.0, 0.5, 0.5]], dtype=f64).log().requires_grad_()
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]], dtype=f64)
    clipped_surrogate_loss(logp, torch.zeros(1, 4, dtype=f64), advantages, 0.2).sum().backward()
    assert logp.grad is not None
    assert_close(logp.grad, torch.tensor([[0.0, 2.0, -0.5, 0.0]], dtype=f64))


def test_at_ratio_one_the_surrogate_has_the_gradient_of_reinforce(rng) -> None:
    logp = torch.tensor(rng.normal(size=(2, 3)), requires_grad=True)
    advantages = torch.tensor(rng.normal(size=(2, 3)))
    one = torch.autograd.grad(clipped_surrogate_loss(logp, logp.detach(), advantages, 0.2).sum(), logp)
    other = torch.autograd.grad(policy_gradient_loss(logp, advantages).sum(), logp)
    assert_close(one, other)
    assert_close(one[0], -advantages)


def test_entropy_by_hand_and_at_its_ends(rng) -> None:
    """Of (1/2, 1/4, 1/4): 1.5 log 2. Of n alike: log n. Of one sure action: 0, with a finite gradient."""
    assert_close(
        entropy(torch.tensor([2.0, 1.0, 1.0], dtype=f64).log()), torch.tensor(1.5, dtype=f64) * math.log(2)
    )
    assert_close(entropy(torch.zeros(5, dtype=f64)), torch.tensor(math.log(5), dtype=f64))
    sure = torch.tensor([1000.0, 0.0], requires_grad=True)
    value = entropy(sure)
    value.backward()
    assert value.item() == 0 and sure.grad is not None and torch.isfinite(sure.grad).all()
    assert torch.autograd.gradcheck(entropy, (torch.tensor(rng.normal(size=(2, 4)), requires_grad=True),))
