"""Lambda-returns against hand arithmetic, the algorithms that are special cases of them, and padding."""

import numpy as np
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.data.batch import pack_tokens
from turnwise.data.tokens import TokenWriter
from turnwise.losses.returns import discounted_returns, lambda_returns, next_of, previous_of

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
        rows.append(writer.tokens(terminated=False, next_known=True, id="x"))
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


class Rows:
    """Rows of 5, 3 (ended) and 1 decisions with Q of 4 actions at each state, and the actions taken."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.lengths = [5, 3, 1]
        self.mask = torch.arange(5) < torch.tensor(self.lengths)[:, None]
        self.rewards = torch.tensor(rng.normal(size=(3, 5))) * self.mask
        self.discounts = 0.9 * self.mask.double()
        self.discounts[1, 2] = 0.0
        self.q, self.pi = torch.tensor(rng.normal(size=(2, 3, 6, 4)))  # [B, A+1, V]: the final state's, too
        self.pi = self.pi.softmax(-1)
        self.actions = torch.tensor(rng.integers(0, 4, (3, 6)))

    def at_actions(self, x: Tensor) -> Tensor:
        """[B, A+1], x of the action taken."""
        return x.gather(-1, self.actions.unsqueeze(-1)).squeeze(-1)

    def final_states_have(self, values: Tensor, final: Tensor) -> Tensor:
        """[B, A]: `values` of the states after each decision, but `final` at the end of each row."""
        values = values.clone()
        for b, n in enumerate(self.lengths):
            values[b, n] = final[b, n]
        return values[:, 1:]


def test_sarsa_lambda_sums_errors_of_action_values(rng: np.random.Generator) -> None:
    """G_k - Q_k = sum_l (d lambda)^l delta_{k+l}, delta of Q(s, a): Sutton & Barto (2018), eq. 12.18."""
    x, lam = Rows(rng), 0.7
    q = x.at_actions(x.q)
    found = lambda_returns(x.rewards, x.discounts, q[:, 1:], x.mask, torch.full_like(x.rewards, lam))
    for b, n in enumerate(x.lengths):
        error = 0.0
        for k in reversed(range(n)):
            delta = x.rewards[b, k] + x.discounts[b, k] * q[b, k + 1] - q[b, k]
            error = delta + lam * x.discounts[b, k] * error
            assert_close(found[b, k], q[b, k] + error)


def test_watkins_q_looks_as_far_as_actions_are_greedy(rng: np.random.Generator) -> None:
    """With lambda 1 it is the rewards up to the first action that is not greedy, and max Q of its state."""
    x = Rows(rng)
    x.actions[0, 1:4] = x.q[0, 1:4].argmax(-1)  # greedy, greedy, greedy,
    x.actions[0, 4] = x.q[0, 4].argmin()  # and not
    greedy = (x.actions == x.q.argmax(-1)).double()
    best = x.q.amax(-1)
    found = lambda_returns(x.rewards, x.discounts, best[:, 1:], x.mask, greedy[:, 1:])
    looked = []
    for b, n in enumerate(x.lengths):
        for k in range(n):
            stop = k + 1
            while stop < n and greedy[b, stop]:
                stop += 1
            looked.append(stop - k)
            expected, weight = 0.0, 1.0
            for j in range(k, stop):
                expected += weight * x.rewards[b, j]
                weight *= x.discounts[b, j]
            assert_close(found[b, k], expected + weight * best[b, stop])
    assert looked[0] == 4  # three actions after the first one were greedy


def test_tree_backup_is_a_lambda_of_each_decision(rng: np.random.Generator) -> None:
    """G_k = r_k + d (sum_{a != a'} pi(a) Q(a) + pi(a') G_{k+1}): Sutton & Barto (2018), eq. 7.16."""
    x = Rows(rng)
    mean, taken = (x.pi * x.q).sum(-1), x.at_actions(x.pi)
    others = (mean - taken * x.at_actions(x.q)) / (1 - taken)
    values = x.final_states_have(others, mean)  # no action was taken in the final state
    found = lambda_returns(x.rewards, x.discounts, values, x.mask, taken[:, 1:])
    for b, n in enumerate(x.lengths):
        after = mean[b, n]
        for k in reversed(range(n)):
            after = x.rewards[b, k] + x.discounts[b, k] * after
            assert_close(found[b, k], after)
            a = int(x.actions[b, k])
            rest = sum(x.pi[b, k, i] * x.q[b, k, i] for i in range(4) if i != a)
            after = rest + x.pi[b, k, a] * after


def test_v_trace_with_every_rho_one_is_a_lambda_of_each_decision(rng: np.random.Generator) -> None:
    """V_k + sum_t (prod_{i<t} d_i c_i) (r_t + d_t V_{t+1} - V_t): Espeholt et al. 2018, eq. 1."""
    x, v = Rows(rng), torch.tensor(rng.normal(size=(3, 6)))
    c = torch.tensor(rng.random((3, 5)))
    found = lambda_returns(x.rewards, x.discounts, v[:, 1:], x.mask, c)
    for b, n in enumerate(x.lengths):
        for k in range(n):
            expected, trace = v[b, k].clone(), torch.tensor(1.0).double()
            for t in range(k, n):
                expected += trace * (x.rewards[b, t] + x.discounts[b, t] * v[b, t + 1] - v[b, t])
                trace = trace * x.discounts[b, t] * c[b, t]
            assert_close(found[b, k], expected)


def test_v_trace_is_a_lambda_return_and_one_step_to_it(rng: np.random.Generator) -> None:
    """rho-bar = c-bar = 1: V_k + sum_t (prod_{i<t} d_i c_i) rho_t (r_t + d_t V_{t+1} - V_t), term by term.

    Espeholt et al. 2018, eq. 1. By hand, for one decision that was cut, with d = 1/2, V = 3 and V' = 4: if r
    is 5, delta is 5 + 2 - 3 = 4, so the target is 3 + 4 / 4 = 4 if rho is 1/4, and 3 + 4 = 7 if rho is 8,
    which counts as 1. If r is 1, delta is 0 and the target is 3.
    """
    x, v = Rows(rng), torch.tensor(rng.normal(size=(3, 6)))
    rho = torch.tensor(rng.normal(size=(3, 6))).exp()  # [B, A+1]; no action was taken in the final state
    weights = rho.clamp(max=1.0)
    assert 0 < (rho[x.mask.nonzero(as_tuple=True)] > 1).sum() < x.mask.sum()
    returns = lambda_returns(x.rewards, x.discounts, v[:, 1:], x.mask, weights[:, 1:])
    found = v[:, :-1] + weights[:, :-1] * (returns - v[:, :-1])
    for b, n in enumerate(x.lengths):
        for k in range(n):
            expected = v[b, k].clone()
            for t in range(k, n):
                traces = (x.discounts[b, k:t] * weights[b, k:t]).prod()  # 1 at t = k
                delta = x.rewards[b, t] + x.discounts[b, t] * v[b, t + 1] - v[b, t]
                expected += traces * weights[b, t] * delta
            assert_close(found[b, k], expected, rtol=0, atol=1e-14)

    one = torch.ones(1, 1, dtype=torch.float64)
    for reward, ratio, target in ((1.0, 0.25, 3.0), (1.0, 8.0, 3.0), (5.0, 0.25, 4.0), (5.0, 8.0, 7.0)):
        G = lambda_returns(reward * one, one / 2, 4 * one, one.bool(), 0.0)
        assert float(3 + min(1.0, ratio) * (G - 3)) == target


def test_one_lambda_for_all_decisions_is_a_number(rng: np.random.Generator) -> None:
    """By hand as above: 6.75, 13, 24. In float32 too it is what a tensor of the number gives, bit for bit."""
    assert_close(lambda_returns(R, D, V, EVERY, 0.5), torch.tensor([[6.75, 13.0, 24.0]]).double())
    x, v = Rows(rng), torch.tensor(rng.normal(size=(3, 5)))
    arguments = x.rewards.float(), x.discounts.float(), v.float(), x.mask
    found = lambda_returns(*arguments, 0.3)
    assert found.dtype == torch.float32
    assert torch.equal(found, lambda_returns(*arguments, torch.full((3, 5), 0.3)))


def test_decisions_are_shifted_by_one() -> None:
    """Numbers and marks of the decision after and of the one before; nothing stands beyond a row's ends."""
    x, marks = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[True, True, False]])
    assert next_of(x).tolist() == [[2.0, 3.0, 0.0]] and previous_of(x).tolist() == [[0.0, 1.0, 2.0]]
    assert next_of(marks).tolist() == [[True, False, False]]
    assert previous_of(marks).tolist() == [[False, True, True]]
