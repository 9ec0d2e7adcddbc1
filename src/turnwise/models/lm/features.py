"""Sentences as vectors: the features of an encoder or a causal LM over the tokens of each text.

    f(text) = mean over the text's tokens of h_l(token), or h_l(last token)

with h_l the hidden states behind layer l (0: the embedding). Four details of causal models:

- The first token of a sequence draws attention and huge activations, whatever it is (Xiao et al. 2023,
  arXiv:2309.17453): a token stands before the text and does not count.
- Layers in the middle say more of what a text means than the last one, which is about the next token (Skean
  et al. 2025, arXiv:2502.02013).
- A token knows nothing of what comes after it. If `echo`, the text is read twice in a row and the mean is
  over the second reading, in which each token has seen all of it (Springer et al. 2024, arXiv:2402.15449).

- The last token has seen all of the text, and what depends on order, such as a negation, shows in it and not
  in the mean (Neelakantan et al. 2022, arXiv:2201.10005, take it too): that is what causal models give here.

All vectors of a model have much in common, which hides what differs: who compares them takes the mean and the
direction of most variance away (`data/acts/spaces.Embedded` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnwise.models.lm.encoder_decoder.trunk import is_encoder_decoder
from turnwise.models.lm.learning.recompute import layers_of
from turnwise.models.lm.lora import adapter_in
from turnwise.models.lm.parts import context_of, trunk_of
from turnwise.models.lm.pretrained import (
    cannot_load,
    expect_on_hub,
    load_lm,
    tokenizer_of,
    whole_model,
    without_bars,
)
from turnwise.run.checks import SHARE
from turnwise.run.checks import check as check_numbers
from turnwise.run.errors import InputError
from turnwise.run.progress import Progress

KEPT = 2**15
"""texts whose features are kept: 75 MB of a model with 576 of them"""
MOST_TOKENS = 2**12
"""that are read at a time, padding included"""


@dataclass(frozen=True)
class Features:
    """A model as a function of texts: `Features(trunk, tokenizer)(texts)` is [n, D], float32.

    `depth` is where in the model features are read, as a share of its layers: 1 is the last one, 0 the
    embedding. If `last`, the last token speaks for the text, else the mean of all does. `longest` tokens of a
    text count, and the rest of it does not.
    """

    trunk: Any
    tokenizer: Any
    depth: float = 0.5
    echo: bool = False
    last: bool = False
    longest: int = 128
    quiet: bool = True
    _known: dict[str, np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_numbers(self, depth=SHARE)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """[n, D]; zeros for a text without a token. What was asked lately is not read again."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        known = self._known | dict(zip(new, self._features(new), strict=True))
        found = np.stack([known[text] for text in texts]) if len(texts) else self._features([])
        self._known.update({text: known[text] for text in new})
        while len(self._known) > KEPT:  # the oldest first
            del self._known[next(iter(self._known))]
        return found

    def _features(self, texts: Sequence[str]) -> np.ndarray:
        """[n, D], texts of like lengths read together."""
        rows = [self._ids(text) for text in texts]
        found = np.zeros((len(rows), self.trunk.config.get_text_config().hidden_size), np.float32)
        order = sorted((i for i, (ids, _) in enumerate(rows) if ids), key=lambda i: len(rows[i][0]))
        was = self.trunk.training
        self.trunk.eval()
        done = 0
        with Progress("features", len(order), quiet=self.quiet) as shown:
            for batch in _batches(order, [len(ids) for ids, _ in rows]):
                found[batch] = self._read([rows[i] for i in batch]).float().cpu().numpy()
                done += len(batch)
                shown.at(done)
        self.trunk.train(was)
        return found

    def _ids(self, text: str) -> tuple[list[int], int]:
        """What is read for a text, and how many ids at its end count."""
        first, readings = self._first, 2 if self.echo else 1
        room = (context_of(self.trunk) - len(first)) // readings
        own = self.tokenizer.encode(text, add_special_tokens=False)[: min(self.longest, room)]
        if not own:
            return [], 0
        counted = 1 if self.last else len(own)
        return [*first, *own, *(own if self.echo else [])], counted

    @property
    def _first(self) -> list[int]:
        """A token that stands before every text."""
        t = self.tokenizer
        found = next((i for i in (t.bos_token_id, t.cls_token_id, t.eos_token_id) if i is not None), None)
        return [] if found is None else [found]

    def _read(self, rows: Sequence[tuple[list[int], int]]) -> Tensor:
        """[n, D] of rows of ids, padded on the right."""
        lengths = torch.tensor([len(ids) for ids, _ in rows])
        longest = int(lengths.max())
        ids = torch.tensor([row + row[:1] * (longest - len(row)) for row, _ in rows])
        at = torch.arange(longest)
        real = at < lengths[:, None]  # [n, T]
        counts = real & (at >= (lengths - torch.tensor([n for _, n in rows]))[:, None])
        device = next(self.trunk.parameters()).device
        h = _states(self.trunk, self.depth, ids.to(device), real.long().to(device))  # [n, T, D]
        mean = torch.where(counts[..., None].to(device), h, 0.0).sum(1)
        return mean / counts.sum(1, keepdim=True).to(device)


