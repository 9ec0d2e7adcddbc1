"""A clone's loss beside tables of words: by hand on five tokens, and on rows that were cut."""

import math

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from turnwise.data.tokens import Tokens, TokenWriter, segments
from turnwise.evaluation.measures.wording import Ngrams, measure_wording
from turnwise.models.lm.policies import LmPolicy

V = 8


def row(read: list[int], acted: list[int], id: str = "", terminated: bool = True) -> Tokens:
    writer = TokenWriter()
    writer.read(read)
    writer.act(acted, 0.0, None)
    return writer.tokens(terminated=terminated, next_known=terminated, id=id)


def tiny() -> LmPolicy:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V, hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    return LmPolicy(LlamaForCausalLM(config))


def test_witten_bell_by_hand() -> None:
    """After 1 the agent said 2 2 3 and 2 3: tokens 2, 2, 3, 2, 3, so c = 5, T = 2, V = 8.

    p(2) = (3 + 2/8) / 7, p(3) = (2 + 2/8) / 7, p(4) = (2/8) / 7. Pairs: (1, 2) twice, (2, 2) once, (2, 3)
    twice. p(2 | 1) = (2 + 1 p(2)) / (2 + 1); p(3 | 2) = (2 + 2 p(3)) / (3 + 2); and after 5, which nothing
    followed, p(4 | 5) = p(4).
    """
    tables = Ngrams([row([1], [2, 2, 3]), row([1], [2, 3])], V)
    p2, p3, p4 = 3.25 / 7, 2.25 / 7, 0.25 / 7
    found = tables.nats(row([1], [2, 3]))
    assert found["uniform"] == pytest.approx(2 * math.log(8))
    assert found["unigram"] == pytest.approx(-math.log(p2) - math.log(p3))
    assert found["bigram"] == pytest.approx(-math.log((2 + p2) / 3) - math.log((2 + 2 * p3) / 5))
    assert tables.nats(row([5], [4]))["bigram"] == pytest.approx(-math.log(p4))


def test_each_table_is_a_distribution() -> None:
    """After whatever token, the probabilities of all tokens add up to 1."""
    tables = Ngrams([row([1], [2, 2, 3]), row([1], [2, 3])], V)
    for before in range(V):
        p = [math.exp(-tables.nats(row([before], [w]))["bigram"]) for w in range(V)]
        assert sum(p) == pytest.approx(1.0, abs=1e-12)


def test_a_cut_conversation_counts_each_token_once() -> None:
    """Segments repeat tokens as burn-in; the last token of a log that was cut there is not learnt from."""
    long = TokenWriter()
    for _ in range(6):
        long.read([1, 4])
        long.act([2, 3, 5], 0.0, None)
    whole = long.tokens(terminated=True, next_known=True, id="a")
    tables = Ngrams([whole], V)
    parts = segments(whole, 12)
    assert len(parts) > 1
    for name in ("uniform", "unigram", "bigram"):
        assert sum(tables.nats(part)[name] for part in parts) == pytest.approx(tables.nats(whole)[name])
    assert tables.nats(row([1], [2, 3], terminated=False))["uniform"] == pytest.approx(math.log(8))


def test_a_clone_that_knows_nothing_is_told_to_be_behind_the_bigram() -> None:
    """Weights drawn at random are near the uniform guess; a bigram of a fixed sentence is near 0 nats."""
    rows = [row([1, 4], [2, 3, 5], id=str(i)) for i in range(40)]
    found = measure_wording(tiny(), rows[:30], rows[30:])
    assert found["conversations"] == 10 and found["tokens"] == 30
    assert found["nats"]["clone"]["mean"] == pytest.approx(math.log(8), abs=0.3)
    assert found["perplexity"] == pytest.approx(math.exp(found["nats"]["clone"]["mean"]))
    assert found["nats"]["bigram"]["mean"] < 0.2
    assert found["beaten"] and "worse than a bigram table" in found["verdict"]
    ahead = found["nats"]["bigram"]["mean"] - found["nats"]["clone"]["mean"]
    assert found["ahead"]["mean"] == pytest.approx(ahead)
    assert found["ahead"]["high"] < 0


def test_nothing_held_out_says_nothing() -> None:
    assert measure_wording(tiny(), [row([1], [2])], []) == {}


def test_one_conversation_has_no_interval() -> None:
    found = measure_wording(tiny(), [row([1], [2])], [row([1], [2, 2])])
    assert found["ahead"]["low"] is None
    assert np.isfinite(found["ahead"]["mean"])
