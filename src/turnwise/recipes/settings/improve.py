"""How logs become a better policy in one go. Nothing here imports torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from turnwise.run.checks import BELOW_ONE, NOT_NEGATIVE, SEED, TWO_OR_MORE, check, check_choice
from turnwise.run.errors import SettingError


@dataclass(frozen=True)
class ImproveSettings:
    """What is learnt, from how much, and by what it is judged."""

    preset: Literal["acts", "all"] = "acts"
    """acts: what is learnt of acts alone, which takes minutes. all: practice with the learnt models, and a
    clone and critics of words, which take hours on large logs."""
    heldout: float = 0.5
    """Share of the conversations that nothing is learnt from: they judge what was learnt, and teach a second
    model, which knows nothing of the first."""
    heldout_by: str | None = None
    """Column of the logs whose equal values stay together, learnt from or not, and count as one (a customer,
    the two sides of one talk)."""
    betas: tuple[float, ...] = (4.0, 16.0)
    """Strengths of each critic that are tried: nats for an advantage of one standard deviation."""
    practice: int = 20_000
    """Conversations with the learnt models by which a policy is improved, in the preset all; 0: none."""
    talks: int = 1000
    """Conversations with each learnt model by which a policy is valued."""
    resamples: int = 1000
    """Resamples of the logs by which intervals are found."""
    seed: int = 0
    """Seed of everything."""

    def __post_init__(self) -> None:
        check(
            self,
            heldout=BELOW_ONE,
            practice=NOT_NEGATIVE,
            talks=TWO_OR_MORE,
            resamples=TWO_OR_MORE,
            seed=SEED,
        )
        check_choice(self, preset=("acts", "all"))
        if not self.heldout:
            raise SettingError("heldout", self.heldout, "a share above 0: who judges has to know nothing")
        if not self.betas or any(not 0 <= b < float("inf") for b in self.betas):
            raise SettingError("betas", " ".join(map(str, self.betas)), "numbers from 0, one or more")


@dataclass(frozen=True)
class Labour:
    """How the work is done; it changes nothing but its time."""

    workers: int = 2
    """Pieces of work at a time, in processes of their own, one CPU thread each; 0: one after the other, in
    this process."""
    resume: bool = False
    """Go on where an interrupted call stopped."""

    def __post_init__(self) -> None:
        check(self, workers=NOT_NEGATIVE)
