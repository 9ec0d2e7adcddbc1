"""Tables fitted by the losses reach the values that linear algebra gives.

Three states 0, 1, 2 and two actions 8, 9, each pair seen once, gamma 0.9:

    (0, 8) -> 1 earns 0      (1, 8) -> 2 earns 1     (2, 8) -> end earns 2
    (0, 9) -> 2 earns 0.5    (1, 9) -> 0 earns 0     (2, 9) -> 0 earns -1
"""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from turnwise.algorithms.logs import ilql, turn_iql
from turnwise.data.batch import pack_tokens, pack_turns
from turnwise.models.lm.critics import TokenValues, TurnValues
from turnwise.models.target import polyak_, slow_copy

GAMMA = 0.9
STEPS = {(0, 8): (1, 0.0), (1, 8): (2, 1.0), (2, 8): (None, 2.0)}
STEPS |= {(0, 9): (2, 0.5), (1, 9): (0, 0.0), (2, 9): (0, -1.0)}


@pytest.fixture(scope="module")
def rows(row):
    return [
        row(f"{s}|{a}" if after is None else f"{s}|{a}|{after}", [r], terminated=after is None)
        for (s, a), (after, r) in STEPS.items()
    ]


def state_values(weights: np.ndarray) -> np.ndarray:
    """V = (I - gamma P)^-1 r of the policy with probabilities `weights` [state, action]."""
    P, r = np.zeros((3, 3)), np.zeros(3)
    for (s, a), (after, reward) in STEPS.items():
        r[s] += weights[s, a - 8] * reward
        if after is not None:
            P[s, after] += weights[s, a - 8]
    return np.linalg.solve(np.eye(3) - GAMMA * P, r)


def action_values(v: np.ndarray) -> np.ndarray:
    """Q(s, a) = r + gamma V(s')."""
    return np.array(
        [[r + GAMMA * (0 if x is None else v[x]) for x, r in (STEPS[s, 8], STEPS[s, 9])] for s in range(3)]
    )


def expectile_values(tau: float) -> np.ndarray:
    """The fixed point of V(s) = tau max_a Q + (1 - tau) min_a Q, which is the tau-expectile of two targets.

    Given which action is the better one in each state it is linear; of the 8 guesses one agrees with itself.
    """
    found = []
    for best in itertools.product((0, 1), repeat=3):
        weights = np.full((3, 2), 1 - tau)
        weights[range(3), best] = tau
        v = state_values(weights)
        if (action_values(v).argmax(1) == best).all():
            found.append(v)
    assert len(found) == 1
    return found[0]


class TokenTable(nn.Module):
    """Q and V of the id at which a decision is taken: the trunk is a one-hot vector."""

    def __init__(self, generator: torch.Generator):
        super().__init__()
        self.q = nn.Parameter(torch.randn(2, 3, 10, dtype=torch.float64, generator=generator))
        self.v = nn.Parameter(torch.randn(10, dtype=torch.float64, generator=generator))

    def forward(self, ids: Tensor, decisions: Tensor, actions: Tensor, mask: Tensor) -> TokenValues:
        states = ids.gather(1, decisions)
        q = self.q[:, states[:, :-1]]
        return TokenValues(self.q_of_actions(ids, decisions, actions), q.logsumexp(-1), self.v[states])

    def q_of_actions(self, ids: Tensor, decisions: Tensor, actions: Tensor) -> Tensor:
        return self.q[:, ids.gather(1, decisions)[:, :-1], actions]


class TurnTable(TokenTable):
    """The same for utterances of one token, read where they end."""

    def forward(self, ids: Tensor, decisions: Tensor, ends: Tensor) -> TurnValues:
        states = ids.gather(1, decisions)
        return TurnValues(q=self.q[:, states[:, :-1], ids.gather(1, ends)], v=self.v[states])


def fit(table: TokenTable, loss) -> tuple[np.ndarray, np.ndarray]:
    """V [3] and both Q [2, 3, 2] after 500 gradient steps that each halve the errors."""
    target = slow_copy(table)
    for _ in range(500):
        total, _ = loss(table, target)
        gradients = torch.autograd.grad(total, list(table.parameters()))
        with torch.no_grad():
            for p, g in zip(table.parameters(), gradients, strict=True):
                p -= 0.25 * g
        polyak_(target, table, 0.5)
    return table.v[:3].detach().numpy(), table.q[:, :, 8:].detach().numpy()


def test_the_optimum_is_the_limit_of_expectiles() -> None:
    """The best of the 8 deterministic policies, state by state, is what the twin gives for tau -> 1."""
    policies = [np.eye(2)[list(best)] for best in itertools.product((0, 1), repeat=3)]
    optimum = np.max([state_values(p) for p in policies], axis=0)
    np.testing.assert_allclose(expectile_values(1 - 1e-12), optimum, atol=1e-9)
    assert optimum == pytest.approx([0.9 * 2.8, 2.8, 2.0])  # 0 -> 1 -> 2 -> end: 1 + 0.9 * 2 = 2.8


@pytest.mark.parametrize("tau", [0.5, 0.9])
def test_ilql_reaches_the_expectile_values(rows, tau: float) -> None:
    """tau 1/2 is the value of the uniform behaviour, 0.9 lies towards the optimum; both heads agree."""
    c = ilql.Config(tau=tau, cql_weight=0.0)
    batch = pack_tokens(rows, gamma=GAMMA, dtype=torch.float64)
    table = TokenTable(torch.Generator().manual_seed(1))
    v, q = fit(table, lambda x, slow: ilql.loss(x, slow, batch, 1.0, c, 0.0))
    expected = state_values(np.full((3, 2), 0.5)) if tau == 0.5 else expectile_values(tau)
    np.testing.assert_allclose(v, expected, atol=1e-8)
    np.testing.assert_allclose(q, np.stack([action_values(expected)] * 2), atol=1e-8)


def test_turns_of_one_token_reach_the_same_values(rows) -> None:
    c = turn_iql.Config(tau=0.9)
    batch = pack_turns(rows, gamma=GAMMA, dtype=torch.float64)
    table = TurnTable(torch.Generator().manual_seed(2))
    v, q = fit(table, lambda x, slow: turn_iql.loss(x, slow, batch, 1.0, c, 0.0))
    np.testing.assert_allclose(v, expectile_values(0.9), atol=1e-8)
    np.testing.assert_allclose(q, np.stack([action_values(expectile_values(0.9))] * 2), atol=1e-8)


def test_treating_a_cut_as_an_end_would_miss_the_values(rows, row) -> None:
    """All transitions marked as ended: Q is the reward alone, V(0) = (0 + 0.5) / 2, V(1) = V(2) = 1/2."""
    ended = [row(" ".join(map(str, t.ids[:1])) + f"|{t.ids[1]}", [t.rewards[1]]) for t in rows]
    batch = pack_tokens(ended, gamma=GAMMA, dtype=torch.float64)
    c = ilql.Config(tau=0.5, cql_weight=0.0)
    table = TokenTable(torch.Generator().manual_seed(3))
    v, _ = fit(table, lambda x, slow: ilql.loss(x, slow, batch, 1.0, c, 0.0))
    np.testing.assert_allclose(v, [0.25, 0.5, 0.5], atol=1e-8)
