"""Low-rank adapters: put on, folded into the weights that they adapt, and read from the folders of others."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from turnwise.models.lm.encoder_decoder.trunk import is_encoder_decoder
from turnwise.models.target import copy_of_what_learns
from turnwise.run.errors import InputError, SettingError

SETTINGS = "adapter_config.json"
"""what `peft` writes beside an adapter"""
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def with_lora(
    model: Any, rank: int, *, alpha: float | None = None, dropout: float = 0.0, targets: Sequence[str] = ()
) -> Any:
    """Freeze the model and add trainable low-rank adapters to its linear layers (Hu et al. 2021).

    What they add is multiplied by `alpha` / `rank`; None is twice the rank. `dropout` acts on what adapters
    read, in gradient steps alone. `targets`: names of layers, as q_proj; none: all linear ones but the output
    layer. SettingError for one that the model does not have.
    """
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    from turnwise.models.lm.learning.adapted import quicken_

    _expect_targets(model, targets)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank if alpha is None else alpha,  # pyright: ignore[reportArgumentType] (floats too)
        lora_dropout=dropout,
        target_modules=list(targets) or "all-linear",
        task_type="SEQ_2_SEQ_LM" if is_encoder_decoder(model) else "CAUSAL_LM",
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
    )
    with warnings.catch_warnings():
        # peft asks transformers for a name that transformers is about to rename.
        warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
        adapted = get_peft_model(model, config)
    for module in dropouts_of(adapted):
        module.eval()
    quicken_(adapted)
    return adapted


def dropouts_of(model: nn.Module) -> list[nn.Module]:
    """What drops out in adapters; none where the dropout is 0. Whoever learns switches it on and off."""
    return [m for name, m in model.named_modules() if "lora_dropout" in name and isinstance(m, nn.Dropout)]


def _expect_targets(model: Any, targets: Sequence[str]) -> None:
    """SettingError for names that no layer with a matrix of its own has."""
    layers = [n for n, m in model.named_modules() if not [*m.children()] and _matrix_in(m)]
    ends = sorted({n.rpartition(".")[2] for n in layers if n})
    for target in targets:
        if not any(n == target or n.endswith(f".{target}") for n in layers):
            raise SettingError("lora_targets", target, f"names of layers of the model: {', '.join(ends)}")


def _matrix_in(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return isinstance(weight, nn.Parameter) and weight.ndim == 2


def merged(model: Any) -> Any:
    """A plain model with its adapters folded into the weights (itself, if it has none).

    Weights below adapters may be another model's as well: those that change become the model's own.
    """
    if not hasattr(model, "peft_config"):
        return model
    _unshare_(model)
    plain = model.merge_and_unload()
    if hasattr(plain, "peft_config"):
        del plain.peft_config  # it has no adapters any more
    return plain


def merge_adapters_(trunk: nn.Module) -> None:
    """Fold LoRA adapters into the layers that they were put on, in place; plain layers remain."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    _unshare_(trunk)
    for name, layer in list(trunk.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            parent = trunk.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], layer.get_base_layer())


def _unshare_(model: nn.Module) -> None:
    """Give the model weights of its own where adapters are about to change them."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            base: Any = layer.get_base_layer()
            base.weight = nn.Parameter(base.weight.detach().clone(), requires_grad=False)


@dataclass(frozen=True)
class Adapter:
    """Adapters by themselves: what a model learnt, as `peft` calls settings and weights."""

    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    def based_on(self, name: str) -> Adapter:
        """The same, with the name of the model that it adapts."""
        return Adapter({**self.settings, "base_model_name_or_path": name}, self.weights)

    def folded_into(self, lm: Any) -> Any:
        """A model that is `lm` with the adapters folded in; other weights are held once, and `lm` stays.

        InputError for adapters of a model of other shapes.
        """
        from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

        model = copy_of_what_learns(lm.requires_grad_(False))
        known = {f.name for f in fields(LoraConfig)} - {"base_model_name_or_path"}
        config = LoraConfig(**{k: v for k, v in self.settings.items() if k in known})
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore")
                whole = get_peft_model(model, config)
                found = set_peft_model_state_dict(whole, dict(self.weights))
            if found.unexpected_keys:
                raise ValueError(f"the model has no {found.unexpected_keys[0]}")
        except (RuntimeError, ValueError) as e:
            first = (str(e).strip() or type(e).__name__).splitlines()[0]
            raise InputError(f"adapters that do not fit their base ({first[:200]})") from e
        return merged(whole)


def adapter_of(model: Any, trunk: nn.Module | None = None) -> Adapter | None:
    """The adapters of a model, in numbers of their own; None if it has none.

    `trunk`: a copy of its trunk, whose adapters are meant.
    """
    from peft import get_peft_model_state_dict

    if not hasattr(model, "peft_config"):
        return None
    settings = model.peft_config["default"].to_dict() | {"inference_mode": True}
    plain = {k: _plain_setting(v) for k, v in settings.items() if k != "runtime_config"}
    if trunk is None:
        weights = get_peft_model_state_dict(model)
    else:
        before = f"base_model.model.{model.get_base_model().base_model_prefix}."
        named = ((n, p) for n, p in trunk.named_parameters() if "lora_" in n)
        weights = {before + name.replace(".default.", "."): p for name, p in named}
    return Adapter(plain, {name: x.detach().cpu().clone().contiguous() for name, x in weights.items()})


def _plain_setting(value: Any) -> Any:
    """A setting of `peft` as JSON has it."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    return value.value if isinstance(value, Enum) else value


