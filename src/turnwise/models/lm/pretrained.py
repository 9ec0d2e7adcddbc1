"""Language models and trunks of critics, from and to folders of `transformers`; others are refused."""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from turnwise.models.lm.encoder_decoder.trunk import (
    context_of_encoder_decoder,
    is_encoder_decoder,
    settle_,
    start_of,
)
from turnwise.models.lm.learning.precision import CAME_IN, stored_precision
from turnwise.models.lm.lora import AdapterFolder, adapter_in
from turnwise.models.lm.parts import features_at, lm_head_of, trunk_of
from turnwise.models.room import expect_room
from turnwise.run.errors import InputError


def load_lm(name_or_path: str) -> tuple[Any, Any]:
    """A causal LM or an encoder-decoder in float32 and its tokenizer, by hub name or local folder.

    Adapters are folded in.
    """
    folder = Path(name_or_path)
    if adapter := adapter_in(folder):
        return _load_adapted(adapter)
    if folder.exists():
        expect_model_folder(folder)
    else:
        expect_on_hub(name_or_path)
    without_bars()
    try:
        model = speaking_model(name_or_path)
        tokenizer = tokenizer_of(name_or_path)
    except Exception as e:  # files that hold no model fail in any way they like
        raise cannot_load(name_or_path, "a causal language model", e) from e
    if not tokenizer.encode("Hello there.", add_special_tokens=False):
        raise InputError(
            f"{name_or_path}: its tokenizer turns every text into nothing; expected a folder or name "
            "that has the tokenizer's files too"
        )
    make_room_(model, tokenizer, name_or_path)
    expect_known_head(model, name_or_path)
    return model, tokenizer


def speaking_model(name_or_path: str) -> Any:
    """A causal LM, or an encoder-decoder: its config says which."""
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = _config_of(name_or_path)
    if not getattr(config, "is_encoder_decoder", False):
        return whole_model(AutoModelForCausalLM, name_or_path)
    model = whole_model(AutoModelForSeq2SeqLM, name_or_path)
    settle_(model)
    return model


def _load_adapted(adapter: AdapterFolder) -> tuple[Any, Any]:
    """The base with the adapter in it; the tokenizer is the one beside the adapter, if there is one."""
    if adapter.judges:
        raise InputError(f"{adapter.folder}: an adapter of a classifier; expected one of a language model")
    model, tokenizer = base_of(adapter, load_lm)
    if (adapter.folder / "tokenizer_config.json").is_file():
        tokenizer = tokenizer_of(adapter.folder)
        make_room_(model, tokenizer, str(adapter.folder))
    model = adapter.on(model)
    expect_known_head(model, str(adapter.folder))
    return model, tokenizer


def base_of(adapter: AdapterFolder, load: Callable[[str], Any]) -> Any:
    """What `load` makes of the model that was adapted. InputError that names it, if it cannot be loaded."""
    base = adapter.base()
    try:
        return load(base)
    except RecursionError:
        raise InputError(
            f"{adapter.folder}: an adapter of {base}, which leads back to it; expected a whole model at "
            "its end"
        ) from None
    except InputError as e:
        raise InputError(f"{adapter.folder}: an adapter of {base}, which cannot be loaded: {e}") from e


def load_tokenizer(name_or_path: str) -> tuple[Any, int]:
    """The tokenizer of a causal LM and the longest history that it reads, in tokens; no weights are read."""
    if not Path(name_or_path).exists():
        expect_on_hub(name_or_path)
    try:
        config = _config_of(name_or_path)
        if getattr(config, "is_encoder_decoder", False):
            return tokenizer_of(name_or_path), context_of_encoder_decoder(config)
        return tokenizer_of(name_or_path), int(config.get_text_config().max_position_embeddings)
    except Exception as e:  # files that hold no model fail in any way they like
        raise cannot_load(name_or_path, "a causal language model", e) from e


def load_trunk(folder: Path) -> nn.Module:
    """The trunk of a critic, as `save_pretrained` wrote it."""
    from transformers import AutoModel

    expect_model_folder(folder)
    try:
        return whole_model(AutoModel, folder)
    except Exception as e:
        raise cannot_load(folder, "a trunk", e) from e


def whole_model(kind: Any, name_or_path: str | Path) -> Any:
    """A model all of whose weights were stored: `from_pretrained` draws missing ones at random.

    Code that comes with it is not run, and one that is too large for this machine is refused beforehand.
    """
    config = _config_of(name_or_path)
    expect_room(str(name_or_path), lambda: kind.from_config(config, trust_remote_code=False))
    model, found = kind.from_pretrained(
        name_or_path, dtype=torch.float32, output_loading_info=True, trust_remote_code=False
    )
    if found["missing_keys"]:
        missing = sorted(found["missing_keys"])
        raise ValueError(f"{len(missing)} weights are missing, {missing[0]} for one")
    setattr(model, CAME_IN, stored_precision(name_or_path, config))
    return model


def _config_of(name_or_path: str | Path) -> Any:
    """The sizes of a model; those that no model has are refused before anything is made of them."""
    from transformers import AutoConfig, PreTrainedConfig

    raw, _ = PreTrainedConfig.get_config_dict(name_or_path)
    _expect_countable(name_or_path, raw)
    return AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)


