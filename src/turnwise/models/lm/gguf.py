"""A language model in one GGUF file, made a folder that everything here takes."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from turnwise.models.lm.pretrained import (
    cannot_load,
    expect_known_head,
    make_room_,
    save_lm,
    without_bars,
)
from turnwise.models.room import expect_room
from turnwise.run.errors import InputError, SettingError
from turnwise.run.files.whole import whole_folder

_MAGIC = b"GGUF"


def model_folder(gguf: str | Path, out: str | Path, *, overwrite: bool = False) -> Path:
    """Write the causal LM of a GGUF file, with its tokenizer and chat template, as a folder; return that.

    `transformers` reads the file, so its architecture must be one that it knows in that form (Llama, Qwen,
    Mistral, Gemma, Phi, SmolLM, ...). Quantised weights are written out in single precision: four bits a
    weight become 32, and nothing is rounded again. InputError for a file that holds no such model, or if the
    package `gguf` is missing; SettingError for an `out` that is there, without `overwrite`.
    """
    file, folder = Path(gguf), Path(out)
    _expect_gguf(file)
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise SettingError("out", str(folder), "a new folder, or overwrite beside it")
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    without_bars()
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
        expect_room(str(file), lambda: AutoModelForCausalLM.from_config(config, trust_remote_code=False))
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
        )
        model, found = loaded
        if found["missing_keys"]:
            raise ValueError(f"{len(found['missing_keys'])} weights are missing")
    except Exception as e:  # files that hold no model fail in any way they like
        raise cannot_load(file, "a causal language model", e) from e
    model = _plain(model)
    make_room_(model, tokenizer, str(file))
    expect_known_head(model, str(file))
    with whole_folder(folder, mark="config.json") as part:
        save_lm(part, model, tokenizer)
    return folder


def _plain(model: Any) -> Any:
    """The same model as one that was never quantised, which alone can be saved."""
    from transformers import AutoModelForCausalLM

    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.random.fork_rng(devices=[]):  # weights are drawn first
        plain = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    return plain.eval()


def _expect_gguf(file: Path) -> None:
    if not file.is_file():
        raise InputError(f"{file}: expected a GGUF file; found no such file")
    with file.open("rb") as read:
        begins = read.read(len(_MAGIC))
    if begins != _MAGIC:
        raise InputError(f"{file}: expected a GGUF file, which begins with {_MAGIC.decode()}")
    if find_spec("gguf") is None:
        raise InputError(f"{file}: needs the package gguf (pip install gguf)")
