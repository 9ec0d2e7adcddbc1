"""Tiny language models of several architectures in float64, and ways to hold and check conversations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

CONTEXT = 160
"""more than two growths of a lane's memory"""


@dataclass(frozen=True)
class Fixed:
    """A policy whose logits are always the same, whatever its trunk has read."""

    trunks: Sequence[Any]
    table: Tensor

    def logits(self, features: Sequence[Tensor]) -> Tensor:
        return self.table.expand(len(features[0]), -1)


@pytest.fixture(scope="session")
def chat() -> Any:
    """Messages to ids and back, with a tokenizer that knows HelpDesk's words."""
    from turnwise.data.chat.format import ChatFormat
    from turnwise.envs.tasks.helpdesk.logs import helpdesk_logs
    from turnwise.models.lm.fresh import train_tokenizer

    texts = [m["content"] for log in helpdesk_logs(100, 0) for m in log["messages"]]
    return ChatFormat(train_tokenizer(texts, 400, CONTEXT))


@pytest.fixture(scope="session")
def tiny(chat: Any) -> Callable[..., Any]:
    """A causal LM in float64 whose weights are large enough that what was read decides what is said."""
    from transformers import GPT2Config, GPT2LMHeadModel, Qwen2Config, Qwen2ForCausalLM

    from turnwise.models.lm.fresh import llama

    V = len(chat.tokenizer)

    def make(kind: str = "llama", seed: int = 0, context: int = CONTEXT) -> Any:
        torch.manual_seed(seed)
        if kind == "llama":
            lm = llama(V, width=32, layers=2, heads=2, context=context, eos=0, pad=1)
        elif kind == "qwen2":
            lm = Qwen2ForCausalLM(
                Qwen2Config(
                    vocab_size=V,
                    hidden_size=32,
                    intermediate_size=48,
                    num_hidden_layers=2,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                    max_position_embeddings=context,
                )
            )
        else:
            lm = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=V,
                    n_embd=32,
                    n_layer=2,
                    n_head=2,
                    n_positions=context,
                    bos_token_id=0,
                    eos_token_id=0,
                    attn_implementation="eager" if kind == "gpt2, eager" else "sdpa",
                )
            )
        with torch.no_grad():
            for parameter in lm.parameters():
                parameter.mul_(3)
        return lm.double().eval()

    return make


@pytest.fixture(scope="session")
def fixed(chat: Any) -> Callable[..., Fixed]:
    """A policy with the given probabilities of tokens (the stop token's under "stop"), 0 for all others."""

    def make(lm: Any, probabilities: dict[Any, float]) -> Fixed:
        from turnwise.models.lm.parts import trunk_of

        table = torch.full((1, len(chat.tokenizer)), -torch.inf, dtype=torch.float64)
        for token, p in probabilities.items():
            table[0, chat.stop if token == "stop" else token] = np.log(p)
        return Fixed((trunk_of(lm),), table)

    return make


@pytest.fixture(scope="session")
def worst_logp_error() -> Callable[..., float]:
    """Largest difference between recorded token log-probabilities and one uncached pass per conversation.

    `logp` maps ids [1, T] to log-probabilities [1, T, V] of every next token.
    """

    def worst(
        conversations: Iterable[Any], logp: Callable[[Tensor], Tensor], context: int = CONTEXT
    ) -> float:
        errors = []
        for c in conversations:
            t = c.tokens
            with torch.inference_mode():
                table = logp(torch.as_tensor(t.ids[:context]).unsqueeze(0))[0]
            for k in t.decisions:
                errors.append(abs(float(table[k, t.ids[k + 1]]) - t.token_logp[k + 1]))
        return max(errors)

    return worst
