"""What tests share: one thread, repeatable examples, rows written as text, tokenizers of every kind of chat.

Shapes in the library's signatures are checked at every call. For that, nothing of it is imported before the
hook is set.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from jaxtyping import config, install_import_hook

torch.set_num_threads(1)
SRC = Path(__file__).parents[1] / "src"
install_import_hook(
    [
        ".".join(file.relative_to(SRC).with_suffix("").parts)
        for file in SRC.rglob("*.py")
        if "from jaxtyping import" in file.read_text(encoding="utf-8")
    ],
    "beartype.beartype",
)
settings.register_profile(
    "suite",
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are kind.<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Like Qwen 2: a system message of its own where there is none, a newline after the stop token."""

HEADERS = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m['role'] }}<|stop|>\n\n{{ m['content'] | trim }}"
    "<|eot|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)
"""Like Llama 3: a first token, headers, contents trimmed, an end of turn that is not the eos token."""

INSTRUCT = (
    "{% set s = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% for m in (messages[1:] if messages[0]['role'] == 'system' else messages) %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}"
    "{% endif %}{% if m['role'] == 'user' %}{{ bos_token + '[INST] ' }}"
    "{{ '<<SYS>>\n' + s + '\n<</SYS>>\n\n' if loop.index0 == 0 and s else '' }}"
    "{{ m['content'] | trim }} [/INST]{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}"
    "{% endfor %}"
)
"""Like Llama 2: strict turns, no header for the agent, a space and the eos token after its words."""

HEADLESS = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ m['content'] + eos_token }}"
    "{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)
"""Like the templates of Mistral, but in any order of roles and without a first token."""

