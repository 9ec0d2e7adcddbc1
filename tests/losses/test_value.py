"""Losses of value functions: hand arithmetic, limits, gradients."""

import math

import pytest
import torch
from torch.testing import assert_close

from turnwise.losses.value import (
    action_values,
    clipped_value_loss,
    cql_loss,
    expectile_loss,
    explained_variance,
    squared_error,
)

f64 = torch.float64


def test_squared_error_by_hand() -> None:
    """Targets 1 and 5; two heads say (0, 5) and (3, 4): errors (1, 0) and (4, 1)."""
    values = torch.tensor([[[0.0, 5.0]], [[3.0, 4.0]]])
    found = squared_error(values, torch.tensor([[1.0, 5.0]]))
    assert found.tolist() == [[[1.0, 0.0]], [[4.0, 1.0]]]


def test_action_values_by_hand() -> None:
    """Two heads, two decisions, three actions; actions 2 and 0 were taken."""
    q = torch.tensor([[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]], [[[7.0, 8.0, 9.0], [0.0, 1.0, 2.0]]]])
    assert action_values(q, torch.tensor([[2, 0]])).tolist() == [[[3.0, 4.0]], [[9.0, 0.0]]]
    assert action_values(q[0], torch.tensor([[2, 0]])).tolist() == [[3.0, 4.0]]


def test_clipped_value_by_hand() -> None:
    """Old value 0, target 4, clip 1: V = 3 costs max(1, (4 - 1)^2) = 9; V = 1/2 and V = 0 cost their own
    (3.5^2, 16); V = -2, which went the wrong way, costs (4 + 2)^2 = 36.
    """
    v = torch.tensor([[3.0, 0.5, 0.0, -2.0]], requires_grad=True)
    found = clipped_value_loss(v, torch.zeros(1, 4), torch.full((1, 4), 4.0), 1.0)
    assert found.tolist() == [[9.0, 12.25, 16.0, 36.0]]
    found.sum().backward()
    assert v.grad.tolist() == [[0.0, -7.0, -8.0, -12.0]]  # no gain from going further; the way back is open


def test_a_large_value_clip_is_none(rng) -> None:
    values, old, targets = torch.tensor(rng.normal(size=(3, 2, 3)))
    assert_close(clipped_value_loss(values, old, targets, 1e9), squared_error(values, targets))


def test_expectile_by_hand() -> None:
    """tau 0.9: a target 2 above the value costs 0.9 * 4 = 3.6, one 2 below it 0.1 * 4 = 0.4, none nothing."""
    found = expectile_loss(torch.tensor([[1.0, 1.0, 1.0]]), torch.tensor([[3.0, -1.0, 1.0]]), 0.9)
    assert_close(found, torch.tensor([[3.6, 0.4, 0.0]]))


def test_expectile_weights_have_the_precision_of_the_values() -> None:
    """0.8 * 3^2 = 7.2 to 1e-15 in float64 (a weight in float32 would be wrong by 1e-7)."""
    zero = torch.zeros(1, 1, dtype=f64)
    assert expectile_loss(zero, zero + 3, 0.8).item() == pytest.approx(7.2, rel=1e-15)
    assert expectile_loss(zero, zero - 3, 0.8).item() == pytest.approx(1.8, rel=1e-15)


def test_expectile_of_a_half_is_half_the_squared_error(rng) -> None:
    values, targets = torch.tensor(rng.normal(size=(2, 3, 4)))
    assert_close(expectile_loss(values, targets, 0.5), squared_error(values, targets) / 2)


def test_expectiles_mirror_each_other(rng) -> None:
    """|tau - 1(u < 0)| u^2 with u -> -u is the loss of 1 - tau."""
    values, targets = torch.tensor(rng.normal(size=(2, 3, 4)))
    assert_close(expectile_loss(values, targets, 0.8), expectile_loss(targets, values, 1 - 0.8))


