"""Which critic may stand in for which policy: expected policy gradients by enumeration, against that of J.

A problem of two states, actions and observations, three steps, all 2,048 trajectories with their
probabilities. Critics hold the *true* conditional expectations of what they see (and the step k, so that time
does not mislead them), the library's estimators make the returns, and

    E[ sum_k gamma^k grad log pi(a_k | .) (G_k - V_k) ]        is compared with        grad J.

    unbiased?                       Monte Carlo   n-step (n = 1), GAE (lambda < 1) with
    critic sees                     any policy    pi(a|h)    pi(a|o)    pi(a|o), looks depend on the action
    V(h)    history                 yes           yes        yes        yes
    V(h,s)  history and state       yes           yes        yes        yes
    V(s)    state                   yes           no         yes        no
    V(o)    observation             yes           no         no         no

Where observations depend on the action, what is seen next depends on the action though the next state does
not, and V(s) averages over the actions that led there. Baisero & Amato 2022, arXiv:2105.11674, theorems 4.2
and 4.3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from turnwise.envs.pomdp import POMDP
from turnwise.envs.rows import Rows
from turnwise.exact.histories import History, history_value
from turnwise.losses.estimators import estimated_returns
from turnwise.losses.names import Estimator
from turnwise.losses.policy import policy_gradient_loss

f64 = torch.float64
H, GAMMA = 3, 0.9
DISCOUNTS = GAMMA ** torch.arange(H, dtype=f64)
ESTIMATORS: dict[str, tuple[Estimator, float]] = {
    "Monte Carlo": ("monte-carlo", 0.0),
    "one step": ("n-step", 0.0),
    "GAE .5": ("gae", 0.5),
    "GAE .9": ("gae", 0.9),
}
POLICIES = ["history", "memoryless", "memoryless, looks depend on the action"]


class World(NamedTuple):
    """P(s'|s,a) [A, S, S], P(o|a,s') [A, S, O], P(o_0|s_0) [S, O], R(s,a) [A, S], P(s_0) [S]."""

    t: np.ndarray
    looks: np.ndarray
    first: np.ndarray
    rewards: np.ndarray
    start: np.ndarray


class Lives(NamedTuple):
    """All trajectories, one a row, and how likely they are under the policy (with gradient)."""

    states: np.ndarray
    """[B, H+1]"""
    seen: np.ndarray
    """[B, H+1]"""
    actions: np.ndarray
    """[B, H]"""
    rewards: Tensor
    """[B, H]"""
    logp: Tensor
    """[B, H], log pi of the actions"""
    probability: Tensor
    """[B]"""


def world(by_action: bool) -> World:
    rng = np.random.default_rng(52)
    t = rng.dirichlet(np.full(2, 0.7), (2, 2))
    first = np.array([[0.75, 0.25], [0.25, 0.75]])
    looks = np.stack([first, first[::-1] if by_action else first])
    rewards = rng.integers(-3, 4, (2, 2)).astype(float)
    return World(t, looks, first, rewards, np.array([0.5, 0.5]))


def lives(w: World, logits: Tensor, keys: Callable[[np.ndarray, np.ndarray, int], np.ndarray]) -> Lives:
    """Enumerate; row `keys(seen, actions, k)` of `logits` [rows, A] is the policy at step k."""
    rows = np.array(list(product([0, 1], repeat=3 * H + 2)))
    states, seen, actions = rows[:, : H + 1], rows[:, H + 1 : 2 * H + 2], rows[:, 2 * H + 2 :]
    s0 = states[:, 0]
    chance = w.start[s0] * w.first[s0, seen[:, 0]]
    for k in range(H):
        a, s, s2 = actions[:, k], states[:, k], states[:, k + 1]
        chance = chance * w.t[a, s, s2] * w.looks[a, s2, seen[:, k + 1]]
    logp = torch.stack([logits.log_softmax(-1)[keys(seen, actions, k), actions[:, k]] for k in range(H)], -1)
    rewards = torch.tensor(w.rewards[actions, states[:, :H]])
    return Lives(states, seen, actions, rewards, logp, torch.tensor(chance) * logp.sum(-1).exp())


def history_key(seen: np.ndarray, actions: np.ndarray, k: int) -> np.ndarray:
    """A number for each (o_0, a_0, ..., o_k), different for different k."""
    return sum((x << i for i, x in enumerate([*seen.T[: k + 1], *actions.T[:k]])), np.int64(1) << (2 * k + 1))


def seen_key(seen: np.ndarray, actions: np.ndarray, k: int) -> np.ndarray:
    return seen[:, k]


def average(x: Tensor, key: np.ndarray, weight: Tensor) -> Tensor:
    """[B], the conditional expectation of x [B] given the key [B]."""
    groups = torch.tensor(np.unique(key, return_inverse=True)[1])
    total = torch.zeros(int(groups.max()) + 1, dtype=f64).index_add(0, groups, x * weight)
    return (total / torch.zeros_like(total).index_add(0, groups, weight))[groups]


def critic(name: str, w: Lives) -> Tensor:
    """[B, H+1], values by what each critic sees; 0 at the end."""
    weight, values = w.probability.detach(), torch.zeros(len(w.rewards), H + 1, dtype=f64)
    after = torch.zeros(len(w.rewards), dtype=f64)
    for k in range(H - 1, -1, -1):
        history, state = history_key(w.seen, w.actions, k), w.states[:, k]
        key = {"h": history, "hs": 2 * history + state, "s": state}.get(name, w.seen[:, k])
        known = values[:, k + 1] if name == "o, TD" else after
        after = w.rewards[:, k] + GAMMA * after
        values[:, k] = average(w.rewards[:, k] + GAMMA * known, key, weight)
    return values


def setting(policy: str) -> tuple[World, Lives, Tensor, Tensor]:
    """The problem, its trajectories, the policy's logits, and the gradient of J by them."""
    w = world(by_action="depend" in policy)
    rows, keys = (1 << (2 * H + 1), history_key) if policy == "history" else (2, seen_key)
    logits = torch.tensor(np.random.default_rng(3).normal(size=(rows, 2)), requires_grad=True)
    all_of_them = lives(w, logits, keys)
    J = (all_of_them.probability * (all_of_them.rewards * DISCOUNTS).sum(-1)).sum()
    return w, all_of_them, logits, torch.autograd.grad(J, logits, retain_graph=True)[0]


