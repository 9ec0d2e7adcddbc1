"""What a partner tells of held-out rows, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.evaluation.measures.partners.telling import measure_telling, sentences
from turnwise.models.lm.fresh import llama
from turnwise.models.lm.partner import PartnerModel

V = 12


def row(*turns: tuple[list[int], float], name: str = "", terminated: bool = True) -> Tokens:
    writer = TokenWriter()
    for ids, reward in turns:
        writer.read([1, 2])
        writer.act(ids, reward, None)
    if not terminated:
        writer.read([1])
    return writer.tokens(terminated=terminated, next_known=True, id=name)


def model(end: float, reward: float) -> PartnerModel:
    """All tokens are alike to it (weights of 0 give equal logits), and so are all turns."""
    torch.manual_seed(0)
    made = PartnerModel(llama(V, width=8, layers=1, heads=2, context=64, eos=9, pad=0), mean=0.5, std=2.0)
    with torch.no_grad():
        made.policy.lm.get_output_embeddings().weight.zero_()
        made.end.bias.fill_(end)
        made.reward.bias.fill_(reward)
    return made


def test_figures_by_hand():
    """Three turns with 2, 1 and 3 tokens: ln 12 a token, 2 ln 12 a message. Two of three turns end a talk,
    which has probability 1/2: ln 2 a turn. Learnt from: 1 of 2 turns ends, share (1 + 1) / (2 + 2). Rewards
    -1, 1 and 3, and 0.5 + 2 x 0.25 = 1 is told: the errors 4, 0 and 4 are the spread about the mean, R2 is 0.
    Returns 0 and 3 are told as 2 and 1: errors 4 and 4 by a spread of 4.5."""
    learnt = [row(([3, 9], 0.0), ([9], 1.0))]
    held = [row(([3, 9], -1.0), ([9], 1.0), name="a"), row(([3, 4, 9], 3.0), name="b")]
    found = measure_telling(model(0.0, 0.25), learnt, held)
    assert (found["conversations"], found["turns"], found["tokens"]) == (2, 3, 6)
    assert found["token"]["partner"]["mean"] == pytest.approx(math.log(12), abs=1e-5)
    assert found["token"]["uniform"]["mean"] == pytest.approx(math.log(12))
    assert found["message"]["partner"]["mean"] == pytest.approx(2 * math.log(12), abs=1e-5)
    assert found["end"]["partner"]["mean"] == pytest.approx(math.log(2), abs=1e-6)
    assert found["end"]["share"]["mean"] == pytest.approx(-math.log(0.5))
    assert found["reward"]["turn"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert found["reward"]["return"]["mean"] == pytest.approx(1 - 8 / 4.5, abs=1e-6)
    assert len(sentences(found)) == 3


def test_rewards_that_never_change_have_no_r2():
    same = [row(([9], 1.0), name=str(i)) for i in range(3)]
    found = measure_telling(model(0.0, 0.0), same, same)
    assert found["reward"]["turn"]["mean"] is None
    assert "nothing is to be told" in sentences(found)[2]
    assert measure_telling(model(0.0, 0.0), same, []) == {} and sentences({}) == []


def test_segments_of_a_conversation_are_one():
    """Its return is told as a whole, whatever context cut it."""
    parts = [
        row(([3, 9], -1.0), name="a", terminated=False),
        row(([9], 1.0), name="a"),
        row(([9], 3.0), name="b"),
    ]
    assert measure_telling(model(0.0, 0.0), parts, parts)["conversations"] == 2
