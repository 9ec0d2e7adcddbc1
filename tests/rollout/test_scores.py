"""Teacher-forced scores against what the sampler recorded, for every way of acting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from turnwise.envs.tasks.helpdesk.task import HelpDesk
from turnwise.models.lm.critics import TokenCritic
from turnwise.models.lm.parts import trunk_of
from turnwise.rollout import scores
from turnwise.rollout.agent import Acting, Agent
from turnwise.rollout.conversations import converse
from turnwise.rollout.scores import token_scores

WAYS = [
    Acting(),
    Acting(temperature=0.7),
    Acting(temperature=1.3, top_k=20, top_p=0.9),
    Acting(beta=3.0, adv_clip=0.5, top_k=30, return_std=2.0),
    Acting(beta=1.0, temperature=0.5, top_p=0.95),
    Acting(temperature=0.0, beta=1.0),
]


@pytest.mark.parametrize("acting", WAYS)
def test_scores_are_what_the_sampler_recorded(
    acting: Acting, tiny: Callable[..., Any], chat: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In batches of few rows, of which logits are made a few at a time; and the likeliest token is found."""
    lm = tiny()
    critic = TokenCritic(trunk_of(tiny(seed=1)), 32, len(chat.tokenizer)).double()
    for head in (*critic.q, critic.v):
        torch.nn.init.normal_(head.out.weight)
    acting = replace(acting, max_new_tokens=12)
    agent = Agent(lm, chat.tokenizer, critic if acting.beta else None, acting)
    talks = converse(agent.lane_model(4, chat.stop), HelpDesk(), chat, episodes=range(5), seed=0, lanes=4)
    rows = [c.tokens for c in talks if c.tokens is not None]
    monkeypatch.setattr(scores, "READ", 300)
    monkeypatch.setattr(scores, "NUMBERS", 7 * len(chat.tokenizer))
    told: list[int] = []
    found = token_scores(*agent.token_policy(), rows, told.append)
    assert told[-1] == 5 and len(told) > 1
    for row, x in zip(rows, found, strict=True):
        recorded = row.token_logp[row.decisions + 1]
        assert np.isfinite(recorded).all()
        np.testing.assert_allclose(x.logp, recorded, atol=1e-9)
        assert (x.logp[x.hit] == pytest.approx(np.log(x.top[x.hit]), abs=1e-9)) and (
            x.logp[~x.hit] <= np.log(x.top[~x.hit]) + 1e-12
        ).all()


def test_what_is_never_said_has_no_probability(
    tiny: Callable[..., Any], chat: Any, row: Callable[..., Any]
) -> None:
    """The rarest token at a top-k of 2: minus infinity, and everything before it has its own score."""
    agent = Agent(tiny(), chat.tokenizer, None, Acting(top_k=2))
    with torch.inference_mode():
        logits = agent.lm(torch.tensor([[7, 8]])).logits[0, -1]
    rare = int(logits.argmin())
    (x,) = token_scores(*agent.token_policy(), [row(f"7 8|{rare} 0")])
    assert x.logp[0] == -np.inf and not x.hit[0] and 0.5 <= x.top[0] <= 1
