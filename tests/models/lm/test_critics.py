"""Heads and critics: cheap outputs equal full ones; features are read where decisions are; slow copies."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from turnwise.models.decisions import at_decisions
from turnwise.models.lm.critics import TokenCritic, TokenValues, TurnCritic
from turnwise.models.target import polyak_, slow_copy
from turnwise.models.value_head import ValueHead

f64 = torch.float64


class Running(nn.Module):
    """The simplest causal trunk: features are the running sum of an embedding."""

    def __init__(self, vocab: int, width: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        assert not use_cache
        return SimpleNamespace(last_hidden_state=self.embedding(input_ids).cumsum(1))


def random_head(width: int, outputs: int) -> ValueHead:
    """A head whose last layer is no longer zero."""
    head = ValueHead(width, outputs).double()
    nn.init.normal_(head.out.weight)
    nn.init.normal_(head.out.bias)
    return head


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_features_at_decisions_by_hand() -> None:
    """Position t of row b has the features (10 b + t, -t); decisions may repeat the last position."""
    t = torch.arange(4.0)
    features = torch.stack([torch.stack([t, -t], -1), torch.stack([10 + t, -t], -1)])
    found = at_decisions(features, torch.tensor([[0, 2, 3], [1, 1, 1]]))
    assert found.tolist() == [[[0, 0], [2, -2], [3, -3]], [[11, -1], [11, -1], [11, -1]]]


def test_gradient_reaches_the_decisions_and_nothing_else() -> None:
    features = torch.zeros(1, 5, 2, requires_grad=True)
    at_decisions(features, torch.tensor([[1, 3, 3]])).sum().backward()
    assert features.grad[0, :, 0].tolist() == [0.0, 1.0, 0.0, 2.0, 0.0]


def test_a_fresh_head_is_the_constant_that_it_was_given() -> None:
    head = ValueHead(3, 4, initial=-0.3)
    assert_close(head(torch.randn(5, 3)), torch.full((5, 4), -0.3))
    assert_close(head.of(torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 0])), torch.full((5,), -0.3))


def test_head_by_hand() -> None:
    """h = (1, -2): hidden (h1, h2, -h1, -h2), relu (1, 0, 0, 2); outputs 1 + 1 = 2 and 3 * 2 - 1 = 5."""
    head = ValueHead(2, 2)
    with torch.no_grad():
        head.hidden.weight.copy_(torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]]))
        head.hidden.bias.zero_()
        head.out.weight.copy_(torch.tensor([[1.0, 7, 7, 0], [0, 7, 7, 3]]))
        head.out.bias.copy_(torch.tensor([1.0, -1.0]))
    assert head(torch.tensor([[1.0, -2.0]])).tolist() == [[2.0, 5.0]]
    assert head.of(torch.tensor([[1.0, -2.0]]), torch.tensor([1])).tolist() == [5.0]


def test_one_output_equals_the_gathered_full_ones() -> None:
    """Value, and gradient with respect to features and all parameters, in float64."""
    head, index = random_head(3, 7), torch.tensor([[0, 6, 2], [3, 3, 5]])
    features = torch.randn(2, 3, 3, dtype=f64, requires_grad=True)
    few = head.of(features, index)
    full = head(features).gather(-1, index.unsqueeze(-1)).squeeze(-1)
    assert_close(few, full)
    weights = torch.randn(2, 3, dtype=f64)
    wanted = [features, *head.parameters()]
    gradients = [torch.autograd.grad((x * weights).sum(), wanted) for x in (few, full)]
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other)
    assert torch.autograd.gradcheck(lambda x: head.of(x, index), (features,))


def token_critic(**options) -> TokenCritic:
    critic = TokenCritic(Running(11, 4), 4, 11, **options).double()
    for head in [*critic.q, critic.v]:
        nn.init.normal_(head.out.weight)
    return critic


def ask(critic: TokenCritic, ids: Tensor, decisions: Tensor, actions: Tensor) -> TokenValues:
    return critic(ids, decisions, actions, torch.ones(actions.shape, dtype=torch.bool))


def test_token_critic_reads_q_before_actions_and_v_at_every_state() -> None:
    """Equal to its heads on the running sum up to each decision, the final state included for V."""
    critic = token_critic()
    ids, decisions, actions = (
        torch.tensor([[1, 2, 3, 4, 5]]),
        torch.tensor([[0, 2, 4]]),
        torch.tensor([[7, 0]]),
    )
    found = ask(critic, ids, decisions, actions)
    h = torch.stack([critic.trunk.embedding(ids[0, : t + 1]).sum(0) for t in (0, 2, 4)])
    assert_close(found.v[0], critic.v(h).squeeze(-1))
    for k, head in enumerate(critic.q):
        assert_close(found.q[k, 0], head(h[:2])[[0, 1], [7, 0]])
        assert_close(found.soft_max[k, 0], head(h[:2]).exp().sum(-1).log())
    assert found.q.shape == found.soft_max.shape == (2, 1, 2)


def test_a_token_critic_says_nothing_where_it_is_masked() -> None:
    critic = token_critic()
    ids, decisions, actions = torch.tensor([[1, 2, 3]]), torch.tensor([[0, 1, 2]]), torch.tensor([[4, 5]])
    found = critic(ids, decisions, actions, torch.tensor([[True, False]]))
    assert (found.q[..., 1] == 0).all() and (found.soft_max[..., 1] == 0).all()
    assert_close(found.q[..., 0], ask(critic, ids, decisions, actions).q[..., 0])


def test_token_critic_says_the_same_in_three_ways() -> None:
    critic = token_critic(ensemble=3)
    ids, decisions, actions = (
        torch.randint(11, (2, 6)),
        torch.tensor([[0, 2, 5], [1, 3, 4]]),
        torch.randint(11, (2, 2)),
    )
    taken = ask(critic, ids, decisions, actions).q
    assert_close(critic.q_of_actions(ids, decisions, actions), taken)
    features = at_decisions(critic.trunk(ids, use_cache=False).last_hidden_state, decisions[:, :-1])
    q = torch.stack([head(features) for head in critic.q])
    assert_close(q.gather(-1, actions.expand(3, 2, 2).unsqueeze(-1)).squeeze(-1), taken)
    assert_close(critic.q_min(features), q.min(0).values)


def test_values_in_another_unit_are_the_same_times_a_number() -> None:
    """With `scale_(2.5)`, every Q and V is 2.5 times what it was."""
    critic, ids, decisions = token_critic(), torch.tensor([[1, 2, 3]]), torch.tensor([[0, 2]])
    before = ask(critic, ids, decisions, torch.tensor([[3]]))
    critic.scale_(2.5)
    after = ask(critic, ids, decisions, torch.tensor([[3]]))
    assert_close(after.q, 2.5 * before.q)
    assert_close(after.v, 2.5 * before.v)


def test_turn_critic_reads_q_at_ends_and_v_at_decisions() -> None:
    """[7|1 2 9|5 5|3 9]: utterances end at 3 and 7, states are 0, 5 and the final 7."""
    critic = TurnCritic(Running(11, 4), 4).double()
    for head in [*critic.q, critic.v]:
        nn.init.normal_(head.out.weight)
    ids = torch.tensor([[7, 1, 2, 9, 5, 5, 3, 9]])
    found = critic(ids, torch.tensor([[0, 5, 7]]), torch.tensor([[3, 7]]))

    def h(t: int) -> Tensor:
        return critic.trunk.embedding(ids[0, : t + 1]).sum(0)

    assert_close(found.v[0], torch.stack([critic.v(h(t))[0] for t in (0, 5, 7)]))
    expected = torch.stack([torch.stack([head(h(t))[0] for t in (3, 7)]) for head in critic.q])
    assert_close(found.q[:, 0], expected)
    assert_close(critic.q_min(torch.stack([h(3), h(7)])), expected.min(0).values)


def test_heads_start_at_the_value_they_were_given() -> None:
    """Both critics of untrained weights say 0.25 everywhere: the first targets are of the right size."""
    ids, decisions = torch.tensor([[1, 2, 3]]), torch.tensor([[0, 2]])
    tokens = ask(TokenCritic(Running(11, 4), 4, 11, initial=0.25), ids, decisions, torch.tensor([[4]]))
    turns = TurnCritic(Running(11, 4), 4, initial=0.25)(ids, decisions, torch.tensor([[2]]))
    for x in (tokens.q, tokens.v, turns.q, turns.v):
        assert_close(x, torch.full_like(x, 0.25))


def test_polyak_by_hand() -> None:
    """Target 1, source 3, rate 1/4: 0.75 * 1 + 0.25 * 3 = 1.5; again: 0.75 * 1.5 + 0.75 = 1.875."""
    target, source = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(target.weight, 1.0)
    nn.init.constant_(source.weight, 3.0)
    for expected in (1.5, 1.875):
        polyak_(target, source, 0.25)
        assert target.weight.item() == expected
    assert source.weight.item() == 3.0 and source.weight.grad is None


@pytest.mark.parametrize(("rate", "expected"), [(0.0, "target"), (1.0, "source")])
def test_polyak_limits(rate: float, expected: str) -> None:
    modules = {"target": random_head(2, 3), "source": random_head(2, 3)}
    before = {name: [p.clone() for p in m.parameters()] for name, m in modules.items()}
    polyak_(modules["target"], modules["source"], rate)
    assert_close(list(modules["target"].parameters()), [nn.Parameter(x) for x in before[expected]])


def test_polyak_closes_the_gap_geometrically() -> None:
    """The distance to a source that stands still falls by 1 - rate per call: 0.9^20 = 0.12 of it is left."""
    target, source = random_head(2, 3), random_head(2, 3)
    gap = (target.out.weight - source.out.weight).detach()
    for _ in range(20):
        polyak_(target, source, 0.1)
    assert_close(target.out.weight - source.out.weight, 0.9**20 * gap, rtol=1e-9, atol=1e-12)


def test_a_slow_copy_has_weights_of_its_own_and_no_gradient() -> None:
    source = token_critic()
    copy = slow_copy(source)
    assert not any(p.requires_grad for p in copy.parameters())
    assert all(p.requires_grad for p in source.parameters())
    assert {p.data_ptr() for p in copy.parameters()}.isdisjoint(p.data_ptr() for p in source.parameters())
    out = copy.q_of_actions(torch.tensor([[1, 2]]), torch.tensor([[0, 1]]), torch.tensor([[3]]))
    assert not out.requires_grad
    assert_close(list(copy.state_dict().values()), list(source.state_dict().values()))