def tokenizer_of(name_or_path: str | Path) -> Any:
    """The tokenizer of a model; code that comes with it is not run."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name_or_path, trust_remote_code=False)


def cannot_load(name_or_path: str | Path, what: str, e: Exception) -> InputError:
    """The refusal of what is not `what`, to be raised, given how loading it failed."""
    if isinstance(e, InputError):  # it says already what is wrong
        return e
    if "trust_remote_code" in str(e):
        return InputError(
            f"{name_or_path}: comes with code of its own (auto_map), which is never run here; expected "
            f"{what} whose code is part of transformers"
        )
    return InputError(f"{name_or_path}: not {what} that can be loaded ({first_line(e)})")


MOST_PARTS = 10_000
"""layers, experts or labels of a model that are not taken for a mistake: each is built one by one"""


def _expect_countable(name_or_path: str | Path, config: Mapping[str, Any]) -> None:
    """InputError for numbers of layers and the like that no model has: making so many would never end."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            _expect_countable(name_or_path, value)
        counts = any(word in key for word in ("layer", "expert", "block", "label"))
        if counts and isinstance(value, int) and value > MOST_PARTS:
            raise InputError(f"{name_or_path}: {key} is {value:,}; expected at most {MOST_PARTS:,}")


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


@torch.no_grad()
def make_room_(model: Any, tokenizer: Any, name: str) -> None:
    """Give every token that can occur an embedding, in place; a warning says for how many there was none.

    A new one is the mean of those that were there, so that it is the same one at every loading. Special
    tokens that neither the chat template nor the ends of texts need do not count: `transformers` adds some by
    itself.
    """
    added = tokenizer.added_tokens_decoder
    tokens = max(len(tokenizer), 1 + max(added, default=-1))
    known = model.get_input_embeddings().num_embeddings
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}
    template = str(tokenizer.chat_template)
    spare = {i for i, t in added.items() if t.special and i not in ends and t.content not in template}
    if all(i in spare for i in range(known, tokens)):
        return
    warnings.warn(
        f"{name}: its tokenizer has {tokens:,} tokens and its embedding {known:,}; the others begin with the "
        "mean of those",
        stacklevel=2,
    )
    model.resize_token_embeddings(tokens, mean_resizing=False)
    for layer in filter(None, (model.get_input_embeddings(), model.get_output_embeddings())):
        layer.weight[known:] = layer.weight[:known].mean(0)
        if getattr(layer, "bias", None) is not None:
            layer.bias[known:] = layer.bias[:known].mean()


@torch.no_grad()
def expect_known_head(model: Any, name: str) -> None:
    """Refuse a model whose logits are not those of `lm_head_of`."""
    ids = torch.arange(min(4, model.get_input_embeddings().num_embeddings)).unsqueeze(0)
    was = model.training
    model.eval()
    every = torch.arange(ids.shape[1]).unsqueeze(0)  # each position of a row, as if it were a decision
    try:
        if is_encoder_decoder(model):  # one id is the history, and the decoder reads the others
            said = torch.cat([torch.full((1, 1), start_of(model.config)), ids[:, 1:]], 1)
            seen = {"attention_mask": ids[:, :1] >= 0, "decoder_attention_mask": said >= 0}  # pad tokens too
            whole = model(input_ids=ids[:, :1], decoder_input_ids=said, use_cache=False, **seen).logits
        else:
            whole = model(input_ids=ids, use_cache=False).logits
        parts = lm_head_of(model)(features_at(trunk_of(model), ids, every))
    except (AttributeError, RuntimeError) as e:
        raise InputError(
            f"{name}: {model.config.model_type} is not a trunk with an output layer behind it "
            f"({first_line(e)})"
        ) from e
    model.train(was)
    size = float(whole.abs().max())
    if whole.shape != parts.shape or not torch.allclose(whole, parts, rtol=0.0, atol=1e-5 * max(1.0, size)):
        raise InputError(
            f"{name}: {model.config.model_type} changes its output layer's logits in a way that is not known "
            "here; expected a model that scales or caps them, or neither"
        )


def first_line(e: Exception) -> str:
    """The first line of an error, or its kind if it says nothing."""
    text = str(e).strip() or type(e).__name__
    return text.splitlines()[0]


def save_lm(folder: Path, model: Any, tokenizer: Any) -> None:
    """Write a folder that `AutoModelForCausalLM` (or `AutoModelForSeq2SeqLM`) and `AutoTokenizer` load."""
    folder.mkdir(parents=True, exist_ok=True)
    without_bars()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    share_files(folder)


def generation_of(
    model: Any,
    tokenizer: Any,
    *,
    stop: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    max_new_tokens: int,
) -> Any:
    """A `GenerationConfig` by which `transformers` says what the policy says here, and ends where it does.

    `stop` alone ends a reply, as it did in training: another end that the model brought may be a word in its
    tokenizer. Whatever else it brought (a penalty for repetition, a longest length) is left out too.
    """
    from transformers import GenerationConfig

    before = model.generation_config
    pad = next(x for x in (tokenizer.pad_token_id, tokenizer.eos_token_id, stop) if x is not None)
    # Without a word on top_k and top_p, `transformers` cuts at its own defaults.
    sampling = {"temperature": temperature, "top_k": top_k or 0, "top_p": 1.0 if top_p is None else top_p}
    start = {"decoder_start_token_id": start_of(model.config)} if is_encoder_decoder(model) else {}
    return GenerationConfig(
        **start,
        bos_token_id=getattr(before, "bos_token_id", None),
        eos_token_id=[stop],
        pad_token_id=pad,
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        **(sampling if temperature > 0 else {}),
    )


def share_files(folder: Path) -> None:
    """Give files the permissions that the user's umask asks for (safetensors writes owner-only ones)."""
    umask = os.umask(0)
    os.umask(umask)
    for file in folder.rglob("*"):
        if file.is_file() and stat.S_IMODE(file.stat().st_mode) == 0o600:
            file.chmod(0o666 & ~umask)


def without_bars() -> None:
    """No bars of transformers' own: verbs show their own progress."""
    from transformers.utils import logging

    logging.disable_progress_bar()
