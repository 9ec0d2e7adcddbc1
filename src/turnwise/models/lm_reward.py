"""Reward models in the format of `transformers`: `AutoModelForSequenceClassification` with one label."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from turnwise.models.lm import share_files
from turnwise.models.reward_model import RewardModel
from turnwise.run.errors import InputError


def save_classifier(folder: Path, model: RewardModel, tokenizer: Any) -> None:
    """A sequence classifier whose one logit is the members' mean reward.

    InputError for an architecture of which `transformers` has no sequence classifier with a head `score`.
    """
    from transformers import AutoModelForSequenceClassification

    trunk: Any = model.trunk
    config = trunk.config.__class__.from_dict(trunk.config.to_dict())
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.eos_token_id
    classifier: Any = AutoModelForSequenceClassification.from_config(config)
    if "score" not in dict(classifier.named_children()):
        raise InputError(f"a {config.model_type} model has no head called score; expected one that does")
    classifier.base_model.load_state_dict(trunk.state_dict())
    with torch.no_grad():
        classifier.score.weight.copy_(model.heads.weight.mean(0, keepdim=True))
    folder.mkdir(parents=True, exist_ok=True)
    classifier.to(model.heads.weight.dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    share_files(folder)


def load_classifier(folder: Path) -> tuple[Any, Any]:
    """The classifier's trunk, and its tokenizer. InputError where none can be loaded."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        classifier: Any = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        return classifier.base_model, AutoTokenizer.from_pretrained(folder)
    except Exception as e:  # files that hold no model fail in any way they like
        raise InputError(f"{folder}: not a reward model that can be loaded ({str(e).splitlines()[0]})") from e
