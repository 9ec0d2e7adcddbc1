"""A trained reward model on disk and in use."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from turnwise.data.batch import pack_tokens
from turnwise.data.tokens import ChatFormat, Tokens
from turnwise.models.lm import share_files
from turnwise.models.lm_reward import load_classifier, save_classifier
from turnwise.models.reward_model import RewardModel
from turnwise.run.errors import InputError

HEADS, SETTINGS = "heads.safetensors", "turnwise.json"
ROWS = 128
"""rows read at a time"""


@dataclass(frozen=True)
class RewardScorer:
    """A reward model with the tokenizer that it reads with."""

    model: RewardModel
    tokenizer: Any

    @property
    def chat(self) -> ChatFormat:
        """Messages to ids."""
        return ChatFormat(self.tokenizer)

    def score(self, rows: Sequence[Tokens]) -> np.ndarray:
        """[E, n], rewards of rows by each member."""
        return scorer(self.model)(rows)

    def save(self, folder: Path) -> None:
        """What `AutoModelForSequenceClassification` loads (the members' mean), with all heads beside it."""
        save_classifier(folder, self.model, self.tokenizer)
        heads = self.model.heads.weight.detach().cpu().contiguous()
        save_file({"heads": heads}, folder / HEADS)
        (folder / SETTINGS).write_text(json.dumps({"kind": "reward"}) + "\n", encoding="utf-8")
        share_files(folder)


def scorer(model: RewardModel) -> Callable[[Sequence[Tokens]], np.ndarray]:
    """Rows -> [E, n]; rows of like lengths are read together."""

    @torch.inference_mode()
    def score(rows: Sequence[Tokens]) -> np.ndarray:
        model.eval()
        device = model.heads.weight.device
        order = np.argsort([len(t) for t in rows], kind="stable")
        found = np.empty((model.heads.weight.shape[0], len(rows)))
        for start in range(0, len(rows), ROWS):
            part = order[start : start + ROWS]
            b = pack_tokens([rows[i] for i in part], gamma=1.0).to(device)
            found[:, part] = model(b.inputs, b.decisions[:, -1]).double().cpu().numpy()
        return found

    return score


def load_reward(path: str | Path) -> RewardScorer:
    """A reward model from its run folder or its saved folder. InputError where there is none."""
    folder = Path(path)
    if (folder / "reward").is_dir():
        folder = folder / "reward"
    settings = folder / SETTINGS
    if not settings.exists() or json.loads(settings.read_text(encoding="utf-8")).get("kind") != "reward":
        raise InputError(f"{path}: expected the run of a reward model (turnwise train reward)")
    trunk, tokenizer = load_classifier(folder)
    heads = load_file(folder / HEADS)["heads"]
    model = RewardModel(trunk, heads.shape[1], ensemble=len(heads))
    with torch.no_grad():
        model.heads.weight.copy_(heads)
    return RewardScorer(model, tokenizer)
