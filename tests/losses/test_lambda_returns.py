"""Lambda-returns against hand arithmetic, their two limits, and padding."""

import torch
from torch.testing import assert_close

from turnwise.data.batch import pack_tokens
from turnwise.data.tokens import TokenWriter
from turnwise.losses.returns import discounted_returns, lambda_returns

R = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
D = torch.tensor([[0.5, 0.5, 0.5]], dtype=torch.float64)
V = torch.tensor([[10.0, 20.0, 40.0]], dtype=torch.float64)  # of the states after each action
EVERY = torch.ones(1, 3, dtype=torch.bool)


def test_by_hand():
    """lambda 1/2, cut at the end.

    G_2 = 4 + .5 * 40 = 24.  G_1 = 2 + .5 (.5 * 20 + .5 * 24) = 13.  G_0 = 1 + .5 (.5 * 10 + .5 * 13) = 6.75.
    """
    assert_close(
        lambda_returns(R, D, V, EVERY, torch.full_like(R, 0.5)), torch.tensor([[6.75, 13.0, 24.0]]).double()
    )


def test_lambda_zero_is_the_one_step_target():
    assert_close(lambda_returns(R, D, V, EVERY, torch.zeros_like(R)), R + D * V)


def test_lambda_one_is_the_logged_return():
    """After a true end nothing of the values is left; after a cut the final state's value is all that is."""
    ended = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64)
    assert_close(lambda_returns(R, ended, V, EVERY, torch.ones_like(R)), discounted_returns(R, ended, EVERY))
    cut = lambda_returns(R, D, V, EVERY, torch.ones_like(R))
    assert_close(cut, discounted_returns(R, D, EVERY) + torch.tensor([[5.0, 10.0, 20.0]]).double())


def test_padding_changes_nothing():
    """Padding repeats the final state: reward 0, discount 0, the final state's value."""
    pad = lambda x, value: torch.cat([x, torch.full((1, 2), value, dtype=x.dtype)], 1)  # noqa: E731
    lam = torch.tensor([[0.3, 1.0, 0.7]], dtype=torch.float64)
    padded = lambda_returns(pad(R, 0.0), pad(D, 0.0), pad(V, 40.0), pad(EVERY, False), pad(lam, 0.9))
    assert_close(padded[:, :3], lambda_returns(R, D, V, EVERY, lam), rtol=0, atol=0)
    assert_close(padded[:, 3:], torch.zeros(1, 2).double(), rtol=0, atol=0)


def test_a_cut_row_bootstraps_from_the_final_state_whatever_pads_it():
    """Rows of different lengths in one batch give what each gives alone."""
    rows = []
    for n in (1, 3):
        writer = TokenWriter()
        for _ in range(n):
            writer.read([7, 7])
            writer.act([1, 2], 1.0, None)
        writer.read([7])
        rows.append(writer.tokens(False, next_known=True, id="x"))
    position_value = torch.arange(20, dtype=torch.float64)

    def targets(chosen):
        batch = pack_tokens(chosen, gamma=0.9, dtype=torch.float64)
        lam = torch.full_like(batch.rewards, 0.4)
        return lambda_returns(
            batch.rewards, batch.discounts, position_value[batch.decisions[:, 1:]], batch.mask, lam
        )

    together = targets(rows)
    for i, row in enumerate(rows):
        alone = targets([row])
        assert_close(together[i, : alone.shape[1]], alone[0], rtol=0, atol=0)
