"""A partner that was learnt from logs, as a value: what speaks, ends and pays, and where it begins.

On disk it is a folder: `words`, a language model that `transformers` loads; the two heads; `partner.json`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from turnwise.data.other_side import Scene
from turnwise.models.lm.partner import PartnerModel
from turnwise.models.lm.pretrained import load_lm
from turnwise.rollout.agent import Acting, Agent
from turnwise.run.errors import InputError
from turnwise.run.files.digests import LISTED, checksums, expect_unchanged
from turnwise.run.files.whole import whole_folder

SETTINGS, HEADS, WORDS = "partner.json", "heads.safetensors", "words"
SCENES = 10_000
"""different scenes, at most, that a partner keeps: the most frequent ones"""


@dataclass(frozen=True)
class Scenes:
    """Scenes of logged conversations, each as often as it was logged."""

    scenes: tuple[Scene, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, scenes: Iterable[Scene]) -> Scenes:
        """Counted."""
        keys: dict[str, Scene] = {}
        count: Counter[str] = Counter()
        for scene in scenes:
            key = json.dumps(asdict(scene), sort_keys=True)
            keys.setdefault(key, scene)
            count[key] += 1
        most = count.most_common(SCENES)
        return cls(tuple(keys[k] for k, _ in most), tuple(n for _, n in most))

    def draw(self, rng: np.random.Generator) -> Scene:
        """One of them, by how often it was there."""
        return self.scenes[int(np.searchsorted(self._cumulative, rng.random(), side="right"))]

    @cached_property
    def _cumulative(self) -> np.ndarray:
        found = np.cumsum(self.counts) / sum(self.counts)
        found[-1] = 1.0 + 1e-9  # rounding must not leave a remainder
        return found


@dataclass(frozen=True)
class FittedPartner:
    """The other side of logged conversations."""

    model: PartnerModel
    tokenizer: Any
    scenes: Scenes
    lowest: float
    """the lowest reward of a turn that was logged: none that is paid lies below"""
    highest: float
    acting: Acting
    task: str | None = None
    """the task of the logs, as one types it, if they name one"""

    @cached_property
    def agent(self) -> Agent:
        """What speaks, which is the assistant of conversations that were turned round."""
        return Agent(self.model.policy.lm, self.tokenizer, None, self.acting)

    @torch.inference_mode()
    def judged(self, features: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        """[n] probability of the end and [n] reward, from features [n, D] of stop tokens."""
        end, reward = self.model.heads(features)
        paid = self.model.paid(reward).clamp(self.lowest, self.highest)
        return end.sigmoid().double().cpu().numpy(), paid.double().cpu().numpy()

    def save(self, folder: Path) -> None:
        """Write the folder, whole or not at all. InputError for one that holds other things."""
        settings = {
            "kind": "partner",
            "scenes": [asdict(scene) for scene in self.scenes.scenes],
            "counts": list(self.scenes.counts),
            "lowest": self.lowest,
            "highest": self.highest,
            "task": self.task,
        }
        with whole_folder(folder, SETTINGS) as part:
            self.agent.save(part / WORDS)
            state = self.model.state_dict().items()
            heads = {k: v.contiguous() for k, v in state if not k.startswith("policy.")}
            save_file(heads, part / HEADS)
            listed = {LISTED: checksums(part)}
            (part / SETTINGS).write_text(json.dumps(settings | listed, indent=1) + "\n", encoding="utf-8")


def load_fitted(folder: Path) -> FittedPartner:
    """What `FittedPartner.save` wrote. InputError for anything else."""
    try:
        found = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        scenes = Scenes(
            tuple(Scene(tuple(x["system"]), x["facts"], x["first"]) for x in found["scenes"]),
            tuple(found["counts"]),
        )
        expect_unchanged(folder, found, SETTINGS)
        saved = json.loads((folder / WORDS / "turnwise.json").read_text(encoding="utf-8"))
        lm, tokenizer = load_lm(str(folder / WORDS))
        model = PartnerModel(lm)
        missing, unexpected = model.load_state_dict(load_file(folder / HEADS), strict=False)
        if unexpected or any(not name.startswith("policy.") for name in missing):
            raise ValueError(f"{HEADS} of another model")
        acting, lowest, highest = Acting(**saved["acting"]), found["lowest"], found["highest"]
        return FittedPartner(model.eval(), tokenizer, scenes, lowest, highest, acting, found["task"])
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as e:
        raise InputError(f"{folder}: expected a partner as it was saved; found {e}") from e
