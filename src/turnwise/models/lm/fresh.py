"""Language models from nothing: a tokenizer trained on one's own texts, and a small Llama for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from turnwise.models.room import expect_room
from turnwise.run.errors import SettingError

OWN_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

SPECIAL = ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]


def train_tokenizer(texts: Iterable[str], vocab: int, context: int) -> Any:
    """Byte-level byte-pair tokenizer of at most `vocab` tokens, with a chat template of one token a role.

    Words carry their leading space, so that a word is the same token at the start of a message. SettingError
    for a `vocab` that does not hold the 256 bytes and the special tokens.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab < len(alphabet) + len(SPECIAL):
        raise SettingError("vocab", vocab, f"at least {len(alphabet) + len(SPECIAL)}")
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=SPECIAL[2:],
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = OWN_TEMPLATE
    return fast


def llama(vocab: int, *, width: int, layers: int, heads: int, context: int, eos: int, pad: int) -> Any:
    """A causal LM of Llama's kind with fresh weights and tied embeddings.

    Weights are drawn from PyTorch's global generator, so the caller seeds it. SettingError for a `width` that
    heads with rotary positions, which turn numbers in pairs, cannot share.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    if width % (2 * heads):
        raise SettingError("width", width, f"a multiple of {2 * heads}, twice the number of heads")
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
        # Two thirds of 4 D, as a gated perceptron has three matrices where a plain one has two; a multiple
        # of 16, rounded up.
        intermediate_size=-(-8 * width // 3 // 16) * 16,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
        # The usual 0.02 is too small at these widths: learning to copy a word then takes thousands of steps.
        initializer_range=width**-0.5,
    )
    expect_room("a model of these sizes", lambda: LlamaForCausalLM(config))
    return LlamaForCausalLM(config)
