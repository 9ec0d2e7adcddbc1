"""Lanes with memories of their own: cached == uncached, no lane knows of another, nothing is left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.models.lm.lanes import prepacked
from turnwise.models.lm.lanes.memory import LaneMemory
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.conversations import Conversation, converse
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.engines.protocol import Utterance
from turnwise.rollout.engines.sampler import Sampler
from turnwise.run.errors import InputError

CONTEXT = 160
ARCHITECTURES = ("llama", "gpt2", "gpt2, eager", "qwen2")


@pytest.fixture(scope="module")
def hold(chat: Any) -> Callable[..., list[Conversation]]:
    def hold(lm: Any, lanes: int, *, episodes: int = 20, seed: int = 3, **options: Any) -> list[Conversation]:
        settings = {"context": CONTEXT, "stop": chat.stop, "max_new_tokens": 9} | options
        sampler = Sampler(LmPolicy(lm), lanes=lanes, **settings)
        return converse(sampler, HelpDesk(), chat, episodes=range(episodes), seed=seed, lanes=lanes)

    return hold


@pytest.fixture(scope="module")
def held_alone(tiny: Callable[..., Any], hold: Callable[..., Any]) -> list[Conversation]:
    """Conversations held one after another."""
    return hold(tiny(), lanes=1)


def whole(sampler: Sampler) -> dict[int, Utterance]:
    """Everything that is being said."""
    said = {}
    while new := sampler.collect():
        said |= {u.lane: u for u in new}
    return said


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_cached_equals_uncached(
    kind: str, tiny: Callable[..., Any], hold: Callable[..., Any], worst_logp_error: Callable[..., float]
) -> None:
    """Every recorded log-probability is that of one pass over the whole conversation, to 1e-10.

    Lanes are refilled at different times and conversations outgrow the memory's first 64 positions; most
    turns are cut at nine tokens, so that the stop token that is read in their place is covered too.
    """
    lm = tiny(kind)
    held = hold(lm, lanes=7)
    assert max(len(c.tokens) for c in held) > 140
    assert worst_logp_error(held, lambda ids: lm(ids).logits.log_softmax(-1)) < 1e-10


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_in_float32_weights_are_copied_and_say_the_same(
    kind: str,
    tiny: Callable[..., Any],
    chat: Any,
    worst_logp_error: Callable[..., float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are no farther from one pass in float64 than without copies, where weights stay where they are.

    All matrices are copied here, small as they are; and again after a step of learning.
    """
    if not prepacked.can_prepack():
        pytest.skip("this PyTorch, or this processor, has no such products")
    monkeypatch.setattr(prepacked, "WORTH", 1)
    monkeypatch.setattr(prepacked, "LEAST", 1)
    lm = tiny(kind).float()

    def sampler(copying: bool) -> Sampler:
        made = Sampler(LmPolicy(lm), lanes=7, context=CONTEXT, stop=chat.stop, max_new_tokens=9)
        assert made.products is not None
        made.products._left *= copying
        return made

    with_copies, without = sampler(True), sampler(False)
    for seed in (3, 4):
        exact = copy.deepcopy(lm).double()
        error = {
            s: worst_logp_error(
                converse(s, HelpDesk(), chat, episodes=range(9), seed=seed, lanes=7),
                lambda ids, exact=exact: exact(ids).logits.log_softmax(-1),
            )
            for s in (with_copies, without)
        }
        assert [len(s.products._copies) > 8 for s in error if s.products] == [True, False]
        assert error[with_copies] < 2 * error[without] + 1e-6 < 2e-3
        with torch.no_grad():
            for parameter in lm.parameters():
                parameter.mul_(1.05)