class _Enough(Exception):
    """The layer that was wanted is reached, and the others need not be computed."""


def _states(trunk: Any, depth: float, ids: Tensor, mask: Tensor) -> Tensor:
    """[n, T, D], the hidden states at that share of the layers; those behind it are not computed."""
    layers = layers_of(trunk)
    at = round(depth * len(layers))
    if at == len(layers):
        return trunk(input_ids=ids, attention_mask=mask).last_hidden_state
    seen: list[Tensor] = []

    def enough(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])
        raise _Enough

    hook = layers[at].register_forward_pre_hook(enough, with_kwargs=True)
    try:
        trunk(input_ids=ids, attention_mask=mask)
    except _Enough:
        pass
    finally:
        hook.remove()
    return seen[0]


def load_features(name_or_path: str | Path, *, quiet: bool = True, **settings: Any) -> Features:
    """Those of a causal LM, at the last token, or of an encoder, the mean, by hub name or folder.

    `settings` are fields of `Features`, in place of the defaults.

    InputError for what is neither.
    """
    name = str(name_or_path)
    folder = Path(name)
    if adapter_in(folder) or _speaks(name):
        return features_of_lm(*load_lm(name), quiet=quiet, **settings)
    from transformers import AutoModel

    without_bars()
    try:
        trunk, tokenizer = whole_model(AutoModel, name), tokenizer_of(name)
    except Exception as e:
        raise cannot_load(name, "a language model or an encoder", e) from e
    reader = trunk.get_encoder() if is_encoder_decoder(trunk) else trunk
    return Features(reader, tokenizer, quiet=quiet, **settings)


def features_of_lm(lm: Any, tokenizer: Any, **settings: Any) -> Features:
    """Those of a causal LM, at the last token, or of the encoder of an encoder-decoder, the mean."""
    if is_encoder_decoder(lm):
        inner = lm.get_base_model() if hasattr(lm, "peft_config") else lm
        return Features(inner.get_encoder(), tokenizer, **settings)
    return Features(trunk_of(lm), tokenizer, **{"last": True, **settings})


def _speaks(name: str) -> bool:
    """Whether a model is a causal LM; an encoder is none. InputError if there is no such model."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if not Path(name).exists():
        expect_on_hub(name)
    elif not (Path(name) / "config.json").is_file():
        raise InputError(
            f"{name}: config.json is missing; expected the folder of a language model or an encoder"
        )
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as e:
        raise cannot_load(name, "a language model or an encoder", e) from e
    written = config.architectures or []
    if written:
        return any(a.endswith(("ForCausalLM", "LMHeadModel")) for a in written)
    return type(config) in AutoModelForCausalLM._model_mapping


def _batches(order: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Rows of like lengths together, at most `MOST_TOKENS` with their padding, one row at least."""
    found: list[list[int]] = []
    for i in order:  # from short to long: the newest row is the longest of its batch
        if found and (len(found[-1]) + 1) * lengths[i] <= MOST_TOKENS:
            found[-1].append(i)
        else:
            found.append([i])
    return found
