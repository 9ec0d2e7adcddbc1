"""DPO, RLOO and a reward model on a tiny T5: gradients equal those of all replies of a 3-token language.

The language: 0 (what a decoder starts with, and a word like any other), 2, and 1, which ends a reply. A reply
has at most three tokens, so there are 15 of them: 1; x 1; x x 1; and x x x, which is cut. Everything on the
right-hand side comes from T5's own `forward`, reply by reply, and from the formulas of the papers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.testing import assert_close

from turnwise.algorithms.feedback import dpo, reward
from turnwise.algorithms.replies import rloo
from turnwise.data.comparisons import Comparison
from turnwise.data.feedback import Pair
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.envs.dialogue import Message
from turnwise.losses.policy import action_logp
from turnwise.models.lm.parts import trunk_of, width_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.reference import Reference
from turnwise.models.lm.replies import score_replies
from turnwise.models.lm.reward_model import RewardModel
from turnwise.rollout.one_turn import Judged
from turnwise.rollout.replies import Reply

f64 = torch.float64
PROMPT = [2, 0, 2, 2]
REPLIES = [(*x, 1) for n in range(3) for x in product((0, 2), repeat=n)] + list(product((0, 2), repeat=3))
ASKED = (Message("user", "?"),)


def worth(said: tuple[int, ...]) -> float:
    """An arbitrary reward, exact in any number of bits."""
    return said.count(2) - 0.5 * len(said) + (2.0 if said[:1] == (0,) else 0.0)


def t5(make: Callable[..., Any], seed: int) -> Any:
    lm = make("t5", 3)
    torch.manual_seed(seed)
    with torch.no_grad():
        for p in lm.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return lm


def logp(lm: Any, said: tuple[int, ...]) -> Tensor:
    """ln pi(reply | prompt), one pass of T5."""
    words = torch.tensor([said])
    logits = lm(input_ids=torch.tensor([PROMPT]), decoder_input_ids=torch.tensor([[0, *said[:-1]]])).logits
    return action_logp(logits, words).sum()


def row(said: tuple[int, ...], token_logp: np.ndarray | None = None) -> Tokens:
    writer = TokenWriter()
    writer.read(PROMPT)
    writer.act(said, 0.0, None, token_logp)
    if said[-1] != 1:
        writer.read([1])
    return writer.tokens(terminated=True, next_known=True, id="")


def gradients(value: Tensor, module: Any) -> list[Tensor]:
    return list(torch.autograd.grad(value, [p for p in module.parameters() if p.requires_grad]))


def all_close(found: list[Tensor], expected: list[Tensor]) -> None:
    assert max(float(g.abs().max()) for g in expected) > 1e-2
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, rtol=0, atol=1e-10)


def test_the_replies_are_the_whole_language(encoder_decoder: Callable[..., Any]) -> None:
    lm = t5(encoder_decoder, 1)
    assert len(REPLIES) == 15 and abs(float(sum(logp(lm, y).exp().detach() for y in REPLIES)) - 1) < 1e-12


def test_dpo(encoder_decoder: Callable[..., Any]) -> None:
    """E over pairs of replies of the reference, preferred by Bradley and Terry: Rafailov et al., eq. 7."""
    lm, before = t5(encoder_decoder, 1), t5(encoder_decoder, 2)
    c = dpo.Config(beta=0.7)
    pairs = list(product(REPLIES, REPLIES))
    p = {y: float(logp(before, y).detach().exp()) for y in REPLIES}
    often = torch.tensor([p[w] * p[x] / (1 + np.exp(worth(x) - worth(w))) for w, x in pairs], dtype=f64)
    items = [Comparison(Pair(ASKED, "", ""), (row(w), row(x))) for w, x in pairs]
    per_item, _ = dpo.losses_of(LmPolicy(lm), Reference(before), items, c)
    h = {y: logp(lm, y) - logp(before, y).detach() for y in REPLIES}
    exact = [-torch.nn.functional.logsigmoid(0.7 * (h[w] - h[x])) for w, x in pairs]
    all_close(gradients((often * per_item).sum(), lm), gradients((often * torch.stack(exact)).sum(), lm))


def test_rloo(encoder_decoder: Callable[..., Any]) -> None:
    """E over all groups of two replies = the gradient of J = sum pi(y) r(y), once for each of a group."""
    lm, c = t5(encoder_decoder, 1), rloo.Config(group=2, beta=0.0, minibatches=1, prompts_per_step=1)
    lp = {y: logp(lm, y) for y in REPLIES}
    pairs = list(product(REPLIES, REPLIES))
    replies = [Reply(ASKED, "", row(y, np.zeros(len(y))), stopped=y[-1] == 1) for pair in pairs for y in pair]
    judged = Judged(replies, np.array([worth(y) for pair in pairs for y in pair]), None)
    (m,) = rloo.experience(Reference(lm), judged, c, 0.0, torch.device("cpu"))
    # What was recorded when sampling is this policy's own; each group counts as often as it is sampled.
    often = torch.tensor(
        [float((lp[x] + lp[y]).detach().exp()) for x, y in pairs], dtype=f64
    ).repeat_interleave(2)
    old = score_replies(lm, m.batch).logp.detach()
    m = replace(m, old_logp=old, advantages=m.advantages.double() * often)
    value, _ = rloo.loss(LmPolicy(lm), m, 1.0, c)
    J = sum(lp[y].exp() * worth(y) for y in REPLIES)
    assert isinstance(J, Tensor)
    all_close(gradients(value, lm), gradients(-2 * J, lm))


def test_a_reward_model(encoder_decoder: Callable[..., Any]) -> None:
    """Bradley and Terry on all pairs; the reward is the head's product with the decoder's last state."""
    lm = t5(encoder_decoder, 1)
    model = RewardModel(trunk_of(lm), width_of(lm), ensemble=2).double()
    pairs = [(w, x) for w, x in product(REPLIES, REPLIES) if worth(w) > worth(x)]
    items = [Comparison(Pair(ASKED, "", ""), (row(w), row(x))) for w, x in pairs]
    value, _ = reward.loss(model, items, reward.Config(centring=0.03))

    def by_hand(said: tuple[int, ...]) -> Tensor:
        read = [0, *said, *([] if said[-1] == 1 else [1])]
        ids = {"input_ids": torch.tensor([PROMPT]), "decoder_input_ids": torch.tensor([read])}
        return model.heads.weight @ lm(**ids, output_hidden_states=True).decoder_hidden_states[-1][0, -1]

    r = {y: by_hand(y) for y in REPLIES}  # [E] each
    bt = torch.stack([-torch.nn.functional.logsigmoid(r[w] - r[x]) for w, x in pairs])
    centred = torch.stack([(r[w] + r[x]) ** 2 for w, x in pairs])
    all_close(gradients(value, model), gradients((bt + 0.03 * centred).mean(0).sum(), model))
