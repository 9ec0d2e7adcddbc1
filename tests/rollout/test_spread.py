"""Replies in shards are those of one loop: who samples which prompts is seen nowhere but in `spans`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from turnwise.data.chat.format import ChatFormat
from turnwise.envs.dialogue import Message
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.lora import with_lora
from turnwise.models.lm.policies import LmPolicy
from turnwise.models.lm.served import version_of
from turnwise.rollout.one_turn import OneTurn
from turnwise.rollout.replies import Reply
from turnwise.rollout.spread import Spread
from turnwise.run.shards.here import Here

TEXTS = ["hello there, my friend", "it works now", "say it again", "no, thank you", "why is that"]
PROMPTS = [(Message("user", text),) for text in TEXTS]


def judged(replies: Any) -> np.ndarray:
    """How many tokens, and the number that came with the prompt."""
    return np.array([r.length + r.columns["answer"] for r in replies], float)


@pytest.fixture(scope="module")
def setting() -> tuple[LmPolicy, OneTurn]:
    torch.manual_seed(0)
    chat = ChatFormat(train_tokenizer(TEXTS, 280, 64))
    size: dict[str, Any] = {"width": 16, "layers": 2, "heads": 2, "context": 64}
    lm = llama(len(chat.tokenizer), eos=chat.stop, pad=chat.tokenizer.pad_token_id, **size)
    columns = [{"answer": 10 * i} for i in range(len(PROMPTS))]
    return LmPolicy(lm.double()), OneTurn(chat, PROMPTS, judged, columns=columns, max_new_tokens=6)


def said(replies: list[Reply]) -> list[Any]:
    return [(r.prompt, r.tokens.ids.tolist(), r.columns) for r in replies]


@pytest.mark.parametrize("shards", [1, 2, 3, 20])
def test_shards_say_what_one_loop_says(setting: tuple[LmPolicy, OneTurn], shards: int) -> None:
    """In float64, where batches of other sizes round to the same tokens; a group stays together."""
    policy, talk = setting
    one = talk.sample(policy, 3, prompts=5, group=2, seed=7)
    divided = OneTurn(**{**vars(talk), "spread": Spread(Here(), shards)})
    other = divided.sample(policy, 3, prompts=5, group=2, seed=7)
    assert said(other.replies) == said(one.replies)
    assert np.array_equal(other.rewards, one.rewards)
    for a, b in zip(one.replies, other.replies, strict=True):
        np.testing.assert_allclose(b.tokens.token_logp, a.tokens.token_logp, rtol=0, atol=1e-12)
        assert a.spans == () and b.spans == ((version_of(policy.lm), 0, b.length),)


def test_the_version_follows_the_weights(setting: tuple[LmPolicy, OneTurn]) -> None:
    _, talk = setting
    divided = OneTurn(**{**vars(talk), "spread": Spread(Here(), 2)})
    size: dict[str, Any] = {"width": 16, "layers": 1, "heads": 2, "context": 64, "eos": 1, "pad": 0}
    adapted = LmPolicy(with_lora(llama(len(talk.chat.tokenizer), **size), 2))
    versions = []
    for moved in (0.0, 0.5):
        with torch.no_grad():
            for name, x in adapted.lm.named_parameters():
                if "lora_B" in name:
                    x += moved
        replies = divided.sample(adapted, 0, prompts=2, group=1, seed=7).replies
        versions.append({span.version for r in replies for span in r.spans})
    assert len(versions[0]) == len(versions[1]) == 1 and versions[0] != versions[1]
