"""Lanes of an encoder-decoder: what is recorded is what one pass over the conversation gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.data.batch import pack_tokens
from turnwise.data.tokens import TokenWriter
from turnwise.envs.dialogue import Message
from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.losses.policy import action_logp
from turnwise.models.lm.policies import LmPolicy
from turnwise.rollout.conversations import Conversation, converse
from turnwise.rollout.engines.decoding import Decoding
from turnwise.rollout.engines.sampler import Sampler
from turnwise.rollout.replies import sample_replies
from turnwise.rollout.scores import token_scores

CONTEXT = 160


@pytest.fixture(scope="module")
def lm_of(chat: Any, encoder_decoder: Callable[..., Any]) -> Callable[[str], Any]:
    def make(kind: str = "t5") -> Any:
        pad = chat.tokenizer.pad_token_id
        lm = encoder_decoder(kind, len(chat.tokenizer), pad=pad, eos=chat.stop)
        with torch.no_grad():
            for parameter in lm.parameters():
                parameter.mul_(1.5)  # so that what was read decides what is said
        return lm

    return make


def hold(lm: Any, chat: Any, lanes: int, episodes: int = 8) -> list[Conversation]:
    sampler = Sampler(LmPolicy(lm), lanes=lanes, context=CONTEXT, stop=chat.stop, max_new_tokens=6)
    return converse(sampler, HelpDesk(), chat, episodes=range(episodes), seed=3, lanes=lanes)


def worst(lm: Any, rows: Any) -> float:
    """Largest difference between what was recorded when sampling and what one pass gives."""
    found = 0.0
    for t in rows:
        b = pack_tokens([t], gamma=1.0, dtype=torch.float64)
        logp = action_logp(LmPolicy(lm)(b.inputs, b.decisions), b.actions)
        assert b.behavior_logp is not None
        found = max(found, float((logp.detach() - b.behavior_logp).abs().max()))
    return found


@pytest.mark.parametrize("kind", ["t5", "t5gemma2"])
def test_cached_equals_whole(kind: str, lm_of: Callable[..., Any], chat: Any) -> None:
    """Conversations of several turns, some cut before their stop token, lanes refilled at different times."""
    lm = lm_of(kind)
    held = hold(lm, chat, lanes=3)
    turns = [int(t.turn_end.sum()) for t in (c.tokens for c in held)]
    stops = [c.tokens.ids[np.flatnonzero(c.tokens.turn_end)] == chat.stop for c in held]
    assert max(turns) > 2 and not np.concatenate(stops).all()
    assert worst(lm, [c.tokens for c in held]) < (1e-10 if kind == "t5" else 1e-5)


def test_no_lane_knows_of_another(lm_of: Callable[..., Any], chat: Any) -> None:
    lm = lm_of()
    alone, together = hold(lm, chat, lanes=1), hold(lm, chat, lanes=5)
    assert [c.tokens.ids.tolist() for c in alone] == [c.tokens.ids.tolist() for c in together]
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_allclose(a.tokens.token_logp, b.tokens.token_logp, rtol=0, atol=1e-10)


def test_replies_of_a_group_share_one_encoding(lm_of: Callable[..., Any], chat: Any) -> None:
    """Replies are those of groups of one; two prompts are encoded once each, for all of their replies."""
    lm, prompts = lm_of(), [(Message("user", "the light is off"),), (Message("user", "hello"),)]
    encoded: list[int] = []
    hook = lm.encoder.register_forward_pre_hook
    handle = hook(lambda _, args, named: encoded.append(len(named["input_ids"])), with_kwargs=True)
    replies = sample_replies(LmPolicy(lm), chat, prompts, group=4, seed=5, max_new_tokens=7)
    handle.remove()
    assert encoded == [2] and len({r.text for r in replies}) > 4
    again = [r for p in prompts for r in [p] * 4]
    apart = sample_replies(LmPolicy(lm), chat, again, seed=5, max_new_tokens=7)
    assert [r.tokens.ids.tolist() for r in replies] == [r.tokens.ids.tolist() for r in apart]
    assert worst(lm, [r.tokens for r in replies]) < 1e-10


def test_greedy_replies_are_those_of_generate(lm_of: Callable[..., Any], chat: Any) -> None:
    lm, prompt = lm_of(), (Message("user", "the light is off"),)
    how = {"max_new_tokens": 8, "decoding": Decoding(0.0)}
    (reply,) = sample_replies(LmPolicy(lm), chat, [prompt], seed=0, **how)
    said = reply.tokens.ids[reply.tokens.action].tolist()
    read = torch.tensor([chat.opening(prompt)])
    theirs = lm.generate(read, max_new_tokens=8, do_sample=False, eos_token_id=chat.stop)[0, 1:].tolist()
    assert said == theirs[: len(said)]


def test_scores_of_rows_are_those_of_the_policy(lm_of: Callable[..., Any], chat: Any) -> None:
    lm = lm_of()
    rows = [c.tokens for c in hold(lm, chat, lanes=2, episodes=3)]
    for t, found in zip(rows, token_scores(LmPolicy(lm), Decoding(), rows), strict=True):
        np.testing.assert_allclose(found.logp, t.token_logp[t.action], rtol=0, atol=1e-10)


def test_a_lane_that_heard_nothing_goes_on_with_its_reply(lm_of: Callable[..., Any], chat: Any) -> None:
    """Two messages of the agent without a word in between are one run of its tokens, here and in rows."""
    lm = lm_of()
    sampler = Sampler(LmPolicy(lm), lanes=1, context=64, stop=-1, max_new_tokens=5)
    said = []
    for _ in range(2):  # the first time tells which token it says third: that one is to be its stop
        sampler.reset(0, 4)
        sampler.submit(0, [7, 8, 9])
        said += sampler.collect()
        sampler.stop = said[0].ids[2]
    first = said[-1]
    assert first.stopped and len(first.ids) <= 3
    sampler.submit(0, [])
    (second,) = sampler.collect()
    row = TokenWriter()
    row.read([7, 8, 9])
    row.act(first.ids, 0.0, None, first.logp)
    row.act(second.ids, 0.0, None, second.logp)
    assert worst(lm, [row.tokens(terminated=True, next_known=True, id="")]) < 1e-10
