"""A trained reward model on disk and in use."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from turnwise.data.batch import pack_tokens
from turnwise.data.chat.format import ChatFormat
from turnwise.data.feedback import Prompt, shortened
from turnwise.data.tokens import Tokens
from turnwise.models.lm.classifier import save_classifier
from turnwise.models.lm.parts import context_of
from turnwise.models.lm.pretrained import share_files
from turnwise.models.lm.reward_model import AnyRewardModel, RewardEnsemble, RewardModel
from turnwise.run.errors import InputError
from turnwise.run.files.digests import LISTED, checksums
from turnwise.run.files.whole import whole_folder

HEADS, SETTINGS = "heads.safetensors", "turnwise.json"
ROWS = 128
"""rows read at a time"""


@dataclass(frozen=True)
class FittingText:
    """Prompt and reply as ids, at most `context` of them: a prompt that is too long loses its earliest
    messages.
    """

    chat: ChatFormat
    context: int

    def reply(self, prompt: Prompt, text: str) -> Tokens | None:
        """The row; None if it is too long even with the last message alone."""
        row = self.chat.reply(prompt, text)
        if len(row) <= self.context:
            return row
        fitting = shortened(prompt, lambda p: len(self.chat.reply(p, text)) <= self.context)
        return None if fitting is None else self.chat.reply(fitting, text)


@dataclass(frozen=True)
class RewardScorer:
    """A reward model with the tokenizer that it reads with."""

    model: AnyRewardModel
    tokenizer: Any

    @cached_property
    def chat(self) -> ChatFormat:
        """Messages to ids."""
        return ChatFormat(self.tokenizer)

    @property
    def text(self) -> FittingText:
        """Messages to ids that fit its context."""
        return FittingText(self.chat, self.context)

    @property
    def parts(self) -> list[RewardModel]:
        """Models that read by themselves."""
        models = self.model.models if isinstance(self.model, RewardEnsemble) else [self.model]
        return [model for model in models if isinstance(model, RewardModel)]

    @property
    def context(self) -> int:
        """Tokens of prompt and reply that it can read."""
        return context_of(self.parts[0].trunk)

    @property
    def members(self) -> int:
        """Opinions that it gives."""
        return sum(len(part.heads.weight) for part in self.parts)

    def score(self, rows: Sequence[Tokens]) -> np.ndarray:
        """[E, n], rewards of rows by each member. InputError for a row beyond the model's context."""
        longest = max(map(len, rows), default=0)
        if longest > self.context:
            raise InputError(
                f"prompt and reply have {longest} tokens for the reward model, more than its context of "
                f"{self.context}; expected shorter replies, or a reward model with a longer context"
            )
        return scorer(self.model)(rows)

    def save(self, folder: Path) -> None:
        """What `AutoModelForSequenceClassification` loads, the mean of its heads; all heads beside it.

        Models that read by themselves go to folders of their own, member-0, member-1, ... The folder is there
        whole or not at all.
        """
        stop = self.chat.stop
        models = self.parts
        alone = len(models) == 1
        with whole_folder(folder, SETTINGS) as whole:
            for i, model in enumerate(models):
                where = whole if alone else whole / f"member-{i}"
                save_classifier(where, model, self.tokenizer, stop)
                save_file({"heads": model.heads.weight.detach().cpu().contiguous()}, where / HEADS)
            share_files(whole)
            settings = {"kind": "reward", "models": len(models), LISTED: checksums(whole)}
            (whole / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def scorer(model: AnyRewardModel) -> Callable[[Sequence[Tokens]], np.ndarray]:
    """Rows -> [E, n]; rows of like lengths are read together."""

    @torch.inference_mode()
    def score(rows: Sequence[Tokens]) -> np.ndarray:
        model.eval()
        device = next(model.parameters()).device
        order = np.argsort([len(t) for t in rows], kind="stable")
        found = []
        for start in range(0, len(rows), ROWS):
            b = pack_tokens([rows[i] for i in order[start : start + ROWS]], gamma=1.0).to(device)
            found.append(model(b.inputs, b.decisions).double().cpu().numpy())
        each = np.concatenate(found, 1)
        return each[:, np.argsort(order)]

    return score
