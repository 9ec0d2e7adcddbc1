"""Returns for policy gradients: by hand, in their limits, against a slow twin."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.losses.estimators import estimated_returns, standardised
from turnwise.losses.returns import discounted_returns, n_step_returns, td_targets

f64 = torch.float64


def rows(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards, discounts, values [B, A+1] and mask of rows of 5, 3 (ended) and 1 decisions, padded to 6."""
    g = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([5, 3, 1])
    mask = torch.arange(6) < lengths[:, None]
    rewards = torch.randn(3, 6, generator=g, dtype=f64) * mask
    discounts = torch.where(mask, 0.9, 0.0).to(f64)
    discounts[1, 2] = 0.0
    values = torch.randn(3, 7, generator=g, dtype=f64)
    for b, n in enumerate(lengths):
        values[b, n:] = values[b, n]
    return rewards, discounts, values, mask


def twin(rewards: Tensor, discounts: Tensor, values: Tensor, mask: Tensor, n: int) -> Tensor:
    """One return at a time: n rewards, or as many as the row has, and the value of where they lead."""
    found = torch.zeros_like(rewards)
    for b, length in enumerate(mask.sum(1).tolist()):
        for k in range(length):
            weight, last = 1.0, min(k + n, length)
            for j in range(k, last):
                found[b, k] += weight * rewards[b, j]
                weight *= float(discounts[b, j])
            found[b, k] += weight * values[b, last]
    return found


def test_two_steps_by_hand() -> None:
    """Rewards 1, 2, 3, discount 1/2, cut, values 8, 16, 32 of what follows each.

    1 + 2/2 + 16/4 = 6;  2 + 3/2 + 32/4 = 11.5;  3 + 32/2 = 19, since the row has one step left.
    """
    found = n_step_returns(
        torch.tensor([[1.0, 2.0, 3.0]]),
        torch.full((1, 3), 0.5),
        torch.tensor([[8.0, 16.0, 32.0]]),
        torch.ones(1, 3, dtype=torch.bool),
        2,
    )
    assert found.tolist() == [[6.0, 11.5, 19.0]]


@pytest.mark.parametrize("n", [1, 2, 3, 5, 50])
def test_n_steps_equal_the_slow_twin(n: int) -> None:
    rewards, discounts, values, mask = rows()
    assert_close(
        n_step_returns(rewards, discounts, values[:, 1:], mask, n),
        twin(rewards, discounts, values, mask, n),
        rtol=0,
        atol=1e-12,
    )


def test_no_step_is_refused() -> None:
    rewards, discounts, values, mask = rows()
    with pytest.raises(ValueError, match="n is 0; expected 1 or more"):
        n_step_returns(rewards, discounts, values[:, 1:], mask, 0)


def estimated(name: Any, n: int = 1, lam: float = 0.0, values: Tensor | None = None) -> Tensor:
    rewards, discounts, v, mask = rows()
    return estimated_returns(name, rewards, discounts, v if values is None else values, mask, n=n, lam=lam)


def test_limits() -> None:
    """One step is lambda 0; all steps are lambda 1; where rows end truly or in a value of 0, Monte Carlo."""
    rewards, discounts, values, mask = rows()
    one = td_targets(rewards, discounts, values[:, 1:]).masked_fill(~mask, 0.0)
    assert_close(estimated("n-step", n=1), one)
    assert_close(estimated("gae", lam=0.0), one)
    assert_close(estimated("n-step", n=6), estimated("gae", lam=1.0))
    for b, n in enumerate(mask.sum(1).tolist()):
        values[b, n:] = 0.0
    monte_carlo = discounted_returns(rewards, discounts, mask)
    assert_close(estimated("gae", lam=1.0, values=values), monte_carlo)
    assert_close(estimated("monte-carlo"), monte_carlo)


def test_gae_is_the_sum_of_discounted_errors() -> None:
    """A_k = sum_l (d lambda)^l delta_{k+l}, eq. 16 of Schulman et al. 2016; and with lambda 1, return - V."""
    rewards, discounts, values, mask = rows()
    delta = (rewards + discounts * values[:, 1:] - values[:, :-1]).masked_fill(~mask, 0.0)
    for lam in (0.0, 0.3, 0.95, 1.0):
        expected, after = torch.zeros_like(rewards), torch.zeros(3, dtype=f64)
        for k in range(5, -1, -1):
            after = delta[:, k] + discounts[:, k] * lam * after
            expected[:, k] = after
        found = (estimated("gae", lam=lam) - values[:, :-1]).masked_fill(~mask, 0.0)
        assert_close(found, expected)


def test_a_cut_bootstraps_and_an_end_does_not() -> None:
    """The value of the final state moves every return of the cut row and none of the ended one."""
    _, _, values, mask = rows()
    moved = values.clone()
    moved[0, 5:] += 1
    moved[1, 3:] += 1
    for name, lam in (("n-step", 0.0), ("gae", 0.9)):
        change = estimated(name, n=9, lam=lam, values=moved) - estimated(name, n=9, lam=lam)
        factor = 1.0 if name == "n-step" else 0.9
        assert_close(change[0, :5], 0.9 * (0.9 * factor) ** torch.arange(4, -1, -1, dtype=f64))
        assert not change[1:].any()
    assert not mask[0, 5]


@pytest.mark.parametrize(("name", "n"), [("monte-carlo", 1), ("n-step", 1), ("n-step", 3), ("gae", 1)])
def test_padding_is_silent(name: str, n: int) -> None:
    """Rewards, discounts and values beyond a row's end can be anything, its final state's value excepted."""
    rewards, discounts, values, mask = rows()
    found = estimated_returns(name, rewards, discounts, values, mask, n=n, lam=0.9)  # type: ignore[arg-type]
    wild = values.clone()
    for b, length in enumerate(mask.sum(1).tolist()):
        wild[b, length + 1 :] = 1e6
    other = estimated_returns(
        name,  # type: ignore[arg-type]
        rewards.masked_fill(~mask, 1e6),
        discounts.masked_fill(~mask, 1.0),
        wild,
        mask,
        n=n,
        lam=0.9,
    )
    assert torch.equal(found[mask], other[mask]) and not found[~mask].any()


def test_standardised_by_hand() -> None:
    """1, 2, 3 have mean 2 and deviation sqrt(2/3); what is masked does not count. Equal numbers give 0."""
    x, mask = torch.tensor([[1.0, 2.0, 3.0, 1e9]], dtype=f64), torch.tensor([[True, True, True, False]])
    assert_close(standardised(x, mask)[mask], torch.tensor([-1.0, 0.0, 1.0], dtype=f64) * 1.5**0.5)
    assert standardised(torch.full((1, 3), 7.0), torch.ones(1, 3, dtype=torch.bool)).tolist() == [[0.0] * 3]
