"""Wide numbers a part at a time: values and gradients are those of all at once. Heads of low rank."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.data.batch import pack_tokens
from turnwise.models.chunks import in_chunks, logp_of_linear, one_and_soft_max, with_own_gradients
from turnwise.models.lm.critics import RANK, SMALL_VOCABULARY, token_critic
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.replies import actions_logp, score_replies
from turnwise.models.target import polyak_, slow_copy
from turnwise.models.value_head import LowRankHead

f64 = torch.float64
EXACT = {"rtol": 0.0, "atol": 1e-10}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def small(dtype: torch.dtype = f64) -> Any:
    return llama(23, width=8, layers=2, heads=2, context=64, eos=1, pad=0).to(dtype)


def logp(weight: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    def of(features: Tensor, index: Tensor) -> Tensor:
        return (features @ weight.T).log_softmax(-1).gather(-1, index.unsqueeze(-1)).squeeze(-1)

    return of


@pytest.mark.parametrize("most", [1, 40, 10**6])
@pytest.mark.parametrize(("kind", "close"), [(f64, 1e-10), (torch.float32, 1e-6)])
def test_chunks_change_neither_values_nor_gradients(kind: torch.dtype, close: float, most: int) -> None:
    """7 rows over 11 numbers, with gradient to features and weights: one row at a time, three, and all."""
    features, weight = (torch.randn(n, 5, dtype=kind, requires_grad=True) for n in (7, 11))
    index, up = torch.randint(11, (7,)), torch.randn(7, dtype=kind)
    (found,) = in_chunks(lambda *x: (logp(weight)(*x),), 11, features, index, most=most)
    whole = logp(weight)(features, index)
    assert_close(found, whole, rtol=close, atol=close)
    gradients = [torch.autograd.grad((x * up).sum(), (features, weight)) for x in (found, whole)]
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, rtol=close, atol=close)


@pytest.mark.parametrize("most", [1, 40, 10**6])
def test_gradients_computed_beside_values_are_those_that_come_back(most: int) -> None:
    """Any weights of the rows, zero among them; the weights of the frozen layer get none."""
    features, weight = torch.randn(7, 5, dtype=f64, requires_grad=True), torch.randn(11, 5, dtype=f64)
    index = torch.randint(11, (7,))

    def found(x: Tensor) -> Tensor:
        return with_own_gradients(logp(weight), 11, x, index, most=most)

    assert_close(found(features), logp(weight)(features, index), **EXACT)
    assert torch.autograd.gradcheck(found, (features,))
    with torch.no_grad():
        assert not found(features).requires_grad


@pytest.mark.parametrize("most", [1, 40, 10**6])
@pytest.mark.parametrize(("kind", "close"), [(f64, 1e-10), (torch.float32, 1e-6)])
def test_log_probabilities_of_a_linear_layer_have_the_closed_form(
    kind: torch.dtype, close: float, most: int
) -> None:
    """With and without a bias, with logits of a thousand among them, whose exponentials overflow."""
    features, weight, bias = (torch.randn(*n, dtype=f64) for n in ((7, 5), (11, 5), (11,)))
    features[3] *= 1000.0
    index, up = torch.randint(11, (7,)), torch.randn(7, dtype=f64)
    for shift in (None, bias):
        h = features.clone().requires_grad_()
        z = h @ weight.T + (0.0 if shift is None else shift)
        wanted = z.log_softmax(-1).gather(-1, index.unsqueeze(-1)).squeeze(-1)
        (gradient,) = torch.autograd.grad((wanted * up).sum(), h)
        own = features.to(kind).requires_grad_()
        given = weight.to(kind), None if shift is None else shift.to(kind)
        found = logp_of_linear(own, index, *given, most=most)
        assert_close(found.to(f64), wanted, rtol=close, atol=close)
        assert_close(
            torch.autograd.grad((found * up.to(kind)).sum(), own)[0].to(f64), gradient, rtol=close, atol=close
        )
        with torch.no_grad():
            assert not logp_of_linear(own, index, *given, most=most).requires_grad


@pytest.mark.parametrize("most", [1, 40, 10**6])
@pytest.mark.parametrize(("kind", "close"), [(f64, 1e-10), (torch.float32, 1e-6)])
def test_one_number_and_the_soft_maximum_of_a_linear_layer(
    kind: torch.dtype, close: float, most: int
) -> None:
    """As `gather` and `logsumexp` have them, and so are their gradients to all that learns. There are numbers
    of a thousand, whose exponentials overflow, and a row that nothing comes back to."""
    drawn = [torch.randn(*n, dtype=f64) for n in ((7, 5), (11, 5), (11,))]
    drawn[0][3] *= 1000.0
    index, ups = torch.randint(11, (7,)), torch.randn(2, 7, dtype=f64)
    ups[:, 5] = 0.0
    exact = [x.clone().requires_grad_() for x in drawn]
    z = exact[0] @ exact[1].T + exact[2]
    wanted = z.gather(-1, index.unsqueeze(-1)).squeeze(-1), z.logsumexp(-1)
    own = [x.to(kind).requires_grad_() for x in drawn]
    found = one_and_soft_max(own[0], index, *own[1:], most=most)
    gradients = [
        torch.autograd.grad(sum((x * up.to(x.dtype)).sum() for x, up in zip(pair, ups, strict=True)), of)
        for pair, of in ((found, own), (wanted, exact))
    ]
    for one, other in zip((*found, *gradients[0]), (*wanted, *gradients[1]), strict=True):
        size = float(other.detach().abs().max())
        assert_close(one.to(f64), other, rtol=0.0, atol=close * size)


def test_chunks_hold_no_more_than_they_are_given() -> None:
    """No tensor of more numbers than `most`, or one row, is made on the way."""
    sizes: list[int] = []

    def wide(features: Tensor) -> tuple[Tensor]:
        out = features @ torch.ones(5, 100)
        sizes.append(out.numel())
        return (out.sum(-1),)

    in_chunks(wide, 100, torch.randn(50, 5), most=700)
    assert max(sizes) == 700 and sum(sizes) == 5000


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("most", [1, 50, 2**24])
@pytest.mark.parametrize(("kind", "close"), [(f64, 1e-10), (torch.float32, 1e-6)])
def test_log_probabilities_of_actions_in_chunks(
    row: Any, kind: torch.dtype, close: float, adapted: bool, most: int
) -> None:
    """Those of all logits, and their gradients; below adapters the output layer is frozen."""
    lm = small(kind)
    if adapted:
        lm = with_lora(lm, 2).to(kind)
        for name, p in lm.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(p)
    batch = pack_tokens([row("7|1 2 9|5 5|3 9"), row("7 8|4 9|6")], gamma=1.0, dtype=kind)
    weights = torch.randn(batch.mask.shape, dtype=kind)
    found = actions_logp(lm, batch, most_logits=most)
    logits = lm(input_ids=batch.inputs).logits.log_softmax(-1)
    places = batch.decisions[:, :-1].unsqueeze(-1).expand(-1, -1, 23)
    whole = logits.gather(1, places).gather(-1, batch.actions.unsqueeze(-1)).squeeze(-1)
    whole = whole.masked_fill(~batch.mask, 0.0)
    size = float(whole.detach().abs().max())
    assert_close(found, whole, rtol=0.0, atol=close * size)
    assert_close(score_replies(lm, batch, most_logits=most).logp, whole, rtol=0.0, atol=close * size)
    learning = [p for p in lm.parameters() if p.requires_grad]
    gradients = [torch.autograd.grad((x * weights).sum(), learning) for x in (found, whole)]
    size = max(float(x.abs().max()) for x in gradients[1])
    for one, other in zip(*gradients, strict=True):
        assert_close(one, other, rtol=0.0, atol=close * size)


def low_rank(rank: int = 3) -> LowRankHead:
    head = LowRankHead(4, torch.randn(11, 6, dtype=f64), rank, initial=0.5).double()
    for p in head.parameters():
        torch.nn.init.normal_(p)
    return head


def test_a_fresh_head_of_low_rank_is_the_constant_that_it_was_given() -> None:
    head = LowRankHead(4, torch.randn(11, 6), 3, initial=-0.3)
    assert_close(head(torch.randn(5, 4)), torch.full((5, 11), -0.3))


def test_a_head_of_low_rank_is_its_formula() -> None:
    """Q(s, a) = b(s) + u(s) . P (W_a - mean W) + c_a, token by token; asked for one, for all, for their soft
    maximum, and once its vectors are kept."""
    head, h, index = low_rank(), torch.randn(5, 4, dtype=f64), torch.tensor([0, 10, 3, 3, 7])
    out = head.out(head.hidden(h).relu())
    middle = head.tokens.mean(0)
    vectors = torch.stack([head.directions.weight @ (w - middle) for w in head.tokens])
    whole = torch.stack([out[:, 0] + out[:, 1:] @ v + c for v, c in zip(vectors, head.bias, strict=True)], 1)
    taken = whole.gather(1, index[:, None]).squeeze(1)
    with torch.no_grad():
        assert_close(head(h), whole, **EXACT)
        assert_close(head(h), whole, **EXACT)
    assert_close(head(h), whole, **EXACT)
    assert_close(head.of(h, index), taken, **EXACT)
    one, soft_max = head.of_and_soft_max(h, index)
    assert_close(one, taken, **EXACT)
    assert_close(soft_max, whole.logsumexp(-1), **EXACT)


def test_kept_vectors_follow_the_weights() -> None:
    head, h = low_rank(), torch.randn(2, 4, dtype=f64)
    with torch.no_grad():
        before = head(h)
        head.directions.weight.mul_(2.0)
        after = head(h)
    out = head.out(head.hidden(h).relu())
    assert_close(after - out[:, :1] - head.bias, 2 * (before - out[:, :1] - head.bias), **EXACT)


def test_large_vocabularies_get_heads_of_low_rank() -> None:
    """Their weights do not grow with the vocabulary but for one number a token."""
    for vocab in (SMALL_VOCABULARY, 50_000):
        critic = token_critic(torch.nn.Identity(), torch.randn(vocab, 16), 2, 0.0, None)
        assert critic.rank == (0 if vocab == SMALL_VOCABULARY else RANK)
    layers = 16 * 32 + 32 + 32 * (RANK + 1) + (RANK + 1) + 16 * RANK
    assert sum(p.numel() for p in critic.q.parameters()) == 2 * (layers + 50_000)


def test_a_slow_copy_shares_what_does_not_learn() -> None:
    """The base under adapters and the table of tokens are there once; what learns is the copy's own, and
    alone moves."""
    lm = with_lora(small(torch.float32), 2)
    critic = token_critic(lm.get_base_model().model, lm.get_output_embeddings().weight, 2, 0.0, 3)
    slow = slow_copy(critic)
    pairs = list(zip(critic.parameters(), slow.parameters(), strict=True))
    learning = [n for n, p in critic.named_parameters() if p.requires_grad]
    assert sum(a is not b for a, b in pairs) == len(learning) > 0
    assert all((a is b) == (not a.requires_grad) for a, b in pairs)
    assert slow.q[0].tokens.data_ptr() == critic.q[1].tokens.data_ptr()
    with torch.no_grad():
        for p in critic.parameters():
            if p.requires_grad:
                p.add_(1.0)
    before = [b.clone() for _, b in pairs]
    polyak_(slow, critic, 0.25)
    for (a, b), was in zip(pairs, before, strict=True):
        assert_close(b, was if a is b else was + 0.25 * (a.detach() - was))
