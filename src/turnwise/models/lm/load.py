"""Language models: a small Llama built from nothing, or any causal LM of `transformers` by name or path."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from turnwise.run.errors import InputError

OWN_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|end|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]


def train_tokenizer(texts: Iterable[str], vocab: int, context: int) -> Any:
    """Byte-level byte-pair tokenizer of at most `vocab` tokens, with a chat template of one token a role.

    Words carry their leading space, so that a word is the same token at the start of a message.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab < len(alphabet) + len(SPECIAL):
        raise InputError(f"--vocab {vocab}: expected at least {len(alphabet) + len(SPECIAL)}")
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
    """A Llama-style causal LM with fresh weights (draw them under a seed of your own); tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    if width % (2 * heads):
        raise InputError(f"--width {width} with --heads {heads}: expected a multiple of twice the heads")
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=width,
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
    return LlamaForCausalLM(config)


def load_lm(name_or_path: str) -> tuple[Any, Any]:
    """A causal LM in float32 and its tokenizer, by hub name or local folder."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = Path(name_or_path)
    if folder.exists():
        expect_model_folder(folder)
    else:
        expect_on_hub(name_or_path)
    without_bars()
    try:
        model = whole_model(AutoModelForCausalLM, name_or_path)
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
    except Exception as e:  # files that hold no model fail in any way they like
        raise InputError(
            f"{name_or_path}: not a causal language model that can be loaded ({first_line(e)})"
        ) from e
    if not tokenizer.encode("Hello there.", add_special_tokens=False):
        raise InputError(
            f"{name_or_path}: its tokenizer turns every text into nothing; expected a folder or name "
            "that has the tokenizer's files too"
        )
    expect_plain_head(model, name_or_path)
    return model, tokenizer


def expect_on_hub(name: str) -> None:
    """Refuse what is no folder and no model that the hub has, or that was taken from it earlier, at once:
    loading would try again and again first.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache

    try:
        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            HfApi().model_info(name, timeout=10)
    except Exception as e:  # names, networks and permissions each fail in a way of their own
        raise InputError(
            f"{name}: no such folder here, and no model that the hub gives by this name ({first_line(e)})"
        ) from e


def window_of(trunk: Any) -> int | None:
    """How many positions back the most short-sighted layer attends; None where all see everything."""
    config = trunk.config
    spans = [getattr(config, "sliding_window", None), getattr(config, "attention_chunk_size", None)]
    if "local" in getattr(config, "attention_layers", ()):  # GPT-Neo
        spans.append(config.window_size)
    return min((span for span in spans if span is not None), default=None)


@torch.no_grad()
def expect_plain_head(model: Any, name: str) -> None:
    """Refuse a model that scales or caps its logits: here they are what its output layer gives."""
    head = lm_head_of(model)
    ids = torch.arange(min(4, model.get_input_embeddings().num_embeddings)).unsqueeze(0)
    was = model.training
    model.eval()
    whole = model(input_ids=ids, use_cache=False).logits
    parts = head(trunk_of(model)(input_ids=ids, use_cache=False).last_hidden_state)
    model.train(was)
    if not torch.allclose(whole, parts, rtol=1e-3, atol=1e-3):
        raise InputError(
            f"{name}: {model.config.model_type} changes its output layer's logits (by a scale or a cap); "
            "expected a model that does not"
        )


def whole_model(kind: Any, name_or_path: str | Path) -> Any:
    """A model all of whose weights were stored: `from_pretrained` draws missing ones at random."""
    model, found = kind.from_pretrained(name_or_path, dtype=torch.float32, output_loading_info=True)
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise ValueError(f"{len(missing)} weights are missing, {missing[0]} for one")
    return model


def expect_model_folder(folder: Path) -> None:
    """Refuse a folder from which no causal LM can come."""
    if not folder.is_dir():
        raise InputError(f"{folder}: expected a folder with a saved model")
    if not (folder / "config.json").exists():
        raise InputError(f"{folder}: config.json is missing; expected a folder written by save_pretrained")
    weights = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if not weights:
        raise InputError(
            f"{folder}: no weights (*.safetensors); expected a folder written by save_pretrained"
        )


def save_lm(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` and `AutoTokenizer` load."""
    folder.mkdir(parents=True, exist_ok=True)
    without_bars()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    share_files(folder)


def share_files(folder: Path) -> None:
    """Give files the permissions that the user's umask asks for (safetensors writes owner-only ones)."""
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.rglob("*"):
        if file.is_file() and stat.S_IMODE(file.stat().st_mode) == 0o600:
            file.chmod(0o666 & ~umask)


def trunk_of(model: Any) -> nn.Module:
    """The part of a causal LM that maps ids to features, adapters included."""
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    return inner.base_model


def lm_head_of(model: Any) -> nn.Module:
    """The map from features to logits over the vocabulary."""
    return model.get_output_embeddings()


def width_of(model: Any) -> int:
    """Features per position, D."""
    return int(model.get_output_embeddings().weight.shape[1])


def with_lora(model: Any, rank: int) -> Any:
    """Freeze the model and add trainable low-rank adapters to its linear layers (Hu et al. 2021)."""
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
    )
    with warnings.catch_warnings():
        # peft asks transformers for a name that transformers is about to rename.
        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
        return get_peft_model(model, config)


def without_bars() -> None:
    """No bars of transformers' own: verbs show their own progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def first_line(e: Exception) -> str:
    """What an error says first, or its kind where it says nothing."""
    text = str(e).strip() or type(e).__name__
    return text.splitlines()[0]


def load_trunk(folder: Path) -> nn.Module:
    """The trunk of a critic, as `save_pretrained` wrote it."""
    from transformers import AutoModel

    expect_model_folder(folder)
    try:
        return whole_model(AutoModel, folder)
    except Exception as e:
        raise InputError(f"{folder}: not a trunk that can be loaded ({first_line(e)})") from e


def merged(model: Any) -> Any:
    """A plain model with its adapters folded into the weights (itself, if it has none)."""
    return model.merge_and_unload() if hasattr(model, "peft_config") else model


def merge_adapters_(trunk: nn.Module) -> None:
    """Fold LoRA adapters into the layers that they were put on, in place; plain layers remain."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(trunk.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent = trunk.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], layer.get_base_layer())


def context_of(model: Any) -> int:
    """The longest history that the model can read, in tokens."""
    return int(model.config.max_position_embeddings)


def parameter_count(module: nn.Module) -> int:
    """Numbers in all parameters, shared ones once."""
    return sum(p.numel() for p in module.parameters())
