"""Returns and targets against hand arithmetic and a loop."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from turnwise.losses.returns import discounted_returns, lambda_returns, n_step_returns, td_targets


def test_td_target_by_hand() -> None:
    """1 + 0.5 * 4 = 3; after a termination the discount is 0 and the value counts for nothing: 2 + 0 * 9."""
    found = td_targets(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, 0.0]]), torch.tensor([[4.0, 9.0]]))
    assert_close(found, torch.tensor([[3.0, 2.0]]))


def test_truncation_bootstraps_and_termination_does_not() -> None:
    """The same rewards -1, 2 and values 10, 20 after them, gamma 0.9: (-1 + 9, 2 + 18) cut, (8, 2) ended."""
    rewards, values = torch.tensor([[-1.0, 2.0]] * 2), torch.tensor([[10.0, 20.0]] * 2)
    discounts = torch.tensor([[0.9, 0.9], [0.9, 0.0]])
    assert_close(td_targets(rewards, discounts, values), torch.tensor([[8.0, 20.0], [8.0, 2.0]]))


def test_returns_by_hand() -> None:
    """Rewards 1, 2, 4 at discount 1/2: G2 = 4, G1 = 2 + 4/2 = 4, G0 = 1 + 4/2 = 3."""
    found = discounted_returns(
        torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([[0.5, 0.5, 0.0]]), torch.ones(1, 3, dtype=torch.bool)
    )
    assert_close(found, torch.tensor([[3.0, 4.0, 4.0]]))


def test_each_decision_has_its_own_discount() -> None:
    """Discounts 1, 0.1, 1 (inside a turn, at its end, in the next turn): G1 = 2 + 0.1 * 3, G0 = 1 + G1."""
    found = discounted_returns(
        torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[1.0, 0.1, 1.0]]), torch.ones(1, 3, dtype=torch.bool)
    )
    assert_close(found, torch.tensor([[3.3, 2.3, 3.0]]))


def test_masked_decisions_are_silent() -> None:
    """Whatever stands behind the mask: returns of a row of two decisions are 1 + 0.5 * 2 and 2, then 0."""
    mask = torch.tensor([[True, True, False, False]])
    found = discounted_returns(
        torch.tensor([[1.0, 2.0, 7.0, 8.0]]), torch.tensor([[0.5, 0.9, 0.9, 0.9]]), mask
    )
    assert_close(found, torch.tensor([[2.0, 2.0, 0.0, 0.0]]))


def test_padding_may_hold_no_number_at_all() -> None:
    """Returns of the two real decisions are 1 + 0.5 * 2 and 2, or with V = 6 at the end 2 + 0.9 * 6 = 7.4."""
    nan = float("nan")
    mask = torch.tensor([[True, True, False]])
    rewards, discounts = torch.tensor([[1.0, 2.0, nan]]), torch.tensor([[0.5, 0.9, nan]])
    values = torch.tensor([[4.0, 6.0, nan]])
    assert discounted_returns(rewards, discounts, mask).tolist() == [[2.0, 2.0, 0.0]]
    expected = torch.tensor([[1 + 0.5 * 7.4, 7.4, 0.0]])
    one = torch.tensor([[1.0, 1.0, nan]])
    assert_close(lambda_returns(rewards, discounts, values, mask, one), expected)
    assert_close(n_step_returns(rewards, discounts, values, mask, 2), expected)


def slow_returns(rewards: np.ndarray, discounts: np.ndarray, length: int) -> list[float]:
    """The sum of the definition, term by term: G_k = sum_j (prod_{i=k}^{j-1} d_i) r_j."""
    return [
        sum(np.prod(discounts[k:j]) * rewards[j] for j in range(k, length)) if k < length else 0.0
        for k in range(len(rewards))
    ]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 7))
def test_returns_equal_the_definition(seed: int, B: int, A: int) -> None:
    rng = np.random.default_rng(seed)
    rewards, discounts = rng.normal(size=(B, A)), rng.random((B, A))
    lengths = rng.integers(0, A + 1, B)
    mask = np.arange(A) < lengths[:, None]
    found = discounted_returns(torch.tensor(rewards), torch.tensor(discounts), torch.tensor(mask))
    slow = [slow_returns(r, d, n) for r, d, n in zip(rewards, discounts, lengths, strict=True)]
    assert_close(found, torch.tensor(slow, dtype=torch.float64), rtol=0, atol=1e-12)


def test_targets_at_the_true_values_are_the_returns() -> None:
    """Bellman: with V(s_{k+1}) = G_{k+1}, the one-step target is G_k."""
    rng = np.random.default_rng(3)
    rewards, discounts = torch.tensor(rng.normal(size=(2, 5))), torch.tensor(rng.random((2, 5)))
    returns = discounted_returns(rewards, discounts, torch.ones(2, 5, dtype=torch.bool))
    after = torch.cat([returns[:, 1:], torch.zeros(2, 1, dtype=torch.float64)], 1)
    assert_close(td_targets(rewards, discounts, after), returns)


def test_values_of_one_row_are_not_spread_over_four(unchecked: None) -> None:
    """[1, 3] beside [4, 3] would broadcast without a word; so would one lambda for each column, [3]."""
    four, one, mask = torch.zeros(4, 3), torch.zeros(1, 3), torch.ones(4, 3, dtype=torch.bool)
    message = r"next_values has shape \[1, 3\]; expected \[4, 3\], as the rewards have"
    with pytest.raises(ValueError, match=message):
        td_targets(four, four, one)
    with pytest.raises(ValueError, match=message):
        lambda_returns(four, four, one, mask, 0.5)
    with pytest.raises(ValueError, match=message):
        n_step_returns(four, four, one, mask, 2)
    with pytest.raises(ValueError, match="discounts has shape"):
        discounted_returns(four, one, mask)
    with pytest.raises(ValueError, match="mask has shape"):
        discounted_returns(four, four, mask[:1])
    with pytest.raises(ValueError, match="lam has shape"):
        lambda_returns(four, four, four, mask, torch.zeros(3))


def test_gradients_of_targets() -> None:
    """d target / d reward = 1, d target / d next value = the discount: 0 where the conversation ended."""
    rewards = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    values = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    discounts = torch.tensor([[0.9, 0.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda r, v: td_targets(r, discounts, v), (rewards, values))
    td_targets(rewards, discounts, values).sum().backward()
    assert rewards.grad.tolist() == [[1.0, 1.0]]
    assert values.grad.tolist() == [[0.9, 0.0]]
