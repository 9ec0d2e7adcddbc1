"""Reward models on language models; in the format of `transformers`, sequence classifiers of one label."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from turnwise.models.lm.lora import merge_adapters_, with_lora
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.pretrained import (
    cannot_load,
    expect_model_folder,
    expect_on_hub,
    share_files,
    tokenizer_of,
    whole_model,
    without_bars,
)
from turnwise.models.lm.reward_model import RewardModel
from turnwise.run.errors import InputError

READ_AT_STOP = "turnwise_read_at_stop"
"""entry of `config.json` by which a classifier says that it is one of ours"""


def adapted_trunks(lm: Any, rank: int, members: int) -> list[nn.Module]:
    """Trunks with low-rank adapters of their own on weights that are held once, and frozen."""
    held = {id(x): x for x in [*lm.parameters(), *lm.buffers()]}
    return [trunk_of(with_lora(copy.deepcopy(lm, dict(held)), rank)) for _ in range(members)]


def save_classifier(folder: Path, model: RewardModel, tokenizer: Any, stop: int) -> None:
    """A folder for `AutoModelForSequenceClassification`: the logit is the mean reward of the heads.

    Adapters are folded in. The classifier reads at the last id that is no padding, and replies end with
    `stop`: so padding must be another id. Where the tokenizer pads with `stop`, another of its special tokens
    takes its place; where it has no other, its padding is taken away, and `config.pad_token_id` is an id that
    no row ends with. InputError for an architecture without a classifier of such a kind.
    """
    from transformers import AutoModelForSequenceClassification

    trunk: Any = _plain(model.trunk)
    tokenizer = copy.deepcopy(tokenizer)
    config = trunk.config.__class__.from_dict(trunk.config.to_dict())
    config.num_labels, config.pad_token_id = 1, set_padding_(tokenizer, stop)
    # Ours are read at the stop token, whatever a chat template writes after it: whoever loads the classifier
    # can know.
    setattr(config, READ_AT_STOP, True)
    try:
        classifier: Any = AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    except ValueError as e:
        raise InputError(f"a {config.model_type} model has no sequence classifier in transformers") from e
    if not isinstance(getattr(classifier, "score", None), nn.Linear):
        raise InputError(f"the classifier of a {config.model_type} model has no linear layer called score")
    classifier.base_model.load_state_dict(trunk.state_dict())
    with torch.no_grad():
        classifier.score.weight.copy_(model.heads.weight.mean(0, keepdim=True))
    folder.mkdir(parents=True, exist_ok=True)
    without_bars()
    classifier.to(model.heads.weight.dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    share_files(folder)


def load_classifier(folder: Path) -> tuple[Any, Any, torch.Tensor]:
    """The classifier's trunk, its tokenizer and its head's weights [1, D]. InputError if they cannot be
    loaded.
    """
    from transformers import AutoModelForSequenceClassification

    expect_model_folder(folder)
    without_bars()
    try:
        classifier: Any = whole_model(AutoModelForSequenceClassification, folder)
        tokenizer = tokenizer_of(folder)
        return classifier.base_model, tokenizer, classifier.score.weight.detach()
    except Exception as e:  # files that hold no model fail in any way they like
        raise cannot_load(folder, "a reward model", e) from e


def set_padding_(tokenizer: Any, stop: int) -> int:
    """Make the tokenizer pad with something else than `stop`; the id."""
    if tokenizer.pad_token_id not in (None, stop):
        return int(tokenizer.pad_token_id)
    others = [i for i in sorted(tokenizer.all_special_ids) if i != stop]
    if others:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(others[0])
        return others[0]
    tokenizer.pad_token = None
    return 0 if stop else 1


def _plain(trunk: nn.Module) -> nn.Module:
    """The trunk without adapters; a copy if it has any, since members may share the weights below."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not any(isinstance(m, BaseTunerLayer) for m in trunk.modules()):
        return trunk
    trunk = copy.deepcopy(trunk)
    merge_adapters_(trunk)
    return trunk


def one_label_classifier(name_or_path: str) -> tuple[Any, Any]:
    """Anybody's sequence classifier with one label, in float32, and its tokenizer; by folder or hub name.

    InputError for another kind of model, and for one with several labels: none of them is a reward.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    folder = Path(name_or_path)
    if folder.exists():
        expect_model_folder(folder)
    else:
        expect_on_hub(name_or_path)
    without_bars()
    try:
        config: Any = AutoConfig.from_pretrained(name_or_path, trust_remote_code=False)
    except Exception as e:  # files that hold no model fail in any way they like
        raise cannot_load(name_or_path, "a reward model", e) from e
    kinds = config.architectures or [config.model_type]
    if not any(is_classifier(kind) for kind in kinds):
        raise InputError(
            f"{name_or_path}: a {', '.join(kinds)}; expected a reward model, which is a sequence classifier "
            "of one label"
        )
    if config.num_labels != 1:
        labels = ", ".join(str(x) for x in list(config.id2label.values())[:5])
        raise InputError(
            f"{name_or_path}: a classifier of {config.num_labels} labels ({labels}); expected a single label "
            "(num_labels=1), as a reward is one number"
        )
    try:
        model: Any = whole_model(AutoModelForSequenceClassification, name_or_path)
        tokenizer = tokenizer_of(name_or_path)
    except Exception as e:
        raise cannot_load(name_or_path, "a reward model", e) from e
    return model.eval().requires_grad_(False), tokenizer


def is_classifier(architecture: str) -> bool:
    """Whether a class of `transformers` of that name classifies sequences."""
    return architecture.endswith("ForSequenceClassification")