@pytest.mark.parametrize(
    ("tau", "value"), [(0.5, 1.0), (0.75, 1.5), (0.25, 0.5), (1 - 1e-9, 2.0), (1e-9, 0.0)]
)
def test_where_the_expectile_lies(tau: float, value: float) -> None:
    """Of targets 0 and 2 in equal parts: tau (2 - v) = (1 - tau) v, so v = 2 tau; towards 1 the maximum."""
    targets = torch.tensor([[0.0, 2.0]], dtype=f64)
    v = torch.tensor(value, dtype=f64, requires_grad=True)
    expectile_loss(v.expand(1, 2), targets, tau).sum().backward()
    assert v.grad.item() == pytest.approx(0, abs=1e-7)


def test_cql_by_hand() -> None:
    """Q = log 1, log 2, log 5 of three actions, the second taken: log 8 - log 2 = log 4."""
    q = torch.tensor([[[1.0, 2.0, 5.0]]]).log()
    assert_close(cql_loss(q, torch.tensor([[1]])), torch.tensor([[4.0]]).log())


def test_cql_is_the_likelihood_of_q_as_logits(rng) -> None:
    """For every head of an ensemble: cross-entropy with Q as logits; its gradient is softmax - one-hot."""
    q = torch.tensor(rng.normal(size=(2, 3, 4, 5)), requires_grad=True)
    actions = torch.tensor(rng.integers(0, 5, (3, 4)))
    found = cql_loss(q, actions)
    for head in range(2):
        logits = q[head].flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(logits, actions.flatten(), reduction="none")
        assert_close(found[head].flatten(), expected)
    found.sum().backward()
    one_hot = torch.nn.functional.one_hot(actions, 5).to(f64)
    assert_close(q.grad, q.detach().softmax(-1) - one_hot)


def test_cql_is_bounded_below_by_zero_and_reaches_it() -> None:
    """Q of the taken action far above the rest: logsumexp = Q(a), the loss is 0; equal Qs cost log 3."""
    q = torch.tensor([[[90.0, 0.0, 0.0], [7.0, 7.0, 7.0]]], dtype=f64)
    assert_close(cql_loss(q, torch.tensor([[0, 2]])), torch.tensor([[0.0, math.log(3)]], dtype=f64))


def test_gradients(rng) -> None:
    """float64 gradcheck with respect to everything real; targets of 0.1 and more away from the kink."""
    values = torch.tensor(rng.normal(size=(2, 3)), requires_grad=True)
    targets = (values.detach() + torch.tensor([[0.5, -0.5, 1.0]] * 2)).requires_grad_()
    q = torch.tensor(rng.normal(size=(2, 2, 3, 4)), requires_grad=True)
    actions = torch.tensor(rng.integers(0, 4, (2, 3)))
    check = torch.autograd.gradcheck
    assert check(squared_error, (values, targets))
    assert check(lambda v, t: expectile_loss(v, t, 0.8), (values, targets))
    assert check(lambda x: cql_loss(x, actions), (q,))


def test_expectile_is_smooth_where_the_error_is_zero() -> None:
    v = torch.zeros(1, 1, dtype=f64, requires_grad=True)
    expectile_loss(v, torch.zeros(1, 1, dtype=f64), 0.9).sum().backward()
    assert v.grad.item() == 0.0


def test_explained_variance_by_hand() -> None:
    """Returns 1, 2, 3, 4 vary by 1.25; errors 0, 0, 1, 1 of values 1, 2, 2, 3 by .25: 1 - .25 / 1.25 = .8.

    Off by a constant: 1. A constant: 0. -G has the errors 2 G, of four times the variance: 1 - 4 = -3. If all
    returns are equal, there is nothing to explain: 0.
    """
    returns = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    for values, expected in (
        (torch.tensor([1.0, 2.0, 2.0, 3.0], dtype=torch.float64), 0.8),
        (returns + 7, 1.0),
        (torch.full_like(returns, 7.0), 0.0),
        (-returns, -3.0),
    ):
        assert float(explained_variance(values, returns)) == pytest.approx(expected, abs=1e-12)
    assert float(explained_variance(returns, torch.ones_like(returns))) == 0