def test_what_is_only_read_is_read_by_the_weights_of_the_moment(
    tiny: Callable[..., Any], chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features of a lane that listens are those of a new sampler, after weights have changed."""
    monkeypatch.setattr(prepacked, "WORTH", 1)
    monkeypatch.setattr(prepacked, "LEAST", 1)
    lm = tiny("gpt2").float()

    def sampler() -> Sampler:
        return Sampler(LmPolicy(lm), lanes=1, context=CONTEXT, stop=chat.stop)

    used = sampler()
    for _ in range(2):
        fresh = sampler()
        for s in (used, fresh):
            s.reset(0, 0)
            s.read([0], [range(5, 30)])
        np.testing.assert_allclose(used.features[0], fresh.features[0], rtol=0, atol=1e-5)
        lm.transformer.h[0].mlp.c_fc.weight.data.mul_(2)


def truncated_softmax(logits: np.ndarray, how: Decoding) -> np.ndarray:
    """Slow twin of `distribution`: walks down the ranking of each row. Log-probabilities."""
    out = np.full(logits.shape, -np.inf)
    for row, x in enumerate(logits / how.temperature):
        ranking = sorted(range(len(x)), key=lambda v: -x[v])[: how.top_k]
        weights = {v: np.exp(x[v] - x[ranking[0]]) for v in ranking}
        wanted = sum(weights.values()) * (how.top_p or 1.0)
        kept: dict[int, float] = {}
        while len(kept) < len(ranking) and (how.top_p is None or sum(kept.values()) < wanted):
            kept[ranking[len(kept)]] = weights[ranking[len(kept)]]
        out[row, list(kept)] = np.log(list(kept.values())) - np.log(sum(kept.values()))
    return out


@pytest.mark.parametrize("how", [Decoding(0.7), Decoding(1.2, top_k=12), Decoding(0.9, 40, 0.8)])
def test_recorded_logp_is_of_the_distribution_sampled_from(
    how: Decoding, tiny: Callable[..., Any], hold: Callable[..., Any], worst_logp_error: Callable[..., float]
) -> None:
    lm = tiny()

    def logp(ids: Tensor) -> Tensor:
        return torch.as_tensor(truncated_softmax(lm(ids).logits[0].numpy(), how)).unsqueeze(0)

    assert worst_logp_error(hold(lm, lanes=2, episodes=3, decoding=how), logp) < 1e-10


def test_greedy_says_the_likeliest_token(tiny: Callable[..., Any], hold: Callable[..., Any]) -> None:
    """And says it with probability 1."""
    lm = tiny()
    for c in hold(lm, lanes=4, episodes=6, decoding=Decoding(temperature=0.0)):
        t = c.tokens
        with torch.inference_mode():
            best = lm(torch.as_tensor(t.ids[:CONTEXT]).unsqueeze(0)).logits[0].argmax(-1).numpy()
        assert (best[t.decisions] == t.ids[t.decisions + 1]).all()
        assert (t.token_logp[t.action] == 0).all()


@pytest.mark.parametrize(
    ("lanes", "at_least"),
    [(3, None), (3, 3), (16, None), (16, 1), (16, 5), (16, 16)],
)
def test_a_lane_knows_nothing_of_its_neighbours(
    lanes: int,
    at_least: int | None,
    tiny: Callable[..., Any],
    hold: Callable[..., Any],
    held_alone: list[Conversation],
) -> None:
    """Each of 20 conversations has the ids that it has alone, however many are held beside it.

    With `at_least` = lanes all of them read at once, and refilled lanes come in another order than before.
    """
    held = hold(tiny(), lanes=lanes, at_least=at_least)
    for alone, beside in zip(held_alone, held, strict=True):
        np.testing.assert_array_equal(beside.tokens.ids, alone.tokens.ids)
        np.testing.assert_allclose(beside.tokens.token_logp, alone.tokens.token_logp, rtol=0, atol=1e-10)
        assert beside.dialogue.undiscounted_return() == alone.dialogue.undiscounted_return()


def test_the_seed_decides(tiny: Callable[..., Any], hold: Callable[..., Any]) -> None:
    lm = tiny()
    one, same, other = (
        [c.tokens.ids.tolist() for c in hold(lm, lanes=4, episodes=4, seed=seed)] for seed in (5, 5, 6)
    )
    assert one == same
    assert all(a != b for a, b in zip(one, other, strict=True))


def test_refilling_forgets(tiny: Callable[..., Any], chat: Any) -> None:
    """A lane that has held a conversation says in the next one what a new sampler says."""

    def sampler() -> Sampler:
        return Sampler(LmPolicy(tiny()), lanes=2, context=CONTEXT, stop=chat.stop, max_new_tokens=20)

    fresh, used = sampler(), sampler()
    used.reset(0, seed=1)
    for _ in range(3):
        used.submit(0, range(10, 40))
        whole(used)
    for s in (fresh, used):
        s.reset(0, seed=7)
        s.submit(0, [5, 6, 7])
    ours, theirs = whole(used)[0], whole(fresh)[0]
    assert ours.ids == theirs.ids
    np.testing.assert_allclose(ours.logp, theirs.logp, rtol=0, atol=1e-12)


def test_a_lane_that_is_reset_in_mid_sentence_says_no_more(
    tiny: Callable[..., Any], fixed: Callable[..., Any], chat: Any
) -> None:
    """Lane 0 stops half the time, so that it ends while lane 1 goes on; lane 1's words are then dropped."""
    policy = fixed(tiny(), {"stop": 0.5, 9: 0.5})
    sampler = Sampler(policy, lanes=2, context=CONTEXT, stop=chat.stop, max_new_tokens=60, at_least=1)
    for seed in range(50):
        for lane in (0, 1):
            sampler.reset(lane, 2 * seed + lane)
            sampler.submit(lane, [5, 6])
        first = sampler.collect()
        if len(first) == 1:
            break
    other = 1 - first[0].lane
    sampler.reset(other, 3)
    assert sampler.collect() == []
    sampler.submit(other, [5, 6])
    assert list(whole(sampler)) == [other]


def test_the_stop_token_is_said(tiny: Callable[..., Any], fixed: Callable[..., Any], chat: Any) -> None:
    """Stop has probability 1/4 and another token 3/4: the last id is stop with log 1/4, log 3/4 before it."""
    policy = fixed(tiny(), {"stop": 0.25, 9: 0.75})
    sampler = Sampler(policy, lanes=8, context=CONTEXT, stop=chat.stop, max_new_tokens=100)
    for lane in range(8):
        sampler.reset(lane, lane)
        sampler.submit(lane, [5, 6])
    for u in whole(sampler).values():
        assert u.stopped
        assert not u.out_of_context
        assert u.ids == (9,) * (len(u.ids) - 1) + (chat.stop,)
        np.testing.assert_allclose(u.logp, np.log([0.75] * (len(u.ids) - 1) + [0.25]), rtol=1e-12)


def test_a_memory_that_is_full(tiny: Callable[..., Any], fixed: Callable[..., Any], chat: Any) -> None:
    """Context 10, opening of 6 and no stop: 4 tokens fit. Then what a partner says does not fit at all.

    A stop token in the last place is an ordinary end.
    """
    sampler = Sampler(fixed(tiny(), {9: 1.0}), lanes=1, context=10, stop=chat.stop, max_new_tokens=100)
    sampler.reset(0, 0)
    sampler.submit(0, range(6))
    assert sampler.collect() == [Utterance(0, (9,) * 4, (0.0,) * 4, stopped=False, out_of_context=True)]

    sampler = Sampler(fixed(tiny(), {"stop": 1.0}), lanes=1, context=7, stop=chat.stop, max_new_tokens=100)
    sampler.reset(0, 0)
    sampler.submit(0, range(6))
    assert sampler.collect() == [Utterance(0, (chat.stop,), (0.0,), stopped=True, out_of_context=False)]
    sampler.submit(0, [3])
    assert sampler.collect() == [Utterance(0, (), (), stopped=False, out_of_context=True)]


def test_an_opening_that_leaves_no_room_is_refused(tiny: Callable[..., Any], chat: Any) -> None:
    sampler = Sampler(LmPolicy(tiny()), lanes=1, context=6, stop=chat.stop)
    sampler.reset(0, 0)
    with pytest.raises(InputError, match="opens with 6 tokens"):
        sampler.submit(0, range(6))


def test_a_trunk_that_forgets_is_refused() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    lm = MistralForCausalLM(
        MistralConfig(
            vocab_size=20,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=16,
        )
    )
    LaneMemory(trunk_of(lm), lanes=2, context=16)
    with pytest.raises(InputError, match="last 16 of 17 positions"):
        LaneMemory(trunk_of(lm), lanes=2, context=17)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen2"])
def test_compiled_attention_is_the_same_attention(kind: str, tiny: Callable[..., Any]) -> None:
    """Lanes that read one id beside lanes that read several, some lanes idle: features equal to 1e-10."""
    trunk = trunk_of(tiny(kind))
    memories = [LaneMemory(trunk, lanes=5, context=CONTEXT, may_compile=x) for x in (True, False)]
    assert memories[0].kernel is not None
    rng, lengths = np.random.default_rng(0), np.zeros(5, np.int64)
    for counts in ([3, 0, 90, 1, 2], [1, 2, 1, 1, 0], [1, 0, 1, 1, 1], [0, 5, 0, 0, 7]):
        rows = np.flatnonzero(counts)
        ids = [rng.integers(5, 50, counts[row]).tolist() for row in rows]
        with torch.inference_mode():
            one, other = (memory.read(ids, rows, lengths[rows]) for memory in memories)
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=0, atol=1e-10)
        lengths += counts