def bias(policy: str, sees: str, estimator: str) -> float:
    """|expected gradient - gradient of J| / |gradient of J|."""
    _, w, logits, exact = setting(policy)
    values, (formula, lam) = critic(sees, w), ESTIMATORS[estimator]
    mask = torch.ones(w.rewards.shape, dtype=torch.bool)
    discounts = torch.full_like(w.rewards, GAMMA)
    discounts[:, -1] = 0
    returns = estimated_returns(formula, w.rewards, discounts, values, mask, n=1, lam=lam)
    losses = DISCOUNTS * policy_gradient_loss(w.logp, returns - values[:, :-1])
    expected = torch.autograd.grad((w.probability.detach()[:, None] * -losses).sum(), logits)[0]
    return float((expected - exact).norm() / exact.norm())


@pytest.mark.parametrize("policy", POLICIES)
def test_the_enumeration_is_that_of_all_histories(policy: str) -> None:
    """Probabilities sum to 1, and J is that of `exact.histories`, which knows nothing of trajectories."""
    world_, w, logits, _ = setting(policy)
    pi = logits.detach().softmax(-1).numpy()
    bare = POMDP.from_arrays(world_.t, world_.looks, world_.rewards, discount=GAMMA, start=world_.start)
    problem = replace(bare, initial=Rows.from_dense(world_.first))

    def acts(h: History) -> np.ndarray:
        if policy != "history":
            return pi[h.inputs[-1]]
        return pi[history_key(np.array([h.inputs]), np.array([h.actions], int), len(h.actions))[0]]

    rewards = (w.rewards * DISCOUNTS).sum(-1)
    J = float((w.probability.detach() * rewards).sum())
    assert float(w.probability.detach().sum()) == pytest.approx(1, abs=1e-12)
    assert history_value(problem, acts, H, rewards_seen=False) == pytest.approx(J, abs=1e-12)


UNBIASED = {
    ("history", "h"),
    ("history", "hs"),
    *((policy, sees) for policy in POLICIES[1:] for sees in ("h", "hs")),
    ("memoryless", "s"),
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("sees", ["h", "hs", "s", "o", "o, TD"])
@pytest.mark.parametrize("policy", POLICIES)
def test_the_grid(policy: str, sees: str, estimator: str) -> None:
    """Unbiased to 1e-9; where it is not, wrong by at least one percent of the gradient's length."""
    found = bias(policy, sees, estimator)
    if estimator == "Monte Carlo" or (policy, sees) in UNBIASED:
        assert found < 1e-9
    else:
        assert found > 0.01


@pytest.mark.parametrize(("policy", "sees"), [("history", "s"), ("memoryless", "o"), ("memoryless", "o, TD")])
def test_a_later_bootstrap_is_less_biased(policy: str, sees: str) -> None:
    """One step, lambda .5, lambda .9, and 1, where the value is a baseline alone."""
    wrong = [bias(policy, sees, e) for e in ("one step", "GAE .5", "GAE .9")]
    assert wrong == sorted(wrong, reverse=True)


def test_the_two_fixed_points_of_the_observations_value_differ() -> None:
    """Evaluated by Monte Carlo and by TD(0), V(o) is not the same number: the lambda discrepancy.

    Allen et al. 2024, arXiv:2407.07333; with V(h) it would be 0.
    """
    _, w, _, _ = setting("memoryless")
    assert float((critic("o", w) - critic("o, TD", w)).abs().max()) > 0.01
