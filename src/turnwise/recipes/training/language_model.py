"""The language model that a run begins with."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from turnwise.data.chat.format import ChatFormat
from turnwise.models.lm.fresh import llama, train_tokenizer
from turnwise.models.lm.pretrained import load_lm
from turnwise.recipes.settings.learning import Learning
from turnwise.recipes.settings.train import Start
from turnwise.run.errors import SettingError
from turnwise.run.files.lock import expect_ended


def begin(start: Start, texts: Iterable[str]) -> tuple[Any, Any]:
    """(language model, tokenizer): what `start` names, or a small Llama and a tokenizer trained on `texts`.

    Fresh weights are drawn from PyTorch's global generator.
    """
    if start.model is None:
        tokenizer = train_tokenizer(texts, start.vocab, start.context)
        return fresh(start, tokenizer), tokenizer
    folder = Path(start.model)
    if (folder / "config.yaml").exists() and not (folder / "config.json").exists():
        expect_ended(folder)
    policy = folder / "policy"
    return load_lm(str(policy if policy.is_dir() else start.model))


def base_name(start: Start, learning: Learning) -> str | None:
    """What adapters that are kept name as their base: a folder, or a hub name; None if none are.

    SettingError for adapters without a model that was there before.
    """
    if learning.lora_rank and start.model is None:
        expected = "0, or a model to adapt as well: adapters of fresh weights would learn nothing"
        raise SettingError("lora_rank", learning.lora_rank, expected)
    return named_base(start.model) if learning.adapters == "kept" else None


def named_base(model: Any) -> str:
    """The name by which adapters find a model again. SettingError for one that is nowhere but in memory."""
    if not isinstance(model, str | Path):
        raise SettingError("adapters", "kept", "merged, or a base that has a folder or a name")
    folder = Path(model)
    policy = folder / "policy"
    found = policy if policy.is_dir() else folder
    return str(found.resolve()) if found.is_dir() else str(model)


def fresh(start: Start, tokenizer: Any) -> Any:
    """A small Llama with weights of its own."""
    return llama(
        len(tokenizer),
        width=start.width,
        layers=start.layers,
        heads=start.heads,
        context=start.context,
        eos=ChatFormat(tokenizer).stop,
        pad=tokenizer.pad_token_id,
    )