@dataclass(frozen=True)
class AdapterFolder:
    """An adapter that `peft` saved: weights that mean nothing without the model that they were trained on."""

    folder: Path
    settings: Mapping[str, Any]

    @property
    def judges(self) -> bool:
        """Whether it adapts a sequence classifier and no causal language model."""
        return self.settings.get("task_type") == "SEQ_CLS"

    def base(self) -> str:
        """The model that it adapts: a folder, looked for here and beside the adapter, or a name.

        InputError if the adapter does not say, and for a path at which nothing is.
        """
        name = self.settings.get("base_model_name_or_path")
        if not isinstance(name, str) or not name:
            raise InputError(
                f"{self.folder / SETTINGS}: base_model_name_or_path: expected the model that was adapted"
            )
        for place in (Path(name), self.folder / name, self.folder.parent / name):
            if place.is_dir():
                return str(place / "policy" if (place / "policy").is_dir() else place)
        if Path(name).is_absolute() or name.startswith(".") or name.count("/") != 1:
            raise InputError(f"{self.folder}: an adapter of {name}, and no such folder is here; {_EXPECTED}")
        return name

    def labels(self) -> int | None:
        """Labels of the head that it brings; None if it brings none."""
        from peft import load_peft_weights

        if not any((self.folder / file).is_file() for file in WEIGHTS):
            return None
        weights = load_peft_weights(str(self.folder), "cpu")
        heads = [x for name, x in weights.items() if name.endswith(("score.weight", "classifier.weight"))]
        return len(heads[0]) if heads else None

    def on(self, model: Any) -> Any:
        """The model with the adapter folded into its weights. InputError if it does not fit the model."""
        from peft import PeftModel

        kind = str(self.settings.get("peft_type"))
        name = self.settings.get("base_model_name_or_path")
        if not any((self.folder / file).is_file() for file in WEIGHTS):
            raise InputError(f"{self.folder}: no weights ({WEIGHTS[0]}); expected a folder written by peft")
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore")
                self._expect_ranks()
                whole = PeftModel.from_pretrained(model, str(self.folder))
                self._expect_all_of(whole)
                plain = whole.merge_and_unload()
        except AttributeError as e:  # prompts that are learnt have nothing to fold in
            expected = "one that can be folded into the weights, as LoRA"
            raise InputError(f"{self.folder}: an adapter of kind {kind}; expected {expected}") from e
        except Exception as e:  # weights that do not fit fail in any way they like
            first = (str(e).strip() or type(e).__name__).splitlines()[0]
            raise InputError(
                f"{self.folder}: this adapter does not fit its base {name} ({first[:200]})"
            ) from e
        if hasattr(plain, "peft_config"):
            del plain.peft_config  # it has no adapters any more
        head, embedding = plain.get_output_embeddings(), plain.get_input_embeddings()
        if head is not None and head.weight is not embedding.weight:
            plain.config.tie_word_embeddings = False  # an adapted output layer would be lost in a file
        return plain.requires_grad_(True)  # the base was frozen below the adapter

    def _expect_ranks(self) -> None:
        """ValueError for a rank that no weight of the file has: memory would be taken for it first."""
        from peft import load_peft_weights

        most = max(max(x.shape, default=0) for x in load_peft_weights(str(self.folder), "cpu").values())
        for rank in (self.settings.get("r"), *(self.settings.get("rank_pattern") or {}).values()):
            if isinstance(rank, int) and rank > most:
                raise ValueError(f"its rank is {rank:,}, and no weight of its file is longer than {most:,}")

    def _expect_all_of(self, model: Any) -> None:
        """ValueError for an adapter of another model: layers of either are passed over without a word."""
        from peft import get_peft_model_state_dict, load_peft_weights
        from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

        mark = PEFT_TYPE_TO_PREFIX_MAPPING[
            model.active_peft_config.peft_type
        ]  # lora_, in the names of weights
        theirs, ours = set(load_peft_weights(str(self.folder), "cpu")), set(get_peft_model_state_dict(model))
        for names, what in ((theirs - ours, "in the adapter alone"), (ours - theirs, "in the base alone")):
            if names := {x for x in names if mark in x}:
                raise ValueError(f"{len(names)} of its weights are {what}, {min(names)} for one")


_EXPECTED = "expected the base model at that place, or another base_model_name_or_path"


def adapter_in(folder: Path) -> AdapterFolder | None:
    """The adapter of a folder; None if there is none, or a whole model too. InputError if it is broken."""
    if not (folder / SETTINGS).is_file() or [
        *folder.glob("model*.safetensors"),
        *folder.glob("pytorch_model*.bin"),
    ]:
        return None
    try:
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise InputError(f"{folder / SETTINGS}: not JSON ({e})") from e
    if not isinstance(settings, dict):
        raise InputError(f"{folder / SETTINGS}: expected one JSON object")
    return AdapterFolder(folder, settings)
