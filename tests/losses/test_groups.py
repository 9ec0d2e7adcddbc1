"""Advantages within groups: by hand, slow twins, what they do not depend on."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.losses.groups import anchored_baselines, group_centred, group_standardised, leave_one_out

f64 = torch.float64
HAND = torch.tensor([[1.0, 2.0, 6.0]], dtype=f64)


def test_by_hand() -> None:
    """Mean 3. Others' means 4, 3.5, 1.5. Variance (4 + 1 + 9) / 2 = 7."""
    assert_close(group_centred(HAND), torch.tensor([[-2.0, -1.0, 3.0]], dtype=f64))
    assert_close(leave_one_out(HAND), torch.tensor([[-3.0, -1.5, 4.5]], dtype=f64))
    assert_close(group_standardised(HAND, 0.0), torch.tensor([[-2.0, -1.0, 3.0]], dtype=f64) / 7**0.5)
    assert_close(group_standardised(HAND, 1.0), torch.tensor([[-2.0, -1.0, 3.0]], dtype=f64) / (1 + 7**0.5))


def test_one_against_the_others_by_loops(rng: np.random.Generator) -> None:
    rewards = rng.normal(size=(3, 5))
    slow = [[r - np.mean([*row[:i], *row[i + 1 :]]) for i, r in enumerate(row)] for row in rewards]
    assert_close(leave_one_out(torch.tensor(rewards)), torch.tensor(np.array(slow)))


def test_two_replies_are_compared_with_each_other() -> None:
    """5 and 2: +3 and -3."""
    assert leave_one_out(torch.tensor([[5.0, 2.0]])).tolist() == [[3.0, -3.0]]


@pytest.mark.parametrize("G", [2, 3, 8])
def test_centring_is_a_fraction_of_leaving_one_out(G: int, rng: np.random.Generator) -> None:
    """(G - 1) / G, the same for all."""
    rewards = torch.tensor(rng.normal(size=(4, G)))
    assert_close(group_centred(rewards), (G - 1) / G * leave_one_out(rewards))


def test_whose_baseline_knows_the_reply_itself(rng: np.random.Generator) -> None:
    """dA_i / dr_i is 1 where the baseline is the others', 1 - 1/G where it is everybody's."""
    rewards = torch.tensor(rng.normal(size=(1, 4)))
    for advantage, slope in ((leave_one_out, 1.0), (group_centred, 0.75)):
        jacobian = torch.autograd.functional.jacobian(lambda r, a=advantage: a(r), rewards)
        assert isinstance(jacobian, Tensor)
        assert_close(jacobian[0, :, 0].diagonal(), torch.full((4,), slope, dtype=f64))


@pytest.mark.parametrize("advantage", [leave_one_out, group_centred, group_standardised])
def test_only_the_own_group_counts(advantage: Callable[[Tensor], Tensor], rng: np.random.Generator) -> None:
    """Sums of 0 within a group; no level; another prompt's rewards change nothing."""
    rewards = torch.tensor(rng.normal(size=(2, 4)))
    found = advantage(rewards)
    assert_close(found.sum(1), torch.zeros(2, dtype=f64), rtol=0, atol=1e-12)
    assert_close(advantage(rewards + torch.tensor([[7.0], [-100.0]])), found, rtol=0, atol=1e-10)
    assert_close(advantage(torch.stack([rewards[0], 50 * rewards[1]]))[0], found[0])
    assert advantage(torch.full((1, 4), 2.5)).tolist() == [[0.0] * 4]
    with pytest.raises(ValueError, match="groups of 1; expected at least 2"):
        advantage(torch.zeros(3, 1))


def test_a_deviation_forgets_how_much_replies_differ() -> None:
    """Two replies apart by 1 or by 100: +- 1/sqrt 2 either way; leaving one out says 1 and 100."""
    rewards = torch.tensor([[0.0, 1.0], [0.0, 100.0]], dtype=f64)
    assert_close(group_standardised(rewards, 0.0), torch.tensor([[-1.0, 1.0]] * 2, dtype=f64) / 2**0.5)
    assert leave_one_out(rewards).tolist() == [[-1.0, 1.0], [-100.0, 100.0]]


def test_baselines_at_equal_states_by_hand() -> None:
    """Two decisions of episode 0 and one of episode 1 at state 7; one of episode 2 alone at state 9.

    Those of episode 0 have episode 1's return, 3; that of episode 1 the mean of 1 and 2; the last one
    nothing.
    """
    returns = torch.tensor([1.0, 2.0, 3.0, 5.0], dtype=f64)
    anchors, owners = torch.tensor([7, 7, 7, 9]), torch.tensor([0, 0, 1, 2])
    baselines, found = anchored_baselines(returns, anchors, owners)
    assert baselines.tolist() == [3.0, 3.0, 1.5, 0.0] and found.tolist() == [True, True, True, False]
