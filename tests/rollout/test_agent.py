"""What an agent thinks of a conversation that was held."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from turnwise.data.tokens import TokenWriter
from turnwise.rollout.agent import Agent

CONTEXT = 160


def test_a_last_message_beyond_the_context_is_not_read(tiny: Callable[..., Any], chat: Any) -> None:
    """GPT-2 has no position after its last: the partner's words that ended the conversation do not fit."""
    lm = tiny("gpt2")
    heard, said = list(range(5, 155)), [9, 10, chat.stop]

    def held(after: int) -> dict[str, np.ndarray]:
        row = TokenWriter()
        row.read(heard)
        row.act(said, 1.0, None)
        row.read([7] * after)
        return dict(Agent(lm, chat.tokenizer).values(row.tokens(False, next_known=True, id="held")))

    long = held(40)
    assert len(heard) + len(said) <= CONTEXT < len(heard) + len(said) + 40
    with torch.inference_mode():
        logp = lm(torch.tensor([heard + said])).logits.log_softmax(-1)[0]
    expected = [float(logp[len(heard) + k - 1, token]) for k, token in enumerate(said)]
    np.testing.assert_allclose(long["logp"], expected, rtol=0, atol=1e-10)
