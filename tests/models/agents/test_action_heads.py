"""Distributions over actions: densities against closed forms, samples against densities."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from turnwise.models.agents.action_heads import Categorical, Gaussian

f64 = torch.float64


def test_categorical_is_the_softmax_of_its_logits() -> None:
    """Logits of 1/8, 2/8, 5/8."""
    head, logits = Categorical(4, 3), torch.tensor([[1.0, 2.0, 5.0]], dtype=f64).log()
    for a, p in enumerate((1 / 8, 2 / 8, 5 / 8)):
        assert head.logp(logits, torch.tensor([a])).item() == pytest.approx(math.log(p))
    expected = -sum(p * math.log(p) for p in (1 / 8, 2 / 8, 5 / 8))
    assert head.entropy(logits).item() == pytest.approx(expected)
    assert head.mode(logits).tolist() == [2]


def test_categorical_samples_have_its_probabilities() -> None:
    """40,000 draws; four standard errors of .0024."""
    torch.manual_seed(0)
    drawn = Categorical(4, 3).sample(torch.tensor([1.0, 2.0, 5.0]).log().expand(40_000, 3))
    found = torch.bincount(drawn, minlength=3) / 40_000
    assert_close(found, torch.tensor([1 / 8, 2 / 8, 5 / 8]), rtol=0, atol=0.01)


def test_categorical_never_draws_what_is_impossible_and_survives_sure_things() -> None:
    torch.manual_seed(0)
    drawn = Categorical(4, 3).sample(torch.tensor([0.0, -1e9, 300.0]).expand(10_000, 3))
    assert (drawn == 2).all()


def test_policies_are_near_uniform_at_first() -> None:
    """Features of size 1: probabilities within 2% of 1/3."""
    torch.manual_seed(0)
    p = Categorical(64, 3)(torch.randn(100, 64)).softmax(-1)
    assert (p - 1 / 3).abs().max() < 0.02


def test_gaussian_against_torchs() -> None:
    torch.manual_seed(0)
    head, actions = Gaussian(5, 2).double(), torch.randn(7, 2, dtype=f64)
    torch.nn.init.normal_(head.log_deviation)
    parameters = head(torch.randn(7, 5, dtype=f64))
    mean, log_deviation = parameters.chunk(2, -1)
    theirs = torch.distributions.Normal(mean, log_deviation.exp())
    assert_close(head.logp(parameters, actions), theirs.log_prob(actions).sum(-1))
    assert_close(head.entropy(parameters), theirs.entropy().sum(-1))
    assert torch.equal(head.mode(parameters), mean)


def test_gaussian_samples_have_its_moments() -> None:
    """Means 0 within .03, deviations .6 and .1 within 3%."""
    torch.manual_seed(0)
    parameters = torch.tensor([0.0, 0.0, math.log(0.6), math.log(0.1)]).expand(20_000, 4)
    drawn = Gaussian(5, 2).sample(parameters)
    assert_close(drawn.mean(0), torch.zeros(2), rtol=0, atol=0.03)
    assert_close(drawn.std(0), torch.tensor([0.6, 0.1]), rtol=0.03, atol=0)
