"""Reward models that others trained: sequence classifiers of one label, read as their authors read them.

The text of prompt and reply is that of the classifier's own chat template, whole, or, if its tokenizer has
none, the prompt and the reply as the tokenizer joins two texts. The reward is the logit that `transformers`
computes for these ids. Models of ours are read by `RewardScorer`, at the reply's stop token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from turnwise.data.feedback import Prompt, shortened
from turnwise.data.tokens import Tokens, TokenWriter
from turnwise.models.lm.pretrained import share_files
from turnwise.run.errors import InputError

ROWS = 64
"""rows read at a time"""


@dataclass(frozen=True)
class ClassifierText:
    """Prompt and reply as ids of a classifier, at most `context` of them."""

    tokenizer: Any
    context: int

    def reply(self, prompt: Prompt, text: str) -> Tokens | None:
        """A row whose actions are what is known to be of the reply: the second of two texts, or the last id.

        A prompt that is too long loses its earliest messages; None if that does not help.
        """
        fitting = shortened(prompt, lambda p: len(self._ids(p, text)[0]) <= self.context)
        if fitting is None:
            return None
        ids, read = self._ids(fitting, text)
        row = TokenWriter()
        row.read(ids[:read])
        row.act(ids[read:], 0.0, None)
        return row.tokens(terminated=True, next_known=True, id="")

    def opening(self, prompt: Prompt) -> list[int]:
        """Ids of a prompt with an empty reply."""
        return self._ids(prompt, "")[0]

    def _ids(self, prompt: Prompt, text: str) -> tuple[list[int], int]:
        """All ids, and how many of them are certainly not the reply's."""
        if self.tokenizer.chat_template:
            chat = [*({"role": m.role, "content": m.content} for m in prompt)]
            chat.append({"role": "assistant", "content": text})
            try:
                whole = self.tokenizer.apply_chat_template(chat, tokenize=False)
            except Exception as e:  # templates raise whatever they like on role orders they do not take
                roles = ", ".join(m["role"] for m in chat)
                raise InputError(f"the reward model's chat template does not take {roles} ({e})") from e
            ids = self.tokenizer(whole, add_special_tokens=False, verbose=False)["input_ids"]
            return ids, len(ids) - 1
        asked = (
            prompt[-1].content if len(prompt) == 1 else "\n".join(f"{m.role}: {m.content}" for m in prompt)
        )
        found = self.tokenizer(asked, text, verbose=False)
        ids = found["input_ids"]
        sides = found.get("token_type_ids") or []
        second = sides.index(1) if 1 in sides else len(ids) - 1
        return ids, max(1, second)


@dataclass(frozen=True)
class ClassifierScorer:
    """A classifier of one label with the tokenizer that it reads with."""

    model: Any
    tokenizer: Any

    @cached_property
    def chat(self) -> ClassifierText:
        """Messages to ids."""
        return ClassifierText(self.tokenizer, self.context)

    @property
    def text(self) -> ClassifierText:
        """Messages to ids that fit its context."""
        return self.chat

    @property
    def context(self) -> int:
        """Tokens of prompt and reply that it can read."""
        config, known = self.model.config, self.tokenizer.model_max_length
        positions = getattr(config, "max_position_embeddings", known)
        if config.model_type in ("roberta", "xlm-roberta", "camembert"):
            positions -= config.pad_token_id + 1  # their positions begin after that of the padding
        return int(min(positions, known))

    @property
    def members(self) -> int:
        """Opinions that it gives."""
        return 1

    @torch.inference_mode()
    def score(self, rows: Sequence[Tokens]) -> np.ndarray:
        """[1, n], the logits of rows."""
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        pad = self.model.config.pad_token_id
        # Without a padding id a classifier that reads at the last id cannot find it behind padding.
        at_once = 1 if pad is None else ROWS
        found = np.empty(len(rows))
        for start in range(0, len(rows), at_once):
            places = order[start : start + at_once]
            inputs = self._inputs([rows[i] for i in places], pad or 0)
            found[places] = self.model(**inputs).logits[:, 0].double().cpu().numpy()
        return found[None]

    def _inputs(self, rows: Sequence[Tokens], pad: int) -> dict[str, torch.Tensor]:
        device, longest = next(self.model.parameters()).device, max(map(len, rows))
        ids = torch.full((len(rows), longest), pad)
        seen, kinds = torch.zeros_like(ids), torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.as_tensor(row.ids)
            seen[i, : len(row)] = 1
            kinds[i, : len(row)] = torch.as_tensor(row.action)
        found = {"input_ids": ids, "attention_mask": seen}
        # Which of two texts a token belongs to; a chat is one text.
        if not self.tokenizer.chat_template and "token_type_ids" in self.tokenizer.model_input_names:
            found["token_type_ids"] = kinds
        return {name: x.to(device) for name, x in found.items()}

    def save(self, folder: Path) -> None:
        """Write what `AutoModelForSequenceClassification` and `AutoTokenizer` load."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        share_files(folder)
