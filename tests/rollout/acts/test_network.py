"""A network that chooses acts: it reads talks of any length alike, and chooses what its rule says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from turnwise.data.acts.pack import ActSymbols
from turnwise.models.agents.act_critic import ActNetwork
from turnwise.models.agents.settings import MemorySpec
from turnwise.rollout.acts.chooser import Prefix
from turnwise.rollout.acts.network import ActActing, NetworkChooser, load_network
from turnwise.run.errors import InputError

SYMBOLS = ActSymbols(acts=3, answers=4, openings=2)
TALKS = [Prefix.of(0), Prefix.of(1, [2, 0], [3, 1]), Prefix.of(0, [1], [2])]


def chooser(ensemble: int = 2, acting: ActActing | None = None, **more) -> NetworkChooser:
    """Fresh weights, none of which is zero."""
    torch.manual_seed(0)
    network = ActNetwork(MemorySpec(width=8), SYMBOLS.seen, SYMBOLS.acts, ensemble, v=ensemble == 2)
    module = network.build()
    for p in module.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return NetworkChooser(module, network, SYMBOLS, acting or ActActing(), **more)


def rngs(n: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng((seed, i)) for i in range(n)]


@pytest.mark.parametrize("ensemble", [0, 1, 2])
def test_a_talk_is_read_alike_alone_and_beside_others(ensemble: int) -> None:
    """The act in waiting and the padding are seen by nothing."""
    net = chooser(ensemble, ActActing(beta=1.0))
    together = net.choose(TALKS, rngs(3))
    for i, talk in enumerate(TALKS):
        (alone,) = net.choose([talk], rngs(3)[i : i + 1])
        assert alone.act == together[i].act
        np.testing.assert_allclose(alone.probabilities, together[i].probabilities, atol=1e-6)
        assert alone.trace.keys() == together[i].trace.keys()


def test_what_is_chosen_by_hand() -> None:
    """The best by the smaller Q among acts with support; or pi exp(beta (Q - V) / std) among them."""
    net = chooser()
    logits, values = net.read(TALKS)
    assert values is not None
    logits = torch.tensor([[0.0, 2.0, 2.5]]).expand(3, 3)  # the first act has .08 of the likeliest
    q = torch.tensor([[[5.0, 1.0, 0.0]], [[5.0, 0.5, 9.0]]]).unsqueeze(2).expand(2, 3, 1, 3)
    values = values._replace(q=q, v=torch.full((3, 1), 0.25))
    best = {0.0: [1.0, 0, 0], 0.1: [0.0, 1, 0], 0.7: [0.0, 0, 1]}  # the second one has .61 of it
    for support, expected in best.items():
        found = chooser(acting=ActActing(support=support)).probabilities(logits, values)
        assert found[0].tolist() == expected
    soft = chooser(acting=ActActing(beta=3.0, return_std=2.0, support=0.1)).probabilities(logits, values)
    weights = np.array([0, np.exp(2 + 1.5 * (0.5 - 0.25)), np.exp(2.5 + 1.5 * (0 - 0.25))])
    np.testing.assert_allclose(soft[0], weights / weights.sum(), rtol=1e-5)
    barred = chooser(acting=ActActing(support=0.1), allowed=(True, False, True))
    assert barred.probabilities(logits, values)[0].tolist() == [0, 0, 1]


def test_a_clone_draws_as_often_as_it_says() -> None:
    """Over 4,000 draws each act's share is within four standard errors of its probability."""
    net, n = chooser(0), 4000
    found = net.choose([TALKS[1]] * n, rngs(n))
    p = found[0].probabilities
    assert p is not None and abs(p.sum() - 1) < 1e-6 and "q" not in found[0].trace
    share = np.bincount([c.act for c in found], minlength=3) / n
    assert (abs(share - p) < 4 * np.sqrt(p * (1 - p) / n)).all()


def test_what_was_saved_chooses_alike(tmp_path: Path) -> None:
    net = chooser(1, ActActing(beta=2.0, support=0.05, return_std=0.7), allowed=(True, True, False))
    net.save(tmp_path)
    again = load_network(tmp_path)
    assert (again.network, again.symbols, again.acting, again.allowed) == (
        net.network, net.symbols, net.acting, net.allowed
    )  # fmt: skip
    for a, b in zip(net.choose(TALKS, rngs(3)), again.choose(TALKS, rngs(3)), strict=True):
        assert a.act == b.act and a.trace["q"] == pytest.approx(b.trace["q"], abs=1e-5)
    (tmp_path / "network.json").write_text("{}")
    with pytest.raises(InputError, match=r"network\.json: expected a network of acts"):
        load_network(tmp_path)
