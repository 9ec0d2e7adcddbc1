"""Observations in units of their own deviation, by hand and against moments of all that was shown."""

import torch

from turnwise.models.memory.standardiser import Standardiser


def test_vectors_go_in_as_they_are_before_anything_was_shown() -> None:
    x = torch.randn(5, 3)
    assert torch.equal(Standardiser(3)(x), x)


def test_moments_are_those_of_all_vectors_in_whatever_parts_they_were_shown() -> None:
    torch.manual_seed(0)
    x = torch.randn(600, 2, dtype=torch.float64) * torch.tensor([0.05, 30.0]) + torch.tensor([0.3, -7.0])
    standardised = Standardiser(2).double()
    for part in (x[:1], x[1:40], x[40:41], x[41:]):
        standardised.update_(part)
    torch.testing.assert_close(standardised.mean, x.mean(0), rtol=1e-10, atol=0)
    torch.testing.assert_close(standardised.deviation, x.std(0, correction=0), rtol=1e-10, atol=0)


def test_two_vectors_by_hand() -> None:
    """Of 1 and 3 the mean is 2 and the deviation 1; 5 more of them, all 2: deviation sqrt(2/7)."""
    standardised = Standardiser(1)
    standardised.update_(torch.tensor([[1.0], [3.0]]))
    assert standardised(torch.tensor([[4.0]])).item() == 2.0
    standardised.update_(torch.full((5, 1), 2.0))
    torch.testing.assert_close(standardised.deviation, torch.tensor([(2 / 7) ** 0.5]))


def test_a_part_that_never_changes_is_shifted_and_not_blown_up() -> None:
    standardised = Standardiser(2)
    standardised.update_(torch.tensor([[1.0, 5.0], [3.0, 5.0]]))
    assert standardised(torch.tensor([[2.0, 5.5]])).tolist() == [[0.0, 0.5]]
