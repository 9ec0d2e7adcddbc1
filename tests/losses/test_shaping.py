"""Potential-based shaping: returns move by the potential of where they begin, and by nothing that is done."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.envs.pomdp import POMDP
from turnwise.envs.problems.classics import t_maze, tiger
from turnwise.exact.controller_search import best_deterministic_memoryless
from turnwise.exact.controllers import Controller, controller_value
from turnwise.losses.returns import discounted_returns, lambda_returns
from turnwise.losses.shaping import potential_shaped

f64 = torch.float64


def rows(rng: np.random.Generator, ended: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rewards, discounts, potentials, mask of rows of 5, 3 and 1 decisions."""
    lengths = torch.tensor([5, 3, 1])
    mask = torch.arange(5) < lengths[:, None]
    rewards = torch.tensor(rng.normal(size=(3, 5))).where(mask, 0.0)
    discounts = torch.tensor(rng.uniform(0.5, 1.0, (3, 5))).where(mask, 0.0)
    if ended:
        discounts[torch.arange(3), lengths - 1] = 0.0
    return rewards, discounts, torch.tensor(rng.normal(size=(3, 6))), mask


def test_by_hand() -> None:
    """Phi = 1, 3, 7 and d = .5, 0: rewards 10, 20 become 10 + 1.5 - 1 and 20 + 0 - 3; padding stays 0."""
    found = potential_shaped(
        torch.tensor([[10.0, 20.0, 0.0]]),
        torch.tensor([[0.5, 0.0, 0.0]]),
        torch.tensor([[1.0, 3.0, 7.0, 7.0]]),
        torch.tensor([[True, True, False]]),
    )
    assert found.tolist() == [[10.5, 17.0, 0.0]]


def test_returns_telescope(rng: np.random.Generator) -> None:
    """G'_k = G_k - Phi_k at every decision of a row that ended."""
    rewards, discounts, phi, mask = rows(rng, ended=True)
    before = discounted_returns(rewards, discounts, mask)
    after = discounted_returns(potential_shaped(rewards, discounts, phi, mask), discounts, mask)
    assert_close(after, (before - phi[:, :-1]).where(mask, 0.0))


def test_a_row_that_was_cut_keeps_the_potential_of_its_end(rng: np.random.Generator) -> None:
    """G'_0 = G_0 - Phi_0 + d_0 ... d_n Phi of the final state."""
    rewards, discounts, phi, mask = rows(rng, ended=False)
    before = discounted_returns(rewards, discounts, mask)[:, 0]
    after = discounted_returns(potential_shaped(rewards, discounts, phi, mask), discounts, mask)[:, 0]
    left = discounts.where(mask, 1.0).prod(1) * phi[torch.arange(3), mask.sum(1)]
    assert_close(after, before - phi[:, 0] + left)


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("lam", [0.0, 0.6, 1.0])
def test_advantages_do_not_change_where_the_critic_knows(
    lam: float, ended: bool, rng: np.random.Generator
) -> None:
    """GAE of shaped rewards with V - Phi is that of rewards with V, for every lambda, end and cut."""
    rewards, discounts, phi, mask = rows(rng, ended)
    v = torch.tensor(rng.normal(size=(3, 6)))
    traces = torch.full_like(rewards, lam)
    shaped = potential_shaped(rewards, discounts, phi, mask)
    before = lambda_returns(rewards, discounts, v[:, 1:], mask, traces) - v[:, :-1]
    after = lambda_returns(shaped, discounts, (v - phi)[:, 1:], mask, traces) - (v - phi)[:, :-1]
    assert_close(after[mask], before[mask])


def shaped_problem(problem: POMDP, phi: np.ndarray) -> POMDP:
    """The problem with its rewards shaped, transition by transition, by a potential of the state."""
    S, _, _ = problem.shape
    t = problem.transitions
    state = torch.tensor(phi[t.of_entries() % S])
    potentials = torch.stack([state, torch.tensor(phi[t.indices])], 1)
    discounts = torch.tensor(np.where(problem.ends, 0.0, problem.discount))[:, None]
    rewards = torch.tensor(problem.rewards)[:, None]
    found = potential_shaped(rewards, discounts, potentials, torch.ones(len(rewards), 1, dtype=torch.bool))
    return replace(problem, rewards=found[:, 0].numpy())


@pytest.mark.parametrize("problem", [tiger(), t_maze(0).showing_initial()], ids=["tiger", "t-maze"])
def test_every_policy_moves_by_the_potential_of_the_start(problem: POMDP, rng: np.random.Generator) -> None:
    """All deterministic memoryless ones and some with two memories: exact values, so the best stays best."""
    phi = 5 * rng.normal(size=problem.shape[0])
    shaped, moved = shaped_problem(problem, phi), float(problem.start @ phi)
    _, A, O = problem.shape
    inputs = O + (problem.initial is None)
    tables = list(product(range(A), repeat=inputs))
    chosen = [tables[i] for i in rng.choice(len(tables), min(60, len(tables)), replace=False)]
    policies = [Controller.memoryless(np.eye(A)[list(table)]) for table in chosen]
    policies += [Controller.from_logits(rng.normal(size=(2, inputs, A, 2))) for _ in range(5)]
    before = np.array([controller_value(problem, p) for p in policies])
    after = np.array([controller_value(shaped, p) for p in policies])
    np.testing.assert_allclose(after, before - moved, rtol=1e-9, atol=1e-9)
    best, again = best_deterministic_memoryless(problem), best_deterministic_memoryless(shaped)
    assert again.value == pytest.approx(best.value - moved)
    assert controller_value(problem, again.controller) == pytest.approx(best.value)


def test_a_bonus_that_is_no_potential_changes_what_is_best() -> None:
    """3 a step for listening outbids the treasure: the optimal tiger listener never opens a door."""
    problem = tiger()
    S, _, _ = problem.shape
    listens = problem.transitions.of_entries() // S == 0
    assert problem.actions[0] == "listen"
    bribed = replace(problem, rewards=problem.rewards + 3.0 * listens)
    best = best_deterministic_memoryless(bribed)
    assert best.value == pytest.approx(2.0 / (1 - problem.discount))
    assert best_deterministic_memoryless(problem).value == pytest.approx(-1.0 / (1 - problem.discount))
