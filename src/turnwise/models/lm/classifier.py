"""Reward models on language models; in the format of `transformers`, sequence classifiers of one label."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from turnwise.models.lm.encoder_decoder.trunk import EncoderDecoder
from turnwise.models.lm.lora import AdapterFolder, adapter_in, merge_adapters_
from turnwise.models.lm.parts import trunk_of
from turnwise.models.lm.pretrained import (
    base_of,
    cannot_load,
    expect_model_folder,
    expect_on_hub,
    make_room_,
    share_files,
    tokenizer_of,
    whole_model,
    without_bars,
)
from turnwise.models.lm.reward_model import RewardModel
from turnwise.run.errors import InputError

READ_AT_STOP = "turnwise_read_at_stop"
"""entry of `config.json` by which a classifier says that it is one of ours"""


def adapted_trunks(lm: Any, adapt: Callable[[Any], Any], members: int) -> list[nn.Module]:
    """Trunks with adapters of their own, put on by `adapt`, on weights that are held once, and frozen."""
    held = {id(x): x for x in [*lm.parameters(), *lm.buffers()]}
    return [trunk_of(adapt(copy.deepcopy(lm, dict(held)))) for _ in range(members)]


def save_classifier(folder: Path, model: RewardModel, tokenizer: Any, stop: int) -> None:
    """A folder for `AutoModelForSequenceClassification`: the logit is the mean reward of the heads.

    Adapters are folded in. The classifier reads at the last id that is no padding, and replies end with
    `stop`: so padding must be another id. Where the tokenizer pads with `stop`, another of its special tokens
    takes its place; where it has no other, its padding is taken away, and `config.pad_token_id` is an id that
    no row ends with. InputError for an architecture without a classifier of such a kind.

    An encoder-decoder is saved as its base model, for `AutoModel`: the classifiers of `transformers` let the
    decoder read the whole text once more, and not the reply alone.
    """
    from transformers import AutoModelForSequenceClassification

    trunk: Any = _plain(model.trunk)
    if isinstance(trunk, EncoderDecoder):
        _save_base(folder, trunk, tokenizer)
        return
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


def _save_base(folder: Path, trunk: EncoderDecoder, tokenizer: Any) -> None:
    """A folder for `AutoModel`, which has the encoder and the decoder by these names in every family."""
    from transformers import AutoModel

    config = trunk.config.__class__.from_dict(trunk.config.to_dict())
    base: Any = AutoModel.from_config(config, trust_remote_code=False)
    missing, unexpected = base.load_state_dict(trunk.state_dict(), strict=False)
    # An embedding that both share has a third name in the base.
    untied = {x for x in missing if base.get_parameter(x) is not base.get_input_embeddings().weight}
    if untied or unexpected:
        raise InputError(f"a {config.model_type} model has weights beside its encoder and its decoder")
    folder.mkdir(parents=True, exist_ok=True)
    without_bars()
    base.to(next(trunk.parameters()).dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    share_files(folder)


def load_classifier(folder: Path) -> tuple[Any, Any, torch.Tensor]:
    """The classifier's trunk, its tokenizer and its head's weights [1, D].

    An encoder-decoder has no head of its own, so that they are empty. InputError if nothing can be loaded.
    """
    from transformers import AutoModel, AutoModelForSequenceClassification

    expect_model_folder(folder)
    without_bars()
    try:
        if getattr(_config_of(str(folder)), "is_encoder_decoder", False):
            base = whole_model(AutoModel, folder)
            return EncoderDecoder.of(base), tokenizer_of(folder), torch.empty(0, 0)
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

    Adapters are folded in. InputError for another kind of model, and for one with several labels: none of
    them is a reward.
    """
    from transformers import AutoModelForSequenceClassification

    folder = Path(name_or_path)
    if adapter := adapter_in(folder):
        return _adapted_classifier(adapter)
    if folder.exists():
        expect_model_folder(folder)
    else:
        expect_on_hub(name_or_path)
    without_bars()
    config = _config_of(name_or_path)
    kinds = config.architectures or [config.model_type]
    if not any(is_classifier(kind) for kind in kinds):
        raise InputError(
            f"{name_or_path}: a {', '.join(kinds)}; expected a reward model, which is a sequence classifier "
            "of one label"
        )
    _expect_one_label(name_or_path, config.num_labels, config.id2label.values())
    try:
        model: Any = whole_model(AutoModelForSequenceClassification, name_or_path)
        tokenizer = tokenizer_of(name_or_path)
        make_room_(model, tokenizer, name_or_path)
    except Exception as e:  # files that hold no model fail in any way they like
        raise cannot_load(name_or_path, "a reward model", e) from e
    return model.eval().requires_grad_(False), tokenizer


def _adapted_classifier(adapter: AdapterFolder) -> tuple[Any, Any]:
    """A classifier from an adapter that brings its head, and the language model (or classifier) below."""
    from transformers import AutoModelForSequenceClassification

    folder = adapter.folder
    if not adapter.judges:
        raise InputError(
            f"{folder}: an adapter of a language model; expected one of a classifier of one label"
        )
    labels = adapter.labels()
    if labels is None:
        raise InputError(
            f"{folder}: no head of a classifier (score) is among the adapter's weights; expected it"
        )
    _expect_one_label(str(folder), labels, ())
    without_bars()

    def base(name: str) -> Any:
        if not Path(name).exists():
            expect_on_hub(name)
        config = _config_of(name)
        config.num_labels = 1
        try:  # the head is drawn at random, and comes with the adapter
            return AutoModelForSequenceClassification.from_pretrained(
                name, config=config, dtype=torch.float32, trust_remote_code=False
            )
        except Exception as e:
            raise cannot_load(name, "a model that can be adapted", e) from e

    model = adapter.on(base_of(adapter, base))
    own = (folder / "tokenizer_config.json").is_file()
    tokenizer = tokenizer_of(folder if own else adapter.base())
    if model.config.pad_token_id is None and tokenizer.pad_token_id is not None:
        model.config.pad_token_id = tokenizer.pad_token_id  # as it was trained: in batches, with padding
    return model.eval().requires_grad_(False), tokenizer


def _config_of(name: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as e:  # files that hold no model fail in any way they like
        raise cannot_load(name, "a reward model", e) from e


def _expect_one_label(name: str, count: int, labels: Iterable[Any]) -> None:
    if count == 1:
        return
    named = ", ".join(str(x) for x in list(labels)[:5])
    raise InputError(
        f"{name}: a classifier of {count} labels{f' ({named})' if named else ''}; expected a single label "
        "(num_labels=1), as a reward is one number"
    )


def is_classifier(architecture: str) -> bool:
    """Whether a class of `transformers` of that name classifies sequences."""
    return architecture.endswith("ForSequenceClassification")