REWRITES = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ '<think>' if loop.last }}{{ m['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Like templates of reasoning models: what stands in the last message goes when another one follows."""


def make_row(
    text: str,
    rewards: Sequence[float] = (),
    *,
    terminated: bool = True,
    next_known: bool = True,
    **fields: Any,
) -> Any:
    """Tokens from "7|1 2 9|5 5|3 9": what is read and what the agent says in turn, beginning with reading.

    `rewards` are those of the turns; `fields` are set as they are.
    """
    from dataclasses import replace

    from turnwise.data.tokens import TokenWriter

    writer = TokenWriter()
    for i, part in enumerate(text.split("|")):
        ids = [int(x) for x in part.split()]
        if i % 2 == 0:
            writer.read(ids)
        else:
            writer.act(ids, rewards[i // 2] if rewards else 0.0, None)
    return replace(writer.tokens(terminated=terminated, next_known=next_known, id="row"), **fields)


def make_tokenizer(
    template: str | None, special: Sequence[str], eos: str | None, *, prefix: bool = False
) -> Any:
    """A byte-level tokenizer with a few merges and the chat template of somebody else."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["hello there, my friend; hello it works now"] * 2, trainer)
    bos = "<s>" if "<s>" in special else None
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, bos_token=bos)
    fast.chat_template = template
    return fast


def make_encoder_decoder(kind: str = "t5", vocab: int = 20, *, pad: int = 0, eos: int = 1) -> Any:
    """A tiny model, random, in float64 and in evaluation mode: t5, t5 v1.1, t5gemma or t5gemma2."""
    from transformers import AutoModelForSeq2SeqLM

    from turnwise.models.lm.encoder_decoder.trunk import settle_

    torch.manual_seed(0)
    model = AutoModelForSeq2SeqLM.from_config(_config(kind, vocab, pad, eos)).double().eval()
    settle_(model)
    with torch.no_grad():
        for p in model.parameters():  # away from what is the same for all tokens at first
            p.add_(0.1 * torch.randn_like(p))
    return with_exact_norms_(model)


def with_exact_norms_(model: Any) -> Any:
    """T5's norms take their mean squares in float32 whatever they are given: PyTorch's own do not."""
    from torch import nn

    for parent in list(model.modules()):
        for name, norm in list(parent.named_children()):
            if type(norm).__name__ == "T5LayerNorm":
                exact = nn.RMSNorm(len(norm.weight), eps=norm.variance_epsilon)
                exact.weight = norm.weight
                setattr(parent, name, exact)
    return model


def _config(kind: str, vocab: int, pad: int, eos: int) -> Any:
    from transformers import T5Config, T5Gemma2Config, T5GemmaConfig

    ends = {"pad_token_id": pad, "eos_token_id": eos}
    if kind.startswith("t5 ") or kind == "t5":
        size: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
        newer = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False} if kind != "t5" else {}
        return T5Config(vocab_size=vocab, decoder_start_token_id=pad, **ends, **size, **newer)
    side: dict[str, Any] = {
        "vocab_size": vocab,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "sliding_window": 4,
        "query_pre_attn_scalar": 8,
        "max_position_embeddings": 512,
        "layer_types": ["sliding_attention", "full_attention"],
        **ends,
    }
    if kind == "t5gemma":
        return T5GemmaConfig(encoder=side, decoder=side, vocab_size=vocab, dropout_rate=0.0)
    pictures = {"model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8}
    pictures |= {"num_hidden_layers": 1, "num_attention_heads": 1, "image_size": 8, "patch_size": 4}
    tokens = {"image_token_index": vocab - 1, "eoi_token_index": vocab - 2}
    encoder = {"text_config": side, "vision_config": pictures, "mm_tokens_per_image": 4, **tokens}
    return T5Gemma2Config(encoder=encoder | {"boi_token_index": vocab - 3}, decoder=side, **tokens)


def pytest_collection_finish() -> None:
    """What the libraries hold stays to the end: it need not be searched for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture(scope="session")
def row() -> Callable[..., Any]:
    return make_row


@pytest.fixture(scope="session")
def encoder_decoder() -> Callable[..., Any]:
    return make_encoder_decoder


@pytest.fixture(scope="session")
def tokenizer_with() -> Callable[..., Any]:
    return make_tokenizer


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Any]:
    """One tokenizer for each kind of chat template."""
    from turnwise.models.lm.fresh import train_tokenizer

    return {
        "own": train_tokenizer(["hello there, my friend", "it works now"], 300, 64),
        "plain": make_tokenizer(None, ["</s>"], "</s>"),
        "plain, spaced": make_tokenizer(None, ["</s>"], "</s>", prefix=True),
        "chatml": make_tokenizer(CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
        "headers": make_tokenizer(HEADERS, ["<s>", "<|start|>", "<|stop|>", "<|eot|>", "</s>"], "</s>"),
        "instruct": make_tokenizer(INSTRUCT, ["<s>", "</s>"], "</s>"),
        "instruct, spaced": make_tokenizer(INSTRUCT, ["<s>", "</s>"], "</s>", prefix=True),
        "headless": make_tokenizer(HEADLESS, ["<s>", "</s>"], "</s>"),
        "headless, no bos": make_tokenizer(HEADLESS, ["</s>"], "</s>"),
        "rewrites": make_tokenizer(REWRITES, ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
        "endless": make_tokenizer(None, ["<pad>"], None),
    }


@pytest.fixture(scope="session")
def packed_twin() -> Callable[[Any, float, float], list[dict[str, Any]]]:
    """Slow twin of `pack_tokens`: one decision at a time, read off the tokens."""

    def decisions(t: Any, gamma: float, gamma_within_turn: float) -> list[dict[str, Any]]:
        found = []
        positions = [i for i in range(1, len(t)) if t.action[i]]
        for i in positions:
            discount = gamma if t.turn_end[i] else gamma_within_turn
            if t.terminated and i == positions[-1]:
                discount = 0.0
            learnt = i - 1 >= t.learn_from and (t.next_known or i != positions[-1])
            found.append(
                {
                    "decision": i - 1,
                    "action": int(t.ids[i]),
                    "reward": float(t.rewards[i]),
                    "discount": discount,
                    "learnt": learnt,
                }
            )
        return found

    return decisions


@pytest.fixture
def unchecked() -> Iterator[None]:
    """No shapes: learning calls the same functions with the same ones thousands of times."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
