"""What a run on logs has learnt from and what it held out, so that others can keep the two apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.data.splits.heldout import Split
from turnwise.data.splits.twins import marks_of
from turnwise.run.errors import InputError
from turnwise.run.folder import write_json

HELD_OUT = "heldout.json"


@dataclass(frozen=True)
class HeldOut:
    """What a run on logs held out (heldout.json), so that what builds on it learns from none of that."""

    share: float
    by: str | None
    keys: frozenset[int]
    """hashes of what the conversations say (`Split.keys`)"""
    learnt: frozenset[int] = frozenset()
    """hashes of the conversations that any stage of the run has learnt from (`marks_of`): the policy itself,
    its codebooks, the clone that it began with"""
    unknown: tuple[str, ...] = ()
    """stages of which nobody knows what they have learnt from"""

    @classmethod
    def after(
        cls, share: float, by: str | None, split: Split, stages: Mapping[str, HeldOut | None] | None = None
    ) -> HeldOut:
        """Of a run that learnt from one side of a split, after `stages` that others had learnt: by what they
        are called, with what they say of themselves."""
        learnt = frozenset(marks_of(split.learnt).tolist())
        unknown: list[str] = []
        for name, stage in (stages or {}).items():
            if stage is None:
                unknown.append(name)
            else:
                learnt |= stage.learnt
                unknown += [f"{name}: {part}" for part in stage.unknown]
        return cls(share, by, frozenset(split.keys), learnt, tuple(unknown))

    def learnt_from(self, dialogues: Sequence[Dialogue]) -> np.ndarray:
        """[n] bool, the conversations that a stage has learnt from.

        A conversation with an id is the one that was learnt from if its words and its id are the same. Short
        talks are often alike by chance, and to leave those out would leave out what is short. Without ids
        words alone decide.
        """
        return np.isin(marks_of(dialogues), np.array(sorted(self.learnt), np.uint64))

    def save(self, folder: Path) -> None:
        """Write it into a run folder."""
        found = {"share": self.share, "by": self.by, "keys": _hex(self.keys)}
        found |= {"learnt": _hex(self.learnt), "unknown": list(self.unknown)}
        write_json(folder / HELD_OUT, found)

    @classmethod
    def read(cls, folder: Path) -> HeldOut | None:
        """That of a run folder; None if it says nothing of it."""
        path = folder / HELD_OUT
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            keys, learnt = (frozenset(int(key, 16) for key in found[name]) for name in ("keys", "learnt"))
            return cls(found["share"], found["by"], keys, learnt, tuple(map(str, found["unknown"])))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: expected the file that a run writes; found {error}") from None


def _hex(keys: frozenset[int]) -> list[str]:
    return [f"{key:016x}" for key in sorted(keys)]
