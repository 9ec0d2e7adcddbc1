"""How many hidden states, and of which kind: as many as held-out episodes tell apart.

    C classes of P phases   s = (c, p), c' = c, p' ~ T_c(.|p,a)

    P = 1   nothing moves: what the other one wants, which of many things it is. A mixture of C classes of
            episodes (latent classes; Lazarsfeld & Henry 1968), each of which answers acts in its own way
    C = 1   everything may move: a hidden Markov model with actions
    else    what somebody wants stays, and how far things have come moves

Transitions are A C P (P-1) numbers, so dozens of classes are learnt from data in which eight states that may
move are the most. How much stays and how much moves is a question to the data.
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
    """So many classes, which an episode never leaves, and states of each, its phases."""

    classes: int
    phases: int

    @property
    def states(self) -> int:
        """How many there are in all."""
        return self.classes * self.phases

    def __str__(self) -> str:
        return str(self.states) if 1 in self else f"{self.classes} x {self.phases}"


def moving(states: int) -> Size:
    """So many states of one class: any may become any other."""
    return Size(1, states)


def staying(states: int) -> Size:
    """So many classes: the state is the same for a whole episode."""
    return Size(states, 1)


PROBES = (Size(2, 2), Size(4, 2), Size(4, 3))
"""of some that stays and some that moves: whether more of them are looked at"""


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
    moves: Sequence[int] = range(1, 9),
    stays: Sequence[int] = (),
    both: Sequence[Size] = (),
    smoothing: Sequence[float] = (0.3, 1.0, 3.0, 10.0),
    longest: int | str | None = "auto",
    share: float = 0.2,
    effort: Effort = DEFAULT,
    notes: Notes | None = None,
    watch: Watch | None = None,
) -> Choice:
    """The leanest model that explains held-out episodes as well as the best, within the noise.

    `moves` are numbers of states that may move, `stays` of those that do not, and `both` are sizes with some
    of either. A `share` of the episodes is held out. Their log-likelihoods, rewards among what is explained,
    are compared in pairs with those of the best model: one within `NOISE` standard errors of it is as good,
    and the one of fewest parameters is taken. Then the smoothing is chosen likewise by what is best, and the
    model is fitted to all episodes.

    Not all are looked at. Of classes and of many states (more than `FEW`) one number after another is tried,
    until more of them explain less (`FALLS`); of `both`, if one of the `PROBES` explains more than what is
    purely the one or the other; and many that may move, if `FEW` of them are the leanest so far.
    """
    seed = int(rng.integers(2**62))
    sizes = [*map(moving, sorted(set(moves))), *map(staying, sorted(set(stays))), *both]
    if not sizes or min(map(min, sizes)) < 1:
        raise ValueError(f"sizes are {sizes}; expected numbers from 1 on")
    if len(sequences) < 2:
        raise InputError(f"{len(sequences)} episodes; expected at least 2, some to be held out")
    notes = notes or Notes()
    whole = prepared_for(sequences, max(size.states for size in sizes), longest, 1.0)
    order = np.random.default_rng([seed, 2]).permutation(len(sequences))
    unseen = max(1, round(share * len(sequences)))
    apart, own = sequences.select(order[:unseen]), sequences.select(order[unseen:])
    data = prepared(own, whole.sizes[0], longest=whole.longest, smoothing=1.0, like=whole)
    looks = _Looks(data, apart, seed, effort, notes, watch)
    few, many = [k for k in moves if k <= FEW], [moving(k) for k in sorted(moves) if k > FEW]
    if few:
        for k, tables in searched(data, few, seed, effort, notes, watch).items():
            looks.at(moving(k), tables)
    looks.upwards([staying(k) for k in sorted(stays)])
    looks.mixed(both)
    # Dear: A S^2 numbers, and as many sums for each step.
    if not few or looks.leanest()[0] == moving(max(few)):
        looks.upwards(many)
    chosen, heldout, errors = looks.leanest()
    strengths: dict[float, tuple[float, Tables]] = {}
    for strength in sorted(set(smoothing)):
        here = _of(data, chosen, strength)
        tables = looks.climbed(here, looks.fitted[chosen], f"smooth{strength:g}")
        strengths[strength] = float(_explained(here, tables, apart).sum()) / len(apart.actions), tables
    kept = max(strengths, key=lambda k: strengths[k][0])
    last = _of(whole, chosen, kept)
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
        here = _of(self.data, size)
        self.fitted[size] = self.climbed(here, begin, f"own{size.classes}x{size.phases}")
        self.scores[size] = _explained(here, self.fitted[size], self.apart)
        return self.score(size)

    def score(self, size: Size) -> float:
        """ln P of all that is held out, of a size that was fitted."""
        return float(self.scores[size].sum())

    def look(self, size: Size) -> float:
        """Search for a model of the size, unless that is done; ln P of all that is held out."""
        if size in self.scores:
            return self.score(size)
        here, classes = _of(self.data, size), self.fitted.get(staying(size.classes))
        found = searched_many(
            here, self.seed, self.effort, self.notes, self.watch, None if 1 in size else classes
        )
        return self.at(size, found)

    def upwards(self, sizes: Sequence[Size]) -> float:
        """One after the other, until `FALLS` in a row explain less than the best before; that one's ln P."""
        best, fallen = -np.inf, 0
        for size in sizes:
            found = self.look(size)
            best, fallen = (found, 0) if found > best else (best, fallen + 1)
            if fallen == FALLS:
                break
        return best

    def mixed(self, both: Sequence[Size]) -> None:
        """Some that stays and some that moves: upwards in classes, with more phases while that gains."""
        pure, probes = self.leanest()[0] if self.scores else None, [size for size in PROBES if size in both]
        for size in probes:
            self.look(size)
        if pure is not None and pure == self.leanest()[0]:
            return
        best = -np.inf
        for phases in sorted({size.phases for size in both}):
            found = self.upwards(sorted(size for size in both if size.phases == phases))
            if found <= best:
                break
            best = found

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


def _of(data: Data, size: Size, smoothing: float | None = None) -> Data:
    """The episodes for models of the size."""
    return data.within(None if size.classes == 1 else size.phases, size.states, smoothing)


def _parameters(size: Size, data: Data) -> int:
    """How many numbers such a model may choose: what acts show and pay in each state, and where they lead."""
    _, A, O, F, B = data.sizes
    shown = A * ((O - 1) + 2 * (O - 1) + 3 * (B - 1) + 1) + F - 1
    return size.states * (shown + A * (size.phases - 1)) + size.states - 1


def _explained(data: Data, tables: Tables, apart: Sequences) -> np.ndarray:
    """[n], ln P of held-out episodes, rewards included."""
    model = finished(data, tables)
    return model.log_likelihoods(apart, rewards=model.pay is not None)
