"""What a run on logs has learnt from and what it held out, so that others can keep the two apart."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from turnwise.data.dialogue import Dialogue
from turnwise.data.disk.hashes import Hashes
from turnwise.data.splits.heldout import Split
from turnwise.data.splits.twins import marks_of
from turnwise.run.errors import InputError
from turnwise.run.folder import write_json

HELD_OUT = "heldout.json"
KEYS, LEARNT = "heldout.npy", "learnt.npy"
"""hashes of what was held out, and of what was learnt from: too many for JSON where logs are large"""


@dataclass(frozen=True)
class HeldOut:
    """What a run on logs held out (heldout.json), so that what builds on it learns from none of that."""

    share: float
    by: str | None
    keys: Hashes
    """hashes of what the conversations say (`Split.keys`)"""
    learnt: Hashes
    """hashes of the conversations that any stage of the run has learnt from (`marks_of`): the policy itself,
    its codebooks, the clone that it began with"""
    unknown: tuple[str, ...] = ()
    """stages of which nobody knows what they have learnt from"""

    def __init__(
        self,
        share: float,
        by: str | None,
        keys: Hashes | Iterable[int] = (),
        learnt: Hashes | Iterable[int] = (),
        unknown: tuple[str, ...] = (),
    ) -> None:
        """The hashes may be given as any numbers."""
        given = {"share": share, "by": by, "keys": Hashes(keys), "learnt": Hashes(learnt), "unknown": unknown}
        for name, value in given.items():
            object.__setattr__(self, name, value)

    @classmethod
    def after(
        cls, share: float, by: str | None, split: Split, stages: Mapping[str, HeldOut | None] | None = None
    ) -> HeldOut:
        """Of a run that learnt from one side of a split, after `stages` that others had learnt: by what they
        are called, with what they say of themselves."""
        learnt = Hashes(marks_of(split.learnt))
        unknown: list[str] = []
        for name, stage in (stages or {}).items():
            if stage is None:
                unknown.append(name)
            else:
                learnt |= stage.learnt
                unknown += [f"{name}: {part}" for part in stage.unknown]
        return cls(share, by, Hashes(split.keys), learnt, tuple(unknown))

    def learnt_from(self, dialogues: Iterable[Dialogue]) -> np.ndarray:
        """[n] bool, the conversations that a stage has learnt from.

        A conversation with an id is the one that was learnt from if its words and its id are the same. Short
        talks are often alike by chance, and to leave those out would leave out what is short. Without ids
        words alone decide.
        """
        found = [self.learnt.isin(block) for block in marks_of(dialogues).blocks()]
        return np.concatenate(found) if found else np.zeros(0, bool)

    def save(self, folder: Path) -> None:
        """Write it into a run folder."""
        self.keys.save(folder / KEYS)
        self.learnt.save(folder / LEARNT)
        counts = {"held_out": len(self.keys), "learnt": len(self.learnt)}
        found = {"share": self.share, "by": self.by, **counts, "unknown": list(self.unknown)}
        write_json(folder / HELD_OUT, found)

    @classmethod
    def read(cls, folder: Path) -> HeldOut | None:
        """That of a run folder; None if it says nothing of it."""
        path = folder / HELD_OUT
        if not path.is_file():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            keys, learnt = Hashes.read(folder / KEYS), Hashes.read(folder / LEARNT)
            if (len(keys), len(learnt)) != (found["held_out"], found["learnt"]):
                raise ValueError(f"{KEYS} and {LEARNT} of another run")
            return cls(found["share"], found["by"], keys, learnt, tuple(map(str, found["unknown"])))
        except FileNotFoundError as error:
            raise InputError(f"{error.filename}: expected the file that a run writes; found none") from None
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: expected the file that a run writes; found {error}") from None
