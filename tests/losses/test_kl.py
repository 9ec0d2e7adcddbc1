"""Estimators of the KL: by hand, and their expectations and gradients over all actions of a small policy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.losses.kl import exact_kl, k1, k2, k3, truncated_ratio, weighted_k3

f64 = torch.float64


def column(*x: float) -> Tensor:
    return torch.tensor([x], dtype=f64)


def test_by_hand() -> None:
    """pi = 1/2, pi_ref = 1/8: log ratio log 4, r = 1/4. And the other way round: r = 4."""
    logp, ref = column(0.5, 0.125).log(), column(0.125, 0.5).log()
    d = math.log(4)
    assert_close(k1(logp, ref), column(d, -d))
    assert_close(k2(logp, ref), column(d * d / 2, d * d / 2))
    assert_close(k3(logp, ref), column(d - 3 / 4, 3 - d))


def test_exact_by_hand() -> None:
    """(1/2, 1/4, 1/4) from uniform: log 3 - (3/2) log 2; and not symmetric."""
    logits = torch.tensor([[2.0, 1.0, 1.0]], dtype=f64).log() + 50.0
    uniform = torch.zeros(1, 3, dtype=f64)
    assert_close(exact_kl(logits, uniform), torch.tensor([math.log(3) - 1.5 * math.log(2)], dtype=f64))
    other = math.log(4) * 2 / 3 + math.log(2) / 3 - math.log(3)
    assert_close(exact_kl(uniform, logits), torch.tensor([other], dtype=f64))


def test_equal_policies_are_nowhere(rng: np.random.Generator) -> None:
    """All are 0 and so are their gradients, save that of k1, whose gradient is the score itself."""
    logp = torch.tensor(-rng.random((2, 3)), requires_grad=True)
    for estimate in (k2, k3):
        found = estimate(logp, logp.detach())
        assert not found.any() and not torch.autograd.grad(found.sum(), logp)[0].any()
    logits = torch.tensor(rng.normal(size=(4, 5)))
    assert_close(exact_kl(logits, logits + 3.0), torch.zeros(4, dtype=f64), rtol=0, atol=1e-14)


@pytest.fixture
def policies(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Logits of a policy and a reference over six actions."""
    return torch.tensor(rng.normal(size=(1, 6)), requires_grad=True), torch.tensor(rng.normal(size=(1, 6)))


def test_expected_values(policies: tuple[Tensor, Tensor]) -> None:
    """k1 and k3 are the KL in expectation, k3 with no negative sample; k2 is off, by a third order."""
    logits, ref = policies[0].detach(), policies[1]
    logp, ref_logp = logits.log_softmax(-1), ref.log_softmax(-1)
    kl = exact_kl(logits, ref)
    for estimate in (k1, k3):
        assert_close((logp.exp() * estimate(logp, ref_logp)).sum(-1), kl)
    assert (k3(logp, ref_logp) >= 0).all() and (k1(logp, ref_logp) < 0).any()
    biases = []
    for near in (0.1, 0.05):
        close = (logp + near * (ref_logp - logp)).log_softmax(-1)
        biases.append((logp.exp() * k2(logp, close)).sum(-1) - exact_kl(logits, close))
    assert 6 < abs(float(biases[0] / biases[1])) < 10  # 2^3


def test_expected_gradients(policies: tuple[Tensor, Tensor]) -> None:
    """As losses on samples: k1 pulls nowhere, k2 down KL(pi, ref), k3 down KL(ref, pi)."""
    logits, ref = policies
    logp, ref_logp = logits.log_softmax(-1), ref.log_softmax(-1)
    weight = logp.detach().exp()

    def pull(loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss.sum(), logits, retain_graph=True)[0]

    assert_close(pull(weight * k1(logp, ref_logp)), torch.zeros_like(logits), rtol=0, atol=1e-14)
    assert_close(pull(weight * k2(logp, ref_logp)), pull(exact_kl(logits, ref)))
    assert_close(pull(weight * k3(logp, ref_logp)), pull(exact_kl(ref, logits)))


def test_k3_weighted_with_the_ratio(policies: tuple[Tensor, Tensor], rng: np.random.Generator) -> None:
    """From samples of any behaviour, value and gradient are those of KL(pi, ref)."""
    logits, ref = policies
    behavior = torch.tensor(rng.normal(size=(1, 6))).log_softmax(-1)
    found = (behavior.exp() * weighted_k3(logits.log_softmax(-1), ref.log_softmax(-1), behavior)).sum(-1)
    exact = exact_kl(logits, ref)
    assert_close(found, exact)
    assert_close(*(torch.autograd.grad(x.sum(), logits)[0] for x in (found, exact)))


def test_gradients_are_those_of_differences(rng: np.random.Generator) -> None:
    logp, ref = (torch.tensor(-rng.random((2, 3)), requires_grad=True) for _ in range(2))
    for estimate in (k1, k2, k3):
        assert torch.autograd.gradcheck(estimate, (logp, ref))
    logits, far = (torch.tensor(rng.normal(size=(2, 4)), requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(exact_kl, (logits, far))


def test_k3_of_policies_that_are_close_keeps_its_digits() -> None:
    """Single precision, log ratio 1e-3: d^2 / 2 - d^3 / 6, where r - 1 - log r would leave two digits."""
    d = torch.tensor([[1e-3]])
    assert_close(k3(d, torch.zeros(1, 1)), torch.tensor([[5e-7 - 1e-9 / 6]]), rtol=2e-4, atol=0)


def test_ratios_are_truncated_above_alone() -> None:
    """exp(log 3) = 3 is cut to 2 and stops its gradient; 1/3 stays and has its own."""
    logp = torch.tensor([3.0, 1.0, 1 / 3], dtype=f64).log().requires_grad_()
    found = truncated_ratio(logp, torch.zeros(3, dtype=f64), 2.0)
    assert_close(found.detach(), torch.tensor([2.0, 1.0, 1 / 3], dtype=f64))
    expected = torch.tensor([0.0, 1.0, 1 / 3], dtype=f64)
    assert_close(torch.autograd.grad(found.sum(), logp)[0], expected)


def test_the_ratio_of_a_reply_is_the_product_of_its_tokens(rng: np.random.Generator) -> None:
    now, then = (torch.tensor(-rng.random((3, 4))) for _ in range(2))
    each = truncated_ratio(now, then, math.inf)
    assert_close(truncated_ratio(now.sum(1), then.sum(1), math.inf), each.prod(1))
