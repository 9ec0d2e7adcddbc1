"""How many hidden states, and of which kind: as many as held-out episodes tell apart.

    moves    s' ~ T(.|s,a): anything may become anything, at A S (S-1) more numbers
    stays    s' = s: what the other one wants, which of many things it is. A mixture of S classes of episodes
             (latent classes; Lazarsfeld & Henry 1968), each of which answers acts in its own way

A state that never changes costs an act a row and not a square, so that dozens are learnt from data in which
eight that may move are the most. Which of the two it is, is a question to the data like the number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from turnwise.exact.learning.climb import Notes, Watch, climb
from turnwise.exact.learning.data import Data, finished, prepared
from turnwise.exact.learning.fit import DEFAULT, FEW, Effort, prepared_for, searched, searched_many
from turnwise.exact.learning.kernels import Tables
from turnwise.exact.learning.model import LearntModel
from turnwise.exact.learning.sequences import Sequences
from turnwise.run.errors import InputError

NOISE = 1.0
"""Standard errors within which a smaller model counts as good as the best (the rule of Breiman et al. 1984,
section 3.4.3). A state too many costs a little data; one too few merges two situations that a plan must tell
apart."""
FALLS = 2
"""numbers of states, in a row, that explain less than the best before: no larger one is tried"""


class Size(NamedTuple):
    """So many hidden states, and whether they stay what they are for an episode."""

    states: int
    stays: bool = False


@dataclass(frozen=True)
class Choice:
    """A model, and what the number of its states was chosen by."""

    model: LearntModel
    size: Size
    smoothing: float
    heldout: Mapping[Size, tuple[float, float]]
    """ln P of what a held-out episode showed (nats per step), and how much that is below the best one's, with
    rewards"""
    errors: Mapping[Size, float]
    """the standard error of that difference"""
    by_smoothing: Mapping[float, float]
    """nats per step, held out, by imagined counts, for the chosen size"""


def choose(
    sequences: Sequences,
    rng: np.random.Generator,
    *,
    states: Sequence[int] = range(1, 9),
    stays: Sequence[int] = (),
    smoothing: Sequence[float] = (0.3, 1.0, 3.0, 10.0),
    longest: int | str | None = "auto",
    share: float = 0.2,
    effort: Effort = DEFAULT,
    notes: Notes | None = None,
    watch: Watch | None = None,
) -> Choice:
    """The leanest model that explains held-out episodes as well as the best, within the noise.

    `states` are numbers of states that may move, `stays` of those that do not. A `share` of the episodes is
    held out. Their log-likelihoods, rewards among what is explained, are compared in pairs with those of the
    best model: one within `NOISE` standard errors of it is as good, and the one of fewest parameters is
    taken. Of many states (more than `FEW`, or any that stay) one number after another is tried, until more of
    them explain less (`FALLS`); and many that may move only if `FEW` of them are the leanest so far. Then the
    smoothing is chosen likewise by what is best, and the model is fitted to all episodes.
    """
    seed = int(rng.integers(2**62))
    moving, staying = sorted(set(states)), sorted(set(stays))
    if not moving + staying or min(moving + staying) < 1:
        raise ValueError(f"states are {list(states)} and {list(stays)}; expected numbers from 1 on")
    if len(sequences) < 2:
        raise InputError(f"{len(sequences)} episodes; expected at least 2, some to be held out")
    notes = notes or Notes()
    whole = prepared_for(sequences, max(moving + staying), longest, 1.0)
    order = np.random.default_rng([seed, 2]).permutation(len(sequences))
    unseen = max(1, round(share * len(sequences)))
    apart, own = sequences.select(order[:unseen]), sequences.select(order[unseen:])
    data = prepared(own, whole.sizes[0], longest=whole.longest, smoothing=1.0, like=whole)
    looks = _Looks(data, apart, seed, effort, notes, watch)
    few = [k for k in moving if k <= FEW]
    if few:
        for k, tables in searched(data, few, seed, effort, notes, watch).items():
            looks.at(Size(k), tables)
    looks.upwards([Size(k, True) for k in staying])
    # Dear: A S^2 numbers, and as many sums for each step.
    if not few or looks.leanest()[0] == Size(few[-1]):
        looks.upwards([Size(k) for k in moving[len(few) :]])
    chosen, heldout, errors = looks.leanest()
    strengths: dict[float, tuple[float, Tables]] = {}
    for strength in sorted(set(smoothing)):
        here = data.of(chosen.states, strength, stays=chosen.stays)
        tables = looks.climbed(here, looks.fitted[chosen], f"smooth{strength:g}")
        strengths[strength] = float(_explained(here, tables, apart).sum()) / len(apart.actions), tables
    kept = max(strengths, key=lambda k: strengths[k][0])
    last = whole.of(chosen.states, kept, stays=chosen.stays)
    return Choice(
        model=finished(last, looks.climbed(last, strengths[kept][1], "all")),
        size=chosen,
        smoothing=kept,
        heldout=heldout,
        errors=errors,
        by_smoothing={k: v for k, (v, _) in strengths.items()},
    )


@dataclass
class _Looks:
    """What has been fitted so far to `data`, and how it explains the episodes that are kept `apart`."""

    data: Data
    apart: Sequences
    seed: int
    effort: Effort
    notes: Notes
    watch: Watch | None
    fitted: dict[Size, Tables] = field(default_factory=dict)
    scores: dict[Size, np.ndarray] = field(default_factory=dict)
    """[held-out episodes], ln P of each"""

    def at(self, size: Size, begin: Tables) -> float:
        """Fit a size, beginning there; ln P of all that is held out."""
        here = self.data.of(size.states, stays=size.stays)
        self.fitted[size] = self.climbed(here, begin, f"own{'-stays' if size.stays else ''}{size.states}")
        self.scores[size] = _explained(here, self.fitted[size], self.apart)
        return float(self.scores[size].sum())

    def upwards(self, sizes: Sequence[Size]) -> None:
        """One after the other, all of one kind, until `FALLS` in a row explain less than the best before."""
        alike = [float(x.sum()) for size, x in self.scores.items() if sizes and size.stays == sizes[0].stays]
        best, fallen = max(alike, default=-np.inf), 0
        for size in sizes:
            here = self.data.of(size.states, stays=size.stays)
            found = self.at(size, searched_many(here, self.seed, self.effort, self.notes, self.watch))
            best, fallen = (found, 0) if found > best else (best, fallen + 1)
            if fallen == FALLS:
                break

    def climbed(self, data: Data, begin: Tables, name: str) -> Tables:
        """Where EM on all of `data` ends."""
        e = self.effort
        return climb(
            data, begin, e.iterations, e.tolerance, notes=self.notes, name=name, watch=self.watch
        ).tables

    def leanest(self) -> tuple[Size, dict[Size, tuple[float, float]], dict[Size, float]]:
        """(the size of fewest parameters within the noise of the best, the table of all, its errors)."""
        per_step, n = len(self.apart.actions), len(self.apart)
        best = max(self.scores, key=lambda k: float(self.scores[k].sum()))
        heldout, errors = {}, {}
        for k, found in self.scores.items():
            below = self.scores[best] - found
            heldout[k] = (float(found.sum()) / per_step, float(below.sum()) / per_step)
            errors[k] = float(below.std() * np.sqrt(n)) / per_step
        good = [k for k in self.scores if heldout[k][1] <= NOISE * errors[k]]
        return min(good, key=lambda k: (_parameters(k, self.data), k)), heldout, errors


def _parameters(size: Size, data: Data) -> int:
    """How many numbers such a model may choose: what acts show and pay in each state, and where they lead."""
    _, A, O, F, B = data.sizes
    S = size.states
    shown = A * ((O - 1) + 2 * (O - 1) + 3 * (B - 1) + 1) + F - 1
    return S * shown + S - 1 + (0 if size.stays else A * S * (S - 1))


def _explained(data: Data, tables: Tables, apart: Sequences) -> np.ndarray:
    """[n], ln P of held-out episodes, rewards included."""
    model = finished(data, tables)
    return model.log_likelihoods(apart, rewards=model.pay is not None)
